"""What an endpoint says of itself while a run goes on, asked gently from a thread of the coordinating process.

The workers know nothing of it: new headers reach them as any other command does, and nothing is asked through them.
"""

from __future__ import annotations

import queue
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic_ns
from typing import Protocol

from pacemark.errors import PacemarkError
from pacemark.trace import Sight, Watch

LOOK_S = 10.0
"""How often the endpoint is looked at; the service renews what it exports once a minute."""
RENEW_S = 5.0
"""How often new headers are asked for at the least; the SDK answers from memory while they are good."""


class Source(Protocol):
    """An endpoint that can be asked about itself, and whose headers may expire."""

    def headers(self) -> Mapping[str, str]:
        """Headers that are good now. Raises PacemarkError."""

    def lasts_s(self) -> float | None:
        """How long they stay good; None where nobody knows, or for good."""

    def look(self) -> Sight:
        """Look once. Raises PacemarkError."""

    def advice(self, error: str, detail: str) -> str | None:
        """What a first request that failed with `error`, and with these words, means here, and what to do about it."""


class Watcher:
    """Looks at a source in a thread of its own until it is stopped."""

    def __init__(self, source: Source, headers: Mapping[str, str]) -> None:
        """`headers` are those in use."""
        self._source = source
        self._headers = dict(headers)
        self._news: queue.SimpleQueue[Sight | dict[str, str]] = queue.SimpleQueue()
        self._stop = threading.Event()
        # A daemon: a request that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="pacemark-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for long for a request under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def news(self) -> list[Sight | dict[str, str]]:
        """What came in since the last call: looks, and headers to be used from now on."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def _run(self) -> None:
        look_ns, patience = 0, 1.0
        while not self._stop.is_set():
            try:
                headers = dict(self._source.headers())
                if headers != self._headers:
                    self._headers = headers
                    self._news.put(headers)
                if monotonic_ns() >= look_ns:
                    self._news.put(self._source.look())
                    look_ns = monotonic_ns() + int(LOOK_S * 1e9)
                patience = 1.0
            except PacemarkError as error:
                self._news.put(Sight(monotonic_ns(), problem=str(error)))
                patience = min(2 * patience, 12.0)
            lasts_s = self._source.lasts_s()
            rest_s = RENEW_S if lasts_s is None else min(RENEW_S, max(0.2, lasts_s / 4))
            self._stop.wait(rest_s * patience)


def watch_from(refusals: Sequence[str], sights: Sequence[Sight]) -> Watch:
    """What is known of a level from what the server said with each 429 and the looks taken while the run went on."""
    named = Counter(limit_named(said) for said in refusals)
    return Watch(tuple(sights), tuple(name for name, _ in named.most_common() if name))


_LIMITS = (
    (r"output[ _]tokens[ _]per[ _]minute|\bOTPM\b", "output tokens per minute"),
    (r"input[ _]tokens[ _]per[ _]minute|\bITPM\b", "input tokens per minute"),
    (r"tokens[ _]per[ _]minute|\bTPM\b", "tokens per minute"),
    (r"(?:queries|requests|calls)[ _]per[ _]hour|\bQPH\b", "requests per hour"),
    (r"(?:queries|requests|calls)[ _]per[ _]minute|\bRPM\b", "requests per minute"),
    (r"(?:queries|requests|calls)[ _]per[ _]second|\bQPS\b", "requests per second"),
    (r"in parallel|concurren", "requests in parallel"),
)


def limit_named(text: str) -> str:
    """Which limit a refusal (429) speaks of; empty where it names none."""
    return next((name for pattern, name in _LIMITS if re.search(pattern, text, re.IGNORECASE)), "")
