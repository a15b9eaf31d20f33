"""`pacemark compare`: two runs, or a target against a stored run, and a gate over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacemark import showing
from pacemark.ending import note
from pacemark.errors import BadInput, Failed, Stopped, Undecided
from pacemark.flags import ACCESS, SPEND, flags

if TYPE_CHECKING:
    from pacemark.answers.comparison import Compared, Outcome

__all__ = ["FailIf", "OnUndecided", "ToJunit", "compare_command", "refuse_failed", "refuse_undecided", "write_junit"]

FailIf = Annotated[list[str] | None, typer.Option(metavar="CONDITION", help="Such as 'ttft p95 > +5%'.")]
OnUndecided = Annotated[
    str, typer.Option(metavar="pass|fail", help="What an undecided --fail-if does; exit code 4 if not given.")
]
ToJunit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the gate's conditions as JUnit.")]


@flags("model wait", ACCESS.replace(" tokenizer extra_body", ""), "workers seed out label json", SPEND)
def compare_command(
    context: typer.Context,
    a: Annotated[Path | None, typer.Argument(metavar="A", help="Run to compare against.")] = None,
    b: Annotated[Path | None, typer.Argument(metavar="B", help="Run to compare.")] = None,
    target: Annotated[
        str, typer.Option(metavar="TARGET", help="Instead of A and B: measure this until --fail-if is decided.")
    ] = "",
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="With --target: the run whose lengths and loads are repeated.")
    ] = None,
    max_duration: Annotated[str, typer.Option(metavar="TIME", help="With --target: longest time in all.")] = "600s",
    fail_if: FailIf = None,
    even_if_different: Annotated[
        bool, typer.Option("--even-if-different", help="Judge runs of other lengths, API or streaming too.")
    ] = False,
    undecided: OnUndecided = "",
    everything: Annotated[bool, typer.Option("--all", help="Every figure, not only those that differ.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the result as Markdown.")] = False,
    junit: ToJunit = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write both runs, drawn, as one page.")] = None,
    **given: Any,
) -> None:
    """Compare two runs, level by level. Stored ones, or a target with a stored run; exit code 1 where a --fail-if
    condition surely holds, 4 where that cannot be told."""
    from pacemark import api as face

    refuse_undecided(undecided)
    wanted: Any = {"fail_if": fail_if or [], "baseline": baseline or ""}
    if target:
        wanted |= {"target": target, "max_duration": max_duration}
        with showing.watched(context, given) as options:
            found = face.compare(a or "", b or "", **wanted, **options)
    else:
        found = face.compare(a or "", b or "", **wanted)
    _told_apart(found, given["json"], markdown=markdown, everything=everything, gate=bool(fail_if) > even_if_different)
    runs = " against ".join(side.run for side in (found.b, found.a) if side)
    write_junit(junit, f"compare {runs}".strip(), found.conditions, undecided)
    if html is not None and found.a and found.b:
        note(f"page: {face.together([found.a.run, found.b.run], output=html)}")
    if target and found.b and found.b.ended == "interrupted":
        raise Stopped(f"stopped; what had finished is in {found.b.run}")
    refuse_failed(found.conditions, undecided)


def refuse_undecided(word: str) -> None:
    """Raises BadInput for what --undecided does not know."""
    if word not in ("", "pass", "fail"):
        raise BadInput(f"--undecided {word!r}: say pass or fail")


def write_junit(file: Path | None, name: str, conditions: Sequence[Outcome], undecided: str) -> None:
    """Write what became of a gate's conditions to `file`, where one is given; `name` says what was judged."""
    if file is not None:
        from pacemark.reporting.junit import of_gate

        try:
            file.write_text(of_gate(name, conditions, undecided), encoding="utf-8")
        except OSError as error:
            raise BadInput(f"--junit {file}: cannot be written ({error.strerror})") from None


def _told_apart(found: Compared, json: bool, *, markdown: bool, everything: bool, gate: bool) -> None:
    """Show a comparison. Raises BadInput where a gate would judge runs that did other work."""
    from pacemark.answers.comparison import refuse_if_other

    if gate:
        refuse_if_other(found)
    if found.a and found.b and Path(found.a.run).resolve() == Path(found.b.run).resolve():
        typer.echo("warning: A and B are the same run, so nothing can differ", err=True)
    said = [*(f"they differ in {d}" for d in found.differences), *(f"left out: {x}" for x in found.left_out)]
    for line in [*said, *(f"B had less to do at {x}" for x in found.lost if x not in found.left_out)]:
        typer.echo(line, err=True)
    if json:
        return showing.print_json(found)
    from pacemark.reporting import compared

    if markdown:
        typer.echo(compared.markdown(found, everything=everything))
    else:
        showing.console().print(compared.comparison(found, everything=everything))


def refuse_failed(conditions: Sequence[Outcome], undecided: str) -> None:
    """Raises Failed where a condition of the gate failed, Undecided where none did and one is not decided."""
    lines = {
        status: "; ".join(f"{x.condition}: {x.why}" for x in conditions if x.status == status)
        for status in ("failed", "undecided")
    }
    if lines["failed"]:
        raise Failed(lines["failed"])
    if lines["undecided"] and undecided == "fail":
        raise Failed(f"undecided: {lines['undecided']}")
    if lines["undecided"] and undecided == "pass":
        note(f"undecided, and let pass: {lines['undecided']}")
    elif lines["undecided"]:
        raise Undecided(f"undecided: {lines['undecided']}")
