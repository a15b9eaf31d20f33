"""A target measured against a baseline until a gate is decided: over real sockets, and the rule in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pacemark as face
from pacemark.answers.decision import deciding
from pacemark.answers.gate import parse_condition
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, Served, customised, named, serving
from support.inside import inside

SHORT: dict[str, Any] = {"input_tokens": 32, "output_tokens": 8, "workers": 1}


def slowed(factor: float) -> Preset:
    """The demo preset with everything `factor` times as long."""
    preset = named("demo")
    spec = preset.timeline
    assert isinstance(spec, EngineSpec)
    costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
    return customised(preset, {cost: getattr(spec, cost) * factor for cost in costs})


@pytest.fixture(scope="module")
def slower() -> Iterator[Served]:
    with serving(slowed(1.5)) as served:
        yield served


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sim:demo at 2 and 4 in parallel."""
    out = tmp_path_factory.mktemp("baseline")
    return face.sweep(
        "sim:demo", concurrency=[2, 4], duration=4, out=out, seed=1, extra_body={"user": "me"}, **SHORT
    ).path


@pytest.mark.slow
@pytest.mark.xdist_group("against")
class TestOverSockets:
    def test_the_same_endpoint_passes(self, baseline: Path, tmp_path: Path) -> None:
        done = inside("compare", "--target", "sim:demo", "--baseline", baseline, "--fail-if", "throughput < -20%",
                      "--max-duration", "60s", "--out", tmp_path, "--json", "--label", "try=1")  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        (outcome,) = found["conditions"]
        assert outcome["status"] == "passed"
        assert [level["load"]["value"] for level in outcome["levels"]] == [2, 4]
        (folder,) = tmp_path.iterdir()
        assert found["a"]["run"] == str(baseline)
        assert found["b"]["run"] == str(folder)
        run, before = (json.loads((path / "run.json").read_text()) for path in (folder, baseline))
        assert {name: run["workload"][name] for name in ("input_tokens", "output_tokens", "extra")} == {
            "input_tokens": 32, "output_tokens": 8, "extra": {"user": "me"},
        }  # fmt: skip
        assert run["workload"]["seed"] != before["workload"]["seed"]
        assert run["loads"] == before["loads"]
        assert run["labels"] == {"try": "1"}
        assert (folder / "report.html").exists()
        levels = json.loads((folder / "summary.json").read_text())["levels"]
        assert all(level["window_s"] < 20 for level in levels), "decided long before its time was up"

    def test_a_slower_one_fails_at_the_first_level(self, baseline: Path, slower: Served, tmp_path: Path) -> None:
        found = face.compare(
            target=slower.url, baseline=baseline, fail_if=["tpot p50 > +10%"], out=tmp_path, max_duration="60s"
        )
        (outcome,) = found.conditions
        assert outcome.status == "failed"
        assert [level.load for level in outcome.levels] == [Concurrency(2)]
        assert "concurrency 4: not measured in B" in found.left_out

    def test_what_cannot_be_decided_is_undecided_with_a_number(self, baseline: Path, tmp_path: Path) -> None:
        done = inside("compare", "--target", "sim:demo", "--baseline", baseline, "--fail-if", "ttft p99 > +0.1%",
                      "--max-duration", "6s", "--out", tmp_path)  # fmt: skip
        assert done.returncode == 4, done.stderr
        assert "more requests in" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "sim:demo"], "--baseline"),
        (["--baseline", "x"], "--target"),
        ([], "A and B"),
        (["x"], "A and B"),
        (["x", "y", "--target", "sim:demo", "--baseline", "z"], "A and B"),
        (["--target", "sim:demo", "--baseline", "x"], "--fail-if"),
        (["--target", "sim:demo", "--baseline", "x", "--fail-if", "ttft"], "--fail-if 'ttft'"),
        (
            ["--target", "sim:demo", "--baseline", "x", "--fail-if", "throughput < -5%", "--max-duration", "0"],
            "--max-d",
        ),
        (["--target", "sim:demo", "--baseline", "/nowhere", "--fail-if", "throughput < -5%"], "/nowhere is no run"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], said: str) -> None:
    done = inside("compare", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_option_that_is_the_baselines_is_refused(stored_run: Path) -> None:
    with pytest.raises(BadInput, match="'output_tokens'"):
        face.compare(target="sim:demo", baseline=stored_run, fail_if=["throughput < -5%"], output_tokens=4)


# --- the rule


def windows(factor: float, condition: str, longest_s: float) -> tuple[float, float]:
    """How long a baseline was measured, in seconds, and how long an endpoint that takes `factor` times as long."""
    lengths: Any = {"input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.66)}
    a = virtual_measure("demo", **lengths, duration_s=33.0, seed=1)(Concurrency(8)).level
    measure = virtual_measure(slowed(factor), **lengths, max_duration_s=longest_s, seed=2)
    b = measure(a.load, deciding(a, [parse_condition(condition)], longest_s)).level
    return a.window_s or 0.0, b.window_s or 0.0


def test_what_is_plain_ends_early_and_what_is_close_does_not() -> None:
    a, plain = windows(1.5, "ttft p50 > +5%", 200.0)
    _, close = windows(1.1, "ttft p50 > +5%", 200.0)
    assert plain < close
    assert plain < a / 2


def test_what_the_time_cannot_decide_is_given_up_once_b_knows_as_much_as_a() -> None:
    a, given_up = windows(1.05, "ttft p50 > +5%", 1000.0)
    assert 0.9 * a < given_up < 500
