"""A run by its server's counters: each level over its window, and all of it from before its first request to after its
last, where counts are exact."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median

import msgspec

from pacemark.endpoint.scraping import Scraper, exporters
from pacemark.endpoint.target import Target
from pacemark.figures.counters import findings_of, server_of
from pacemark.figures.level import LevelResult
from pacemark.figures.verdict import verdict_of
from pacemark.metered import Agreement, ServerRun
from pacemark.reporting.progress import Status, told
from pacemark.runs.folder import RunFolder
from pacemark.runs.session import Session
from pacemark.scenario import Access
from pacemark.trace import Scrape

__all__ = ["scraping", "server_run", "with_server"]


@contextlib.contextmanager
def scraping(place: Target, access: Access, observe: Callable[[Status], None]) -> Iterator[Scraper | None]:
    """What reads the metrics of the order's servers, and says where; None where there are none. Raises BadInput."""
    found = exporters(place, access.metrics, access.metrics_map)
    for exporter in found:
        observe(told(f"the server's own metrics are read at {place.redacted(exporter.url)}"))
    if access.metrics and not found:
        observe(told(f"no metrics are exported at {place.host}; --metrics URL names another place"))
    scraper = Scraper(found, access.metrics_map) if found else None
    try:
        yield scraper
    finally:
        if scraper is not None:
            scraper.close()


def with_server(results: Sequence[LevelResult], folder: RunFolder) -> list[LevelResult]:
    """The levels with what the server told of each, where its metrics were read, and what that says of them."""
    looks = [(session, session.scrapes()) for session in folder.sessions()]
    numbers = [stored.level for stored in folder.levels()]  # the last may have been begun and cut off, without a result
    return [
        _with(result, next(seen for session, seen in looks if number in session))
        for number, result in zip(numbers, results, strict=False)
    ]


def _with(result: LevelResult, looks: Sequence[Scrape]) -> LevelResult:
    server = None if result.trace.outlined.any() else server_of(result.trace, result.window, looks)
    if server is None:
        return result
    verdict = verdict_of(findings_of(server), result.level.verdict)
    return replace(result, level=msgspec.structs.replace(result.level, server=server, verdict=verdict))


def server_run(folder: RunFolder) -> ServerRun | msgspec.UnsetType:
    """The run as a whole; UNSET where no metrics were read. One that was resumed has no counts: the server may have
    served others in between."""
    sessions = folder.sessions()
    looks = [look for session in sessions for look in session.scrapes()]
    read = [look for look in looks if look.values]
    if not looks:
        return msgspec.UNSET
    return ServerRun(
        engines=list(dict.fromkeys(engine for look in read for engine in look.engines)),
        looks=len(read),
        took_ms=median(look.took_ns for look in looks) / 1e6,
        checks=_checks(sessions[0], read) if len(sessions) == 1 and read else [],
        problems=list(dict.fromkeys(look.problem for look in looks if look.problem)),
    )


def _checks(session: Session, looks: Sequence[Scrape]) -> list[Agreement]:
    """The counters held against all requests, once the last had ended."""
    span, sums = session.span(), session.sums()
    before = [look for look in looks if span and session.ready_ns() <= look.now_ns <= span[0]]
    after = [look for look in looks if span and look.now_ns >= span[1]]
    if not before or not after:
        return []
    first, last = before[-1].values, after[-1].values
    found = []
    for what, mine in (
        ("requests", sums.answered),
        ("input_tokens", sums.input_tokens),
        ("output_tokens", sums.output_tokens),
    ):
        theirs = last[what] - first[what] if what in first and what in last and last[what] >= first[what] else None
        agrees = None if mine is None or theirs is None else round(theirs) == mine
        if agrees is False and sums.failed and theirs is not None and mine is not None and theirs > mine:
            agrees = None  # what it did for a request that failed is not known
        found.append(Agreement(what, mine, theirs, agrees))
    return found
