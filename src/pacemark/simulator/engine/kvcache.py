"""The key-value cache of one replica: a pool of equal blocks, some of them shared by their prompt's prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

__all__ = ["BlockPool"]


class BlockPool:
    """Counts blocks; it holds no data.

    A block is anonymous (it belongs to one sequence) or published under the hash of the prompt up to its end.
    Published blocks are shared by reference count. Once nobody refers to one it stays as a cache entry and is
    given up, least recently used first, when room is needed: the scheme of vLLM's automatic prefix caching.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._anonymous = 0
        self._references: dict[Hashable, int] = {}
        self._idle: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def used(self) -> int:
        """Blocks that sequences hold; cache entries nobody refers to do not count."""
        return self._anonymous + len(self._references) - len(self._idle)

    def take(self, count: int) -> bool:
        """Take `count` anonymous blocks, giving up idle cache entries if need be; False and no change if too few."""
        if self.used + count > self.blocks:
            return False
        self._anonymous += count
        while self._anonymous + len(self._references) > self.blocks:
            entry, _ = self._idle.popitem(last=False)
            del self._references[entry]
        return True

    def hold_prefix(self, hashes: Sequence[Hashable]) -> int:
        """Refer to the leading blocks of `hashes` that are cached; returns how many they are."""
        hits = 0
        for entry in hashes:
            references = self._references.get(entry)
            if references is None:
                break
            if references == 0:
                del self._idle[entry]
            self._references[entry] = references + 1
            hits += 1
        return hits

    def publish(self, hashes: Sequence[Hashable]) -> list[Hashable]:
        """Turn anonymous blocks into shared ones; those already known stay anonymous. Returns the new ones."""
        new = [entry for entry in hashes if entry not in self._references]
        for entry in new:
            self._references[entry] = 1
        self._anonymous -= len(new)
        return new

    def release(self, anonymous: int, shared: Sequence[Hashable]) -> None:
        """Give back `anonymous` blocks and one reference to each of `shared`."""
        self._anonymous -= anonymous
        for entry in reversed(shared):
            self._references[entry] -= 1
            if self._references[entry] == 0:
                self._idle[entry] = None
