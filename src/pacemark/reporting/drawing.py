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

from pacemark.errors import RunFailed
from pacemark.files import cache_folder, write_whole
from pacemark.version import __version__

__all__ = ["bundled", "script", "svg"]


def svg(chart: dict[str, Any]) -> str:
    """A Vega-Lite chart as SVG."""
    _see_that_there_is_room()
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
        _see_that_there_is_room()
        made: str = vl_convert.javascript_bundle(lines, vl_version=_vega_lite())
    with contextlib.suppress(OSError):  # then it is made again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, made.encode())
    return made


_ADDRESSES = 64 << 30
"""Bytes of address space that the JavaScript engine in vl_convert reserves (not memory): it ends the process where it
may not. 40 GB are too few for vl_convert 1.9, 80 GB are enough."""


def _see_that_there_is_room() -> None:
    """Raise RunFailed where this process may not have the addresses that drawing needs, as under some batch systems."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESSES:
        raise RunFailed(
            f"charts cannot be drawn: this process may use {limit / 2**30:.3g} GB of addresses (ulimit -v, or a batch "
            "system's memory limit); what was stored is whole: pacemark report draws it where there is no such limit"
        )


def _vega_lite() -> str:
    """The Vega-Lite version that the charts are written for, as vl_convert names it."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
