"""What an endpoint is sold as and holds its callers to, and what a failed first request means."""

from __future__ import annotations

from typing import Any

import pytest

import pacemark
from pacemark.endpoint import watch
from pacemark.endpoint.databricks import Serving, serving
from pacemark.endpoint.description import endpoint_in
from pacemark.endpoint.limits import UNSURE
from pacemark.endpoint.signon import SignOn, signed_on
from pacemark.errors import BadInput
from pacemark.pace import Rate
from pacemark.summary import Timeline
from support.inside import inside
from support.workspaces import NAME, QUICK, TARGET, no_settings, workspace

pytestmark = [
    pytest.mark.usefixtures("no_connections_left"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings(f"ignore:{NAME} :UserWarning"),
]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    no_settings(monkeypatch)


def endpoint(task: str = "llm/v1/chat", *entities: dict[str, Any], **more: Any) -> Any:
    served = [{"name": f"m{n}", "entity_version": "1"} | e for n, e in enumerate(entities or ({},))]
    return endpoint_in({"name": "e", "task": task, "config": {"served_entities": served}} | more)


class TestSizes:
    @pytest.mark.parametrize(
        ("entity", "capacity", "scales"),
        [
            ({"workload_size": "Small"}, "4 requests in parallel (Small)", False),
            ({"workload_size": "Medium", "workload_type": "GPU_MEDIUM"},
             "8 to 16 requests in parallel (Medium) on GPU_MEDIUM", True),
            ({"workload_size": "Large", "scale_to_zero_enabled": True}, "0 to 64 requests in parallel (Large)", True),
            ({"workload_size": "Enormous"}, "custom model", False),
            ({"min_provisioned_concurrency": 4, "max_provisioned_concurrency": 8}, "4 to 8 requests in parallel", True),
            ({"provisioned_model_units": 50}, "50 model units and bursts beyond them", False),
            ({"provisioned_model_units": 50, "burst_scaling_enabled": False}, "50 model units", False),
        ],
    )  # fmt: skip
    def test_what_was_bought_in_the_words_it_is_sold_by(self, entity: Any, capacity: str, scales: bool) -> None:
        (found,) = endpoint("", entity).entities
        assert (found.capacity, found.scales) == (capacity, scales)

    @pytest.mark.slow(shared=True)
    def test_a_burst_is_warned_of_and_marked(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        with workspace(monkeypatch, provisioned="model_units"), pytest.warns(UserWarning, match="buy too few"):
            run = pacemark.run(TARGET, concurrency=2, duration=1.0, out=tmp_path, **QUICK)
        assert "endpoint_may_burst" in [r.code for r in run.levels[0].verdict.reasons]
        assert run.summary.run["endpoint"]["model_units"] == 50
        with workspace(monkeypatch, provisioned="model_units", burst_scaling=False):
            assert serving(NAME).endpoint.warnings(16) == []
            assert not serving(NAME).look().bursts

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_a_curve_of_the_burst_is_not_that_of_the_units(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        """The same model units, free to burst and not: what the burst gives is not what was bought."""
        monkeypatch.setattr(watch, "LOOK_S", 0.5)
        scaling = {"max_replicas": 3, "cold_start_s": 0.2, "check_s": 0.2}
        rates, sizes = [], []
        for bursts in (True, False):
            bought = {"provisioned": "model_units", "burst_scaling": bursts}
            with workspace(monkeypatch, "demo", scaling=scaling, **bought):
                run = pacemark.run(
                    TARGET, concurrency=64, duration=4.0, out=tmp_path, **(QUICK | {"output_tokens": 32})
                )
            (level,) = run.levels
            assert ("endpoint_may_burst" in {r.code for r in level.verdict.reasons}) == bursts
            rates.append(level.output_tokens_per_s.value or 0.0)
            timeline = run.summary.timeline
            assert isinstance(timeline, Timeline)
            sizes.append(max(seen.capacity or 0 for seen in timeline.endpoint))
        assert sizes == [3, 1]
        assert rates[0] > 1.3 * rates[1]
        # Of 64 in parallel half wait for a place on the one replica, and the endpoint says for how long.
        assert isinstance(timeline, Timeline)
        assert max(seen.queue_ms or 0 for seen in timeline.endpoint) > 50
        assert "What the endpoint exports, mean ms" in inside("show", run.path, "--detail").stdout

    @pytest.mark.slow(shared=True)
    @pytest.mark.filterwarnings("ignore")
    def test_a_split_is_warned_of_and_taken_apart(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        with workspace(monkeypatch, split={"champion": 70, "challenger": 30}):
            (line,) = [x for x in serving(NAME).endpoint.warnings(16) if "splits" in x]
            run = pacemark.run(TARGET, concurrency=4, duration=2.0, out=tmp_path, **QUICK)
        assert "champion 70%, challenger 30%: the figures are those of the mixture" in line
        served = run.levels[0].served
        assert isinstance(served, list)
        counts = {part.model: part.requests for part in served}
        assert counts["champion"] / sum(counts.values()) == pytest.approx(0.7, abs=0.03)

    def test_spill_over_and_fallback_are_warned_of(self) -> None:
        reserved, shared = {"max_provisioned_throughput": 9500}, {"foundation_model": {"name": "m"}}
        both = endpoint("llm/v1/chat", reserved, shared, ai_gateway={"fallback_config": {"enabled": True}})
        said = " ".join(both.warnings(16))
        assert "spills over to pay per token" in said
        assert "tries a request that fails with the next" in said
        assert "spills" not in " ".join(endpoint("llm/v1/chat", shared).warnings(16))

    def test_the_chunk_that_throughput_is_sold_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with workspace(monkeypatch, max_throughput=9500, throughput_chunk=950):
            described = serving(NAME).endpoint.described()
        assert (described["max_tokens_per_s"], described["throughput_chunk"]) == (9500, 950)


class TestLimits:
    @pytest.mark.parametrize(
        ("model", "limits"),
        [
            ("system.ai.databricks-meta-llama-3-3-70b-instruct", ["1,000,000 input", "100,000 output", "360,000 req"]),
            ("databricks-claude-sonnet-4", ["200,000 input", "20,000 output", "360,000 req"]),
            ("databricks-glm-5-2", ["200,000 input", "20,000 output", "7,200 req"]),
            ("databricks-claude-sonnet-4-5", []),
            ("databricks-gte-large-en", []),
        ],
    )
    def test_pay_per_token_limits_are_those_of_the_model_or_none(self, model: str, limits: list[str]) -> None:
        found = endpoint("llm/v1/chat", {"foundation_model": {"name": model}, "name": model})
        told = found.described()["limits"]
        assert [line[: len(limit)] for line, limit in zip(told, limits, strict=False)] == limits
        assert all("Enterprise tier, as of 2026-" in line for line in told[: len(limits)])
        assert (UNSURE in told) == (not limits)

    def test_queries_per_second_hold_wherever_the_route_is_not_optimised(self) -> None:
        for entity in ({}, {"external_model": {"provider": "openai"}}, {"provisioned_model_units": 1}):
            (line,) = endpoint("", entity).planned([Rate(300.0)], 1.0, 1, 1)
            assert line.startswith("200 requests per second (of a workspace, over all endpoints")
        assert endpoint("", {}, route_optimized=True).limits == ()

    def test_agents_take_less_than_custom_models(self) -> None:
        assert "takes 4 MB" in endpoint("agent/v1/responses").warnings(2_000_000)[-1]
        assert not endpoint("").warnings(2_000_000)


class TestAdvice:
    def test_what_a_failed_first_request_means(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with workspace(monkeypatch):
            found = serving(NAME)
            cases = (
                ("http_403", "Source IP address: 1.2.3.4 is blocked by Databricks IP ACL", "machine's address"),
                ("http_403", "no", "CAN QUERY"),
                ("http_404", "gone", "its model does not answer as chat does"),
                ("http_503", "", "none of its replicas is up"),
                ("http_500", "", None),
            )
            for error, detail, says in cases:
                said = found.advice(error, detail)
                assert says in said if says is not None and said is not None else said is says, detail

    def test_an_endpoint_that_is_not_ready_answers_with_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with workspace(monkeypatch):
            found = serving(NAME)
            unready = {"name": NAME, "state": {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}}
            monkeypatch.setattr(SignOn, "get", lambda self, path: unready)
            for error in ("http_404", "http_503"):
                said = found.advice(error, "")
                assert said == f"{NAME} is not ready, config update in progress: wait until it is ready"

    def test_a_workspace_that_refuses_the_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from databricks.sdk.errors import PermissionDenied

        def refuse(self: SignOn, path: str) -> Any:
            raise PermissionDenied("Source IP address: 1.2.3.4 is blocked by Databricks IP ACL for workspace: 1")

        with workspace(monkeypatch):
            way = signed_on()
            monkeypatch.setattr(SignOn, "get", refuse)
            with pytest.raises(BadInput, match="refuses this machine's address"):
                Serving(way, NAME)
