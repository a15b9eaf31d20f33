"""`pacemark versus`: several targets, measured in turn."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pacemark import showing
from pacemark.commands.compare import FailIf, OnUndecided, ToJunit, refuse_failed, refuse_undecided, write_junit
from pacemark.errors import Stopped
from pacemark.flags import PROCESS, RUNNING, SPEND, flags, numbers
from pacemark.machine import make_room

__all__ = ["versus_command"]

_TARGETS = "2 to 4 of them, each as for run."
_EACH = "Model name; or one for each target, separated by commas."
_NOT_HERE = {*SPEND.split(), "live", "mlflow", "nodes", "ray"}
_KEYS = "Environment variable that holds the API key; or one for each target, separated by commas."


@flags(PROCESS, "requests", *(name for name in RUNNING.split() if name not in _NOT_HERE), "max_error_share")
def versus_command(
    context: typer.Context,
    targets: Annotated[list[str], typer.Argument(metavar="TARGETS", help=_TARGETS)],
    concurrency: Annotated[str, typer.Option(metavar="N,N,...", help="Levels to compare at; 8 if not given.")] = "",
    rate: Annotated[str, typer.Option(metavar="R,R,...", help="Open loop: levels in requests per second.")] = "",
    rounds: Annotated[int, typer.Option(help="So many slices of --duration for each target and load.")] = 10,
    duration: Annotated[str, typer.Option(metavar="TIME", help="Steady time of a slice.")] = "10s",
    prices: Annotated[
        str, typer.Option(metavar="P,P,...", help="What an hour of each costs, to tell what a million tokens do.")
    ] = "",
    fail_if: FailIf = None,
    undecided: OnUndecided = "",
    junit: ToJunit = None,
    model: Annotated[str, typer.Option(metavar="NAME,...", help=_EACH)] = "",
    api_key_env: Annotated[str, typer.Option(metavar="NAME,...", help=_KEYS)] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the result as Markdown.")] = False,
    **given: Any,
) -> None:
    """Tell which of several targets is better. They are measured in turn, in short slices of the same hour, so that
    what drifts meanwhile cancels. A --fail-if condition is one on the others against the first; exit codes as for
    compare."""
    refuse_undecided(undecided)
    given |= {"duration": duration, "model": model, "api_key_env": api_key_env}
    levels = numbers("--concurrency", concurrency, int) if concurrency else None
    rates = numbers("--rate", rate, float) if rate else None
    costs = numbers("--prices", prices, float) if prices else []
    process = {name: given.pop(name) for name in PROCESS.split()}
    for target in targets:
        make_room(target, levels or [0], rates or [0.0], given)
    with showing.watched(context, given) as options:
        from pacemark import api as face

        loads: Any = {"concurrency": levels, "rate": rates} | process
        found = face.versus(targets, rounds=rounds, prices=costs, fail_if=fail_if or [], **loads, **options)
    if given["json"]:
        showing.print_json(found)
    else:
        from pacemark.reporting.versus import contest_markdown, contest_table

        if markdown:
            typer.echo(contest_markdown(found))
        else:
            showing.console().print(contest_table(found))
    first, *others = (one.target for one in found.targets)
    write_junit(junit, f"versus {', '.join(others)} against {first}", found.conditions, undecided)
    if found.interrupted:
        raise Stopped(f"stopped; the rounds that had finished are in {found.folder}")
    refuse_failed(found.conditions, undecided)
