"""All checks, one after the other: whatever breaks in one of them is its line, and the others go on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace

from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail
from app.settings import Settings

ROOMS = ("host", "doors", "database", "server_settings", "stored", "clocks")
"""In the order in which they are shown; each has CHECKS, and OF_DATABASE: those that ask it. Imported one by one: a
package that is missing or broken costs only what needs it."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what each check finds, as it is found. Raises nothing."""
    case = Case(settings)
    try:
        for room in ROOMS:
            always, of_database = _checks(room)
            for check in always:
                yield from _run(check, case)
            for check in of_database:
                # That it is away is one line, told by the first check of the database.
                if case.database_trouble is None:
                    yield from _run(check, case)
    finally:
        case.close()


def _checks(room: str) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    try:
        module = importlib.import_module(f"app.doctor.{room}")
        return module.CHECKS, module.OF_DATABASE
    except ImportError as why:
        said = str(why)

        def broken(_: Case) -> Iterator[Finding]:
            yield fail(room, f"cannot be looked at: {said}", "pip install -r requirements.txt")

        return (broken,), ()


def _run(check: Check, case: Case) -> Iterator[Finding]:
    name = check.__name__.replace("_", " ")
    try:
        for finding in check(case):
            yield replace(finding, found=case.hide(finding.found), remedy=case.hide(finding.remedy))
    except Exception as why:  # noqa: BLE001 - whatever is wrong with one check, the others are made
        said = str(why).strip().split("\n")[0]
        yield fail(name, case.hide(f"cannot be looked at: {type(why).__name__}: {said}"), "see what is named there")
