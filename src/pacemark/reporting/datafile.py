"""What a file of traffic holds, as Markdown; and the SQL by which Databricks gives one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pacemark.answers.datafile import DataFile, LengthSpread
from pacemark.endpoint.tags import TAG, request_id
from pacemark.errors import BadInput
from pacemark.reporting.words import plain
from pacemark.units import duration, number

__all__ = ["export_sql", "markdown_of"]


def markdown_of(file: DataFile, name: str) -> str:
    """What `file` holds: what was taken and what was not, then its figures. Nothing of what its rows say."""
    return "\n".join([f"# {plain(name)}", "", *_taken(file), "", *_lengths(file), *_figures(file)]).rstrip()


def _taken(file: DataFile) -> Iterator[str]:
    found = file.found
    yield f"- {found.rows:,} row{'s' if found.rows != 1 else ''} of {plain(found.format)}"
    if found.keys:
        yield f"- taken from: {plain(', '.join(f'{name} from {key}' for name, key in found.keys.items()))}"
    for entry in found.left_out:
        rows = f"{entry.rows:,} row{'s' if entry.rows > 1 else ''} left out"
        yield f"- {rows}, row {entry.first:,} first: {plain(entry.reason)}"
    yield from (f"- {plain(said)}" for said in found.said)


def _lengths(file: DataFile) -> Iterator[str]:
    named = {"input tokens": file.input_tokens, "output tokens": file.output_tokens, "characters": file.characters}
    spreads: list[tuple[str, LengthSpread]] = [(name, spread) for name, spread in named.items() if spread]
    if not spreads:
        return
    yield "| | rows | mean | p50 | p95 | p99 | max | CV |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, x in spreads:
        cells = [f"{n:,.0f}" for n in (x.rows, x.mean, x.p50, x.p95, x.p99, x.max)]
        yield f"| {name} | {' | '.join(cells)} | {x.cv:.2f} |"
    yield ""


def _figures(file: DataFile) -> Iterator[str]:
    if sessions := file.sessions:
        alone = f"; {sessions.alone:,} rows of none" if sessions.alone else ""
        yield (
            f"- sessions: {sessions.sessions:,}, of {number(sessions.turns_mean)} turns on average and "
            f"{sessions.turns_max:,} at most{alone}"
        )
    if prefix := file.prefix:
        what = "tokens" if prefix.by.startswith("blocks") else "characters"
        yield (
            f"- shared prefixes: a cache without end would hit {prefix.hit_rate:.1%} of the {what} "
            f"({prefix.block_hit_rate:.1%} of the {'blocks' if what == 'tokens' else 'pieces'}), by {prefix.by}"
        )
    if arrivals := file.arrivals:
        yield (
            f"- arrivals: {number(arrivals.per_s)} rows/s over {duration(arrivals.span_s * 1e3)}, "
            f"CV of the gaps {number(arrivals.gap_cv)}, longest gap {duration(arrivals.gap_max_s * 1e3)}"
        )
        step = arrivals.quantum_ms
        yield f"- times: {f'in steps of {duration(step)}' if step else 'not rounded to any step'}"


_NAME = re.compile(r"[\w.-]+")
_TABLE = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
_SQL = """-- To run in a notebook or the SQL editor; nothing was sent. Save a result as Parquet, CSV or JSON lines, or
-- give the data frame itself to pacemark.data(spark.sql("...")).

-- What pacemark itself asked is left out. Names are those of the documentation, November 2026.

-- 1. Bodies, from the endpoint's inference table; of the answers only their usage. Tables that were made before
--    2026 may have timestamp_ms in place of request_time, and date in place of request_date; those of model services
--    have event_time, and request_tags as in 3.{where}
SELECT request_time, databricks_request_id, status_code, sampling_fraction, request,
       concat('{{"usage":', get_json_object(response, '$.usage'), '}}') AS response
FROM {table}
WHERE request_date >= date_sub(current_date(), {days})
  AND NOT coalesce(client_request_id, '') LIKE '{own}%'
ORDER BY request_time;

-- 2. Lengths and arrivals without bodies, of /serving-endpoints (system tables must be enabled, and be yours to read).
SELECT request_time, databricks_request_id, status_code, input_token_count, output_token_count, request_streaming
FROM system.serving.endpoint_usage
WHERE served_entity_id IN
      (SELECT served_entity_id FROM system.serving.served_entities WHERE endpoint_name = '{endpoint}')
  AND request_time >= current_timestamp() - INTERVAL {days} DAYS
  AND NOT coalesce(client_request_id, '') LIKE '{own}%'
ORDER BY request_time;

-- 3. The same of /ai-gateway routes, with the time to the first byte; a model service goes by its whole name.
SELECT event_time, request_id, status_code, input_tokens, output_tokens, latency_ms, time_to_first_byte_ms
FROM system.ai_gateway.usage
WHERE '{endpoint}' IN (endpoint_name, service_name)
  AND event_time >= current_timestamp() - INTERVAL {days} DAYS
  AND try_element_at(request_tags, '{tag}') IS NULL
ORDER BY event_time;"""


def export_sql(endpoint: str, days: int, table: str = "") -> str:
    """The SQL that exports the traffic of a Databricks endpoint's last `days` days.

    `table` is the inference table as catalog.schema.name; without it there is a place to fill in. Raises BadInput for
    names that cannot be.
    """
    if not _NAME.fullmatch(endpoint):
        raise BadInput(f"databricks:{endpoint}: no endpoint has such a name")
    if table and not _TABLE.fullmatch(table):
        raise BadInput(f"--table {table!r}: give catalog.schema.table")
    if not 0 < days <= 3660:
        raise BadInput(f"--days {days}: must be from 1 to 3,660")
    quoted = ".".join(f"`{part}`" for part in table.split(".")) if table else "<catalog>.<schema>.<prefix>_payload"
    where = "" if table else "\n--    Its name: --table fills it in; the endpoint's page shows it under AI Gateway."
    return _SQL.format(endpoint=endpoint, days=days, table=quoted, where=where, own=request_id(""), tag=TAG)
