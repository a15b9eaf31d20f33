"""The command line: thin words over `pacemark.api`. Results go to standard output, all else to standard error."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from pacemark import beside, showing
from pacemark.commands.compare import compare_command
from pacemark.commands.versus import versus_command
from pacemark.commands.watch import watch_command
from pacemark.ending import failed, flushed, heeding_signals, note, open_standard_streams, reason, storing
from pacemark.errors import BadInput, PacemarkError, Stopped
from pacemark.flags import (
    ACCESS,
    LEVELS,
    PLACE,
    PROCESS,
    READING,
    RUNNING,
    SEARCH,
    SERVING,
    STORED,
    flags,
    numbers,
    options_of,
    readable,
    refuse_idle,
    refuse_unheeded,
    several,
)
from pacemark.machine import make_room, most_streams
from pacemark.version import __version__

app = typer.Typer(
    name="pacemark",
    help="Load-test an LLM endpoint: how much throughput it gives within a latency budget, and how sure that is.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pacemark {__version__}")
        raise typer.Exit


@app.callback()
def versioned(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Load-test an LLM endpoint: how much throughput it gives within a latency budget, and how sure that is."""


_TARGETS = "Base URL (http://host:8000/v1), databricks:ENDPOINT or sim:PRESET."
Where = Annotated[str, typer.Argument(metavar="TARGET", help=_TARGETS)]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a folder of runs for its newest.")]
InputTokens = Annotated[str, typer.Option("--input-tokens", metavar="N,N,...|LENGTHS", help="Prompt length.")]
OutputLengths = Annotated[
    str, typer.Option("--output-tokens", metavar="N,N,...|LENGTHS", help="Answer length. Several: a grid of them.")
]
Whole = Annotated[str, typer.Option(metavar="TIME", help="Longest time for the whole search, not for a level.")]
_ONE_OR_MORE = "Levels, 1,2,4,8,16,32,64 if not given."


@app.command("run")
@flags(PROCESS, LEVELS, RUNNING)
def run_command(
    context: typer.Context,
    target: Where,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight at any time.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: requests per second, which arrive by themselves.")
    ] = None,
    **given: Any,
) -> None:
    """Measure one load level."""
    make_room(target, [concurrency or 0], [rate or 0.0], given)
    loads = {"concurrency": concurrency, "rate": rate} | _process(given)
    with showing.watched(context, given) as options:
        from pacemark import api as face

        done = face.run(target, **loads, **options)
    showing.finished(done, given)


@app.command("sweep")
@flags(PROCESS, LEVELS, RUNNING)
def sweep_command(
    context: typer.Context,
    target: Where,
    concurrency: Annotated[str, typer.Option(metavar="N,N,...", help=_ONE_OR_MORE)] = "",
    rate: Annotated[str, typer.Option(metavar="R,R,...", help="Open loop: levels in requests per second.")] = "",
    input_tokens: InputTokens = "256",
    output_tokens: OutputLengths = "128",
    **given: Any,
) -> None:
    """Measure the throughput-latency curve. Over several lengths: what a token costs, at one concurrency."""
    levels = numbers("--concurrency", concurrency, int) if concurrency else None
    rates = numbers("--rate", rate, float) if rate else None
    given["input_tokens"] = several("--input-tokens", input_tokens)
    given["output_tokens"] = several("--output-tokens", output_tokens)
    make_room(target, levels or [0], rates or [0.0], given)
    with showing.watched(context, given) as options:
        from pacemark import api as face

        done = face.sweep(target, concurrency=levels, rate=rates, **_process(given), **options)
    showing.finished(done, given)


@app.command("check")
@flags(PLACE, ACCESS, "json", output_tokens="16", timeout="60s")
def check_command(target: Where, **given: Any) -> None:
    """Tell what an endpoint is and what it can report."""
    from pacemark import api as face

    found = face.check(target, **options_of(given))
    if given["json"]:
        showing.print_json(found)
    else:
        showing.checked(found)


@app.command("data")
@flags(READING, "days table json")
def data_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Requests or a trace; or databricks:ENDPOINT.")],
    **given: Any,
) -> None:
    """Tell what a file of requests or a trace holds. Or by which SQL Databricks gives one; nothing is sent."""
    showing.datafile(file, **given)


@app.command("demo")
@flags("duration out seed label json", duration="4s")
def demo_command(context: typer.Context, **given: Any) -> None:
    """Sweep the embedded endpoint, in under a minute."""
    with showing.watched(context, given) as options:
        from pacemark import api as face

        done = face.demo(**options)
    showing.finished(done, given, curve=False)


@app.command("show")
@flags("json")
def show_command(
    run: RunPath = Path("runs"),
    detail: Annotated[bool, typer.Option("--detail", help="Everything that is known of each level.")] = False,
    **given: Any,
) -> None:
    """Print the figures of a stored run."""
    from pacemark import api as face

    shown = face.show(run)
    showing.tell(shown, given["json"])
    if detail and not given["json"]:
        from pacemark.reporting.details import everything

        showing.console().print(everything(shown.summary))


@app.command("list")
@flags("json")
def list_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of runs.")] = Path("runs"),
    html: Annotated[
        bool, typer.Option("--html", help="Write index.html there: the newest answers, and trends.")
    ] = False,
    **given: Any,
) -> None:
    """List the stored runs of a folder. The newest is the last; of each it tells when, what, and the answer."""
    from pacemark.runs.listing import stored_runs

    if html:
        from pacemark import api as face

        return typer.echo(f"page: {face.index(folder)}")

    found = stored_runs(folder)
    if given["json"]:
        showing.print_json(found)
    else:
        showing.listed(found)


@app.command("resume")
@flags("header wait no_fail_budget mlflow json")
def resume_command(
    context: typer.Context,
    run: RunPath = Path("runs"),
    target: Annotated[str, typer.Option(metavar="URL", help="Its URL, where that held a secret.")] = "",
    **given: Any,
) -> None:
    """Go on with a run that was cut off: measure what is left of it, into its own folder."""
    with showing.watched(context, given | {"out": run}) as options:
        from pacemark import api as face

        done = face.resume(run, target=target, tell=showing.searching(options), **showing.given_again(options))
    showing.finished(done, given | {"budget": done.summary.run["settings"].get("budget")})


@app.command("report")
@flags("budget no_fail_budget join mlflow json")
def report_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="Run folder, or a folder of runs for its newest.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Of several runs: the page to write.")] = Path("together.html"),
    **given: Any,
) -> None:
    """Compute the summary and report of a stored run anew. For another --budget, if you like; several runs become one
    page, with what differs from the first."""
    from pacemark import api as face

    if runs and len(runs) > 1:
        if given["budget"] or given["join"] or given["mlflow"] or given["json"]:
            raise BadInput("--budget, --join, --mlflow and --json are of one run: give one, or compare two")
        return typer.echo(f"page: {face.together(runs, output=output)}")
    run = runs[0] if runs else Path("runs")
    with storing(str(run)):
        done = face.report(run, budget=given["budget"])
    showing.tell(done, given["json"], mlflow=given["mlflow"], join=given["join"])
    showing.refuse_unmet(done, given)


@app.command("export")
def export_command(
    run: RunPath = Path("runs"),
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="csv, parquet, openmetrics, junit, markdown, guidellm or aiperf."
        ),
    ] = "csv",
    rows: Annotated[
        str, typer.Option(metavar="requests|levels", help="Of csv and parquet: what is a row.")
    ] = "requests",
    output: Annotated[Path | None, typer.Option(help="File to write; in the run folder if not given.")] = None,
) -> None:
    """Write a run for other tools. Requests or levels as a table, or in the form of other tools."""
    from pacemark.runs.export import export

    typer.echo(export(run, format, output, rows))


@app.command("find")
@flags(PROCESS, SEARCH, "no_fail_budget", RUNNING)
def find_command(
    context: typer.Context,
    budget: Annotated[str, typer.Option("--budget", help="Limits, such as 'ttft p95 < 500ms, tpot p95 < 50ms'.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As for run; none with --from.")] = "",
    from_run: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Answer from a stored run; nothing is sent.")
    ] = None,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm", help="Try the answer in the open loop, where requests arrive by themselves, in bursts too."
        ),
    ] = False,
    rate: Annotated[bool, typer.Option("--rate", help="Find the open-loop rate instead of the concurrency.")] = False,
    max_duration: Whole = "900s",
    **given: Any,
) -> None:
    """Find the most load that meets a latency budget."""
    from pacemark import api as face
    from pacemark.answers.allowance import Allowance
    from pacemark.scenario import IDLE
    from pacemark.values import lasting, positive

    if from_run is not None:
        refuse_unheeded(context, STORED, IDLE)
    allowance = None if from_run else Allowance(lasting("--max-duration", max_duration))
    most, within = positive("--most", given["most"]), given["within"]
    if from_run is None and not rate and (room := most_streams(int(min(most, 1e9)))) < most:
        note(f"warning: this machine can hold a concurrency of {room}; no more than that is tried (ulimit -n)")
        most = room
    search: Any = {"rate": rate, "most": most, "from_run": from_run, "confirm": confirm} | _process(given)
    search |= {"within": face.share("--within", within) or 0.05, "allowance": allowance}
    with showing.watched(context, given) as options:
        options = {"budget": budget} if from_run else {**options, "budget": budget}
        done = face.find(target, tell=showing.searching(options), **search, **options)
    showing.finished(done, given | {"budget": budget}, written=from_run is None)


@app.command("plan")
@flags("price_per_hour budget json")
def plan_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run of one replica: a sweep or a search.")],
    demand: Annotated[str, typer.Option(help="'40 requests/s', '30 to 50 requests/s', '30000 output tokens/s'.")],
    burstiness: Annotated[float, typer.Option(metavar="CV", help="How uneven arrivals are; 1 is Poisson.")] = 1.0,
    provisioned: Annotated[str, typer.Option(help="What was measured, such as '50 model units'.")] = "",
    **given: Any,
) -> None:
    """How many replicas a demand needs. Within a budget, and what they cost."""
    from pacemark import api as face

    found = face.plan(
        run, demand=demand, budget=given["budget"], burstiness=burstiness, price_per_hour=given["price_per_hour"],
        provisioned=provisioned,
    )  # fmt: skip
    if given["json"]:
        showing.print_json(found)
    else:
        from pacemark.reporting.plan import planned

        showing.console().print(planned(found), highlight=False, crop=False)


app.command("compare")(compare_command)
app.command("versus")(versus_command)
app.command("watch")(watch_command)


@app.command("calibrate")
@flags("json")
def calibrate_command(
    streams: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of streams to try, rising.")] = "",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    **given: Any,
) -> None:
    """How much load this machine can measure honestly. Plain and over TLS; it takes some minutes."""
    from pacemark.runs import calibration as room

    counts = numbers("--streams", streams, int) if streams else room.STREAMS
    if given["json"]:
        found = room.calibrate(counts, workers=workers)
        room.remember(found)
        showing.print_json(found)
    else:
        typer.echo(showing.POINTS)
        found = room.calibrate(counts, workers=workers, tell=showing.point)
        typer.echo(f"this machine measures up to {found.plain} plain and {found.tls} TLS streams within the limits")
        typer.echo(f"remembered in {room.remember(found)}")


@app.command("serve")
@flags(SERVING)
def serve_command(
    change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change the preset.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    api_key_env: Annotated[str, typer.Option(metavar="NAME", help="Variable with the key clients must send.")] = "",
    **given: Any,
) -> None:
    """Run the embedded endpoint on its own."""
    from pacemark import api as face

    changes = dict(pair.partition("=")[::2] for pair in change or [])
    face.serve(change=changes, seed=seed, api_key_env=api_key_env, **given)


# --- from flags to options, and from results to the screen


def _process(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given.pop(name) for name in PROCESS.split()}


def main(words: Sequence[str] | None = None) -> None:
    """Entry point; `words` instead of the process's own. Every error becomes one line on standard error and an exit
    code."""
    os.environ |= {**beside.ONE_THREAD, **os.environ}
    open_standard_streams()
    warnings.showwarning = lambda message, *_: note(f"warning: {message}")
    with heeding_signals() as stop:
        try:
            code = _called(list(sys.argv[1:] if words is None else words))
            if code == 130:  # typer's way to say that Ctrl-C came
                code = failed("stopped", stop.code)
        except Stopped as error:
            code = failed(str(error), stop.code)
        except TyperException as error:
            code = failed(_in_words(error), 2)
        except PacemarkError as error:
            code = failed(str(error), error.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            code = failed("stopped", stop.code)
        except BrokenPipeError:
            code = 0
        except OSError as error:
            code = failed(reason(error), 3)
        if (lost := flushed()) and code == 0:
            code = failed(lost, 3)
    if words is None and "vl_convert" in sys.modules:
        # The threads of its JavaScript engine have been seen to keep the interpreter from ending.
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def _in_words(error: TyperException) -> str:
    """What is wrong with the command line; a word that is missing, or no number, is said with what it may be."""
    said, flag = error.format_message(), getattr(error, "param", None)
    if flag and (wrong := getattr(error.__cause__, "errors", None)):  # of pydantic, which reads the numbers
        kind = "a whole number, such as 8" if "integer" in said else "a number, such as 0.5"
        return f"{flag.opts[0]} {wrong()[0]['input']!r}: give {kind}"
    helped = str(getattr(flag, "help", None) or "")
    return f"{said} {helped.removesuffix('  [required]')}" if said.startswith("Missing ") and helped else said


def _called(words: list[str]) -> int:
    if sys.flags.optimize > 1:  # no docstrings: no help, and no charts at the end of a run
        raise BadInput("Python runs without docstrings (PYTHONOPTIMIZE=2 or -OO), which pacemark needs: use 1 at most")
    readable(words)
    command = typer.main.get_command(app)
    if words and (chosen := getattr(command, "commands", {}).get(words[0])):
        refuse_idle(chosen, words[1:])
    return command.main(words or ["--help"], prog_name="pacemark", standalone_mode=False, obj=words) or 0


if __name__ == "__main__":
    main()
