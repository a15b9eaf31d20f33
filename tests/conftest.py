"""Fixtures shared by the tests."""

import gc
import shutil
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from support.llama_server import llama_server, write_tiny_llama
from support.needed import missing
from support.waiting import TRIES

# A shared machine may stand still at any example. `make test` tries a few, `make slow` many.
settings.register_profile("few", deadline=None, max_examples=15)
settings.register_profile("many", deadline=None, max_examples=150)
settings.load_profile("few")

GOLDEN = Path(__file__).parent / "golden" / "run"


@pytest.fixture
def no_connections_left() -> Iterator[None]:
    """For tests of the Databricks SDK, which leaves its connections to the garbage collector."""
    gc.freeze()  # only what the test made is looked through
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of an `xdist_group` stay together: xdist 3.8 tells by an attribute that pytest 9.2 does not read."""
    for item in items if config.getoption("loadgroup", False) else ():
        if (mark := item.get_closest_marker("xdist_group")) and not item.nodeid.endswith(f"@{mark.args[0]}"):
            item._id = item.id.parse(f"{item.nodeid}@{mark.args[0]}")


def pytest_collection_finish() -> None:
    """What all tests share is a million objects, which no test's garbage collection need look through."""
    gc.freeze()


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


@pytest.fixture
def stored_run(tmp_path: Path) -> Path:
    """A copy of a run of 0.1.0, for all that only reads runs: sim:demo at 1, 2, 4 and 8 in parallel."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "20260101T000000Z-golden"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """How many tries a test took goes with its report, from whichever process ran it."""
    if tries := TRIES.pop(item.name, 0):
        item.user_properties.append(("tries", tries))
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How often an instrument had to be tried: a shared machine's doing, or a rate of failures to look into."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, []) if r.when == "call"]
    tried = {r.nodeid: dict(r.user_properties)["tries"] for r in reports if ("tries" in dict(r.user_properties))}
    if tried:
        terminalreporter.section(f"tries: {sum(tried.values())} for {len(tried)} tests")
        for name, tries in tried.items():
            terminalreporter.write_line(f"{tries} {name}")
