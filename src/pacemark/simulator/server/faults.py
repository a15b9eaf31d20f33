"""Which requests go wrong, and how: rules, read from a TOML file and drawn from a seed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec

from pacemark.errors import BadInput

__all__ = ["FAULTS", "OUTAGES", "REPLACING", "Fault", "Faults", "read_faults"]

REPLACING = {
    "reset_before_headers": "the connection is reset before any answer",
    "http_429": "429 with Retry-After",
    "http_500": "500 with an error object",
    "http_503": "503 with an HTML page, as a proxy sends it",
}
"""Kinds that take the place of an answer."""

SPOILING = {
    "reset_mid_stream": "the connection is reset after some events",
    "cut_mid_stream": "the connection is closed, in order, after some events",
    "stall": "nothing comes for a while after some events, then everything that is due",
    "slow_first_byte": "status, headers and events are held back for a while",
    "malformed_sse": "one event holds JSON that breaks off",
    "invalid_utf8": "the text of one event is not UTF-8",
    "split_bytes": "every byte of an event is sent on its own",
    "crlf": "lines end with CR LF",
    "comments": "comments, and retry, id and event fields, between the data",
    "gzip": "compressed, though nobody asked",
    "no_done": "the closing [DONE] is missing",
    "no_usage": "usage is missing, though asked for",
    "usage_null": "every event without usage says usage: null",
    "duplicate_finish": "the event with the finish reason comes twice",
    "error_in_stream": "an error object ends the stream after some events, under status 200",
    "huge_event": "the text of one event is very large",
}
"""Kinds that spoil an answer under way."""

OUTAGES = {
    "refuse": "new connections are refused for a while, and idle ones closed",
    "restart": "every connection is reset and every request lost; back after a while",
    "freeze": "the whole endpoint stands still for a while",
    "idle_close": "kept connections are closed when idle for a while",
}
"""Kinds that befall the endpoint, not a request."""

FAULTS = REPLACING | SPOILING | OUTAGES
"""Every kind, and what it does."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule."""

    kind: str
    share: float = 1.0
    """Share of the requests that it hits, drawn for each."""
    after_requests: int = 0
    """Requests for output that are spared first, so that a client can find its feet."""
    at_s: float = 0.0
    """When it begins, from the arrival of the first request that is not spared."""
    for_s: float | None = None
    """How long requests are hit; None: to the end. An outage happens once, at `at_s`."""
    after_events: int = 3
    """Events with output that go well first, where something happens in mid-stream."""
    seconds: float = 1.0
    """How long a stall, a delay or an outage lasts; the Retry-After of a 429; how long idle before a close."""
    size: int = 10_000_000
    """Bytes of a huge event."""

    def __post_init__(self) -> None:
        """Raise BadInput where the rule makes no sense."""
        if self.kind not in FAULTS:
            raise BadInput(f"no fault {self.kind!r}; there are {', '.join(FAULTS)}")
        if not 0.0 <= self.share <= 1.0:
            raise BadInput(f"fault {self.kind}: share must be between 0 and 1, not {self.share:g}")
        figures = (self.at_s, self.seconds, self.for_s or 0.0, self.after_events, self.after_requests, self.size)
        if min(figures) < 0:
            raise BadInput(f"fault {self.kind}: no figure may be negative")
        if self.kind in OUTAGES and (self.share < 1.0 or self.for_s is not None):
            raise BadInput(f"fault {self.kind} hits the whole endpoint: it takes no share and no for_s")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    fault: list[Fault] = []


def read_faults(path: str | Path) -> list[Fault]:
    """Rules from a TOML file with one `[[fault]]` table each.

    Raises BadInput where it cannot be read, naming the field that is wrong.
    """
    try:
        return msgspec.convert(tomllib.loads(Path(path).read_text()), _File).fault
    except OSError as error:
        raise BadInput(f"cannot read faults from {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"faults in {path}: {error}") from None


class Faults:
    """Decides for each request. The first rule that hits wins."""

    def __init__(self, rules: Sequence[Fault], seed: int, begin: Callable[[Fault], None] = lambda outage: None) -> None:
        """`begin` is called with each outage when the first request that it does not spare arrives."""
        self.outages = [rule for rule in rules if rule.kind in OUTAGES]
        self._rules = [rule for rule in rules if rule.kind not in OUTAGES]
        self._seed = seed
        self._begin = begin
        self._number = 0
        self._since_ns: dict[int, int] = {}
        """Arrival of the request of that number, where a rule counts from it."""

    def choose(self, now_ns: int) -> Fault | None:
        """What befalls the next request, which arrives at `now_ns`."""
        number, self._number = self._number, self._number + 1
        if not self._rules and not self.outages:
            return None
        for outage in self.outages:
            if outage.after_requests == number:
                self._begin(outage)
        if any(rule.after_requests == number for rule in self._rules):
            self._since_ns[number] = now_ns
        random = Random(f"{self._seed}/fault/{number}")
        for rule in self._rules:
            hit = random.random() < rule.share
            if hit and number >= rule.after_requests:
                since_s = (now_ns - self._since_ns[rule.after_requests]) / 1e9
                if rule.at_s <= since_s < rule.at_s + (rule.for_s if rule.for_s is not None else float("inf")):
                    return rule
        return None
