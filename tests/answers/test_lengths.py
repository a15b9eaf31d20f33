"""A length grid: what a token costs, against known truths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import pacemark
from pacemark.answers.lengths import fit, grid, slopes
from pacemark.figures.health import Health
from pacemark.figures.level import sum_up
from pacemark.pace import Concurrency
from pacemark.reporting import terminal
from pacemark.reporting.charts import curve as charts
from pacemark.reporting.html import html
from pacemark.simulator import customised, named, serving, simulate
from pacemark.summary import Asked, Figure, Level, Slopes, Summary
from pacemark.trace import Window
from support.cli_tools import assert_refused
from support.inside import inside as call
from support.samples import TARGET, WORKLOAD, known

# One step prefills any of these prompts, so that a straight line is the truth: base + prefill x tokens.
STRAIGHT = {"token_budget": 16384, "base_ms": 8.0, "per_decode_ms": 0.5, "per_prefill_token_ms": 0.02}
CELLS = grid([256, 1024, 4096], [16, 64])


def virtual(asked: Asked, load: int = 1, **changes: Any) -> Level:
    """A cell of the grid as a perfect client would see it."""
    preset = customised(named("demo"), STRAIGHT | changes)
    lengths: Any = {"input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens}
    trace = simulate(Concurrency(load), preset, requests=60, turnaround_ms=0.3, **lengths)
    window = Window(0, int(trace.ended_ns.max()))
    level = sum_up(Concurrency(load), trace, window, Health()).level
    return msgspec.structs.replace(level, asked=asked)


def made(levels: list[Level]) -> Summary:
    workload = WORKLOAD | {"input_tokens": [256, 1024, 4096], "output_tokens": [16, 64]}
    return Summary(target=TARGET, workload=workload, levels=levels, slopes=slopes(levels))


class TestFit:
    def test_a_plane_is_found_exactly(self) -> None:
        x = np.array([[i, o] for i in (100, 200, 400) for o in (10, 50)], float)
        y = [Figure(v, v - 0.1, v + 0.1) for v in (5 + x @ [0.02, 9.0]).tolist()]
        intercept, (per_input, per_output), residual = known(fit(x, y))
        assert intercept.value == pytest.approx(5.0)
        assert [per_input.value, per_output.value] == pytest.approx([0.02, 9.0])
        assert residual < 1e-9
        assert known(per_output.low) < 9.0 < known(per_output.high)

    def test_the_interval_holds_the_truth_19_times_of_20(self) -> None:
        rng = np.random.default_rng(3)
        x = np.array([[i, o] for i in (256, 1024, 4096) for o in (64, 128, 256)], float)
        truth = 5 + x @ [0.02, 9.0]
        held = 0
        for _ in range(600):
            y = truth + rng.normal(0, 4.0, len(truth))
            _, (_, slope), _ = known(fit(x, [Figure(v, v - 1.96 * 4, v + 1.96 * 4) for v in y.tolist()]))
            held += known(slope.low) <= 9.0 <= known(slope.high)
        assert 0.94 <= held / 600 <= 1.0

    def test_without_the_cells_own_intervals_their_scatter_serves(self) -> None:
        rng = np.random.default_rng(4)
        x = np.array([[float(i)] for i in (1, 2, 3, 4, 5, 6)])
        held = 0
        for _ in range(600):
            y = 3 + 2 * x[:, 0] + rng.normal(0, 0.5, 6)
            _, (slope,), _ = known(fit(x, [Figure(v) for v in y.tolist()]))
            held += known(slope.low) <= 2.0 <= known(slope.high)
        assert held / 600 == pytest.approx(0.95, abs=0.025)

    def test_a_bend_widens_the_interval(self) -> None:
        x = np.array([[float(i)] for i in (1, 2, 3, 4)])

        def width(bend: float) -> float:
            y = 10 * x[:, 0] + bend * x[:, 0] ** 2
            _, (slope,), _ = known(fit(x, [Figure(v, v - 0.01, v + 0.01) for v in y.tolist()]))
            return known(slope.high) - known(slope.low)

        assert width(1.0) > 20 * width(0.0)

    def test_no_more_is_said_than_is_known(self) -> None:
        x = np.array([[1.0], [2.0]])
        _, (slope,), _ = known(fit(x, [Figure(1.0), Figure(3.0)]))
        assert slope.value == pytest.approx(2.0)
        assert (slope.low, slope.high) == (None, None)
        assert fit(np.array([[1.0], [1.0]]), [Figure(1.0), Figure(3.0)]) is None


@pytest.fixture(scope="module")
def summary() -> Summary:
    return made([virtual(asked) for asked in CELLS])


class TestSlopes:
    def test_prefill_and_decode_are_the_engines_own(self, summary: Summary) -> None:
        assert isinstance(summary.slopes, Slopes)
        prefill = known(summary.slopes.ttft_ms).per_input_token_ms
        assert prefill.value == pytest.approx(STRAIGHT["per_prefill_token_ms"], rel=0.01)
        decode = known(summary.slopes.latency_ms).per_output_token_ms
        assert decode.value == pytest.approx(STRAIGHT["base_ms"] + STRAIGHT["per_decode_ms"], rel=0.01)
        assert known(summary.slopes.latency_ms).per_input_token_ms.value == pytest.approx(0.02, rel=0.02)
        assert known(summary.slopes.ttft_ms).cells == len(CELLS)

    def test_a_prompt_that_takes_several_steps_shows_as_distance_from_the_line(self) -> None:
        bent = slopes([virtual(asked, token_budget=512, base_ms=40.0) for asked in grid([256, 700, 4096], [16, 64])])
        straight = slopes([virtual(asked) for asked in CELLS])
        assert known(bent.ttft_ms).residual_ms > 10 * known(straight.ttft_ms).residual_ms

    def test_invalid_levels_are_left_out(self, summary: Summary) -> None:
        spoilt = msgspec.structs.replace(
            summary.levels[0],
            verdict=msgspec.structs.replace(summary.levels[0].verdict, status="invalid"),
            ttft_ms=msgspec.structs.replace(summary.levels[0].ttft_ms, p50=Figure(9e9)),
        )
        line = known(slopes([spoilt, *summary.levels[1:]]).ttft_ms)
        assert line.cells == len(CELLS) - 1
        assert line.per_input_token_ms.value == pytest.approx(0.02, rel=0.01)

    def test_a_length_that_is_not_varied_has_no_slope(self) -> None:
        outputs = slopes([virtual(asked) for asked in grid([256], [16, 64, 128])])
        assert outputs.ttft_ms is None
        assert known(outputs.latency_ms).per_input_token_ms == Figure()
        assert known(outputs.latency_ms).per_output_token_ms.value == pytest.approx(8.5, rel=0.01)
        inputs = slopes([virtual(asked) for asked in grid([256, 512, 1024], [16])])
        assert known(inputs.latency_ms).per_output_token_ms == Figure()
        assert known(inputs.ttft_ms).per_input_token_ms.value == pytest.approx(0.02, rel=0.01)

    def test_the_two_sentences(self, summary: Summary) -> None:
        said = " ".join(terminal.answer(summary).split())
        assert "1,000 more input tokens add 20.0 ms (95% interval" in said
        assert "a prefill of 50," in said or "a prefill of 49," in said
        assert "each more output token adds 8.50 ms (95% interval" in said
        assert "as much as 42" in said
        # 16 x 8.5 ms of the 217.4 ms for 4,096 in; 64 x 8.5 ms of the 548.6 ms for 256 in
        assert "make up 63% to 99% of the latency" in said

    def test_the_report_and_the_charts_show_it(self, summary: Summary) -> None:
        page = html(summary)
        assert "Tokens in / out" in page
        assert "4,096 / 64" in page
        assert "Time to first token by input tokens" in page
        column = charts.main_chart(summary).to_dict()
        assert [part["title"]["text"] for part in column["vconcat"]] == [
            "Time to first token by input tokens",
            "Latency by output tokens",
        ]

    def test_it_survives_being_written(self, summary: Summary) -> None:
        assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pacemark.Run:
    out = tmp_path_factory.mktemp("grid")
    with serving("demo", **STRAIGHT) as served:
        return pacemark.sweep(served.url, input_tokens=[64, 2048], output_tokens=[4, 24], duration=1.0, out=out, seed=5)


@pytest.mark.xdist_group("grid")
@pytest.mark.slow(shared=True)
class TestOverSockets:
    """Short, so the figures are rough: what is tested is that each level asks for its own lengths."""

    def test_every_level_has_its_lengths(self, run: pacemark.Run) -> None:
        assert [level.asked for level in run.levels] == grid([64, 2048], [4, 24])
        assert {level.load for level in run.levels} == {Concurrency(1)}
        for level in run.levels:
            asked = known(level.asked)
            assert level.output_tokens == asked.output_tokens
            assert level.input_tokens == pytest.approx(asked.input_tokens, rel=0.15)
            assert level.requests.failed == 0

    def test_tokens_have_a_price(self, run: pacemark.Run) -> None:
        found = run.summary.slopes
        assert isinstance(found, Slopes)
        prefill = known(known(found.ttft_ms).per_input_token_ms.value)
        decode = known(known(found.latency_ms).per_output_token_ms.value)
        assert 0.01 < prefill < 0.04
        assert 6.0 < decode < 14.0
        assert run.summary.operating_points.balanced is None

    def test_it_is_stored_and_computed_anew(self, run: pacemark.Run) -> None:
        assert pacemark.load(run.path) == run
        assert pacemark.report(run.path).summary.slopes == run.summary.slopes
        assert json.loads((run.path / "summary.json").read_bytes())["workload"]["input_tokens"] == [64, 2048]

    def test_it_is_compared_cell_by_cell(self, run: pacemark.Run) -> None:
        compared = pacemark.compare(run.path, run.path)
        assert [level.asked for level in compared.levels] == [level.asked for level in run.levels]
        assert all(x.difference.value in (0.0, None) for level in compared.levels for x in level.metrics.values())

    def test_no_load_can_be_chosen_from_it(self, run: pacemark.Run) -> None:
        with pytest.raises(pacemark.BadInput, match="length grid"):
            pacemark.find(from_run=run.path, budget="ttft p95 < 500ms")
        with pytest.raises(pacemark.BadInput, match="length grid"):
            pacemark.plan(run.path, demand="40 requests/s", budget="ttft p95 < 500ms")

    def test_the_command_line_shows_it(self, run: pacemark.Run) -> None:
        done = call("show", run.path)
        assert done.returncode == 0
        assert "2048 / 24" in done.stdout
        assert "more output token adds" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"concurrency": [1, 2]}, "give one --concurrency"),
        ({"rate": [1.0]}, "give one --concurrency"),
        ({"input_tokens": []}, "--input-tokens: give at least one length"),
        ({"output_tokens": [8, 0]}, "--output-tokens 0"),
    ],
)
def test_what_makes_no_grid_is_refused(more: dict[str, Any], part: str, tmp_path: Path) -> None:
    lengths: Any = {"input_tokens": [64, 128], "out": tmp_path} | more
    with pytest.raises(pacemark.BadInput, match=part):
        pacemark.sweep("sim:demo", **lengths)
    assert not list(tmp_path.iterdir())


def test_only_a_sweep_takes_several_lengths(tmp_path: Path) -> None:
    with pytest.raises(pacemark.BadInput, match="--input-tokens"):
        pacemark.run("sim:demo", concurrency=1, input_tokens=[64, 128], out=tmp_path)
    assert_refused(call("sweep", "sim:demo", "--input-tokens", "64,x", "--out", tmp_path), "--input-tokens")
