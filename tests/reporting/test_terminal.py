import contextlib
import io
import re
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pacemark.answers.curve import operating_points
from pacemark.answers.step import Step
from pacemark.pace import Concurrency
from pacemark.reporting import terminal
from pacemark.reporting.answer import search_of
from pacemark.reporting.progress import Status, told
from pacemark.summary import Figure, Find, Level, Probe, Reason, Spent, Summary
from support import samples
from support.samples import known

ALL = ["sweep", "troubled", "single", "open_loop", "found"]


def drawn(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal.table(summary))
    return shown(console)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("name", ALL)
def test_everything_fits_in_80_columns(name: str) -> None:
    summary = getattr(samples, name)()
    for text in (drawn(summary), terminal.ascii_curve(summary), terminal.answer(summary)):
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text


@given(st.lists(samples.any_level, max_size=6))
def test_no_combination_of_figures_raises_or_is_too_wide(levels: list[Level]) -> None:
    summary = Summary(target={}, workload={}, levels=levels, operating_points=operating_points(levels))
    assert terminal.answer(summary)
    for text in (drawn(summary), terminal.ascii_curve(summary)):
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text


def test_the_table_has_the_figures_of_each_level() -> None:
    row = next(x for x in drawn(samples.sweep()).splitlines() if x.strip().startswith("16 "))
    assert row.split() == "16 1,122 1.0% 8.76 48.0 64.8 14.0 14.6 1,826 1,957 0 valid".split()


def test_the_table_shows_errors_verdicts_and_their_reasons() -> None:
    text = " ".join(drawn(samples.troubled()).split())
    assert "191 invalid" in text
    assert "512 invalid" in text
    assert "concurrency 64: The client took 31% of one core per worker" in text
    assert "concurrency 16 to 128: failed: 3 http_429; 180 http_429, 11 timeout; 512 http_503" in text
    assert "2 of 420 answers were shorter than asked for" in text


def test_figures_that_nobody_has_make_no_column() -> None:
    text = drawn(samples.single())
    assert "TTFT" not in text
    assert "Latency" in text


def test_very_long_times_are_in_seconds() -> None:
    slow = samples.level(Concurrency(1), tokens_per_s=3, ttft_ms=(20000, 30000), tpot_ms=None, latency_ms=None)
    text = drawn(Summary(target={}, workload={}, levels=[slow]))
    assert "20.0" in text
    assert "30.0" in text
    assert "20,000" not in text


def test_the_curve_is_ascii_and_marks_each_level() -> None:
    lines = terminal.ascii_curve(samples.sweep()).splitlines()
    plot = "\n".join(lines[1:-3])
    assert all(ord(c) < 128 for line in lines for c in line)
    assert plot.count("o") == 6
    assert plot.count("*") == 1
    assert {"1", "2", "4", "8", "16", "32", "64"} <= set(plot.replace("|", " ").split())


def test_the_curve_has_units_and_doubts() -> None:
    text = terminal.ascii_curve(samples.troubled())
    assert text.startswith("median latency, s\n")
    assert "output tokens/s" in text
    assert text.count("x") == 1
    assert "arrivals, requests/s" in terminal.ascii_curve(samples.open_loop())


def test_more_latency_is_higher_up() -> None:
    lines = terminal.ascii_curve(samples.sweep()).splitlines()
    line_of = {load: next(n for n, line in enumerate(lines) if f" {load}" in f"{line} ") for load in ("64", "32", "16")}
    assert line_of["64"] < line_of["32"] < line_of["16"]


def test_no_curve_without_figures() -> None:
    assert terminal.ascii_curve(Summary(target={}, workload={}, levels=[])).startswith("No curve")


def test_the_answer_recommends_one_load_first() -> None:
    lines = terminal.answer(samples.sweep()).splitlines()
    assert lines[0] == "Recommended (balanced): concurrency 16, 1,122 (1,110 to 1,133) output tokens/s."
    assert sum("Recommended" in line for line in lines) == 1
    assert any("Lowest latency: concurrency 1" in line for line in lines)


def test_points_on_one_load_are_said_once() -> None:
    text = terminal.answer(samples.troubled())
    assert text.startswith("Doubtful (balanced, highest throughput): concurrency 16")
    assert text.count("1,410 (1,396 to") == 1


def test_a_point_on_a_suspect_level_says_so() -> None:
    first = " ".join(terminal.answer(samples.troubled()).split()).partition(". ")[0]
    assert "suspect: Throughput fell by 6% from the first half" in first
    assert "suspect" not in terminal.answer(samples.sweep())


def test_after_a_search_its_result_is_the_answer() -> None:
    text = " ".join(terminal.answer(samples.found()).split())
    assert text.startswith(
        "Recommended (budget search): concurrency 26 (95% interval 24 to 27) is the most that meets "
        "tpot p95 < 20ms, ttft p95 < 200ms; ttft p95 binds."
    )
    assert text.count("Recommended") == 1


def test_a_stored_search_is_told_as_it_was() -> None:
    stored = msgspec.json.decode(msgspec.json.encode(samples.found()), type=Summary)
    assert terminal.answer(stored) == terminal.answer(samples.found())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Figure(26), "Concurrency 26 is the most"),
        (Figure(26, 24), "Concurrency 26 (95% interval 24 up) is the most"),
        (Figure(26, 24, 27), "Concurrency 26 (95% interval 24 to 27) is the most"),
    ],
)
def test_an_interval_may_be_open(answer: Figure, said: str) -> None:
    find = msgspec.structs.replace(known(search_of(samples.found())), answer=answer)
    text = " ".join(terminal.answer(msgspec.structs.replace(samples.found(), find=find)).split())
    assert said.lower() in text.lower()


@pytest.mark.parametrize("status", ["suspect", "invalid"])
def test_a_long_reason_is_whole_and_within_80_columns(status: Literal["suspect", "invalid"]) -> None:
    message = (
        "events hold unequal numbers of tokens, so TPOT is only known to lie between 8.41 and 9.72 ms: let the server "
        "send usage with every event (stream_options.continuous_usage_stats), or give --tokenizer"
    )
    reasons = [Reason("event_tokens_unknown", message)]
    times: dict[str, Any] = {"ttft_ms": (9, 9), "tpot_ms": (5, 6), "latency_ms": (80, 90)}
    level = samples.level(Concurrency(4), tokens_per_s=100, **times, status=status, reasons=reasons)
    text = drawn(Summary(target={}, workload={}, levels=[level]))
    assert max(map(len, text.splitlines())) <= 80
    assert f"concurrency 4: {message}" in " ".join(text.split())


def test_a_search_without_result_recommends_nothing() -> None:
    find = Find("ttft p95 < 1ms", "concurrency", True, None, None, [], Spent(9, 9.0), "TTFT is 40 ms at concurrency 1.")
    summary = samples.sweep()
    lost = Summary(target={}, workload={}, levels=summary.levels, operating_points=summary.operating_points, find=find)
    text = terminal.answer(lost)
    assert text.startswith("Budget search: no concurrency was found that meets ttft p95 < 1ms.")
    assert "TTFT is 40 ms at concurrency 1." in text
    assert "Recommended" not in text
    assert "*" not in terminal.ascii_curve(lost)


def test_without_a_curve_the_answer_says_why() -> None:
    assert "one level makes no curve" in " ".join(terminal.answer(samples.single()).split())
    assert "no level finished" in terminal.answer(Summary(target={}, workload={}, levels=[])).lower()
    bad = samples.level(
        Concurrency(4),
        tokens_per_s=10,
        ttft_ms=None,
        tpot_ms=None,
        latency_ms=None,
        status="invalid",
        reasons=[Reason("client_late", "The client was late.")],
    )
    assert "The client was late." in terminal.answer(Summary(target={}, workload={}, levels=[bad]))


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    level = samples.level(
        Concurrency(4),
        tokens_per_s=10,
        ttft_ms=None,
        tpot_ms=None,
        latency_ms=None,
        status="suspect",
        reasons=[Reason("x", "\x1b[2J[red]gone[/red]\nnext")],
        errors={"\x1b]0;title\x07": 1},
    )
    summary = Summary(target={}, workload={}, levels=[level])
    for text in (drawn(summary), terminal.answer(summary)):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "[red]gone[/red] next" in drawn(summary)


def status(**changes: Any) -> Status:
    now: dict[str, Any] = {
        "level_index": 2,
        "levels": 7,
        "load": Concurrency(16),
        "phase": "measuring",
        "elapsed_s": 12.0,
        "remaining_s": 36.0,
        "tokens_per_s": 1495.0,
        "in_flight": 16,
        "completed": 120,
        "errors": 0,
    }
    return Status(**now | changes)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_level_that_has_ended_leaves_a_row() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with terminal.Progress(console) as progress:
        for level in samples.sweep().levels[:3]:
            progress.update(status(ended=level))
    head, *rows = shown(console).splitlines()
    assert head.split("  ")[0] == "concurrency"
    assert [row.split()[0] for row in rows] == ["1", "2", "4"]
    assert rows[2].split()[:2] == ["4", "414"]
    assert {len(line) for line in (head, *rows)} == {78}


@pytest.mark.parametrize("fails", [False, True])
def test_rows_give_way_to_the_table_that_follows(fails: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
    drawn = ""
    with contextlib.suppress(KeyError), terminal.Progress(console, Clock(), table_follows=True) as progress:
        for level in samples.sweep().levels[:3]:
            progress.update(status(ended=level))
        progress.update(status())
        drawn = shown(console)
        if fails:
            raise KeyError
    assert "[3/7] concurrency 16" in drawn
    assert drawn.count("concurrency    tok/s") == 1
    left = shown(console).rpartition("\x1b[2K")[2]  # after the display was wiped away
    assert [line.split()[0] for line in left.splitlines()[1:]] == (["1", "2", "4"] if fails else [])


@pytest.mark.parametrize(("took_s", "fails", "left"), [(6, False, []), (6, True, ["1", "2"]), (20, False, ["1", "2"])])
def test_in_plain_lines_short_levels_leave_their_rows_to_the_table(took_s: int, fails: bool, left: list[str]) -> None:
    console, clock = Console(file=io.StringIO(), force_terminal=False), Clock()
    with contextlib.suppress(KeyError), terminal.Progress(console, clock, table_follows=True) as progress:
        for level in samples.sweep().levels[:2]:
            clock.now += took_s
            progress.update(status(ended=level))
        if fails:
            raise KeyError
    assert [line.split()[0] for line in shown(console).splitlines()] == (["concurrency", *left] if left else [])


def test_plain_lines_come_where_nothing_else_was_said_for_fifteen_seconds() -> None:
    console, clock = Console(file=io.StringIO(), force_terminal=False), Clock()
    with terminal.Progress(console, clock) as progress:
        for n in range(400):  # a tenth of a second each
            clock.now = n / 10
            progress.update(status(phase="ramp" if n < 10 else "measuring"))
            if n == 200:
                progress.note("a probe")
    lines = shown(console).splitlines()
    assert lines[0] == "[3/7] concurrency 16: measuring, 12 s, 36 s left, 1,495 tok/s, 16 in flight, 120 done, 0 errors"
    assert [line.split(":")[0] for line in lines] == ["[3/7] concurrency 16", "a probe", "[3/7] concurrency 16"]


def test_plain_lines_leave_out_what_is_unknown() -> None:
    console, clock = Console(file=io.StringIO(), force_terminal=False), Clock()
    with terminal.Progress(console, clock) as progress:
        clock.now = 20.0
        progress.update(status(levels=None, remaining_s=None, tokens_per_s=None, errors=1))
        progress.note("concurrency 8: within budget")
        clock.now = 40.0
        progress.update(status(phase="reporting"))
    assert shown(console).splitlines() == [
        "[3] concurrency 16: measuring, 12 s, 16 in flight, 120 done, 1 error",
        "concurrency 8: within budget",
        "writing the report",
    ]


def test_on_a_terminal_the_display_is_live_and_goes_away() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False, color_system=None)
    clock = Clock()
    with terminal.Progress(console, clock) as progress:
        progress.update(status())
        progress.update(status(in_flight=99))  # too soon to be drawn
        clock.now = 0.5
        progress.update(status(completed=140))
        progress.note("level 3 done")
    text = shown(console)
    assert "[3/7] concurrency 16" in text
    assert "36 s left" in text
    assert "140 done" in text
    assert "99 in flight" not in text
    assert "level 3 done" in text
    assert "\x1b[?25h" in text  # the cursor is back


@pytest.mark.parametrize("unicode", [True, False])
def test_the_live_view_draws_how_it_goes_and_where_the_answer_lies(unicode: bool) -> None:
    written = io.TextIOWrapper(io.BytesIO(), "utf-8" if unicode else "latin-1", write_through=True)
    console, clock = Console(file=written, force_terminal=True, width=80, height=24, color_system=None), Clock()
    probe = Probe(Concurrency(8), True, "ttft p95 is 9 ms")
    with terminal.Progress(console, clock) as progress:
        progress.update(told("", Step(probe, 8.0, 33.0, Concurrency(16), "why", Spent(1, 1.0), None)))
        for n in range(100):
            clock.now += 1.0
            progress.update(status(tokens_per_s=float(n), levels=None, remaining_s=None))
    assert isinstance(written.buffer, io.BytesIO)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", written.buffer.getvalue().decode(written.encoding))
    lines = [line for part in text.splitlines() for line in part.split("\r")]
    assert max(map(len, lines)) <= 80
    (spark,) = {line for line in lines if line.endswith(" 99.0 tok/s at most")}
    assert len(spark) == 2 + 48 + len(" 99.0 tok/s at most")
    (bracket,) = {line for line in lines if line.endswith("most between 8 and 33")}
    assert bracket.startswith(f"  8 {'✓' if unicode else 'o'}")
    assert "◆" in bracket if unicode else "*" in bracket


def test_a_note_is_told_at_once_and_leaves_the_plain_lines_alone() -> None:
    console = Console(file=io.StringIO(), width=80)
    with terminal.Progress(console, lambda: 0.0) as progress:
        progress.update(status(phase="measuring"))
        progress.update(status(phase="measuring", note="waiting for a first answer, 12 s so far"))
        progress.update(status(phase="measuring"))
    assert shown(console) == "waiting for a first answer, 12 s so far\n"


def test_progress_goes_to_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Progress() as progress:
        progress.update(status(ended=samples.sweep().levels[0]))
        print("a result")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert "tok/s" in err


def test_a_live_display_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(stderr=True, force_terminal=True, width=80)
    with terminal.Progress(console) as progress:
        progress.update(status())
        print("a result")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert "concurrency 16" in err
