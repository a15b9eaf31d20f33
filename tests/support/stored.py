"""What a run folder holds of each request, as the exchange that was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from pacemark.runs.folder import RunFolder
from pacemark.trace import Exchange

_ARRAYS = {"hi_ns": "<i8", "lo_ns": "<i8", "tokens": "<f4", "lag_ns": "<i4"}
_PLAIN = {f.name: f.type for f in msgspec.structs.fields(Exchange) if f.name not in _ARRAYS}


def exchanges(folder: RunFolder, level: int) -> Iterator[Exchange]:
    """The requests of a level, in the order they ended."""
    columns = ", ".join("idx" if name == "index" else name for name in _PLAIN)
    asked = f"SELECT {columns}, {', '.join(_ARRAYS)} FROM request WHERE level = ? ORDER BY rowid"
    for *plain, hi, lo, tokens, lag in folder._db.execute(asked, (level,)):
        fields: dict[str, Any] = dict(zip(_PLAIN, plain, strict=True))
        hi_ns = np.frombuffer(hi, "<i8")
        spread = np.full(len(hi_ns), fields["output_tokens"] / max(1, len(hi_ns)), np.float32)
        yield Exchange(
            **fields,
            hi_ns=hi_ns,
            lo_ns=hi_ns if lo is None else np.frombuffer(lo, "<i8"),
            tokens=spread if tokens is None else np.frombuffer(tokens, "<f4"),
            lag_ns=np.frombuffer(lag, "<i4"),
        )
