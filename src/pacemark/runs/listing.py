"""What runs a folder holds, each in a line."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pacemark.errors import BadInput
from pacemark.reporting.answer import answer
from pacemark.reporting.words import plain
from pacemark.summary import Summary

__all__ = ["Listed", "stored_runs"]


class Listed(msgspec.Struct, frozen=True):
    """A stored run."""

    run: str
    """Its folder."""
    started: str
    target: str
    model: str
    labels: dict[str, str]
    answer: str
    """What it recommends, or why it has no answer."""


def stored_runs(folder: Path) -> list[Listed]:
    """The runs in `folder`, the oldest first. Raises BadInput where there is none."""
    runs = sorted(path.parent for path in folder.glob("*/run.json"))
    if not runs:
        raise BadInput(f"{folder} holds no run: runs are stored below ./runs")
    return [_listed(path) for path in runs]


def _listed(path: Path) -> Listed:
    try:
        run = msgspec.json.decode((path / "run.json").read_bytes(), type=dict[str, object])
    except (OSError, ValueError, RecursionError):
        return Listed(str(path), "", "", "", {}, "run.json cannot be read")
    target, labels = run.get("target"), run.get("labels")
    target = target if isinstance(target, dict) else {}
    return Listed(
        run=str(path),
        started=str(run.get("started") or ""),
        target=plain(target.get("url") or ""),
        model=plain(target.get("model") or ""),
        labels={str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
        answer=_answer(path),
    )


def _answer(path: Path) -> str:
    try:
        summary = msgspec.json.decode((path / "summary.json").read_bytes(), type=Summary)
    except OSError:
        return "cut off before its summary; pacemark resume goes on, pacemark report rebuilds it"
    except (ValueError, RecursionError):
        return "summary.json is not of a schema this version reads"
    said = answer(summary)[0]
    return f"{said.name}: {said.text}"
