"""Whether the tokens of a level are those that were asked for, in number, and how far they are counted.

Each check is a function from the evidence to a finding or None, as in `verdict`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures.content import ended_at_limit, formed
from pacemark.figures.evidence import Evidence, Finding
from pacemark.trace import Int64, Trace

OFF = 0.03
"""By what share lengths may differ from what was asked for."""


def event_count(e: Evidence) -> Finding | None:
    """Tools that count events for tokens would report something else here."""
    size = _tokens_an_event(e, e.good)
    if size is None or abs(size - 1) <= 0.02:
        return None
    text = f"an event carries {size:.2f} tokens on average; figures count the server's tokens, so compare "
    return Finding("note", "event_count", text + "them with no tool that counts events")


def _tokens_an_event(e: Evidence, among: NDArray[np.bool_]) -> float | None:
    """Tokens that an event holds on average, of the streamed requests `among` (n,) whose server counted them."""
    counted = among & e.trace.tokens_from_usage & (e.trace.first_event_ns >= 0)
    events = int(np.diff(e.trace.offsets)[counted].sum())
    return int(e.trace.output_tokens[counted].sum()) / events if events else None


def filter_batches(e: Evidence) -> Finding | None:
    """Text that a content filter holds back until it has judged a piece of it comes in pieces of its own size."""
    size = _tokens_an_event(e, e.good & e.trace.filtered)
    if size is None or size <= FILTERED:
        return None
    return Finding(
        "note",
        "filter_batches",
        f"a content filter lets text pass in batches of {size:.1f} tokens on average, so ITL is the gap "
        "between its batches and TTFT holds its first wait; ask for the asynchronous filter to see the model's pace",
    )


FILTERED = 1.5
"""Tokens an event from which on a filter that annotates is taken for one that holds text back."""


def short_answers(e: Evidence) -> Finding | None:
    """Answers shorter than asked for make less work than the workload says; what is hidden is work as well."""
    generated, short = e.trace.output_tokens + e.trace.hidden_tokens, e.good & stopped_early(e.trace)
    share = short.sum() / max(1, e.good.sum())
    if share <= FEW_SHORT:
        return None
    mean, asked = generated[e.good].mean(), e.trace.asked_tokens[e.good].mean()
    ends = e.trace.finish_reason[short]
    if (ends == "").mean() > 0.5:
        why = "ends them and does not say why (no finish_reason; of a ranking: a top_n of its own)"
    elif ended_at_limit(e.trace)[short].mean() > 0.5:
        why = "has a lower limit of its own"
    else:
        why = "ends them where the model does (it does not heed ignore_eos, or its API has none)"
    return Finding(
        "suspect",
        "short_answers",
        f"{share:.0%} of the answers stopped early: {mean:.0f} tokens on average where {asked:.0f} were asked for, "
        f"so the server {why}; compare only with runs of the same answer length",
    )


FEW_SHORT = 0.02
"""What share of the answers may stop early."""


def stopped_early(trace: Trace) -> NDArray[np.bool_]:
    """Answers (n,) of fewer tokens than were asked for, which are not whole in another way."""
    generated = trace.output_tokens + trace.hidden_tokens
    return np.asarray(
        ~formed(trace) & (generated < trace.asked_tokens - _uncounted(trace.asked_tokens)), dtype=np.bool_
    )


def _uncounted(asked: Int64) -> Int64:
    """By how many tokens counts may differ that mean the same (n,): the one that ends a text counts or does not."""
    return (asked >= 16).astype(np.int64)


def longer_than_asked(e: Evidence) -> Finding | None:
    """Answers longer than asked for make more work than the workload says."""
    if not e.good.any():
        return None
    answers, wanted = e.trace.output_tokens[e.good], e.trace.asked_tokens[e.good]
    mean, asked = float(answers.mean()), float(wanted.mean())
    beyond = answers - wanted - _uncounted(wanted)  # each against its own
    if asked <= 0 or float(np.maximum(beyond, 0).mean()) <= OFF * asked:
        return None
    return Finding(
        "suspect",
        "longer_than_asked",
        f"answers are {mean:.0f} tokens long on average where {asked:.0f} were asked for, so the server does not heed "
        "max_tokens; compare only with runs of the same answer length",
    )


def input_length(e: Evidence) -> Finding | None:
    """A prompt that was cut, or that a template made longer, is not the work that the workload says."""
    counted = e.good & e.trace.tokens_from_usage & (e.trace.input_tokens > 0)
    asked = e.trace.asked_input[counted].astype(np.float64)
    if e.asked_input is not None:  # runs that were stored before knew no length of each
        asked[asked < 0] = e.asked_input
    told, asked = e.trace.input_tokens[counted][asked >= 0], asked[asked >= 0]
    if not len(asked):
        return None
    # The longest are looked at apart: of unequal prompts a limit cuts those alone, and the mean hardly moves.
    longest = asked >= np.quantile(asked, 0.9)
    for which, of in ((slice(None), "on average"), (longest, "for the longest prompts")):
        mean, wanted = float(told[which].mean()), float(asked[which].mean())
        if abs(mean - wanted) > max(OFF * wanted, FEW_TOKENS):
            how = "cut the prompts" if mean < wanted else "made the prompts longer"
            return Finding(
                "suspect",
                "input_length",
                f"the server counted {mean:,.0f} input tokens {of} where {wanted:,.0f} were asked for: it or a "
                f"template {how}; ask for a length that it takes, or compare only with runs of the counted length",
            )
    return None


FEW_TOKENS = 16
"""A chat template makes short prompts this much longer than can be asked for."""


def tokens_uneven(e: Evidence) -> Finding | None:
    """TPOT needs to know how many tokens the first event held."""
    off = e.trace.tpot_off[e.good]
    if not len(off) or (most := float(off.max())) <= OFF:
        return None
    return Finding(
        "suspect",
        "tokens_uneven",
        f"events hold unequal numbers of tokens, and the server does not say how many: TPOT may be off by {most:.0%}; "
        "name a --tokenizer to count them",
    )


def hidden_tokens(e: Evidence) -> Finding | None:
    """Which tokens are counted, where some were never streamed."""
    hidden = e.trace.hidden_tokens[e.good]
    if not len(hidden) or not hidden.any():
        return None
    text = f"the server counted {hidden.mean():.0f} tokens per answer on average that it never streamed (hidden "
    return Finding(
        "note", "hidden_tokens", text + "reasoning); throughput, TTFT and TPOT count those that were streamed"
    )


def token_count(e: Evidence) -> Finding | None:
    """Events are not always tokens."""
    share = float(e.trace.tokens_from_events[e.good].mean()) if e.good.any() else 0.0
    if not share:
        return None
    of = "" if share == 1 else f" for {share:.0%} of the answers"
    return Finding(
        "suspect",
        "token_count",
        f"the server reported no usage{of}, or one that cannot be, so events were counted as tokens; name a "
        "--tokenizer to count them",
    )
