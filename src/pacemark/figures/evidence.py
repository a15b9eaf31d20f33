"""What the checks of a level look at, and what they may find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pacemark.figures.health import Health
from pacemark.figures.window import Change
from pacemark.summary import Level
from pacemark.trace import Trace, Watch, Window


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks look at. `sample` are the requests started in the window, `good` those answered."""

    level: Level
    """Its figures, without a verdict."""
    trace: Trace
    window: Window
    health: Health
    sample: NDArray[np.bool_]
    good: NDArray[np.bool_]
    settled: bool = True
    change: Change | None = None
    beyond: bool = False
    ended_by: str = "duration"
    gaps: int = 0
    known_prompts: float | None = None
    """TTFT of a prompt that any run with this seed sends, over that of prompts which nobody ever sent; None where
    the server showed no memory for prompts, or where the seed is new."""
    watch: Watch = field(default_factory=Watch)
    asked_input: float | None = None
    """Input tokens that each request asked for; None where that is not known."""
    max_in_flight: int = 0
    """Most requests that an open loop may have in flight; 0: no limit."""
    template_tokens: float | None = None
    """Tokens that open every prompt, as the server counts them: chat template and salt; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be; a note is worth knowing and casts no doubt."""

    status: Literal["note", "suspect", "invalid"]
    code: str
    message: str
