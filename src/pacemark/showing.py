"""What a command shows: its progress on standard error, its result on standard output as a table or as JSON."""

from __future__ import annotations

import contextlib
import json as text_json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from pacemark.ending import note, storing
from pacemark.errors import Failed, RunFailed, Stopped
from pacemark.flags import options_of

if TYPE_CHECKING:
    from rich.console import Console

    from pacemark.answers.step import Step
    from pacemark.api import Options, Run
    from pacemark.runs.calibration import Point
    from pacemark.runs.listing import Listed


def searching(options: Options) -> Callable[[Step], None]:
    """Tells what each level of a search has shown, and what comes next."""
    from pacemark.reporting.progress import told
    from pacemark.reporting.sparks import lies

    def tell(step: Step) -> None:
        observe = options["observe"]
        if step.probe is not None:
            verdict = {True: "within", False: "beyond", None: "close to"}[step.probe.within]
            observe(told(f"  {verdict} the budget: {step.probe.why}"))
        if step.next is not None:
            where = lies(step.low, step.high)
            observe(told(f"  next {step.next}: {step.why}{f'; the most lies {where}' if where else ''}"))

    return tell


def listed(runs: Sequence[Listed]) -> None:
    """Stored runs, each with its answer."""
    for run in runs:
        labels = " ".join(f"{name}={value}" for name, value in run.labels.items())
        typer.echo("  ".join(part for part in (run.started[:16].replace("T", " "), run.run, run.model, labels) if part))
        typer.echo(textwrap.fill(run.answer, 80, initial_indent="    ", subsequent_indent="    "))


POINTS = "streams  TLS  TTFT p99 error  ITL p99 error  tokens/s error  endpoint late  honest"
"""What stands above the rows of the calibration."""


def checked(found: dict[str, Any]) -> None:
    """What `check` has found out, a row each."""
    for name, value in found.items():
        for inner, text in value.items() if isinstance(value, dict) else [(name, value)]:
            lines = text if isinstance(text, list) else [text]
            if lines and all(isinstance(line, str) and " " not in line for line in lines):  # names
                lines = [", ".join(lines)]
            for n, line in enumerate(lines):
                row("" if n else inner, line)


def beside_table(run: Path, file: Path, json: bool) -> None:
    """A stored run beside a table of its service."""
    from pacemark.runs.usage import beside, beside_in_words

    found = beside(run, file)
    if json:
        print_json(found)
    else:
        typer.echo("\n".join(beside_in_words(found)))


def row(name: str, value: Any) -> None:
    """A name and its value, wrapped where the terminal ends; what a server said has no control characters."""
    from pacemark.reporting.words import plain

    shown = "-" if value is None else f"{value:.1f}" if isinstance(value, float) else plain(value)
    before = f"{name.replace('_', ' '):20} "
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
    typer.echo(textwrap.fill(before + shown, width, subsequent_indent=" " * 21, break_long_words=False))


def point(point: Point) -> None:
    """A row of the calibration."""
    typer.echo(
        f"{point.streams:7}  {'yes' if point.tls else 'no':>3}  {point.ttft_p99_error_ms:11.2f} ms"
        f"  {point.itl_p99_error_ms:10.2f} ms  {point.throughput_error:+14.2%}  {point.server_late_p99_ms:10.2f} ms"
        f"  {'yes' if point.honest else 'no'}"
    )


def console() -> Console:
    """Standard output, 80 columns wide where it is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 80)


def tell(
    run: Run, json: bool, *, mlflow: bool = False, written: bool = True, curve: bool = True, join: Path | None = None
) -> None:
    """The figures of a run and where its report is; with `mlflow` it is logged there too, with `join` they stand beside
    those of its service."""
    if join:
        beside_table(run.path, join, json)
    elif json:
        print_json(run.summary)
    else:
        from pacemark.reporting import terminal
        from pacemark.reporting.answer import budget_answer

        if stopped := run.summary.run.get("stopped"):
            typer.echo(terminal.stopped(stopped))

        if len(run.levels) != 1 or budget_answer(run.summary):
            typer.echo(terminal.headline(run.summary))
        console().print(terminal.table(run.summary))
        if curve and len(run.levels) > 1 and run.levels[0].asked is None:
            typer.echo(terminal.ascii_curve(run.summary, height=10))
        typer.echo(terminal.conclusion(run.summary))
        page = run.path / "report.html"
        where = f"report: {page}" if page.exists() else f"run: {run.path}"  # nothing can be drawn on some machines
        typer.echo(where if written else f"from {run.path}; nothing was sent or written")
    if mlflow:
        from pacemark.integrations.mlflow import log

        note(f"MLflow run: {log(run.summary, run.path)}")


def finished(run: Run, given: Mapping[str, Any], *, written: bool = True, curve: bool = True) -> None:
    """Show a run. One that was stopped has told what it has; its exit code says that it is not whole."""
    tell(run, given["json"], mlflow=given.get("mlflow", False), written=written, curve=curve)
    if run.interrupted:
        raise Stopped(f"stopped; what had finished is in {run.path}; to go on: pacemark resume {run.path}")
    if run.levels and all(level.verdict.status == "invalid" for level in run.levels):
        why = run.summary.run.get("stopped") or next(
            (reason.message for level in run.levels for reason in level.verdict.reasons), ""
        )
        raise RunFailed(f"no level can be relied on: {why}; what was measured is in {run.path}")
    refuse_unmet(run, given)


def refuse_unmet(run: Run, given: Mapping[str, Any]) -> None:
    """Raises Failed where a budget was given and no level meets it, and that was not to be let pass."""
    from pacemark.reporting.answer import unmet

    if given.get("budget") and not given["no_fail_budget"] and (line := unmet(run.summary)):
        raise Failed(line)


def given_again(options: Options) -> Any:
    """What a run that is gone on with may be given again, of the options of one that begins."""
    return {name: options[name] for name in ("headers", "wait", "observe") if name in options}


def datafile(file: str, *, days: int, table: str, json: bool, **how: Any) -> None:
    """What a file holds, as Markdown or JSON; for databricks:ENDPOINT the SQL that makes one."""
    from pacemark.answers.datafile import data
    from pacemark.reporting.datafile import export_sql, markdown_of

    if file.startswith("databricks:"):
        typer.echo(export_sql(file.removeprefix("databricks:"), days, table))
    elif json:
        print_json(data(file, **how))
    else:
        typer.echo(markdown_of(data(file, **how), file))


def print_json(value: Any) -> None:
    """As JSON; with escapes where the terminal has no UTF-8."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        text = "".join(c if c.isascii() else text_json.dumps(c)[1:-1] for c in text)
    typer.echo(text)


@contextlib.contextmanager
def watched(context: typer.Context, given: Mapping[str, Any]) -> Iterator[Options]:
    """Options with the live display attached for as long as the block runs."""
    options = options_of(given)
    if given.get("mlflow"):
        from pacemark.integrations.mlflow import require

        require()
    from pacemark.reporting.progress import Progress

    def show(status: Any) -> None:
        with contextlib.suppress(OSError):  # nobody looks any more; that must not end the run
            progress.update(status)
            if live is not None and (url := live.news()):
                progress.note(f"live: {url}")

    with contextlib.ExitStack() as stack:
        stack.enter_context(storing(str(given["out"])))
        live = None
        if given.get("live"):
            from pacemark.runs.live import LiveView

            live = stack.enter_context(LiveView(Path(given["out"])))
        progress = stack.enter_context(Progress(table_follows=not given.get("json")))
        options["observe"] = show
        options["command"] = ["pacemark", *(context.obj or [])]
        yield options
