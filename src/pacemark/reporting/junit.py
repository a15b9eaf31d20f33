"""Results as JUnit XML, which the dashboards of CI systems read: a test case per level, or per condition of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import msgspec

from pacemark.answers.comparison import Outcome
from pacemark.reporting.words import level_in_words, plain, title
from pacemark.summary import Level, Summary

__all__ = ["of_gate", "of_run"]


class Case(NamedTuple):
    """One line of a dashboard; `failed` and `skipped` say why, or nothing."""

    name: str
    failed: str = ""
    skipped: str = ""
    said: str = ""


def of_run(summary: Summary) -> str:
    """A case per level: failed where it is invalid or misses the budget, skipped where that is too close to tell."""
    return _written(f"pacemark {title(summary)}", [_of_level(level) for level in summary.levels])


def _of_level(level: Level) -> Case:
    name, said = str(level.asked or level.load), level_in_words(level)
    if level.verdict.status == "invalid":
        return Case(name, failed="; ".join(reason.message for reason in level.verdict.reasons), said=said)
    if isinstance(level.budget, msgspec.UnsetType) or level.budget.status == "met":
        return Case(name, said=said)
    if level.budget.status == "missed":
        return Case(name, failed=level.budget.why, said=said)
    return Case(name, skipped=level.budget.why, said=said)


def of_gate(name: str, conditions: Sequence[Outcome], undecided: str = "") -> str:
    """A case per condition: failed where it failed, and where it is undecided unless `undecided` is `pass`."""
    cases = []
    for outcome in conditions:
        passed = outcome.status == "passed"
        lenient = outcome.status == "undecided" and undecided == "pass"
        why = "" if passed else f"{outcome.status}: {outcome.why}"
        said = outcome.why if passed else ""
        cases.append(Case(outcome.condition, "" if lenient else why, why if lenient else "", said))
    return _written(f"pacemark {name}", cases)


def _written(name: str, cases: Sequence[Case]) -> str:
    counts = {
        "tests": len(cases),
        "failures": sum(bool(case.failed) for case in cases),
        "skipped": sum(bool(case.skipped) for case in cases),
    }
    totals = {key: str(count) for key, count in counts.items()}
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": plain(name)} | totals)
    for case in cases:
        place = ElementTree.SubElement(suite, "testcase", {"name": plain(case.name), "classname": plain(name)})
        for kind, why in (("failure", case.failed), ("skipped", case.skipped)):
            if why:
                ElementTree.SubElement(place, kind, {"message": plain(why)})
        if case.said:
            ElementTree.SubElement(place, "system-out").text = plain(case.said)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
