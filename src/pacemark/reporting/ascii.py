"""Streams that cannot carry every character, such as those of a terminal in the C locale."""

from __future__ import annotations

import codecs
import io
import unicodedata
from typing import TextIO

__all__ = ["degrade"]


def degrade(*streams: TextIO) -> None:
    """Have each stream write a stand-in for a character that its encoding lacks, where it would raise instead.

    `-` for dashes, `...` for an ellipsis, a letter without its accent; `?` for the rest. Streams that cannot be told
    so, such as one that a notebook put in place of standard output, stay as they are.
    """
    codecs.register_error("pacemark-ascii", _stand_in)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pacemark-ascii")


_STAND_INS = {"…": "...", "·": "-", "×": "x"} | dict.fromkeys("‘’‚", "'") | dict.fromkeys("“”„«»", '"')


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = ""
    for letter in error.object[error.start : error.end]:
        if "\u2500" <= letter <= "\u257f" or unicodedata.category(letter) == "Pd":  # drawn lines, dashes
            text += "-"
        else:
            bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
            text += _STAND_INS.get(letter) or bare or "?"
    return text, error.end
