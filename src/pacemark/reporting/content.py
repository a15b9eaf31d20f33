"""What the answers of a level held beside text, in words."""

from __future__ import annotations

from pacemark.content import JsonAnswers, Reasoning, ToolCalls
from pacemark.quantities import Distribution
from pacemark.summary import Level, Summary
from pacemark.units import number

__all__ = ["content_in_words", "uncalled"]


def content_in_words(level: Level) -> list[str]:
    """Lines on reasoning, calls of tools and JSON; none where answers had none."""
    lines = []
    if isinstance(level.reasoning, Reasoning):
        lines.append(_reasoning(level.reasoning))
    if isinstance(level.tool_calls, ToolCalls):
        lines.append(_calls(level.tool_calls))
    if isinstance(answers := level.json_answers, JsonAnswers):
        bad = _malformed(answers.malformed, answers.cut_off)
        lines.append(f"{answers.checked:,} answers were to be JSON: {bad}; no schema was looked at")
    return lines


def uncalled(summary: Summary) -> str:
    """That tools were offered and none was called; empty where that is not so."""
    called = any(isinstance(level.tool_calls, ToolCalls) for level in summary.levels)
    offered = summary.workload.get("tools") and summary.workload.get("tool_choice") != "none"
    return "" if called or not offered else "tools were offered, and no answer called any"


def _reasoning(found: Reasoning) -> str:
    shown = ", ".join(f"{way} {count:,}" for way, count in found.disclosed.items())
    tokens = "" if found.tokens is None else f" of {found.tokens:,.0f} tokens"
    took = "" if found.time_ms.p50.value is None else f", for {_ms(found.time_ms)}"
    first = f"; first answer token after {_ms(found.first_answer_ms)}"
    return f"{found.requests:,} answers with reasoning{tokens} ({shown}){took}{first}"


def _calls(found: ToolCalls) -> str:
    times = f"; first byte of a call after {_ms(found.first_byte_ms)}, whole after {_ms(found.complete_ms)}"
    timed = times if found.complete_ms.p50.value is not None else ""
    bad = _malformed(found.malformed, found.cut_off)
    return f"{found.calls:,} tool calls in {found.requests:,} answers: {bad}{timed}"


def _malformed(malformed: int, cut_off: int) -> str:
    if not malformed:
        return "none malformed"
    return f"{malformed:,} malformed" + (f" ({cut_off:,} cut off by --output-tokens)" if cut_off else "")


def _ms(found: Distribution) -> str:
    p50, p95 = ("-" if x is None else number(x) for x in (found.p50.value, found.p95.value))
    return f"p50 {p50}, p95 {p95} ms"
