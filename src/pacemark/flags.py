"""The flags that several commands share, in one table; and the way from flags to the options of `pacemark.api`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import msgspec
import typer

from pacemark.dialects.dialect import DIALECTS
from pacemark.ending import note
from pacemark.errors import BadInput

if TYPE_CHECKING:
    from pacemark.api import Options

Decorated = TypeVar("Decorated", bound=Callable[..., None])


def _flag(*names: str, **how: Any) -> Any:
    return typer.Option(*names, **how)


LENGTHS = "N|LENGTHS"
SHARED: dict[str, tuple[Any, Any]] = {
    "arrivals": (Annotated[str, _flag(metavar="poisson|constant|gamma", help="Arrival process.")], "poisson"),
    "burstiness": (Annotated[float, _flag(metavar="CV", help="Coefficient of variation of gamma arrivals.")], 1.0),
    "model": (Annotated[str, _flag(help="Model name; found out where the endpoint serves just one.")], ""),
    "api": (Annotated[str, _flag(metavar="|".join([*DIALECTS, "auto"]), help="Which API to speak.")], "chat"),
    "input_tokens": (
        Annotated[str, _flag(metavar=LENGTHS, help="Prompt length in tokens, or 'lognormal(1000, cv=0.8)' and so on.")],
        "256",
    ),
    "output_tokens": (Annotated[str, _flag(metavar=LENGTHS, help="Answer length in tokens; likewise.")], "128"),
    "language": (
        Annotated[
            str, _flag(metavar="SCRIPT", help="Script of the prompts: latin, cyrillic, arabic, devanagari, cjk.")
        ],
        "latin",
    ),
    "documents": (
        Annotated[int | None, _flag(help="Documents a request, with the APIs rerank and score; 8 if not given.")],
        None,
    ),
    "prefix_tokens": (Annotated[int, _flag(help="Tokens that prompts share, before their own --input-tokens.")], 0),
    "prefix_groups": (Annotated[int, _flag(help="So many different prefixes.")], 1),
    "prefix_zipf": (Annotated[float, _flag(help="How unevenly they are asked for: the k-th as 1/k^Z.")], 0.0),
    "prime": (Annotated[bool, _flag("--prime", help="Send each prefix once before the first level.")], False),
    "turns": (
        Annotated[str, _flag(metavar="N|LENGTHS", help="Turns of a conversation; 1 is none.")],
        "1",
    ),
    "think_time": (Annotated[str, _flag(metavar="TIME", help="Time between an answer and the next turn.")], "0"),
    "history": (
        Annotated[
            str,
            _flag(metavar="served|recorded", help="Whose answers a conversation goes on with; those of --data if any."),
        ],
        "",
    ),
    "data": (Annotated[str, _flag(metavar="FILE", help="Send the rows of this file; see `pacemark data`.")], ""),
    "trace": (
        Annotated[str, _flag(metavar="FILE", help="Send the rows of this trace, each once and at its time.")],
        "",
    ),
    "speed": (
        Annotated[str, _flag(metavar="X", help="So many times as fast as --trace was recorded; 1 if not given.")],
        "",
    ),
    "jitter": (
        Annotated[bool, _flag("--jitter", help="Spread the times of --trace over the step they are rounded to.")],
        False,
    ),
    "once": (
        Annotated[bool, _flag("--once", help="End a level when its rows have run out; else they come again.")],
        False,
    ),
    "sample": (Annotated[str, _flag(metavar="10%", help="Take this share of its sessions.")], ""),
    "concurrency_of": (
        Annotated[str, _flag(metavar="requests|sessions", help="What --concurrency counts in conversations.")],
        "requests",
    ),
    "system_prompt": (Annotated[str, _flag(metavar="FILE", help="Text that opens every request.")], ""),
    "images": (
        Annotated[str, _flag(metavar="2x512x512[:jpeg]", help="Images beside every prompt: drawn, as PNG.")],
        "",
    ),
    "audio": (Annotated[str, _flag(metavar="10s", help="Audio beside every prompt: synthesised, as WAV.")], ""),
    "tools": (Annotated[str, _flag(metavar="FILE", help="Tools that answers may call, as OpenAI's JSON list.")], ""),
    "tool_choice": (
        Annotated[str, _flag(metavar="auto|none|required|NAME", help="Whether they are to; the server's own if not.")],
        "",
    ),
    "response_format": (Annotated[str, _flag(metavar="FILE", help="Ask for JSON of the schema in this file.")], ""),
    "duration": (
        Annotated[str, _flag(metavar="TIME", help="Steady time to measure at each level: 2m; 20s if not given.")],
        "",
    ),
    "requests": (
        Annotated[int | None, _flag(metavar="N", help="End a level after N requests, or after --duration if sooner.")],
        None,
    ),
    "precision": (
        Annotated[str, _flag(metavar="5%", help="Measure each level, for --duration if given, until so sure.")],
        "",
    ),
    "max_duration": (
        Annotated[str, _flag(metavar="TIME", help="Longest time for a level under --precision.")],
        "120s",
    ),
    "repeats": (Annotated[int, _flag(help="Measure every level this many times, in turn.")], 1),
    "budget": (Annotated[str, _flag("--budget", help="Limits, such as 'ttft p95 < 500ms, tpot p95 < 50ms'.")], ""),
    "no_fail_budget": (
        Annotated[bool, _flag("--no-fail-budget", help="Exit with 0 even where no level meets the budget.")],
        False,
    ),
    "metrics": (Annotated[str, _flag(metavar="URL,...|auto", help="Read the server's own metrics too.")], ""),
    "metrics_map": (
        Annotated[str, _flag(metavar="NAME=METRIC,...", help="Metrics of a server that is not known by name.")],
        "",
    ),
    "stream": (Annotated[bool, _flag("--stream/--no-stream", help="Ask for streamed answers.")], True),
    "ignore_eos": (
        Annotated[
            bool | None,
            _flag("--ignore-eos/--no-ignore-eos", help="Ask for answers of full length; where the server can."),
        ],
        None,
    ),
    "workers": (Annotated[str, _flag("--workers", metavar="auto|N", help="Worker processes.")], "auto"),
    "nodes": (
        Annotated[int | None, _flag(metavar="N", help="Load from N machines of a Ray cluster, not from this one.")],
        None,
    ),
    "ray": (Annotated[str, _flag(metavar="auto|ADDRESS", help="That cluster; auto: the one around us.")], "auto"),
    "timeout": (Annotated[str, _flag(metavar="TIME", help="Give a request up after this long.")], "600s"),
    "stall_timeout": (
        Annotated[
            str | None,
            _flag(
                metavar="TIME", help="Give a stream up after this long without an event; from its pace if not given."
            ),
        ],
        None,
    ),
    "wait": (
        Annotated[str, _flag(metavar="120s", help="Wait this long for an endpoint that is not ready.")],
        "",
    ),
    "seed": (Annotated[int | None, _flag(help="Seed of every random choice; drawn and recorded if not given.")], None),
    "out": (Annotated[Path, _flag(metavar="DIR", help="Folder in which the run folder is made.")], Path("runs")),
    "api_key_env": (Annotated[str, _flag(metavar="NAME", help="Environment variable that holds the API key.")], ""),
    "header": (
        Annotated[list[str] | None, _flag(metavar="K:V", help="Further header, or K:@FILE; may be given again.")],
        None,
    ),
    "label": (
        Annotated[list[str] | None, _flag(metavar="K=V", help="Kept with the run: gpu=h100. May be given again.")],
        None,
    ),
    "ca_file": (Annotated[str, _flag(metavar="FILE", help="Certificates to trust, as PEM.")], ""),
    "insecure": (Annotated[bool, _flag("--insecure", help="Do not verify the server's certificate.")], False),
    "profile": (
        Annotated[str, _flag(metavar="NAME", help="Profile of ~/.databrickscfg, for databricks: targets.")],
        "",
    ),
    "tokenizer": (
        Annotated[
            Path | None,
            _flag("--tokenizer", metavar="PATH", help="A tokenizer.json, to count tokens where the server does not."),
        ],
        None,
    ),
    "extra_body": (Annotated[str, _flag(metavar="JSON", help="Further fields of every request body.")], ""),
    "fresh_connections": (
        Annotated[bool, _flag("--fresh-connections", help="Open a new connection for every request.")],
        False,
    ),
    "keep_bodies": (
        Annotated[bool, _flag("--keep-bodies", help="Keep what is sent and answered too, in bodies.db.")],
        False,
    ),
    "max_in_flight": (
        Annotated[int, _flag(help="Open loop: never more requests in flight than this (0: no limit).")],
        0,
    ),
    "within": (
        Annotated[str, _flag(metavar="5%", help="How narrow the answer's interval should be, as a share of it.")],
        "5%",
    ),
    "most": (Annotated[float, _flag(help="The largest load to try.")], 4096),
    "max_error_share": (
        Annotated[str, _flag(metavar="5%", help="Stop the run, with exit code 1, once more of a level fails.")],
        "",
    ),
    "max_requests": (Annotated[int | None, _flag(help="Most requests to spend.")], None),
    "max_tokens": (Annotated[int | None, _flag(help="Most tokens to spend, input and output.")], None),
    "max_cost": (Annotated[float | None, _flag(help="Most money to spend, at the price given.")], None),
    "ask_above": (Annotated[float, _flag(help="Refuse a run that is likely to cost more, without --yes.")], 10.0),
    "yes": (Annotated[bool, _flag("--yes", help="Begin whatever it is likely to cost.")], False),
    "price_per_hour": (Annotated[float | None, _flag(help="What one endpoint, or replica, costs per hour.")], None),
    "price_per_million": (Annotated[float | None, _flag(help="What a million tokens cost, in and out.")], None),
    "key": (Annotated[str, _flag(metavar="KEY", help="Key or column that holds the prompt; found if not given.")], ""),
    "unit": (Annotated[str, _flag(metavar="ns|us|ms|s", help="Unit of a file's times that do not tell it.")], ""),
    "block_tokens": (Annotated[int, _flag(metavar="N", help="Tokens of a recorded block; the format's if 0.")], 0),
    "spans": (Annotated[str, _flag(metavar="root|model", help="Which requests of an agent's traces to take.")], ""),
    "days": (Annotated[int, _flag(metavar="N", help="For databricks:ENDPOINT: how far back.")], 7),
    "table": (Annotated[str, _flag(help="For databricks:ENDPOINT: its inference table, as a.b.c_payload.")], ""),
    "preset": (Annotated[str, _flag(help="Which model and machine to imitate.")], "demo"),
    "host": (Annotated[str, _flag(help="Address to listen on.")], "127.0.0.1"),
    "port": (Annotated[int, _flag(help="Port to listen on; 0 for any that is free.")], 8000),
    "faults": (Annotated[str, _flag(metavar="FILE", help="Faults by rule, as TOML.")], ""),
    "databricks": (Annotated[str, _flag(metavar="ENDPOINT", help="Be a workspace with this endpoint too.")], ""),
    "tls": (Annotated[bool, _flag("--tls", help="With a certificate made for the occasion.")], False),
    "certfile": (Annotated[str, _flag(metavar="FILE", help="Certificate to serve with.")], ""),
    "keyfile": (Annotated[str, _flag(metavar="FILE", help="The certificate's key.")], ""),
    "strict": (Annotated[bool, _flag("--strict", help="Refuse fields that OpenAI does not know.")], False),
    "join": (
        Annotated[Path | None, _flag(metavar="FILE", help="Show the service's usage table (Parquet, CSV) beside it.")],
        None,
    ),
    "mlflow": (Annotated[bool, _flag("--mlflow", help="Log the run to MLflow, where its own settings say.")], False),
    "live": (Annotated[bool, _flag("--live", help="Show the run in the browser meanwhile, on this machine.")], False),
    "json": (Annotated[bool, _flag("--json", help="Print the result as JSON on standard output.")], False),
}
"""A flag's type and words, and its default, by the name of the option of `pacemark.api` that it sets."""

PLACE = "model api input_tokens output_tokens documents language stream ignore_eos timeout wait"
ACCESS = "api_key_env header ca_file insecure profile tokenizer extra_body"
PROCESS = "arrivals burstiness"
TRAFFIC = (
    "prefix_tokens prefix_groups prefix_zipf prime system_prompt turns think_time history concurrency_of "
    "images audio tools tool_choice response_format"
)
READING = "key unit block_tokens spans"
"""How a file of requests or a trace is to be read, where it cannot tell."""
FILE = f"data once trace speed jitter sample {READING}"
SPEND = "max_requests max_tokens max_cost max_error_share price_per_hour price_per_million ask_above yes"
"""When a run is to be stopped, and what it may cost."""
_HOW = "stall_timeout workers nodes ray seed out label keep_bodies fresh_connections max_in_flight"
RUNNING = f"{PLACE} metrics metrics_map {TRAFFIC} {FILE} {_HOW} {ACCESS} {SPEND} live mlflow json"
"""What every command takes that puts load on an endpoint."""
SEARCH = "within most"
SERVING = "preset host port faults databricks tls certfile keyfile strict"
STORED = f"target from_run budget confirm rate {PROCESS} within no_fail_budget mlflow json out max_duration"
"""What a search in a stored run heeds, has its own words for, or needs none of: it writes nothing and is soon over."""
LEVELS = "duration requests precision max_duration repeats budget no_fail_budget"

_NOT_OPTIONS = {"live", "mlflow", "json", "no_fail_budget", *PROCESS.split(), *SEARCH.split()}


def flags(*names: str, **defaults: Any) -> Callable[[Decorated], Decorated]:
    """Give a command these flags of the table, after its own; each arrives as a keyword of its name.

    `defaults` are other defaults than the table's. A name that the command has itself stays as it is there. The
    signature is set on the function itself: a wrapper would hide its own parameters from typer.
    """
    wanted = " ".join(names).split()

    def add(command: Decorated) -> Decorated:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {p.name for p in own}
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name, SHARED[name][1]),
                annotation=SHARED[name][0],
            )
            for name in wanted
            if name not in taken
        ]  # fmt: skip
        whole = signature.replace(parameters=[*own, *added])
        command.__signature__ = whole  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in whole.parameters.values()} | {"return": None}
        return command

    return add


def options_of(given: Mapping[str, Any]) -> Options:
    """The options of `pacemark.api` that these flags set. Raises BadInput."""
    options = {k: v for k, v in given.items() if k not in _NOT_OPTIONS and v is not None}
    if "header" in given:
        options["headers"] = options.pop("header", [])
        _warn_of_secrets(options["headers"])
    if text := options.pop("extra_body", ""):
        try:
            options["extra_body"] = msgspec.json.decode(text, type=dict[str, Any])
        except (ValueError, RecursionError) as error:
            raise BadInput(f"--extra-body is not a JSON object: {error}") from None
    for name in ("wait", "duration"):
        if not options.get(name):
            options.pop(name, None)
    if text := options.pop("speed", ""):
        options["speed"] = numbers("--speed", text, float)
    if "label" in options:
        options["labels"] = options.pop("label")
    if options.get("insecure"):
        note("warning: --insecure: the server's certificate is not verified")
    return cast("Options", options)


def refuse_unheeded(context: typer.Context, heeded: str, why: str) -> None:
    """Raises BadInput for a flag that somebody gave and that is none of those `heeded`."""
    for flag in context.command.params:
        source = context.get_parameter_source(flag.name or "")
        if source is not None and source.name == _GIVEN and flag.name not in heeded.split():
            raise BadInput(f"{flag.opts[0]} {why}")


_GIVEN = "COMMANDLINE"
_SECRET = re.compile(r"\s*([\w-]*(?:auth|key|token|secret)[\w-]*)\s*:\s*[^@\s]", re.IGNORECASE)


def _warn_of_secrets(headers: Sequence[str]) -> None:
    for found in filter(None, map(_SECRET.match, headers)):
        note(f"warning: --header {found[1]}: every user of this machine can read it while this runs; better @FILE")


def readable(words: Sequence[str]) -> None:
    """Raises BadInput for a word that is no text: a run's folder could not say how it was asked for."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{word!a} is not UTF-8: give every word in this terminal's encoding") from None


def refuse_idle(command: Any, words: Sequence[str]) -> None:
    """Raises BadInput where a word for `command`, or a value of a flag, is empty, as a variable is that is not set; and
    where there are two budgets, of which one would not count."""
    takes = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    left, budgets = iter(words), 0
    for word in left:
        if word == "--":
            return
        if not word.strip():
            raise BadInput("an empty word was given: a variable that is not set?")
        name, has_value, value = word.partition("=")
        if name in takes and not takes[name].is_flag:
            value = value if has_value else next(left, "-")
            if not value.strip():
                raise BadInput(f"{name} is empty: give it a value, or leave it out")
            budgets += name == "--budget"
            if budgets > 1:
                raise BadInput("--budget is given twice: say all limits in one, with commas between them")


def several(flag: str, text: str) -> list[int] | str:
    """The lengths of `256,1024`; a distribution of lengths as it is written. Raises BadInput."""
    return numbers(flag, text, int) if re.fullmatch(r"[\d,\s+-]+", text) else text


def numbers(flag: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    """The numbers of `1,2,4`. Raises BadInput."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"{flag} {text!r}: give numbers separated by commas, for example 1,2,4,8") from None
