"""What Databricks keeps of an endpoint's traffic: the inference table (bodies) and the usage tables (lengths).

Columns as docs.databricks.com names them in 2026: of the inference table of a serving endpoint, of that of the AI
Gateway, of the one before 2026-03-20 (`timestamp_ms`), of system.serving.endpoint_usage and of system.ai_gateway.usage.
Exported by the SQL that `pacemark data databricks:ENDPOINT` prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from pacemark.errors import BadInput
from pacemark.workload.keys import recorded, whole
from pacemark.workload.row import FileFound, Row
from pacemark.workload.traces.format import How, Left, Taken, at, first_of, in_json

__all__ = ["InferenceTable", "UsageTable"]

_TIMES = ("request_time", "timestamp_ms", "event_time")
_HOUR_NS = 3_600_000_000_000
NULL = "its payload is NULL: Databricks logs none over 1 MiB, so the longest prompts are missing"


class _Statuses:
    """How requests ended, by the hour, and of how many each row is a sample."""

    def __init__(self, found: FileFound) -> None:
        self._found = found
        self._hours: Counter[int] = Counter()
        self._refused: Counter[int] = Counter()
        self._rows, self._stood_for = 0, 0.0

    def left(self, value: Mapping[str, Any], at_ns: int) -> Left | None:
        """Why a request that was not answered is no row; None if it was answered."""
        self._hours[at_ns // _HOUR_NS] += 1
        status = value.get("status_code")
        if status in (None, "") or str(status) == "200":
            return None
        if str(status) == "429":
            self._found.throttled += 1
            self._refused[at_ns // _HOUR_NS] += 1
            return Left("it was refused for its rate (429)")
        return Left(f"it ended with status {str(status)[:20]}")

    def sampled(self, value: Mapping[str, Any]) -> None:
        """Count a row that is taken for as many as it stands for."""
        told = value.get("sampling_fraction")
        try:
            share = 1.0 if told in (None, "") else float(told)
        except (TypeError, ValueError):
            raise BadInput("sampling_fraction is no number") from None
        if not 0 < share <= 1:
            raise BadInput(f"sampling_fraction {share:g} is no share")
        self._rows += 1
        self._stood_for += 1 / share

    def end(self) -> None:
        """Say what was sampled and what was refused."""
        found = self._found
        if self._stood_for > self._rows * 1.0001:
            found.sampling = self._rows / self._stood_for
            found.said.append(
                f"the table is a sample: {self._rows:,} rows stand for {self._stood_for:,.0f} requests, and the true "
                f"rate is {1 / found.sampling:.3g} times that of the rows"
            )
        if found.throttled:
            asked = sum(self._hours.values())
            hour, refused = max(self._refused.items(), key=lambda x: (x[1] / self._hours[x[0]], -x[0]))
            when = datetime.fromtimestamp(hour * 3600, UTC)
            found.said.append(
                f"{found.throttled:,} of {asked:,} requests were refused for their rate (429), in "
                f"{len(self._refused):,} of {len(self._hours):,} hours, most in that of {when:%Y-%m-%d %H:%M} UTC "
                f"({refused / self._hours[hour]:.0%}): more was wanted than these rows show"
            )


class InferenceTable:
    """Bodies of the requests of an endpoint, as they were logged."""

    name = "Databricks inference table"
    ordered: ClassVar = False
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self._unit, self._found, self._statuses = how.unit, found, _Statuses(found)

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """A request, its status and its time."""
        return {"request", "status_code"} <= value.keys() and any(x in value for x in _TIMES)

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row."""
        key = next(x for x in _TIMES if x in value)
        unit = self._unit or ("ms" if key == "timestamp_ms" else "")
        self._found.keys |= {"body": "request", "at_ms": key, "input_tokens": "response", "output_tokens": "response"}
        self._found.unit = unit or "date"
        at_ns = at(value, key, unit)
        if left := self._statuses.left(value, at_ns):
            yield left
            return
        self._statuses.sampled(value)
        if value["request"] is None or value["request"] == "":
            yield Left(NULL)
            return
        row = _asked(value["request"], number)
        if isinstance(row, Left):
            yield row
            return
        told = _usage(value.get("response"))
        yield Taken(
            msgspec.structs.replace(
                row,
                input_tokens=_count(told, "prompt_tokens", "input_tokens"),
                output_tokens=_count(told, "completion_tokens", "output_tokens") or row.output_tokens,
            ),
            at_ns,
        )

    def end(self) -> None:
        """Say what was sampled, refused and not logged."""
        self._statuses.end()
        if nulls := [entry for entry in self._found.left_out if entry.reason == NULL]:
            share = nulls[0].rows / (nulls[0].rows + self._found.rows)
            self._found.said.append(f"{share:.1%} of the payloads are NULL: lengths lean to the short side")


def _asked(request: Any, number: int) -> Row | Left:
    """The body as a row; another model's input than a language model's is none."""
    body = in_json(request)
    if not isinstance(body, Mapping):
        raise BadInput("the request is no JSON object")
    if not any(key in body for key in ("messages", "prompt", "input")):
        return Left("its body asks no language model")
    return recorded(body, number)


def _usage(response: Any) -> Mapping[str, Any]:
    """The usage that an answer tells: of an object, or of the last of its pieces that has one; else empty.

    The pieces of a streamed answer are stored together ("Configure AI Gateway on model serving endpoints"), in which
    form is not documented, so what cannot be understood tells nothing.
    """
    if isinstance(response, str) and response.lstrip().startswith("data:"):
        pieces = [line[5:].strip() for line in response.splitlines() if line.startswith("data:") and '"usage"' in line]
    else:
        pieces = [response]
    for piece in reversed(pieces):
        try:
            told = in_json(piece)
        except BadInput:
            continue
        for part in reversed(told) if isinstance(told, list) else [told]:
            usage = part.get("usage") if isinstance(part, Mapping) else None
            if isinstance(usage, Mapping):
                return usage
    return {}


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    return whole(first_of(usage, *names), names[0])


class UsageTable:
    """Lengths and times of an endpoint's requests, without what was asked."""

    name = "Databricks usage table"
    ordered: ClassVar = False
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self._unit, self._found, self._statuses = how.unit, found, _Statuses(found)

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """The columns of system.serving.endpoint_usage, or of system.ai_gateway.usage."""
        serving = {"request_time", "input_token_count", "output_token_count"}
        return serving <= value.keys() or {"event_time", "input_tokens", "output_tokens"} <= value.keys()

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row."""
        serving = "input_token_count" in value
        names = ("input_token_count", "output_token_count") if serving else ("input_tokens", "output_tokens")
        key = "request_time" if serving else "event_time"
        self.name = "system.serving.endpoint_usage" if serving else "system.ai_gateway.usage"
        self._found.keys = dict(zip(("input_tokens", "output_tokens", "at_ms"), (*names, key), strict=True))
        self._found.format, self._found.unit = self.name, self._unit or "date"
        at_ns = at(value, key, self._unit)
        if left := self._statuses.left(value, at_ns):
            yield left
            return
        self._statuses.sampled(value)
        tokens = [whole(value.get(name), name) for name in names]
        if not tokens[0]:
            yield Left("no token counts were recorded")
        else:
            yield Taken(Row(number, input_tokens=tokens[0], output_tokens=tokens[1] or None), at_ns)

    def end(self) -> None:
        """Say what was refused."""
        self._statuses.end()
