"""The latency budget: how long people are willing to wait, and how often they may have to wait longer.

Two forms, and they are not the same thing. Per metric, `ttft p95 < 500ms, tpot p95 < 50ms`: each limit allows its
own 5% of the requests to be slower. Attainment, `95% of requests: ttft < 500ms, tpot < 50ms`: a request must meet
every limit, and 5% in all may fail to. A failed request misses every limit in either form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from pacemark.errors import BadInput

__all__ = ["ERRORS", "Budget", "Limit", "parse"]

ERRORS = 0.01
"""The share of requests that may fail under a budget that does not speak of errors."""

_METRICS = ("ttft", "tpot", "latency", "itl", "errors")
_UNITS_MS = {"ms": 1.0, "s": 1000.0}
_BELOW = ("<", "<=", "≤")


@dataclass(frozen=True, slots=True)
class Limit:
    """One metric and the most that it may be."""

    metric: str
    most: float
    """In ms; of errors, a share of the requests."""
    quantile: float | None = None
    """Which quantile is held against `most`; None: the mean, or in the attainment form each request by itself."""
    mean: bool = False

    @property
    def name(self) -> str:
        """What is held against the limit, such as `ttft p95`."""
        if self.quantile is not None:
            return f"{self.metric} p{self.quantile * 100:.6g}"
        return f"{self.metric} mean" if self.mean else self.metric

    def __str__(self) -> str:
        if self.metric == "errors":
            return f"errors < {self.most * 100:.6g}%"
        return f"{self.name} < {self.most:g}ms" if self.most < 1000 else f"{self.name} < {self.most / 1000:g}s"


@dataclass(frozen=True, slots=True)
class Budget:
    """Every limit must hold. `share` is that of the requests which must meet them all; None: each on its own."""

    limits: tuple[Limit, ...]
    share: float | None = None

    def __str__(self) -> str:
        listed = ", ".join(str(limit) for limit in self.limits)
        return listed if self.share is None else f"{self.share * 100:.6g}% of requests: {listed}"

    @property
    def errors(self) -> float:
        """The share of requests that may fail: as stated, else 1%, or what the attainment leaves."""
        stated = [limit.most for limit in self.limits if limit.metric == "errors"]
        return min(stated) if stated else ERRORS if self.share is None else 1 - self.share

    @property
    def timed(self) -> list[Limit]:
        """The limits on times: all but those on errors."""
        return [limit for limit in self.limits if limit.metric != "errors"]


@dataclass(frozen=True, slots=True)
class Statistic:
    """What of a metric's values is held against a limit."""

    quantile: float | None
    """As a share; None: their mean."""


MEAN = Statistic(None)

# --- reading one

_WORD = re.compile(r"\d+(?:\.\d+)?|[a-z_]+(?:\d+(?:\.\d+)?)?|<=|\S", re.IGNORECASE)
_QUANTILE = re.compile(r"p(\d+(?:\.\d+)?)", re.IGNORECASE)


def parse(text: str) -> Budget:
    """The budget that `text` states.

    `ttft p95 < 500ms, tpot mean < 40ms, errors < 1%`, or `95% of requests: ttft < 500ms, tpot < 50ms`. Metrics are
    ttft, tpot, itl, latency and errors; statistics are a quantile (p50, p99.9), the median or the mean; units are ms
    and s.

    Raises BadInput, which points at the word that cannot be understood.
    """
    return _Reader(text).budget()


class _Reader:
    """Words from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = [(m.group().lower(), m.start() + 1) for m in _WORD.finditer(text)]
        self._at = 0

    def budget(self) -> Budget:
        share = self._share()
        limits = [self._limit(share is not None)]
        while self._word:
            self._take(",", ";", "and", expected="a comma between limits")
            limits.append(self._limit(share is not None))
        names = [limit.name for limit in limits]
        for name in names:
            if names.count(name) > 1:
                raise BadInput(f'in the budget "{self._text}", {name} is limited twice')
        if share is not None and all(limit.metric == "errors" for limit in limits):
            raise BadInput(f'in the budget "{self._text}", no limit says what the requests must meet')
        return Budget(tuple(limits), share)

    def _share(self) -> float | None:
        """`95% of requests:`, where it stands."""
        if not self._word[:1].isdigit():
            return None
        start = self._at
        share = self._number() / 100
        self._take("%", expected="'% of requests:'")
        self._take("of", expected="'of requests:'")
        self._take("requests", expected="'requests:'")
        self._take(":", expected="a colon, then the limits")
        if not 0 < share < 1:
            self._refuse("the share of requests lies between 0% and 100%", start)
        return share

    def _limit(self, each: bool) -> Limit:
        first = self._at
        statistic = self._statistic()  # `p95 ttft` is as good as `ttft p95`
        metric = self._take(*_METRICS, expected=f"a metric: {', '.join(_METRICS)}")
        if statistic is None:
            first, statistic = self._at, self._statistic()
        if metric == "errors":
            if statistic is not None:
                self._refuse("errors are a share of all requests and have no quantile", first)
            self._take(*_BELOW, expected="'<'")
            at, most = self._at, self._number() / 100
            self._take("%", expected="a percentage, such as 1%")
            if not 0 < most < 1:
                self._refuse("the share of errors lies between 0% and 100%", at)
            return Limit("errors", most)
        if each and statistic is not None:
            self._refuse("with '% of requests:' every request is held against the limit, without a quantile", first)
        if not each and statistic is None:
            self._refuse(f"which quantile? For example {metric} p95, or {metric} mean")
        self._take(*_BELOW, expected="'<'")
        at, most = self._at, self._number()
        most *= _UNITS_MS[self._take(*_UNITS_MS, expected="a unit: ms or s")]
        if most <= 0:
            self._refuse("a limit must be more than 0", at)
        return Limit(metric, most, statistic.quantile if statistic else None, mean=statistic == MEAN)

    def _statistic(self) -> Statistic | None:
        """The mean or a quantile; None where the next word is neither."""
        if self._word in ("mean", "average", "avg", "median"):
            self._at += 1
            return Statistic(0.5) if self._words[self._at - 1][0] == "median" else MEAN
        found = _QUANTILE.fullmatch(self._word)
        if found is None:
            return None
        if not 0 < (quantile := round(float(found.group(1)) / 100, 9)) < 1:
            self._refuse("a quantile lies between p0 and p100")
        if quantile < 0.01:
            self._refuse(f"that is a quantile in percent: p{quantile * 1e4:.6g}?")
        self._at += 1
        return Statistic(quantile)

    def _number(self) -> float:
        if not self._word[:1].isdigit():
            self._refuse("expected a number")
        self._at += 1
        return float(self._words[self._at - 1][0])

    def _take(self, *wanted: str, expected: str) -> str:
        word = self._word
        if word not in wanted:
            self._refuse(f"expected {expected}")
        self._at += 1
        return word

    @property
    def _word(self) -> str:
        return self._words[self._at][0] if self._at < len(self._words) else ""

    def _refuse(self, why: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        if at >= len(self._words):
            raise BadInput(f'in the budget "{self._text}", something is missing at the end: {why}')
        word, position = self._words[at]
        shown = self._text[position - 1 : position - 1 + len(word)]
        raise BadInput(f"in the budget \"{self._text}\", '{shown}' at character {position}: {why}")
