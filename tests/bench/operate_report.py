"""The figures of the operate bench as tables and targets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.bench.loading import Loaded
from tests.bench.senders import Report
from tests.bench.tables import Target, table

QUIET = "nothing"
BESIDE_TIMES, BESIDE_MS = 3.0, 25.0
DAY_MS = 300.0


@dataclass(frozen=True, slots=True)
class Taken:
    """How long one run of a command took."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Day:
    """A day of a symbol's archived ticks, read over HTTP."""

    kind: str
    symbol: str
    ticks: int
    ms: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Ticks that came in while a command ran, again and again; runs: how long each took, seconds."""

    command: str
    report: Report
    ticks: int
    runs: Sequence[float]


@dataclass(slots=True)
class Results:
    loaded: Loaded
    backups: list[Taken] = field(default_factory=list)
    other: list[Taken] = field(default_factory=list)
    database_bytes: int = 0
    """Of a full backup's files."""
    tables_equal: int = 0
    archived: int = 0
    archive_s: float = 0.0
    archive_bytes: int = 0
    hot_bytes: int = 0
    """Of the partitions of ticks, with their indexes."""
    days: list[Day] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)

    def backup_s(self, name: str) -> float:
        return statistics.median(taken.seconds for taken in self.backups if taken.name == name)


def results_tables(results: Results) -> list[str]:
    """Return a table for everything that was measured."""
    tables = []
    if results.backups:
        tables.append(_backups_table(results))
    if results.archived:
        tables += [_archive_table(results), _days_table(results.days)]
    if results.beside:
        tables.append(_beside_table(results.beside))
    return tables


def targets(results: Results) -> list[Target]:
    """Return what the figures have to be."""
    found = []
    if results.backups:
        ratio = results.backup_s("alone") / results.backup_s("full")
        found.append(Target("full backup, as fast as pg_basebackup alone", ratio, 0.5))
        found.append(Target("tables of the restored database equal row for row", results.tables_equal, 1))
    if results.archived:
        found.append(Target("ticks archived a second, verified", results.archived / results.archive_s, 300_000))
        for kind in dict.fromkeys(day.kind for day in results.days):
            slowest = max(day.ms for day in results.days if day.kind == kind)
            found.append(Target(f"a symbol's archived day as {kind}, slowest", slowest, DAY_MS, True, " ms"))
    quiet = [one.report.ack(99) for one in results.beside if one.command == QUIET]
    for one in results.beside:
        if one.command != QUIET:
            bound = max(BESIDE_TIMES * quiet[0], BESIDE_MS)
            found.append(Target(f"ticks in beside {one.command}, p99", one.report.ack(99), bound, True, " ms"))
    return found


def _backups_table(results: Results) -> str:
    head = ["command", "runs", "median s", "MB/s"]
    rows = []
    for name, words in (("alone", "pg_basebackup alone"), ("full", "backup full (verified)")):
        seconds = results.backup_s(name)
        runs = sum(taken.name == name for taken in results.backups)
        rows.append([words, str(runs), f"{seconds:.1f}", f"{results.database_bytes / 1e6 / seconds:,.0f}"])
    rows += [[taken.name, "1", f"{taken.seconds:.1f}", ""] for taken in results.other]
    return table(head, rows)


def _archive_table(results: Results) -> str:
    head = ["archive", "ticks", "s", "ticks/s", "bytes a tick", "hot, with indexes"]
    row = [
        "written, read back, compared",
        f"{results.archived:,}",
        f"{results.archive_s:.1f}",
        f"{results.archived / results.archive_s:,.0f}",
        f"{results.archive_bytes / results.archived:.1f}",
        f"{results.hot_bytes / results.archived:.0f}",
    ]
    return table(head, [row])


def _days_table(days: Sequence[Day]) -> str:
    head = ["a day of archived ticks of one symbol", "days", "most ticks", "p50 ms", "p99 ms", "max ms"]
    rows = []
    for kind in dict.fromkeys(day.kind for day in days):
        of = [day for day in days if day.kind == kind]
        ms = np.array([day.ms for day in of])
        percentiles = [f"{np.percentile(ms, percent):.0f}" for percent in (50, 99, 100)]
        rows.append([kind, str(len(of)), f"{max(day.ticks for day in of):,}", *percentiles])
    return table(head, rows)


def _beside_table(beside: Sequence[Beside]) -> str:
    head = ["ticks in, 20,000/s, 100 a batch, beside", "runs", "a run s", "ack p50 ms", "p99 ms", "max ms", "refused"]
    rows = [
        [
            one.command,
            str(len(one.runs)),
            f"{statistics.median(one.runs):.1f}" if one.runs else "",
            *(f"{one.report.ack(percent):.1f}" for percent in (50, 99, 100)),
            str(one.report.retries),
        ]
        for one in beside
    ]
    return table(head, rows)
