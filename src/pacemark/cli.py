"""The command line: thin words over `pacemark.api`. Results go to standard output, all else to standard error."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer

from pacemark.dialects.dialect import DIALECTS
from pacemark.errors import BadInput, PacemarkError
from pacemark.reporting.ascii import degrade

if TYPE_CHECKING:
    from pacemark.answers.search import Step
    from pacemark.api import Options, Run
    from pacemark.runs.calibration import Point

app = typer.Typer(
    name="pacemark",
    help="Load-test an LLM endpoint: how much throughput it gives within a latency budget, and how sure that is.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_TARGETS = "Base URL (http://host:8000/v1), databricks:ENDPOINT or sim:PRESET."
Where = Annotated[str, typer.Argument(metavar="TARGET", help=_TARGETS)]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a folder of runs for its newest.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Model = Annotated[str, typer.Option(help="Model name; found out where the endpoint serves just one.")]
Api = Annotated[str, typer.Option(metavar="|".join(DIALECTS), help="Which API to speak.")]
InputTokens = Annotated[int, typer.Option(help="Prompt length in tokens.")]
OutputTokens = Annotated[int, typer.Option(help="Answer length in tokens.")]
InputLengths = Annotated[str, typer.Option("--input-tokens", metavar="N,N,...", help="Prompt length in tokens.")]
OutputLengths = Annotated[
    str, typer.Option("--output-tokens", metavar="N,N,...", help="Answer length. Several lengths: a grid of them all.")
]
Mlflow = Annotated[bool, typer.Option("--mlflow", help="Log the run to MLflow, where its own settings say.")]
Duration = Annotated[float, typer.Option(metavar="SECONDS", help="Steady seconds to measure at each level.")]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Ask for streamed answers.")]
WorkersFlag = Annotated[str, typer.Option("--workers", metavar="auto|N", help="Worker processes.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Give a request up after this long.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice; drawn and recorded if not given.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder in which the run folder is made.")]
ApiKeyEnv = Annotated[str, typer.Option(metavar="NAME", help="Environment variable that holds the API key.")]
Header = Annotated[list[str] | None, typer.Option(metavar="K:V", help="Further header; may be given again.")]
CaFile = Annotated[str, typer.Option(metavar="FILE", help="Certificates to trust, as PEM.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not verify the server's certificate.")]
Profile = Annotated[str, typer.Option(metavar="NAME", help="Profile of ~/.databrickscfg, for databricks: targets.")]
TokenizerFile = Annotated[Path | None, typer.Option("--tokenizer", metavar="PATH", help="A tokenizer.json.")]
ExtraBody = Annotated[str, typer.Option(metavar="JSON", help="Further fields of every request body.")]
Fresh = Annotated[bool, typer.Option("--fresh-connections", help="Open a new connection for every request.")]
MaxInFlight = Annotated[int, typer.Option(help="Open loop: never more requests in flight than this (0: no limit).")]
RateFlag = Annotated[float | None, typer.Option(help="Open loop: requests per second.")]
Arrive = Annotated[str, typer.Option("--arrivals", metavar="poisson|constant|gamma", help="Arrival process.")]
Precision = Annotated[str, typer.Option(metavar="5%", help="Measure each level until its intervals are this tight.")]
MaxDuration = Annotated[float, typer.Option(metavar="SECONDS", help="Longest time for a level under --precision.")]
BudgetFlag = Annotated[str, typer.Option("--budget", help="Limits, such as 'ttft p95 < 500ms, tpot p95 < 50ms'.")]
Repeats = Annotated[int, typer.Option(help="Measure every level this many times, in turn.")]
Burstiness = Annotated[float, typer.Option(metavar="CV", help="Coefficient of variation of gamma arrivals.")]


@app.command("run")
def run_command(
    context: typer.Context,
    target: Where,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight at any time.")] = None,
    rate: RateFlag = None,
    arrivals: Arrive = "poisson",
    burstiness: Burstiness = 1.0,
    model: Model = "",
    api: Api = "chat",
    input_tokens: InputTokens = 256,
    output_tokens: OutputTokens = 128,
    duration: Duration = 20.0,
    precision: Precision = "",
    max_duration: MaxDuration = 120.0,
    repeats: Repeats = 1,
    budget: BudgetFlag = "",
    stream: Stream = True,
    workers: WorkersFlag = "auto",
    timeout: Timeout = 600.0,
    seed: Seed = None,
    out: Out = Path("runs"),
    api_key_env: ApiKeyEnv = "",
    header: Header = None,
    ca_file: CaFile = "",
    insecure: Insecure = False,
    profile: Profile = "",
    tokenizer: TokenizerFile = None,
    extra_body: ExtraBody = "",
    fresh_connections: Fresh = False,
    max_in_flight: MaxInFlight = 0,
    mlflow: Mlflow = False,
    json: Json = False,
) -> None:
    """Measure one load level."""
    from pacemark import api as face

    loads = {k: context.params[k] for k in ("concurrency", "rate", "arrivals", "burstiness")}
    with _watched(context.params) as options:
        done = face.run(target, **loads, **options)
    _tell(done, json, mlflow=mlflow)
    _leave(done)


@app.command("sweep")
def sweep_command(
    context: typer.Context,
    target: Where,
    concurrency: Annotated[str, typer.Option(metavar="N,N,...", help="Levels, 1,2,4,8,16,32,64 if not given.")] = "",
    rate: Annotated[str, typer.Option(metavar="R,R,...", help="Open loop: levels in requests per second.")] = "",
    arrivals: Arrive = "poisson",
    burstiness: Burstiness = 1.0,
    model: Model = "",
    api: Api = "chat",
    input_tokens: InputLengths = "256",
    output_tokens: OutputLengths = "128",
    duration: Duration = 20.0,
    precision: Precision = "",
    max_duration: MaxDuration = 120.0,
    repeats: Repeats = 1,
    budget: BudgetFlag = "",
    stream: Stream = True,
    workers: WorkersFlag = "auto",
    timeout: Timeout = 600.0,
    seed: Seed = None,
    out: Out = Path("runs"),
    api_key_env: ApiKeyEnv = "",
    header: Header = None,
    ca_file: CaFile = "",
    insecure: Insecure = False,
    profile: Profile = "",
    tokenizer: TokenizerFile = None,
    extra_body: ExtraBody = "",
    fresh_connections: Fresh = False,
    max_in_flight: MaxInFlight = 0,
    mlflow: Mlflow = False,
    json: Json = False,
) -> None:
    """Measure the throughput-latency curve; over several lengths, what a token costs at one concurrency."""
    from pacemark import api as face

    levels = _numbers("--concurrency", concurrency, int) if concurrency else None
    rates = _numbers("--rate", rate, float) if rate else None
    lengths = {name: _numbers(f"--{name.replace('_', '-')}", context.params[name], int) for name in _LENGTHS}
    with _watched(context.params | lengths) as options:
        process: Any = {"arrivals": arrivals, "burstiness": burstiness}
        done = face.sweep(target, concurrency=levels, rate=rates, **process, **options)
    _tell(done, json, mlflow=mlflow)
    _leave(done)


@app.command("check")
def check_command(
    context: typer.Context,
    target: Where,
    model: Model = "",
    api: Api = "chat",
    input_tokens: InputTokens = 256,
    output_tokens: OutputTokens = 16,
    stream: Stream = True,
    timeout: Timeout = 60.0,
    api_key_env: ApiKeyEnv = "",
    header: Header = None,
    ca_file: CaFile = "",
    insecure: Insecure = False,
    profile: Profile = "",
    json: Json = False,
) -> None:
    """Tell what an endpoint is and what it can report."""
    from pacemark import api as face

    found = face.check(target, **_options(context.params))
    if json:
        _print_json(found)
        return
    for name, value in found.items():
        for row, text in value.items() if isinstance(value, dict) else [(name, value)]:
            for n, line in enumerate(text if isinstance(text, list) else [text]):
                _row("" if n else row, line)


@app.command("demo")
def demo_command(
    context: typer.Context,
    duration: Duration = 4.0,
    out: Out = Path("runs"),
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Sweep the embedded endpoint, in under a minute."""
    from pacemark import api as face

    with _watched(context.params) as options:
        done = face.demo(**options)
    _tell(done, json)
    _leave(done)


@app.command("show")
def show_command(
    run: RunPath = Path("runs"),
    detail: Annotated[bool, typer.Option("--detail", help="Everything that is known of each level.")] = False,
    json: Json = False,
) -> None:
    """Print the figures of a stored run."""
    from pacemark import api as face

    shown = face.show(run)
    _tell(shown, json)
    if detail and not json:
        from rich.console import Console

        from pacemark.reporting.details import details

        console = Console(width=None if sys.stdout.isatty() else 80)
        for level in shown.levels:
            console.print(details(level))


@app.command("report")
def report_command(
    run: RunPath = Path("runs"), budget: BudgetFlag = "", mlflow: Mlflow = False, json: Json = False
) -> None:
    """Compute summary and report anew from a stored run, for another --budget if you like."""
    from pacemark import api as face

    _tell(face.report(run, budget=budget), json, mlflow=mlflow)


@app.command("export")
def export_command(
    run: RunPath = Path("runs"),
    format: Annotated[str, typer.Option("--format", metavar="csv|parquet", help="File format.")] = "csv",
    output: Annotated[Path | None, typer.Option(help="File to write; in the run folder if not given.")] = None,
) -> None:
    """Write a run's requests as CSV or Parquet."""
    from pacemark.runs.export import export

    typer.echo(export(run, format, output))


@app.command("find")
def find_command(
    context: typer.Context,
    budget: BudgetFlag,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As for run; none with --from.")] = "",
    from_run: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Answer from a stored run; nothing is sent.")
    ] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Try the answer in the open loop, in bursts too.")] = False,
    rate: Annotated[bool, typer.Option("--rate", help="Find the open-loop rate instead of the concurrency.")] = False,
    arrivals: Arrive = "poisson",
    burstiness: Burstiness = 1.0,
    within: Annotated[str, typer.Option(metavar="5%", help="How narrow the answer's interval should be.")] = "5%",
    most: Annotated[float, typer.Option(help="The largest load to try.")] = 4096,
    max_duration: Annotated[float, typer.Option(metavar="SECONDS", help="Longest time for the whole search.")] = 900,
    max_requests: Annotated[int | None, typer.Option(help="Most requests to spend.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to spend, input and output.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Most money to spend, at the price given.")] = None,
    price_per_hour: Annotated[float | None, typer.Option(help="What the endpoint costs per hour.")] = None,
    price_per_million: Annotated[float | None, typer.Option(help="What a million tokens cost, in and out.")] = None,
    model: Model = "",
    api: Api = "chat",
    input_tokens: InputTokens = 256,
    output_tokens: OutputTokens = 128,
    stream: Stream = True,
    workers: WorkersFlag = "auto",
    timeout: Timeout = 600.0,
    seed: Seed = None,
    out: Out = Path("runs"),
    api_key_env: ApiKeyEnv = "",
    header: Header = None,
    ca_file: CaFile = "",
    insecure: Insecure = False,
    profile: Profile = "",
    tokenizer: TokenizerFile = None,
    extra_body: ExtraBody = "",
    mlflow: Mlflow = False,
    json: Json = False,
) -> None:
    """Find the most load that meets a latency budget."""
    from pacemark import api as face
    from pacemark.answers.search import Allowance

    spend = {"max_duration", "max_requests", "max_tokens", "max_cost", "price_per_hour", "price_per_million"}
    for name in spend | {"most"}:
        value = context.params[name]
        if value is not None and not 0 < value < float("inf"):
            raise BadInput(f"--{name.replace('_', '-')} {value}: must be a number above 0")
    if max_cost is not None and price_per_hour is None and price_per_million is None:
        raise BadInput("--max-cost needs a price: --price-per-hour or --price-per-million")
    allowance = Allowance(max_duration, max_requests, max_tokens, max_cost, price_per_hour, price_per_million)
    search: Any = {"rate": rate, "arrivals": arrivals, "burstiness": burstiness, "most": most}
    search |= {"from_run": from_run, "confirm": confirm}
    share = face.share("--within", within) or 0.05
    own = spend | set(search) | {"budget", "within"}
    with _watched({k: v for k, v in context.params.items() if k not in own}) as options:
        options["budget"] = budget
        done = face.find(target, within=share, allowance=allowance, tell=_probe, **search, **options)
    _tell(done, json, mlflow=mlflow, written=from_run is None)
    _leave(done)


@app.command("plan")
def plan_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run of one replica: a sweep or a search.")],
    demand: Annotated[str, typer.Option(help="Such as '40 requests/s' or '30000 output tokens/s'.")],
    budget: BudgetFlag = "",
    burstiness: Annotated[float, typer.Option(metavar="CV", help="How uneven arrivals are; 1 is Poisson.")] = 1.0,
    price_per_hour: Annotated[float | None, typer.Option(help="What one replica costs per hour.")] = None,
    provisioned: Annotated[str, typer.Option(help="What was measured, such as '50 model units'.")] = "",
    json: Json = False,
) -> None:
    """How many replicas a demand needs within a budget, and what they cost."""
    from pacemark import api as face

    found = face.plan(
        run, demand=demand, budget=budget, burstiness=burstiness, price_per_hour=price_per_hour, provisioned=provisioned
    )
    if json:
        _print_json(found)
    else:
        from rich.console import Console

        from pacemark.reporting.plan import planned

        Console(width=None if sys.stdout.isatty() else 80).print(planned(found), highlight=False)


@app.command("compare")
def compare_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="Run to compare against.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Run to compare.")],
    fail_if: Annotated[list[str] | None, typer.Option(metavar="CONDITION", help="Such as 'ttft p95 > +5%'.")] = None,
    even_if_different: Annotated[
        bool, typer.Option("--even-if-different", help="Judge runs of other lengths, API or streaming too.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare two stored runs, level by level; exit code 1 where a --fail-if condition surely holds."""
    from pacemark import api as face
    from pacemark.answers.comparison import refuse_if_other, violated

    found = face.compare(a, b)
    if fail_if and not even_if_different:
        refuse_if_other(found)
    for line in [*(f"they differ in {d}" for d in found.differences), *(f"left out: {x}" for x in found.left_out)]:
        typer.echo(line, err=True)
    held = [line for condition in fail_if or [] for line in violated(found, condition)]
    if json:
        _print_json(found)
    else:
        from rich.console import Console

        from pacemark.reporting import terminal

        Console(width=None if sys.stdout.isatty() else 80).print(terminal.comparison(found))
    if held:
        raise _Failed("; ".join(held))


@app.command("calibrate")
def calibrate_command(
    streams: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of streams to try, rising.")] = "",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    json: Json = False,
) -> None:
    """How many streams this machine can measure honestly, plain and over TLS."""
    from pacemark.runs import calibration as room

    counts = _numbers("--streams", streams, int) if streams else room.STREAMS
    if not json:
        typer.echo("streams  TLS  TTFT p99 error  ITL p99 error  tokens/s error  endpoint late  honest")
    found = room.calibrate(counts, workers=workers, tell=(lambda point: None) if json else _point)
    path = room.remember(found)
    if json:
        _print_json(found)
    else:
        typer.echo(f"this machine measures up to {found.plain} plain and {found.tls} TLS streams within the limits")
        typer.echo(f"remembered in {path}")


@app.command("serve")
def serve_command(
    preset: Annotated[str, typer.Option(help="Which model and machine to imitate.")] = "demo",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.")] = 8000,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change the preset.")] = None,
    faults: Annotated[str, typer.Option(metavar="FILE", help="Faults by rule, as TOML.")] = "",
    databricks: Annotated[str, typer.Option(metavar="ENDPOINT", help="Be a workspace with this endpoint too.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="With a certificate made for the occasion.")] = False,
    certfile: Annotated[str, typer.Option(metavar="FILE", help="Certificate to serve with.")] = "",
    keyfile: Annotated[str, typer.Option(metavar="FILE", help="The certificate's key.")] = "",
    api_key_env: Annotated[str, typer.Option(metavar="NAME", help="Variable with the key clients must send.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse fields that OpenAI does not know.")] = False,
) -> None:
    """Run the embedded endpoint on its own."""
    from pacemark import api as face

    changes = dict(pair.partition("=")[::2] for pair in change or [])
    face.serve(
        preset, host=host, port=port, change=changes, faults=faults, databricks=databricks, seed=seed, tls=tls,
        certfile=certfile, keyfile=keyfile, api_key_env=api_key_env, strict=strict,
    )  # fmt: skip


# typer does not export the base of its usage errors.
_UsageError: Any = typer.BadParameter.__mro__[2]

# --- from flags to options, and from results to the screen


class _Stopped(PacemarkError):
    """Ctrl-C ended a run early."""

    exit_code = 130


class _Failed(PacemarkError):
    """A condition that was to fail the command holds."""

    exit_code = 1


_LENGTHS = ("input_tokens", "output_tokens")
_LOADS = {"target", "concurrency", "rate", "arrivals", "burstiness", "mlflow", "json"}


def _options(params: dict[str, Any]) -> Options:
    options = {k: v for k, v in params.items() if k not in _LOADS and v is not None}
    if "header" in params:
        options["headers"] = options.pop("header", [])
    if text := options.pop("extra_body", ""):
        try:
            options["extra_body"] = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BadInput(f"--extra-body is not a JSON object: {error}") from None
    if options.get("insecure"):
        typer.echo("warning: --insecure: the server's certificate is not verified", err=True)
    return cast("Options", options)


@contextlib.contextmanager
def _watched(params: dict[str, Any]) -> Iterator[Options]:
    """Options with the live display attached for as long as the block runs."""
    options = _options(params)
    if params.get("mlflow"):
        from pacemark.integrations.mlflow import require

        require()
    from pacemark.reporting.terminal import Progress

    with Progress() as progress:
        options["observe"] = progress.update
        options["command"] = ["pacemark", *sys.argv[1:]]
        yield options


def _probe(step: Step) -> None:
    """A line for each level that a search has measured, and what it means to do next."""
    if step.probe is not None:
        verdict = {True: "within", False: "beyond", None: "close to"}[step.probe.within]
        typer.echo(f"{step.probe.load}: {verdict} the budget: {step.probe.why}", err=True)
    low, high = ("?" if x is None else f"{x:.4g}" for x in (step.low, step.high))
    if step.next is not None:
        typer.echo(f"  between {low} and {high}; next {step.next}: {step.why}", err=True)


def _row(name: str, value: Any) -> None:
    """A name and its value, wrapped where the terminal ends."""
    shown = "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    before = f"{name.replace('_', ' '):20} "
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
    typer.echo(textwrap.fill(before + shown, width, subsequent_indent=" " * 21, break_long_words=False))


def _point(point: Point) -> None:
    """A row of the calibration."""
    typer.echo(
        f"{point.streams:7}  {'yes' if point.tls else 'no':>3}  {point.ttft_p99_error_ms:11.2f} ms"
        f"  {point.itl_p99_error_ms:10.2f} ms  {point.throughput_error:+14.2%}  {point.server_late_p99_ms:10.2f} ms"
        f"  {'yes' if point.honest else 'no'}"
    )


def _tell(run: Run, json: bool, *, mlflow: bool = False, written: bool = True) -> None:
    if json:
        _print_json(run.summary)
    else:
        from rich.console import Console

        from pacemark.reporting import terminal

        console = Console(width=None if sys.stdout.isatty() else 80)
        console.print(terminal.table(run.summary))
        if len(run.levels) > 1 and run.levels[0].asked is None:
            typer.echo(terminal.ascii_curve(run.summary))
        typer.echo(terminal.answer(run.summary))
        where = f"report: {run.path / 'report.html'}" if written else f"from {run.path}; nothing was sent or written"
        typer.echo(where)
    if mlflow:
        from pacemark.integrations.mlflow import log

        typer.echo(f"MLflow run: {log(run.summary, run.path)}", err=True)


def _leave(done: Run) -> None:
    """A run that was stopped has told what it has; its exit code says that it is not whole."""
    if done.interrupted:
        raise _Stopped(f"stopped; what had finished is in {done.path}")


def _print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _numbers(flag: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"{flag} {text!r}: give numbers separated by commas, for example 1,2,4,8") from None


def main() -> None:
    """Entry point. Every error becomes one line on standard error and an exit code."""
    degrade(sys.stdout, sys.stderr)
    warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
    try:
        words = sys.argv[1:] or ["--help"]
        code = typer.main.get_command(app).main(words, prog_name="pacemark", standalone_mode=False)
        if code == 130:  # typer's way to say that Ctrl-C came
            _fail("stopped", code)
    except _UsageError as error:
        code = _fail(error.format_message(), 2)
    except PacemarkError as error:
        code = _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("stopped", 130)
    except BrokenPipeError:
        sys.stdout = None
        code = 0
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"pacemark: {line}\n")
    return code


if __name__ == "__main__":
    main()
