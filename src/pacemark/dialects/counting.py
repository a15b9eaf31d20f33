"""How many tokens an answer held, and how many each of its events: from what the server counted, as far as it did.

Output tokens are those that were streamed. Tokens that a server counts and never streams (hidden reasoning) are kept
apart, for no event brought them: they belong to neither TPOT nor to an event's weight.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacemark.dialects.said import ANSWER, EMPTY, NOTHING, REASONING, Said, sound
from pacemark.trace import ABSENT, Int64

Floats = NDArray[np.float64]
Counter = Callable[[str], int]


class Counted(NamedTuple):
    """The output of one answer; `events` and `tokens` have one entry per event that carried some."""

    output_tokens: int
    source: str
    """usage, tokenizer or events."""
    hidden_tokens: int
    reasoning_tokens: int
    """As the server counted them, or else those of the events that held it; ABSENT where there was none to see."""
    events: Int64
    tokens: Floats
    """They sum to `output_tokens`."""
    tpot_off: float
    """By what share (last - first) / (tokens after the first event) may be off."""
    disclosed: str
    """How its reasoning was shown: verbatim, as a summary, or hidden; empty where there was none."""


class _Total(NamedTuple):
    output: int
    source: str
    hidden: int = 0
    outside: int = 0
    """Of `output`, reasoning that completion_tokens left out."""


def counted(said: Said, count_tokens: Counter | None) -> Counted:
    """What `said` amounts to. `count_tokens` counts where the server does not, and shares out what it only summed."""
    kinds = np.asarray(said.kinds, dtype=np.int8)
    _unsay(said, kinds)
    _add_up(said, kinds)
    _unsay_blanks(said, kinds)
    total = _total(said, kinds, count_tokens)
    told = _told(said, kinds, total)
    if told is not None:
        events = ((kinds > EMPTY) | (told > 0)).nonzero()[0]
        tokens, off = told[events], 0.0
    else:
        events = _carries(said, kinds, total.output).nonzero()[0]
        tokens, off = _shared(said, events, total, count_tokens)
    reasoning, thought = kinds[events] == REASONING, said.reasoning_tokens
    if not thought and (reasoning.any() or total.hidden):
        thought = total.hidden + round(float(tokens[reasoning].sum()))
    shown = ("summary" if total.hidden else "verbatim") if reasoning.any() else "hidden"
    return Counted(
        output_tokens=total.output,
        source=total.source,
        hidden_tokens=total.hidden,
        reasoning_tokens=ABSENT if thought is None else thought,
        events=events,
        tokens=tokens,
        tpot_off=off,
        disclosed=shown if thought else "",
    )


_TAIL = 8
"""A text that repeats all others is at least so long, and is among so many last events."""


def _unsay(said: Said, kinds: NDArray[np.int8]) -> None:
    """A last event that repeats the whole text brings nothing new: it neither ends the answer nor holds tokens."""
    if max(map(len, said.texts[-_TAIL:]), default=0) < _TAIL:
        return
    for kind in (REASONING, ANSWER):
        if said.kinds.count(kind) < 3:
            continue
        same = (kinds == kind).nonzero()[0].tolist()
        last = said.texts[same[-1]].strip()
        if len(said.texts[same[-1]]) < _TAIL or not last.startswith(said.texts[same[0]].strip()):
            continue
        if last == "".join([said.texts[i] for i in same[:-1]]).strip():
            kinds[same[-1]] = NOTHING
            said.texts[same[-1]] = ""


def _add_up(said: Said, kinds: NDArray[np.int8]) -> None:
    """Counts that fall, or stay the same, are each event's own; where nothing else told of all, their sum does."""
    if not said.running or not said.completion_tokens == said.running[-1][1] < np.count_nonzero(kinds > EMPTY):
        return
    counts = [count for _, count in said.running]
    if len(counts) > 1 and (any(a > b for a, b in pairwise(counts)) or counts[0] == counts[-1]):
        said.completion_tokens = sum(counts)


def _unsay_blanks(said: Said, kinds: NDArray[np.int8]) -> None:
    """Blanks that nobody can see, sent before the first token to be early with something, or to keep a connection: no
    tokens, where the server's count comes out without them."""
    carrying = (kinds > EMPTY).nonzero()[0]
    spare = len(carrying) - (said.completion_tokens or len(carrying))
    if spare <= 0:
        return
    early, after = carrying[:spare].tolist(), carrying[spare:]
    if all(_unseen(said.texts[i]) for i in early) and not _unseen(said.texts[after[0]]):
        for i in early:
            kinds[i] = said.kinds[i] = NOTHING


def _unseen(text: str) -> bool:
    return not any(letter.isprintable() and not letter.isspace() for letter in text)


# --- the total


def _total(said: Said, kinds: NDArray[np.int8], count_tokens: Counter | None) -> _Total:
    carrying, reasoning = int(np.count_nonzero(kinds > EMPTY)), said.kinds.count(REASONING)
    if reasoning:  # one of them may have been unsaid
        reasoning = int(np.count_nonzero(kinds == REASONING))
    told = said.completion_tokens
    outside, known = _outside(said, carrying, reasoning)
    if told is None or (told == 0 and carrying) or _too_few(said, told + outside, carrying):
        return _estimate("".join(said.texts), carrying, count_tokens)
    if outside and not known:
        thoughts = "".join(t for t, kind in zip(said.texts, kinds, strict=True) if kind == REASONING)
        more = _estimate(thoughts, outside, count_tokens)
        return _Total(told + more.output, more.source, outside=more.output)
    generated = told + outside
    thought = outside or said.reasoning_tokens or 0
    if not carrying:
        return _Total(generated - thought, "usage", min(thought, generated))
    hidden = min(thought - _shown(said, kinds, thought), max(0, generated - carrying)) if thought else 0
    return _Total(generated - hidden, "usage", hidden, outside - hidden if outside > hidden else 0)


def _too_few(said: Said, tokens: int, carrying: int) -> bool:
    """Whether there cannot have been so few: fewer than events with text, and not because a gateway deals them out in
    pieces, for then each would have more letters than tokens have."""
    return tokens < carrying and sum(map(len, said.texts)) > _LETTERS * tokens


_LETTERS = 24
"""Of a token, at the very most, on average over an answer; prose has 4 or 5."""


def _shown(said: Said, kinds: NDArray[np.int8], thought: int) -> int:
    """How many of `thought` tokens of reasoning were streamed: all, none, or those of a summary, which is known by its
    being shorter than so many tokens can be: each has a byte at least."""
    texts = [text for text, kind in zip(said.texts, kinds, strict=True) if kind == REASONING]
    size = sum(len(sound(text).encode()) for text in texts)
    return thought if size >= thought else min(thought, max(len(texts), size // 4))


def _estimate(text: str, events: int, count_tokens: Counter | None) -> _Total:
    if count_tokens is not None and text:
        return _Total(count_tokens(sound(text)), "tokenizer")
    return _Total(events, "events")


def _outside(said: Said, carrying: int, reasoning: int) -> tuple[int, bool]:
    """How many tokens of reasoning completion_tokens leaves out, and whether the server said how many."""
    told, thought = said.completion_tokens or 0, said.reasoning_tokens
    spare = None
    if said.total_tokens is not None and said.prompt_tokens is not None:
        spare = said.total_tokens - said.prompt_tokens - told
    if thought:
        if thought > told or (spare is not None and spare >= 0.9 * thought):
            return thought, True
        # Each event holds a token or more, so that so many events cannot have been all that was counted.
        beyond = reasoning > 0 and told < carrying <= 1.02 * (told + thought) and told <= carrying - reasoning
        return (thought, True) if beyond else (0, True)
    if spare is not None and spare > 0 and thought is None:
        return spare, True
    if reasoning and told < carrying and abs(told - (carrying - reasoning)) <= 0.02 * told:
        return reasoning, False
    return 0, True


# --- each event's share


def _told(said: Said, kinds: NDArray[np.int8], total: _Total) -> Floats | None:
    """Tokens (events,) from counts that ran beside the output; None where there are none to go by."""
    if len(said.running) < 2 or said.completion_tokens is None or total.source != "usage":
        return None
    places, counts = zip(*said.running, strict=True)
    sums = np.array(counts, dtype=np.float64)
    steps = sums.copy()
    steps[1:] -= sums[:-1]
    if not sums[:-1].any():
        return None  # noughts, until the last told of all
    if (steps < 0).any() or sums[-1] < sums[0] or (sums == sums[0]).all():
        if sums.sum() != said.completion_tokens:
            return None
        steps = sums  # each event's own count
    # A count beside every event that carried output, or it is not known what the others held.
    carrying, beside, at = (kinds > EMPTY).nonzero()[0], np.zeros(len(kinds), bool), np.array(places)
    beside[at] = True
    if not beside[carrying].all():
        return None
    if not len(carrying):
        carrying = at  # an answer of tokens without text
    tokens = np.zeros(len(kinds))
    tokens[at] = steps
    tokens[kinds == NOTHING] = 0.0
    if total.outside:
        tokens += _thoughts(said, kinds, total.outside)
    rest = total.output - tokens.sum()
    if rest > 0:
        tokens[carrying[-1]] += rest
    elif rest < 0:  # what was hidden was counted with the first event that was not
        first = carrying[0]
        tokens[first] = max(1.0, tokens[first] + rest)
        tokens *= total.output / tokens.sum()
    return tokens


def _thoughts(said: Said, kinds: NDArray[np.int8], outside: int) -> Floats:
    """`outside` tokens shared out among the events of reasoning, by the length of their text."""
    sizes = np.asarray([len(t) if k == REASONING else 0 for t, k in zip(said.texts, kinds, strict=True)], np.float64)
    return sizes * (outside / sizes.sum()) if sizes.sum() else sizes


def _carries(said: Said, kinds: NDArray[np.int8], tokens: int) -> NDArray[np.bool_]:
    """Which events hold tokens. An empty delta is one only between the first text and the last, as far as the server
    counted more tokens than texts; after the last, and before the first, only if that makes the count come out: servers
    send such deltas to keep a connection, too."""
    carries = kinds > EMPTY
    if EMPTY not in said.kinds:
        return carries
    texts, empty = carries.nonzero()[0], (kinds == EMPTY).nonzero()[0]
    spare = tokens - len(texts)
    if not len(texts):
        carries[empty if len(empty) <= tokens else empty[:0]] = True
        return carries
    if spare <= 0:
        return carries
    between = empty[(empty > texts[0]) & (empty < texts[-1])]
    after = empty[empty > texts[-1]]
    carries[between[:spare]] = True
    if len(after) and spare - 1 <= len(between) + len(after) <= spare:  # the last one may have come with the ending
        carries[after] = True
    elif len(empty) == spare:
        carries[empty] = True
    return carries


def _shared(said: Said, chosen: Int64, total: _Total, count_tokens: Counter | None) -> tuple[Floats, float]:
    """`total.output` shared out over events that nobody counted one by one, and how far that may lead TPOT astray."""
    events, tokens = len(chosen), total.output
    if not events:
        return np.zeros(0), 0.0
    even = np.full(events, tokens / events)
    spare = tokens - events
    # One token an event, save for one that ends the answer and has no text.
    if events == 1 or spare <= max(1.0, 0.02 * tokens):
        return even, 0.0
    texts = [said.texts[i] for i in chosen]
    if count_tokens is not None:
        sizes = np.asarray([count_tokens(sound(text)) for text in texts], dtype=np.float64)
        return (sizes * (tokens / sizes.sum()) if sizes.sum() else even), 0.0
    sizes = np.asarray([len(text) for text in texts], dtype=np.float64)
    shares = sizes * (tokens / sizes.sum()) if sizes.sum() else even
    # One token alone, as many engines begin, at the least; at the most twice what the text, or an even share, says.
    first = float(min(shares[0], tokens - events + 1))
    most = min(float(tokens - events + 1), max(2 * first, tokens / events))
    rest = tokens - first
    return shares, max(abs(1 - rest / (tokens - min(1.0, first))), rest / (tokens - most) - 1)
