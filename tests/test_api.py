"""The Python face, over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import pacemark
from pacemark import api
from pacemark.endpoint.target import target
from pacemark.pace import Concurrency, Rate
from pacemark.reporting.progress import Status
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings, Workload
from pacemark.simulator import Served, serving
from support.cli_tools import Asked, Reply, as_json, only_run, server, streamed
from support.needed import needed
from support.sampled import first

SHORT: dict[str, Any] = {"duration": 0.5, "input_tokens": 32, "output_tokens": 8}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    with serving("demo") as served:
        yield served


@pytest.fixture(scope="module")
def swept(endpoint: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[pacemark.Run, list[Status]]:
    seen: list[Status] = []
    out = str(tmp_path_factory.mktemp("runs"))
    run = pacemark.sweep(endpoint.url, concurrency=[1, 3], out=out, observe=seen.append, seed=1, **SHORT)
    return run, seen


@pytest.mark.xdist_group("api-sweep")
class TestSweep:
    def test_a_run_has_its_levels(self, swept: tuple[pacemark.Run, list[Status]]) -> None:
        run, _ = swept
        assert [level.load for level in run.levels] == [Concurrency(1), Concurrency(3)]
        assert not run.interrupted
        assert all(level.requests.failed == 0 and level.requests.in_window > 0 for level in run.levels)
        assert all(level.output_tokens == 8 for level in run.levels)

    def test_the_observer_sees_every_phase_of_every_level(self, swept: tuple[pacemark.Run, list[Status]]) -> None:
        _, [greeting, *seen] = swept
        assert greeting.note.endswith(": 2 levels of 0.5 s; getting ready")
        phases = list(dict.fromkeys((s.level_index, s.phase) for s in seen))
        assert [p for p in phases if p[1] != "finishing"] == [
            (0, "ramp"),
            (0, "measuring"),
            (1, "ramp"),
            (1, "measuring"),
            (1, "reporting"),
        ]
        assert [s.ended.load for s in seen if s.ended] == [Concurrency(1), Concurrency(3)]
        assert {s.levels for s in seen} == {2}
        assert max(s.in_flight for s in seen if s.level_index == 1) == 3
        assert [s.elapsed_s for s in seen] == sorted(s.elapsed_s for s in seen)

    def test_a_stored_run_is_loaded_as_it_was(self, swept: tuple[pacemark.Run, list[Status]]) -> None:
        run, _ = swept
        assert pacemark.load(run.path) == run
        assert pacemark.show(str(run.path.parent)) == run

    def test_as_a_data_frame(self, swept: tuple[pacemark.Run, list[Status]]) -> None:
        needed("pandas")
        run, _ = swept
        frame = run.to_pandas()
        assert frame["load_value"].tolist() == [1, 3]
        expected = [level.ttft_ms.mean.value for level in run.levels]
        assert frame["ttft_ms_mean"].tolist() == expected

    def test_as_a_chart(self, swept: tuple[pacemark.Run, list[Status]]) -> None:
        run, _ = swept
        assert "layer" in run.plot().to_dict()
        bundle: Any = run._repr_mimebundle_()
        kinds = bundle[0] if isinstance(bundle, tuple) else bundle
        assert any("vegalite" in kind or "html" in kind for kind in kinds)


def test_open_loop_with_two_workers(endpoint: Served, tmp_path: Path) -> None:
    run = pacemark.run(endpoint.url, rate=40, workers=2, out=tmp_path, **SHORT)
    (level,) = run.levels
    assert level.load == Rate(40.0, "poisson", 1.0)
    assert level.client.lateness_ms is not None
    assert level.client.lateness_ms.p50 is not None
    assert level.requests.failed == 0
    settings = json.loads((run.path / "run.json").read_bytes())["settings"]
    assert settings["workers"] == 2


def test_the_embedded_endpoint_as_a_target(tmp_path: Path) -> None:
    run = pacemark.run("sim:fixed", concurrency=4, out=tmp_path, **SHORT)
    (level,) = run.levels
    assert run.summary.target["model"] == "fixed"
    assert level.ttft_ms.p50.value is not None
    # Its first token comes 200 ms after the request, so no client can truly see it sooner.
    assert level.ttft_ms.p50.value >= 199.5


def test_no_module_hides_a_public_name() -> None:
    """Python binds a submodule to its package when it is first imported, over whatever had that name."""
    for module in pkgutil.walk_packages(pacemark.__path__, "pacemark."):
        with contextlib.suppress(ImportError):  # one that needs an extra
            import_module(module.name)
    hidden = [name for name in pacemark.__all__ if isinstance(getattr(pacemark, name), ModuleType)]
    assert not hidden


@pytest.mark.parametrize("wanted", [64, 300, 2000])
def test_prompts_have_the_wanted_length_on_average(endpoint: Served, wanted: int) -> None:
    place = target(endpoint.url, model=endpoint.model)
    workload = Workload(input_tokens=wanted, output_tokens=1, seed=wanted)
    with Bench(place, workload, Settings(duration_s=0.5)) as bench:
        bench.prepare()
        result = bench.measure(Concurrency(8))
        bench.finish()
    assert result.level.input_tokens is not None
    assert result.level.input_tokens == pytest.approx(wanted, rel=0.03)
    assert bench.prompts.source == "usage"


def test_completions_are_streamed_too(endpoint: Served) -> None:
    found = pacemark.check(endpoint.url, api="completions", output_tokens=5)
    assert found["streams"] is True
    assert found["output_tokens"] == found["events"] == 5


def test_a_server_that_takes_only_standard_fields() -> None:
    with serving("demo", strict=True) as served:
        found = pacemark.check(served.url, output_tokens=5)
    assert found["accepts"] == []
    assert found["reports_usage"] is True


def test_headers_and_extra_fields_are_sent() -> None:
    seen: list[Asked] = []

    def note(asked: Asked) -> Reply:
        seen.append(asked)
        return streamed(asked) if asked.body else as_json({"detail": "Not Found"}, 404)

    with server(note) as url:
        pacemark.check(url, model="m", headers={"X-Team": "search"}, extra_body={"top_k": 3}, output_tokens=8)
    assert {asked.headers.get("X-Team") or asked.headers["X-team"] for asked in seen} == {"search"}
    seen = [asked for asked in seen if asked.body]  # the others ask which APIs are spoken
    assert {asked.body["top_k"] for asked in seen} == {3}
    assert {asked.path for asked in seen} == {"/v1/chat/completions"}
    assert seen[-1].body["max_tokens"] == 8


@pytest.mark.parametrize("name", first(1, ["find", "sweep", "run"]))
def test_an_extra_field_is_sent_and_written_down(name: str, tmp_path: Path) -> None:
    seen: list[Asked] = []

    def note(asked: Asked) -> Reply:
        seen.append(asked)
        return streamed(asked)

    extra = {"top_k": 3, "nested": {"deep": [1, None, "x"]}}
    loads: dict[str, dict[str, Any]] = {
        "run": {"concurrency": 1},
        "sweep": {"concurrency": [1]},
        "find": {"budget": "latency p50 < 60s", "most": 1, "max_duration": 1.0},
    }
    with server(note) as url:
        run = getattr(pacemark, name)(url, model="m", extra_body=extra, out=tmp_path, **(SHORT | loads[name]))
    assert run.levels[0].requests.completed > 0
    assert all(asked.body.items() >= extra.items() for asked in seen)
    assert json.loads((run.path / "run.json").read_bytes())["workload"]["extra"] == extra
    assert api.report(run.path).summary.workload["extra"] == extra


def test_a_field_that_pacemark_sets_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    seen: list[Asked] = []

    def note(asked: Asked) -> Reply:
        seen.append(asked)
        return streamed(asked)

    with server(note) as url, pytest.raises(pacemark.BadInput, match="--output-tokens"):
        pacemark.run(url, concurrency=1, extra_body={"max_tokens": 3}, out=tmp_path, **SHORT)
    assert not seen
    assert not list(tmp_path.iterdir())


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path) -> None:
    """The server refuses all from the second level's window on, so that the third level is given up."""
    refusing: list[bool] = []

    def soon(status: Status) -> None:
        if status.level_index == 1 and status.phase == "measuring":
            refusing.append(True)

    def reply(asked: Asked) -> Reply:
        return Reply(500, b'{"error": {"message": "out of order"}}') if refusing else streamed(asked)

    given: dict[str, Any] = SHORT | {"model": "m", "out": tmp_path, "observe": soon}
    with server(reply) as url, pytest.raises(pacemark.RunFailed) as failed:
        pacemark.sweep(url, concurrency=[1, 2, 16], **given)
    folder = only_run(tmp_path)
    assert str(failed.value).endswith(f"what was measured is in {folder}")
    assert "out of order" in str(failed.value)
    run = pacemark.load(folder)
    assert [level.load for level in run.levels] == [Concurrency(1), Concurrency(2), Concurrency(16)]
    assert all(level.requests.completed > 0 for level in run.levels[:2])
    assert run.levels[0].ttft_ms.p50.value is not None
    record = json.loads((folder / "run.json").read_bytes())
    assert (record["ended"], record["interrupted"]) == ("failed", False)
    assert "out of order" in record["failure"]
    assert "failed:" in (folder / "report.html").read_text()


def test_prompts_by_a_tokenizer_of_the_user(endpoint: Served, tmp_path: Path) -> None:
    tokenizers = needed("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    found = pacemark.check(endpoint.url, tokenizer=tmp_path, input_tokens=100)
    assert found["prompt_length_from"] == "tokenizer"
    assert found["tokens_per_word"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "one load"),
        ({"concurrency": 1, "rate": 1.0}, "one load"),
        ({"concurrency": True}, "--concurrency True"),
        ({"concurrency": 1.5}, "--concurrency 1.5"),
        ({"concurrency": 1, "seed": -1}, "--seed -1"),
        ({"concurrency": 1, "seed": 10**20}, "--seed 100000000000000000000: must be at most"),
        ({"concurrency": 1, "workers": 0}, "--workers 0"),
        ({"concurrency": 1, "duration": float("inf")}, "--duration inf"),
        ({"concurrency": 1, "timeout": 0}, "--timeout 0"),
        ({"rate": 1.0, "arrivals": "gamma", "burstiness": -1.0}, "--burstiness -1.0"),
        ({"rate": 0.0}, "--rate 0.0"),
        ({"rate": True}, "--rate True"),
        ({"concurrency": 1, "stream": "no"}, "--stream 'no': must be True or False"),
        ({"concurrency": 1, "ignore_eos": None}, "--ignore-eos 'None': must be True or False"),
        ({"concurrency": 1, "budget": ["ttft p95 < 5ms"]}, "--budget .*: must be text, and is of type list"),
        ({"concurrency": 1, "images": 5}, "--images '5': must be text"),
        ({"concurrency": 1, "workers": [1]}, "--workers"),
        ({"concurrency": 1, "wait": None}, "--wait None"),
        ({"concurrency": 1, "arrivals": "gamma"}, "--arrivals and --burstiness are of an open loop"),
        ({"concurrency": 1, "burstiness": 2.0}, "--arrivals and --burstiness are of an open loop"),
        ({"rate": 1.0, "burstiness": 2.0}, "--burstiness is of gamma arrivals"),
        ({"concurrency": 1, "max_in_flight": 3}, "--max-in-flight is of an open loop"),
        ({"concurrency": 1, "history": "served"}, "--history"),
        ({"concurrency": 1, "repeats": 10**8}, "--repeats 100000000: must be at most 10,000"),
        ({"concurrency": 1, "price_per_hour": 1.0, "ask_above": float("nan")}, "--ask-above nan"),
    ],
)
def test_bad_input_is_an_exception_of_its_own(options: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(pacemark.BadInput, match=part):
        pacemark.run("http://127.0.0.1:9/v1", model="m", out=tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("face", "given", "said"),
    [
        (pacemark.load, {"path": None}, "--path 'None': must be text, and is of type NoneType"),
        (pacemark.plan, {"path": "runs", "demand": 5}, "--demand '5': must be text"),
        (pacemark.report, {"path": "runs", "budget": 5}, "--budget '5': must be text"),
        (pacemark.together, {"paths": 5}, "--paths '5': must be a list"),
        (pacemark.compare, {"a": 5, "b": 6}, "--a '5': must be text"),
        (pacemark.sweep, {"target": "sim:demo", "concurrency": 5}, "--concurrency '5': must be a list"),
        (pacemark.versus, {"targets": "sim:demo"}, "--targets 'sim:demo': must be a list, and is of type str"),
        (pacemark.versus, {"targets": ["a", "b"], "prices": 5}, "--prices '5': must be a list"),
        (pacemark.run, {"target": "sim:demo", "observe": 5}, "--observe '5': must be a function"),
        (pacemark.run, {"target": "sim:demo", "metrics": 5}, "--metrics '5': must be text or a list"),
        (pacemark.run, {"target": "sim:demo", "labels": 5}, "--labels '5': must be a mapping or a list"),
    ],
)
def test_a_value_of_another_kind_is_named(face: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(pacemark.BadInput, match=said):
        face(**given)


def test_what_a_search_may_spend_and_try_is_checked() -> None:
    words: Any = {"budget": "ttft p95 < 1s"}
    for odd in ({"within": "x"}, {"most": 0}, {"allowance": pacemark.Allowance(-5)}):
        with pytest.raises(pacemark.BadInput, match=next(iter(odd))):
            pacemark.find("http://127.0.0.1:9/v1", **words, **odd)
    with pytest.raises(pacemark.BadInput, match="--target '5': must be text"):
        pacemark.find(5, **words)  # type: ignore[arg-type]


def test_a_folder_may_be_any_kind_of_path() -> None:
    golden = Path(__file__).parent / "golden"
    (entry,) = (entry for entry in os.scandir(golden) if entry.name == "run")
    assert pacemark.load(entry).path == golden / "run"  # type: ignore[arg-type]


def test_an_empty_sweep_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(pacemark.BadInput, match="no load level"):
        pacemark.sweep("http://127.0.0.1:9/v1", concurrency=[], out=tmp_path)


def test_an_interrupt_keeps_the_levels_that_were_measured(endpoint: Served, tmp_path: Path) -> None:
    def interrupt(status: Status) -> None:
        if status.level_index == 1 and status.phase == "measuring" and status.completed > 8:
            raise KeyboardInterrupt

    run = pacemark.sweep(endpoint.url, concurrency=[2, 4, 8], out=tmp_path, observe=interrupt, **SHORT)
    assert run.interrupted
    assert [level.load for level in run.levels] == [Concurrency(2), Concurrency(4)]
    first, second = run.levels
    assert first.window_s == pytest.approx(0.5)
    assert second.window_s is None or second.window_s < 0.5
    again = api.report(run.path)
    assert again.interrupted
    assert [level.load for level in again.levels] == [level.load for level in run.levels]
    assert again.levels[0].output_tokens_per_s == first.output_tokens_per_s
    assert again.levels[0].latency_ms == first.latency_ms


def test_an_error_in_the_observer_is_the_users_to_see(endpoint: Served, tmp_path: Path) -> None:
    def fail(status: Status) -> None:
        if status.phase == "measuring" and status.completed > 20:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        pacemark.run(endpoint.url, concurrency=4, out=tmp_path, observe=fail, **(SHORT | {"duration": 30.0}))
    (level,) = api.report(only_run(tmp_path)).levels
    assert level.requests.completed > 20


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads the processes from /proc")
def test_no_process_is_left_behind(endpoint: Served) -> None:
    before = children()
    pacemark.check(endpoint.url, workers=2)
    assert children() == before


def children() -> set[str]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended in the meantime
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(stat.parent.name)
    return found


def test_the_record_of_a_run_says_how_to_repeat_it(swept: tuple[pacemark.Run, list[Status]]) -> None:
    run, _ = swept
    record = json.loads((run.path / "run.json").read_bytes())
    assert record["workload"]["seed"] == 1
    assert record["loads"] == [{"kind": "concurrency", "value": n} for n in (1, 3)]
    assert record["workload"]["options"]["ignore_eos"] is True
    assert record["versions"]["pacemark"] == pacemark.__version__
    assert msgspec.json.decode((run.path / "summary.json").read_bytes())["run"]["loads"] == record["loads"]
