"""What draws the charts of a page, as SVG here and as a script in the browser."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import vl_convert

from pacemark.files import cache_folder, write_whole
from pacemark.version import __version__

__all__ = ["bundled", "script", "svg"]


def svg(chart: dict[str, Any]) -> str:
    """A Vega-Lite chart as SVG."""
    drawn: str = vl_convert.vegalite_to_svg(chart, vl_version=_vega_lite())
    return drawn


_MAKING = threading.Lock()


def script() -> str:
    """The chart library with the lines that draw a page: the same for every report, and kept for the next one."""
    with _MAKING:
        return _script()


@cache
def _script() -> str:
    return bundled((files("pacemark.reporting") / "templates" / "report.js").read_text("utf-8"))


def bundled(lines: str) -> str:
    """The chart library with `lines` that use it; kept for the next time."""
    made_of = (__version__, version("vl-convert-python"), _vega_lite(), lines)
    path = cache_folder() / f"charts-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.js"
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        made: str = vl_convert.javascript_bundle(lines, vl_version=_vega_lite())
    with contextlib.suppress(OSError):  # then it is made again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, made.encode())
    return made


def _vega_lite() -> str:
    """The Vega-Lite version that the charts are written for, as vl_convert names it."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
