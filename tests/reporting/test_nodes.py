"""A run of several machines, as people see it."""

from __future__ import annotations

import msgspec
from rich.console import Console

from pacemark.nodes import NodeLevel
from pacemark.reporting.details import everything
from pacemark.reporting.html import html
from pacemark.reporting.nodes import facts_of_nodes, nodes_in_words
from pacemark.reporting.terminal import table
from pacemark.summary import Summary
from support.samples import single, sweep

FACTS = [
    {"name": "ip-10-0-0-1", "address": "10.0.0.1", "cpus": 16, "workers": 2, "target": ["10.9.0.1:8000"],
     "pacemark": "0.2.0", "python": "3.12.3", "engine": "ray 2.37.0", "proxy": "proxy.corp:3128"},
    {"name": "ip-10-0-0-2", "address": "10.0.0.2", "cpus": 16, "workers": 1},
]  # fmt: skip


def node(name: str, **changes: object) -> NodeLevel:
    found = NodeLevel(
        name, 320, 0, 751.5, 201.2, 240.9, "kernel", 0.31, 0.62, 0.01, 0.4, 1.2, -3600.5, 0.412, 3.1, "valid"
    )
    return msgspec.structs.replace(found, **changes)


def with_nodes(summary: Summary) -> Summary:
    nodes = [
        node("ip-10-0-0-1"),
        node(
            "ip-10-0-0-2",
            output_tokens_per_s=690.0,
            status="suspect",
            offset_bound_ms=1.91,
            why="a worker was busy 95%",
        ),
    ]
    levels = [msgspec.structs.replace(level, nodes=nodes) for level in summary.levels]
    return msgspec.structs.replace(summary, levels=levels, run=summary.run | {"nodes": FACTS})


def shown(what: object) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(what, highlight=False)
    return capture.get()


def test_a_level_has_a_row_for_each_machine() -> None:
    text = shown(table(with_nodes(single())))
    assert max(len(line) for line in text.splitlines()) <= 80
    (first,) = [line.split() for line in text.splitlines() if line.startswith("ip-10-0-0-1")]
    assert first == ["ip-10-0-0-1", "320", "752", "201", "241", "kernel", "0.310", "62%", "0.412", "valid"]
    assert "2 nodes carried the load, 690 to 752 output tok/s each; their clocks are" in text


def test_a_sweep_says_it_in_a_line() -> None:
    said = nodes_in_words(with_nodes(sweep()))
    assert said.startswith("2 nodes carried the load, 690 to 752 output tok/s each at concurrency")
    assert said.endswith("their clocks are known to 1.91 ms")
    assert "ip-10-0-0-1" not in shown(table(with_nodes(sweep())))
    assert "ip-10-0-0-1" in shown(everything(with_nodes(sweep())))


def test_one_machine_alone_is_not_spoken_of() -> None:
    assert nodes_in_words(sweep()) == ""
    assert facts_of_nodes(sweep()) == []
    assert "nodes carried" not in html(sweep())


def test_the_report_has_the_table_and_what_each_machine_said() -> None:
    page = html(with_nodes(single()))
    assert page.count("ip-10-0-0-2") >= 2
    assert 'title="a worker was busy 95%"' in page
    assert "10.0.0.1, 16 CPUs, 2 workers; asks 10.9.0.1:8000 through proxy.corp:3128" in page
    assert "{&#39;name&#39;" not in page
