"""The figures of the reads bench as tables and targets."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import numpy as np

from tests.bench.asking import Asked, Drained, Fetched
from tests.bench.loading import Loaded
from tests.bench.senders import Report
from tests.bench.tables import Target, table

ENDS = 50
"""Pages at each end of a walk whose times are compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of question over HTTP, beside its plain SQL; bound_ms: what its p99 has to stay under, 0 = nothing."""

    name: str
    http: Asked
    sql: Asked
    bound_ms: float = 0.0


@dataclass(slots=True)
class Export:
    """The runs of one format, the same rows each; growth_mb: of all workers' memory, a run."""

    kind: str
    runs: list[Fetched] = field(default_factory=list)
    growth_mb: list[float] = field(default_factory=list)

    @property
    def rows_per_s(self) -> float:
        return statistics.median(run.rows / run.seconds for run in self.runs)


@dataclass(frozen=True, slots=True)
class Busy:
    """Quotes while ticks come in and everything is exported in one format."""

    kind: str
    quotes: Asked
    sent: Report
    ticks: int
    drained: Drained
    exported_rows: int
    growth_mb: float


@dataclass(slots=True)
class Results:
    loaded: Loaded
    answers: list[Answer] = field(default_factory=list)
    walks: list[Asked] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    psql_rows_per_s: list[float] = field(default_factory=list)
    busy: list[Busy] = field(default_factory=list)
    bars_http: Asked | None = None
    bars_sql: Asked | None = None

    @property
    def psql_per_s(self) -> float:
        return statistics.median(self.psql_rows_per_s)


def results_tables(results: Results) -> list[str]:
    """Return a table for everything that was measured."""
    tables = []
    if results.answers:
        tables.append(_answers_table(results))
    if results.bars_sql is not None and results.bars_http is not None:
        tables.append(_bars_table(results.bars_http, results.bars_sql))
    if results.exports:
        tables.append(_exports_table(results))
    if results.busy:
        tables.append(_busy_table(results))
    return tables


def _answers_table(results: Results) -> str:
    """Return what one client waits for on an idle server, beside the SQL."""
    head = ["one question at a time", "rows", "requests", "p50 ms", "p99 ms", "max ms", "SQL p50 ms", "p99 ms"]
    rows = []
    for answer in results.answers:
        http, sql = answer.http, answer.sql
        rows.append(
            [
                answer.name,
                f"{np.mean(http.rows):,.0f}",
                f"{len(http.ms):,}",
                *(f"{http.percentile(percent):.2f}" for percent in (50, 99, 100)),
                *(f"{sql.percentile(percent):.2f}" for percent in (50, 99)),
            ]
        )
    text = table(head, rows)
    if results.walks:
        first_ms, last_ms = first_and_last_ms(results.walks)
        text += f"\n\nby next_page_token: median of the first pages {first_ms:.2f} ms, of the last {last_ms:.2f} ms"
    return text


def first_and_last_ms(walks: list[Asked]) -> tuple[float, float]:
    """Return the median time of the first and of the last pages of the walks, in milliseconds.

    The very last page of a walk is left out: it is not full.
    """
    ends = [min(ENDS, (len(walk.ms) - 1) // 2) for walk in walks]
    first = np.concatenate([walk.ms[:count] for walk, count in zip(walks, ends, strict=True)])
    last = np.concatenate([walk.ms[-1 - count : -1] for walk, count in zip(walks, ends, strict=True)])
    return float(np.median(first)), float(np.median(last))


def _exports_table(results: Results) -> str:
    """Return the exports of one symbol beside psql's."""
    head = ["export", "rows", "s", "rows/s", "of psql", "MB", "memory: first +MB", "later +MB"]
    rows = []
    for export in results.exports:
        run = sorted(export.runs, key=lambda run: run.seconds)[len(export.runs) // 2]
        rows.append(
            [
                export.kind,
                f"{run.rows:,}",
                f"{run.seconds:.2f}",
                f"{export.rows_per_s:,.0f}",
                f"{export.rows_per_s / results.psql_per_s:.2f}",
                f"{run.bytes / 1e6:.0f}",
                f"{export.growth_mb[0]:.0f}",
                f"{max(export.growth_mb[1:], default=float('nan')):.0f}",
            ]
        )
    count = results.exports[0].runs[0].rows
    psql = ["psql \\copy, CSV", f"{count:,}", f"{count / results.psql_per_s:.2f}", f"{results.psql_per_s:,.0f}"]
    return table(head, [*rows, [*psql, "1.00", "-", "-", "-"]])


def _busy_table(results: Results) -> str:
    """Return what quotes wait for while ticks come in and all of them go out."""
    head = ["meanwhile: ticks in, and all out as", "quotes", "p50 ms", "p99 ms", "max ms", "ticks/s in"]
    head += ["ack p50 ms", "p99 ms", "503s", "rows/s out", "MB/s out", "memory +MB"]
    rows = []
    for busy in results.busy:
        rows.append(
            [
                busy.kind,
                f"{len(busy.quotes.ms):,}",
                *(f"{busy.quotes.percentile(percent):.2f}" for percent in (50, 99, 100)),
                f"{busy.ticks / (busy.sent.last_s - busy.sent.first_s):,.0f}",
                f"{busy.sent.ack(50):.2f}",
                f"{busy.sent.ack(99):.2f}",
                str(busy.sent.retries),
                f"{busy.exported_rows / busy.drained.seconds:,.0f}",
                f"{busy.drained.bytes / 1e6 / busy.drained.seconds:.1f}",
                f"{busy.growth_mb:.0f}",
            ]
        )
    return table(head, rows)


def _bars_table(http: Asked, sql: Asked) -> str:
    """Return the bars of all five days, kept and computed."""
    rows = [
        ["over HTTP", f"{np.mean(http.rows):,.0f}", f"{len(http.ms)}", f"{np.mean(http.ms):.1f}", "1.0"],
        [
            "SQL that makes them of the ticks",
            f"{np.mean(sql.rows):,.0f}",
            f"{len(sql.ms)}",
            f"{np.mean(sql.ms):.1f}",
            f"{np.mean(sql.ms) / np.mean(http.ms):.1f}",
        ],
    ]
    return table(["a symbol's 1-minute bars of five days", "rows", "times", "mean ms", "x HTTP"], rows)


def targets(results: Results) -> list[Target]:
    """Return what the figures have to be."""
    found = [
        Target(f"{answer.name}, p99", answer.http.percentile(99), answer.bound_ms, True, " ms")
        for answer in results.answers
        if answer.bound_ms
    ]
    if results.walks:
        first_ms, last_ms = first_and_last_ms(results.walks)
        found.append(Target("last pages / first pages of a history", last_ms / first_ms, 1.3, True))
    if results.bars_sql is not None and results.bars_http is not None:
        ratio = float(np.mean(results.bars_sql.ms) / np.mean(results.bars_http.ms))
        found.append(Target("1-minute bars of five days, SQL / HTTP", ratio, 15.0, unit="x"))
    if results.exports:
        found += _export_targets(results)
    for busy in results.busy:
        name = f"newest quote, p99, ticks in, {busy.kind} out"
        found.append(Target(name, busy.quotes.percentile(99), 15.0, True, " ms"))
    return found


def _export_targets(results: Results) -> list[Target]:
    exports = {export.kind: export for export in results.exports}
    csv = exports["csv"].rows_per_s
    growth_mb = max(growth for export in results.exports for growth in export.growth_mb)
    return [
        Target("export as CSV / psql", csv / results.psql_per_s, 0.6),
        *(Target(f"export as {kind} / CSV", exports[kind].rows_per_s / csv, 1.0) for kind in ("arrow", "parquet")),
        Target("workers' memory, most that an export adds", growth_mb, 100.0, True, " MB"),
    ]
