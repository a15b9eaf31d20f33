"""The report: one HTML file that holds all it needs and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import altair as alt
import msgspec
import vl_convert

from pacemark.reporting.charts import curve as charts
from pacemark.reporting.words import answer, client_in_words, ended, errors, load_axis, load_cell, plain, reasons, title
from pacemark.summary import Figure, Level, Spread, Summary
from pacemark.units import number

_SIZES = ((1100, 960, 430), (740, 610, 610), (0, 255, 255))
"""Page widths from which on a size is used, and the plots' widths: of the curve, and of each smaller chart."""


def write_html(summary: Summary, path: str | Path) -> None:
    """Write the report of `summary` to `path`; OSError where that cannot be done."""
    Path(path).write_text(html(summary), encoding="utf-8")


def html(summary: Summary) -> str:
    """The report as one document. All text that came from outside is escaped."""
    name = escape(title(summary))
    run = summary.run
    when = f"<p class=soft>{escape(_when(run['started']))}</p>" if run.get("started") else ""
    banner = ""
    if run.get("interrupted") or run.get("failure"):
        ending = f"failed: {plain(run['failure'])}" if run.get("failure") else "was interrupted."
        banner = f"<p class=banner>This run {escape(ending)} The report holds what had finished.</p>"
    sections = [
        _answer(summary),
        _charts(summary),
        _search(summary),
        _section("Levels", _levels(summary.levels)),
        _section("The client", _client(summary)),
        _section("What was run", _facts(summary)),
        _command(run.get("command")),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        '<link rel=icon href="data:,">\n'
        f"<title>pacemark: {name}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"<header><p class=brand>pacemark</p><h1>{name}</h1>{when}{banner}</header>\n"
        f"<main>\n{body}\n</main>\n"
        f"<footer>{_text(summary.schema)}</footer>\n{_scripts(summary)}\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return escape(plain(value))


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""


def _answer(summary: Summary) -> str:
    cards = []
    for said in answer(summary):
        badge = "<span class=badge>recommended</span>" if said.recommended else ""
        why = f"<p class=soft>{escape(said.why)}</p>" if said.why else ""
        kind = " class=chosen" if said.recommended else ""
        head = escape(said.name[0].upper() + said.name[1:])
        text = escape(said.text[0].upper() + said.text[1:])
        cards.append(f"<article{kind}><h3>{head} {badge}</h3><p class=figure>{text}</p>{why}</article>")
    return f"<section class=answer>{''.join(cards)}</section>"


def _charts(summary: Summary) -> str:
    column = charts.charts(summary)
    places = "".join(f"<div class=chart id=chart{n}></div>" for n in range(len(column.vconcat)))
    svg = vl_convert.vegalite_to_svg(column.to_dict(validate=False), vl_version=_vega_lite())
    return f"<section class=charts>{places}<noscript>{svg}</noscript></section>"


def _scripts(summary: Summary) -> str:
    """The chart library, the charts at each size, and the few lines that draw them."""
    sizes = [
        {"from": page, "specs": [part.to_dict(validate=False) for part in charts.parts(summary, wide, narrow)]}
        for page, wide, narrow in _SIZES
    ]
    data = {"sizes": sizes, "light": charts.theme(), "dark": charts.theme(dark=True)}
    # In a script element only "<" can end it or open a comment, so no text from outside may bring one.
    text = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    return f"<script type=application/json id=data>{text}</script>\n<script type=module>{_code()}</script>"


@cache
def _code() -> str:
    """The chart library with the lines that draw; the same for every report, and slow to make."""
    return vl_convert.javascript_bundle(_DRAW, vl_version=_vega_lite())


def _vega_lite() -> str:
    """The Vega-Lite version that the charts are written for, as vl_convert names it."""
    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], below: Sequence[str] = ()) -> str:
    """A table of cells that are HTML already; `below` is what stands under each row, over its whole width."""
    head = "".join(f"<th>{x}</th>" for x in heads)
    body = ""
    for n, row in enumerate(rows):
        body += "<tr>" + "".join(f"<td>{x}</td>" for x in row) + "</tr>"
        if n < len(below) and below[n]:
            body += f"<tr class=below><td colspan={len(heads)}><div>{below[n]}</div></td></tr>"
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _levels(levels: Sequence[Level]) -> str:
    if not levels:
        return "<p>No level finished.</p>"
    heads = [f"{load_axis(levels)},<br>verdict", "Output<br>tokens/s", "Requests/s"]
    heads += [f"{name}<br>{q}, ms" for name in ("TTFT", "TPOT", "Latency") for q in ("p50", "p95")]
    rows, below = [], []
    for x in levels:
        status = x.verdict.status
        times = [getattr(spread, q) for spread in (x.ttft_ms, x.tpot_ms, x.latency_ms) for q in ("p50", "p95")]
        short = f"<small>{x.requests.short:,} short</small>" if x.requests.short else ""
        rows.append(
            [
                f"<b>{load_cell(x)}</b><small class={status}>{status}</small>",
                *(_figure(figure) for figure in (x.output_tokens_per_s, x.requests_per_s, *times)),
                f"{x.requests.in_window:,}{short}",
                f"{x.requests.failed:,}",
            ]
        )
        said = [f"<li>{escape(reason)}</li>" for reason in reasons(x)]
        said += [f"<li>Ended by {escape(ended(x))}</li>"] if x.ended_by in ("precision", "max_duration") else []
        said += [f"<li>Failed requests: {escape(errors(x))}</li>"] if x.requests.failed else []
        below.append(f"<ul>{''.join(said)}</ul>" if said else "")
    note = "<p class=soft>Under each figure its 95% interval. Requests: those that the figures stand on.</p>"
    return _table([*heads, "Requests", "Errors"], rows, below) + note


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "<span class=soft>-</span>" if figure.low is None else f"&gt; {number(figure.low)}"
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)}<small>{number(figure.low)}&ndash;{number(figure.high)}</small>"


def _client(summary: Summary) -> str:
    levels = summary.levels
    late = any(x.client.lateness_ms is not None for x in levels)
    heads = [load_axis(levels), "Clock", "Lag p50, ms", "p99, ms", "max, ms", "CPU, us/event", "Worker CPU"]
    heads += ["Loop away, ms", "Coalesced"]
    heads += ["Sent late p50, ms", "p99, ms", "max, ms"] if late else []
    rows = []
    for x in levels:
        client = x.client
        share = "-" if client.coalesced_share is None else f"{client.coalesced_share:.2%}"
        busiest = f"{max(client.cpu_share):.0%}" if client.cpu_share else "-"
        rows.append([f"<b>{load_cell(x)}</b>", client.clock, *_spread(client.lag_ms)])
        rows[-1] += [_plain_number(client.cpu_us_per_event), busiest, _plain_number(client.stall_ms), share]
        rows[-1] += _spread(client.lateness_ms or Spread()) if late else []
    return f"<p>{escape(client_in_words(summary))}</p>" + (_table(heads, rows) if rows else "")


def _spread(spread: Spread) -> list[str]:
    return [_plain_number(value) for value in (spread.p50, spread.p99, spread.max)]


def _plain_number(value: float | None) -> str:
    return "-" if value is None else number(value)


def _search(summary: Summary) -> str:
    """The story of a budget search: each probe with its verdict and reason."""
    if not isinstance(summary.find, dict) or not summary.find.get("probes"):
        return ""
    find = summary.find
    rows = [
        [
            f"<b>{_text(probe.get('load', {}).get('value', '-'))}</b>",
            {True: "<span class=valid>within</span>", False: "<span class=invalid>over</span>"}.get(
                probe.get("within"), "<span class=suspect>undecided</span>"
            ),
            _text(probe.get("why", "")),
        ]
        for probe in find["probes"]
    ]
    spent = find.get("spent") or {}
    cost = ", ".join(f"{number(value)} {_text(unit)}" for unit, value in spent.items())
    note = f"<p class=soft>Spent: {cost}.</p>" if cost else ""
    unit = "Arrivals/s" if find.get("load") == "rate" else "Concurrency"
    table = f"<div class=words>{_table([unit, 'Budget', 'Why'], rows)}</div>"
    return _section("The search", f"<p>Budget: {_text(find.get('budget', ''))}</p>{table}{note}")


def _facts(summary: Summary) -> str:
    shown = ("schema", "command", "loads", "grid", "started", "interrupted", "failure")
    rest = {key: value for key, value in summary.run.items() if key not in shown}
    rows = []
    for name, facts in (("Target", summary.target), ("Workload", summary.workload), ("Run", rest)):
        rows += [f"<dt>{name}: {_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in _flat(facts)]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """`facts` with nested mappings laid out as dotted names, and what is absent left out."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None and value not in ("", []):
            yield f"{before}{key}", ", ".join(map(_fact, value)) if isinstance(value, list) else _fact(value)


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _command(command: str | None) -> str:
    return _section("To repeat it", f"<pre>{_text(command)}</pre>") if command else ""


def _when(started: str) -> str:
    """A time of ISO 8601 as people read it; any other text as it is."""
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (TypeError, ValueError):
        return plain(started)


_CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d9dee3; --paper: #fff; --page: #f5f6f8;
  --good: #00795a; --warn: #9a6700; --bad: #b42318; --wash: #e9f7f2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a9b0ba; --line: #343a43; --paper: #1b1f24;
  --page: #13161a; --good: #2fc49a; --warn: #e3b341; --bad: #ff7b72; --wash: #16302a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1096px; padding: 24px 16px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 8px; }
h3 { font-size: 13px; margin: 0; color: var(--soft); font-weight: 600; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.brand { color: var(--good); font-weight: 700; letter-spacing: .02em; }
.soft, footer { color: var(--soft); font-size: 13px; }
.banner { border-left: 4px solid var(--warn); padding: 6px 12px; background: var(--paper); }
section { margin-top: 28px; }
article, .chart, noscript { background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px; }
.answer { display: flex; flex-wrap: wrap; gap: 12px; }
article { flex: 1 1 300px; }
.answer .chosen { flex-basis: 100%; background: var(--wash); border-color: var(--good); }
.figure { font-size: 16px; font-weight: 600; }
.chosen .figure { font-size: 22px; line-height: 1.3; }
.badge { background: var(--good); color: var(--paper); border-radius: 99px; padding: 1px 9px; font-size: 12px;
  margin-left: 4px; white-space: nowrap; }
.charts { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr); }
.chart { overflow-x: auto; padding: 16px 8px 8px; min-height: 80px; }
.chart .vega-embed { padding: 0; }
noscript svg { max-width: 100%; height: auto; background: #fff; }
@media (min-width: 1100px) { .charts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .charts .chart:first-child, .charts noscript { grid-column: 1 / -1; } }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; text-align: right; vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; line-height: 1.3; vertical-align: bottom; }
tbody td { border-top: 1px solid var(--line); }
.below td { border: 0; padding: 0 9px 7px; text-align: left; white-space: normal; color: var(--soft); }
.below div { position: sticky; left: 9px; max-width: calc(min(100vw, 1096px) - 60px); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
.words td:last-child, .words th:last-child { text-align: left; white-space: normal; width: 75%; }
small { display: block; color: var(--soft); font-size: 11px; }
.below ul { margin: 0; padding-left: 16px; }
.valid { color: var(--good); }
.suspect { color: var(--warn); font-weight: 600; }
.invalid { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(120px, max-content) minmax(0, 1fr); gap: 2px 16px; margin: 0;
  font-size: 13px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: 12px 16px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; user-select: all; }
footer { margin-top: 28px; }
"""

_DRAW = """
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
let drawn = "";
async function draw() {
  const size = data.sizes.find((x) => innerWidth >= x.from);
  const wanted = size.from + " " + dark.matches;
  if (wanted === drawn) return;
  drawn = wanted;
  const config = dark.matches ? data.dark : data.light;
  for (const [n, spec] of size.specs.entries()) {
    await vegaEmbed("#chart" + n, { ...spec, config }, {
      renderer: "svg",
      actions: false,
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
  }
}
dark.addEventListener("change", draw);
addEventListener("resize", draw);
draw();
"""
