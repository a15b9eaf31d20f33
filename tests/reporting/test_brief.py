"""The answer in one sentence, for who did not measure."""

from __future__ import annotations

import msgspec
import pytest

from pacemark.reporting.brief import brief
from pacemark.summary import Summary
from support import samples


def test_a_budget_is_said_as_what_people_get() -> None:
    said = brief(samples.found())
    assert said.startswith("With up to ")
    assert "of the requests get their first token within" in said
    assert said.endswith(" output tokens a second.")


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("ttft p95 < 500ms, tpot p95 < 50ms", "95% of the requests get their first token within 500 ms and get the "
         "others every 50 ms or faster"),
        ("ttft p99 < 2s, tpot mean < 50ms", "99% of the requests get their first token within 2 s, and on average they "
         "get the others every 50 ms or faster"),
        ("90% of requests: latency < 10s, itl < 100ms", "90% of the requests wait no longer than 100 ms "
         "between two and have the whole answer within 10 s"),
    ],
)  # fmt: skip
def test_every_form_of_a_budget_has_words(budget: str, said: str) -> None:
    found = samples.found()
    assert found.find
    assert said in brief(msgspec.structs.replace(found, find=msgspec.structs.replace(found.find, budget=budget)))


def test_no_budget_no_curve_and_nothing_at_all() -> None:
    assert brief(samples.sweep()).startswith("16 requests at a time are the best balance of speed and throughput")
    assert brief(samples.single()).startswith("With ")
    assert brief(samples.open_loop()).count(".") >= 1
    assert "no level finished" in brief(Summary(target={}, workload={}, levels=[])).lower()
