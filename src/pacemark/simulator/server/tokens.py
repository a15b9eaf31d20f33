"""Text and tokens: a tokenizer of the endpoint's own, and the words that it answers with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b

__all__ = ["ENCODED", "MESSAGE_TOKENS", "REPLY_TOKENS", "WORDS", "count", "pieces", "prefix_hashes"]

MESSAGE_TOKENS = 4
"""What a chat template adds to each message: its role and its marks."""
REPLY_TOKENS = 3
"""What a chat template adds once: the start of the text and the reply's opening."""

_PIECE = re.compile(r"[^\W_]{1,5}|[^\w\s]|_")

WORDS = [f" {a}{b}{c}{d}" for a in "bdklmnrs" for b in "aeio" for c in "lmnt" for d in "ao"]
"""One token each, all of the same length, so that a stream's events differ in these bytes only."""

ENCODED = [word.encode() for word in WORDS]


def pieces(text: str) -> list[str]:
    """`text` as tokens: runs of up to five letters or digits, and single other signs; blanks are free."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """Tokens in `text`."""
    return len(_PIECE.findall(text))


def prefix_hashes(tokens: list[str], block: int) -> Iterator[bytes]:
    """One hash for each full block of `tokens`, each covering everything from the start to its end."""
    running = blake2b(digest_size=8)
    for start in range(0, len(tokens) - block + 1, block):
        running.update(("\n".join(tokens[start : start + block]) + "\n").encode())
        yield running.digest()
