"""Laws fitted to curves whose parameters are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pacemark.answers.fit import decoding, fits, knee_of, throughput, tpot_ms
from pacemark.pace import Concurrency, Rate
from pacemark.reporting import terminal
from pacemark.reporting.charts import curve as charts
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import named
from pacemark.summary import Fits, Level, Scalability, Summary
from support import samples
from support.samples import known


def at(streams: int, tokens: float, **more: Any) -> Level:
    return samples.level(
        Concurrency(streams), tokens_per_s=tokens, ttft_ms=None, tpot_ms=None, latency_ms=(10, 12), **more
    )


def law(streams: float, rate: float = 100.0, contention: float = 0.02, coherency: float = 0.0005) -> float:
    return rate * streams / (1 + contention * (streams - 1) + coherency * streams * (streams - 1))


def test_a_law_is_recovered_from_its_own_curve() -> None:
    found = known(fits([at(n, law(n)) for n in (1, 2, 4, 8, 16, 32)]).scalability)
    assert found.rate == pytest.approx(100, rel=1e-3)
    assert found.contention == pytest.approx(0.02, rel=1e-2)
    assert found.coherency == pytest.approx(0.0005, rel=1e-2)
    assert found.error < 1e-6
    assert throughput(found, [5.0, 20.0]) == pytest.approx([law(5), law(20)], rel=1e-3)
    peak = (0.98 / 0.0005) ** 0.5
    assert found.most == pytest.approx(law(peak), rel=1e-3)


def test_its_error_is_that_of_levels_it_has_not_seen() -> None:
    tokens = [law(n) for n in (1, 2, 4, 8, 16, 32)]
    tokens[3] *= 1.2
    found = known(fits([at(n, x) for n, x in zip((1, 2, 4, 8, 16, 32), tokens, strict=True)]).scalability)
    assert 0.05 < found.error < 0.2


def test_parameters_are_never_negative() -> None:
    found = known(fits([at(n, 50.0 * n**1.2) for n in (1, 2, 4, 8, 16)]).scalability)
    assert found.contention == 0
    assert found.coherency == 0
    assert found.most is None


@pytest.mark.parametrize(
    "levels",
    [
        [],
        [at(n, law(n)) for n in (1, 2, 4)],
        [at(4, 100.0)] * 5,
        [at(n, law(n), status="invalid") for n in (1, 2, 4, 8)],
        samples.open_loop().levels,
    ],
    ids=["none", "three", "one load", "invalid", "open loop"],
)
def test_too_little_gives_no_law(levels: list[Level]) -> None:
    assert fits(levels) == Fits()


pytestmark = pytest.mark.xdist_group("fit")  # its simulations are made once


@pytest.fixture(scope="module")
def engine() -> list[Level]:
    """The 8B preset, which is an engine with a known step time."""
    measure = virtual_measure("llama-8b-h100", input_tokens=512, output_tokens=128, duration_s=8.0)
    return [measure(Concurrency(n)).level for n in (1, 2, 4, 8, 16, 32, 64)]


def test_the_step_time_of_an_engine_is_recovered(engine: list[Level]) -> None:
    found = known(fits(engine).step_time)
    spec: Any = named("llama-8b-h100").timeline
    assert found.base_ms == pytest.approx(spec.base_ms, rel=0.03)
    assert known(found.prefill_ms) == pytest.approx(512 * spec.per_prefill_token_ms, rel=0.05)
    held = spec.per_kv_token_ms * (512 + 64)
    each = spec.per_decode_ms + held + 512 * spec.per_prefill_token_ms / 127
    assert found.per_stream_ms == pytest.approx(each, rel=0.05)
    assert found.error < 0.01
    streams = [known(decoding(level)) for level in engine]
    assert tpot_ms(found, streams) == pytest.approx([level.tpot_ms.mean.value for level in engine], rel=0.02)


def test_a_full_batch_is_no_contradiction() -> None:
    """Behind a full batch TPOT stays, since no more streams decode."""
    measure = virtual_measure("demo", duration_s=8.0)
    found = known(fits([measure(Concurrency(n)).level for n in (1, 4, 16, 32, 64)]).step_time)
    assert found.error < 0.02
    assert found.streams < 32


def test_a_sweep_that_stops_early_is_warned_of(engine: list[Level]) -> None:
    warning = known(fits(engine[:5]).warning)
    assert "still rose at concurrency 16" in warning
    percent = int(warning.split("some ")[1].split("%")[0]) / 100
    truth = known(engine[5].output_tokens_per_s.value) / known(engine[4].output_tokens_per_s.value) - 1
    assert percent == pytest.approx(truth, abs=0.05)


def test_no_warning_on_a_plateau_nor_from_a_poor_fit() -> None:
    assert fits([at(n, 1000 * (1 - 0.5**n)) for n in (1, 2, 4, 8, 16, 32)]).warning is None
    odd = fits([at(n, x) for n, x in ((1, 100.0), (2, 120.0), (4, 500.0), (8, 520.0), (16, 1800.0))])
    assert known(odd.scalability).error > 0.1
    assert known(odd.scalability).knee is None
    assert odd.warning is None


def test_the_knee_of_a_broken_line() -> None:
    x = np.linspace(0, 100, 201)
    assert knee_of(x, np.minimum(x, 30.0)) == pytest.approx(30, abs=0.5)


def test_open_loop_levels_have_no_closed_loop_law() -> None:
    assert fits([samples.level(Rate(1.0 * n), tokens_per_s=100.0 * n, ttft_ms=(5, 6), tpot_ms=(9, 10),
                               latency_ms=(100, 120)) for n in (1, 2, 3, 4, 5)]) == Fits()  # fmt: skip


# --- what people see of it


def _fitted() -> Summary:
    swept = samples.sweep()
    return Summary(target=swept.target, workload=swept.workload, levels=swept.levels,
                   operating_points=swept.operating_points, fits=fits(swept.levels))  # fmt: skip


def test_the_laws_are_stated_with_their_error() -> None:
    text = " ".join(terminal.answer(_fitted()).split())
    assert "Fitted: " in text
    assert "universal scalability law, off by" in text
    assert "TPOT = " in text
    assert "Fitted" not in terminal.answer(samples.sweep())


def test_the_chart_draws_a_thin_line_and_says_what_it_is() -> None:
    with_law, without = _fitted(), samples.sweep()
    assert len(charts.curve_chart(with_law).layer) == len(charts.curve_chart(without).layer) + 1
    assert len(charts.tpot_chart(with_law).layer) == len(charts.tpot_chart(without).layer) + 1
    assert "thin line" in " ".join(charts.curve_chart(with_law).to_dict()["title"]["subtitle"])


def test_a_poor_fit_is_not_drawn() -> None:
    poor = Fits(scalability=Scalability(100.0, 0.01, 0.0, 0.3, 10_000.0, None))
    swept = samples.sweep()
    summary = Summary(target={}, workload={}, levels=swept.levels, fits=poor)
    plain = Summary(target={}, workload={}, levels=swept.levels)
    assert len(charts.curve_chart(summary).layer) == len(charts.curve_chart(plain).layer)
