"""What a check found, in a line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.doctor.case import Case


class Outcome(StrEnum):
    """OK: nothing to do. WARN: it works, and somebody should look. FAIL: it does not work, or ticks are in danger."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it ("" where nothing is to be done)."""

    name: str
    outcome: Outcome
    found: str
    remedy: str = ""


Check = Callable[["Case"], Iterator[Finding]]
"""Yields a finding, several for what there are several of, none where there is nothing to look at."""


def ok(name: str, found: str) -> Finding:
    """Return a finding of what is right."""
    return Finding(name, Outcome.OK, found)


def warn(name: str, found: str, remedy: str) -> Finding:
    """Return a finding of what somebody should look at."""
    return Finding(name, Outcome.WARN, found, remedy)


def fail(name: str, found: str, remedy: str) -> Finding:
    """Return a finding of what does not work."""
    return Finding(name, Outcome.FAIL, found, remedy)


def worst(findings: Sequence[Finding]) -> Outcome:
    """Return the worst outcome of all; OK when there are none."""
    order = list(Outcome)
    return max((finding.outcome for finding in findings), key=order.index, default=Outcome.OK)
