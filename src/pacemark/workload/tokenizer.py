"""Counts tokens with the model's own tokenizer, from its file."""

from __future__ import annotations

from pathlib import Path

from pacemark.errors import BadInput


class Tokenizer:
    """Counts the tokens of a text. `path` is what another process makes the same from."""

    def __init__(self, path: str | Path) -> None:
        """`path` is a tokenizer.json, or the folder that holds one. Raises BadInput where it cannot be used."""
        try:
            from tokenizers import Tokenizer as Counting
        except ImportError:
            raise BadInput("--tokenizer needs a package: pip install tokenizers") from None
        self.path = str(path)
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        try:
            self._tokenizer = Counting.from_file(str(file))
        except Exception as error:  # the library raises bare exceptions
            raise BadInput(f"--tokenizer {path}: cannot be read as a tokenizer.json ({error})") from None

    def __call__(self, text: str) -> int:
        """How many tokens `text` is, without those that mark its beginning and end."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
