"""Answers whose every event arrives in a read of its own, and the pieces they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from pacemark.trace import RawExchange
from support.servers import MS, delta, raw

ROLE = delta(role="assistant", content="")


def each_in_its_read(*events: bytes, start: int = 100, step: int = 10, **fields: Any) -> RawExchange:
    """An answer of which every event arrived alone, the first after `start` ms."""
    sizes = np.cumsum([len(e) for e in events]).tolist()
    return raw(b"".join(events), [(start + step * i, size) for i, size in enumerate(sizes)], **fields)


def ms(times: Any) -> list[float]:
    """Nanoseconds in milliseconds."""
    return [float(t) / MS for t in times]
