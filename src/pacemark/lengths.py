"""How long prompts and answers are: one length, or a distribution of them.

    1000                          one length
    lognormal(1000, cv=0.8)       mean and coefficient of variation (or sd=, the standard deviation)
    normal(1000, 200)             mean and standard deviation
    uniform(200, 2000)            every length from one to the other alike
    1000:0.7,4000:0.3             lengths with their weights
    @lengths.txt                  as they are in a file, each number in it alike

`lognormal` and `normal` take `min=` and `max=`: what is drawn beyond them is set to them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.errors import BadInput
from pacemark.values import text_of

__all__ = ["Draws", "Lengths", "lengths"]

_SHOWN = "1000, lognormal(1000, cv=0.8), normal(1000, 200), uniform(200, 2000), 1000:0.7,4000:0.3 or @FILE"
_LIKELY = 0.999
"""No more than one in a thousand is longer than what `Lengths.longest` says of an endless tail."""
_MOST = 1 << 31


class Lengths(msgspec.Struct, frozen=True):
    """A distribution of lengths in tokens; each is at least 1."""

    kind: Literal["fixed", "lognormal", "normal", "uniform", "listed"]
    mean: float
    """Of what is drawn; of lengths without bounds, of the distribution asked for."""
    deviation: float = 0.0
    least: int = 1
    most: int = _MOST
    values: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    """Of `values`; empty: all alike."""

    @property
    def fixed(self) -> int | None:
        """The one length there is; None where there are several."""
        return self.least if self.least == self.most else None

    @property
    def typical(self) -> int:
        """The mean, as a length."""
        return max(1, round(self.mean))

    @property
    def longest(self) -> int:
        """The longest that is likely: no more than one in a thousand is longer."""
        if self.kind not in ("lognormal", "normal"):
            return self.most
        far, (mu, sigma) = NormalDist().inv_cdf(_LIKELY), self._log
        likely = math.exp(mu + far * sigma) if self.kind == "lognormal" else self.mean + far * self.deviation
        return min(self.most, max(self.least, round(likely)))

    @property
    def _log(self) -> tuple[float, float]:
        """Mean and deviation s of the logarithm; of mean m and CV c they are ln m - s^2 / 2, and s^2 = ln(1 + c^2)."""
        sigma = math.sqrt(math.log1p((self.deviation / self.mean) ** 2))
        return math.log(self.mean) - sigma**2 / 2, sigma

    def __call__(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """`n` lengths, drawn one by one."""
        if self.fixed is not None:
            return np.full(n, self.fixed, np.int64)
        if self.kind == "listed":
            share = np.asarray(self.weights) / sum(self.weights) if self.weights else None
            return np.asarray(rng.choice(np.asarray(self.values, np.int64), n, p=share))
        if self.kind == "uniform":
            return rng.integers(self.least, self.most, n, endpoint=True)
        drawn = rng.lognormal(*self._log, n) if self.kind == "lognormal" else rng.normal(self.mean, self.deviation, n)
        return np.clip(np.rint(drawn), self.least, self.most).astype(np.int64)


class Draws:
    """The length of each request of each level. It hangs on (seed, level, index) alone, whoever asks."""

    BLOCK = 256

    def __init__(self, of: Lengths, seed: int, which: int) -> None:
        """`which` tells what is drawn with one seed apart."""
        self._of, self._seed, self._which = of, seed, which
        self._place = (-2, -2)
        self._block: list[int] = []

    def __call__(self, level: int, index: int) -> int:
        """The length of request `index` of `level`."""
        place = level, index // self.BLOCK
        if place != self._place:
            rng = np.random.default_rng([self._seed, self._which, level + 1, place[1]])
            self._place, self._block = place, self._of(rng, self.BLOCK).tolist()
        return self._block[index % self.BLOCK]


# --- as users write them


def lengths(flag: str, value: object) -> Lengths:
    """The lengths that `value` says. Raises BadInput, with `flag`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _fixed(flag, value)
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"[-+]?\d+", text):
        return _fixed(flag, int(text))
    if text.startswith("@") and len(text) > 1:
        return _listed(_numbers(flag, Path(text[1:])))
    if found := re.fullmatch(r"(lognormal|normal|uniform)\s*\((.*)\)", text, re.IGNORECASE):
        return _drawn(flag, text, found[1].lower(), found[2])
    if ":" in text:
        return _weighted(flag, text)
    hint = f"must be a whole number of at least 1, or a distribution: {_SHOWN}"
    raise BadInput(f"{flag} {value}: {hint}")


def _fixed(flag: str, value: int) -> Lengths:
    if value < 1:
        raise BadInput(f"{flag} {value}: must be a whole number of at least 1")
    if value >= _MOST:
        raise BadInput(f"{flag}: must be below {_MOST:,}")
    return Lengths("fixed", float(value), 0.0, value, value)


def _listed(values: list[int], weights: list[float] | None = None) -> Lengths:
    shares = np.asarray(weights or [1.0] * len(values))
    mean = float(np.average(values, weights=shares))
    deviation = math.sqrt(float(np.average((np.asarray(values) - mean) ** 2, weights=shares)))
    return Lengths("listed", mean, deviation, min(values), max(values), tuple(values), tuple(weights or ()))


def _drawn(flag: str, text: str, kind: str, inner: str) -> Lengths:
    plain, named = [], {}
    for part in inner.split(","):
        name, is_, number = part.partition("=")
        try:
            value = float(number if is_ else part)
        except ValueError:
            raise BadInput(f"{flag} {text}: {part.strip()!r} is no number; write {_SHOWN}") from None
        if not math.isfinite(value) or value < 0:
            raise BadInput(f"{flag} {text}: {part.strip()} must be a number of at least 0")
        if is_:
            named[name.strip().lower()] = value
        else:
            plain.append(value)
    if kind == "uniform":
        if len(plain) != 2 or named or not 1 <= plain[0] <= plain[1]:
            raise BadInput(f"{flag} {text}: give the least and the greatest length, such as uniform(200, 2000)")
        low, high = (round(x) for x in plain)
        return Lengths("uniform", (low + high) / 2, math.sqrt(((high - low + 1) ** 2 - 1) / 12), low, high)
    return _tailed(flag, text, kind, plain, named)


def _tailed(flag: str, text: str, kind: str, plain: list[float], named: dict[str, float]) -> Lengths:
    if kind == "normal" and len(plain) == 2 and not named.keys() & {"sd", "cv"}:
        named["sd"] = plain.pop()
    spread = [name for name in ("sd", "cv") if name in named]
    unknown = named.keys() - {"sd", "cv", "min", "max"}
    least, most = max(1, round(named.get("min", 1))), round(named.get("max", _MOST))
    if len(plain) != 1 or plain[0] < 1 or len(spread) != 1 or unknown or not least <= most:
        shown = "lognormal(1000, cv=0.8)" if kind == "lognormal" else "normal(1000, 200)"
        raise BadInput(f"{flag} {text}: give a mean of at least 1 and its sd or cv, such as {shown}; and min=, max=")
    mean = plain[0]
    deviation = named["sd"] if "sd" in named else named["cv"] * mean
    if not deviation:
        return _fixed(flag, max(least, min(most, round(mean))))
    return Lengths("lognormal" if kind == "lognormal" else "normal", mean, deviation, least, most)


def _weighted(flag: str, text: str) -> Lengths:
    try:
        pairs = [(int(n), float(w)) for n, _, w in (part.partition(":") for part in text.split(","))]
    except ValueError:
        raise BadInput(f"{flag} {text}: give lengths with their weights, such as 1000:0.7,4000:0.3") from None
    if any(not 1 <= n < _MOST or not 0 < w < _MOST for n, w in pairs):
        raise BadInput(f"{flag} {text}: lengths are at least 1, weights above 0, and both below {_MOST:,}")
    return _listed([n for n, _ in pairs], [w for _, w in pairs])


def _numbers(flag: str, path: Path) -> list[int]:
    """Every number of a text file. Raises BadInput with the number's line."""
    found = []
    for number, line in enumerate(text_of(flag, path).splitlines(), 1):
        for word in line.replace(",", " ").split():
            if not word.isdecimal() or not 1 <= int(word) < _MOST:
                raise BadInput(
                    f"{flag} @{path}: line {number}: {word!r} is no length; give whole numbers of at least 1"
                )
            found.append(int(word))
    if not found:
        raise BadInput(f"{flag} @{path}: there is no length in it")
    return found
