"""Metrics in Prometheus' text form: labels, buckets without end, exemplars, and lines that are none."""

import math

from pacemark.endpoint.prometheus import Sample, metrics_in, samples_in


def test_labels_values_and_timestamps() -> None:
    text = '# HELP a_total b\n# TYPE a_total counter\na_total{model="m 1",at="x # {y}"} 5 1700000000\nbare 2.5e3\n'
    assert list(samples_in(text)) == [
        Sample("a_total", {"model": "m 1", "at": "x # {y}"}, 5.0),
        Sample("bare", {}, 2500.0),
    ]


def test_the_last_bucket_has_no_bound_and_an_exemplar_is_kept() -> None:
    text = 'ttft_bucket{le="0.5"} 11\nttft_bucket{le="+Inf"} 17 # {trace_id="KOO5"} 9.8 1520879607.789\n'
    first, last = samples_in(text)
    assert (first.labels, first.value, first.exemplar) == ({"le": "0.5"}, 11.0, None)
    assert (last.labels, last.value) == ({"le": "+Inf"}, 17.0)
    assert last.exemplar == ({"trace_id": "KOO5"}, 9.8)


def test_infinite_and_missing_values() -> None:
    values = {s.name: s.value for s in samples_in("up +Inf\ndown -Inf\nodd NaN\n")}
    assert values["up"] == math.inf
    assert values["down"] == -math.inf
    assert math.isnan(values["odd"])
    assert metrics_in("odd NaN\n") == {}


def test_a_line_that_cannot_be_read_costs_no_other() -> None:
    assert metrics_in('good 1\nthis is no sample\nopen{a="b 5\n<html>\ngood{a="c"} 2\n') == {"good": 3.0}


def test_buckets_are_not_summed() -> None:
    assert metrics_in('t_bucket{le="1"} 3\nt_bucket{le="+Inf"} 4\nt_sum 2.5\nt_count 4\n') == {
        "t_sum": 2.5,
        "t_count": 4.0,
    }
