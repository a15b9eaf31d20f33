"""Fixtures shared by the tests."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from support.llama_server import llama_server, write_tiny_llama
from support.needed import missing


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a llama.cpp server with four slots, shared by the session."""
    absent = [name for name in ("gguf", "xllamacpp") if find_spec(name) is None]
    if absent:
        missing(f"a real engine needs {' and '.join(absent)}: install the test dependencies")
    model = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_tiny_llama(model)
    with llama_server(model) as base_url:
        yield base_url
