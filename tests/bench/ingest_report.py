"""The figures of the ingest bench as tables and targets."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import numpy as np

from tests.bench.copying import Copied
from tests.bench.senders import Report
from tests.bench.tables import Target, table


@dataclass(frozen=True, slots=True)
class Run:
    """One load against one server; CPU in seconds, memory in MB."""

    name: str
    batch: int
    ticks: int
    seconds: float
    report: Report
    server_cpu_s: float
    postgres_cpu_s: float
    peak_mb: float
    busiest: float
    """Share of the workers' CPU that the busiest one used: 0.5 is an even split of two."""

    @property
    def ticks_per_s(self) -> float:
        return self.ticks / self.seconds


@dataclass(slots=True)
class Results:
    runs: list[Run] = field(default_factory=list)
    copies: list[Copied] = field(default_factory=list)
    classic: Run | None = None
    duplicates: Run | None = None
    desk: Run | None = None
    desk_sync_ms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    idle_mb: list[tuple[float, float]] = field(default_factory=list)

    @property
    def copy_per_s(self) -> float:
        return statistics.median(copied.ticks_per_s for copied in self.copies)


def runs_table(results: Results) -> str:
    """Return every run as a line, with its ratios to raw COPY and to the classic receiver."""
    head = ["", "a batch", "ticks", "s", "ticks/s", "of COPY", "x classic", "ack p50 ms", "p99 ms"]
    head += ["CPU s/M: server", "PostgreSQL", "client", "peak MB", "busiest", "503s"]
    classic_per_s = results.classic.ticks_per_s if results.classic else None
    rows = []
    again = [results.duplicates] if results.duplicates else []
    for run in [*([results.classic] if results.classic else []), *results.runs, *again]:
        million = run.ticks / 1e6
        rows.append(
            [
                run.name,
                f"{run.batch:,}",
                f"{run.ticks:,}",
                f"{run.seconds:.1f}",
                f"{run.ticks_per_s:,.0f}",
                f"{run.ticks_per_s / results.copy_per_s:.3f}",
                f"{run.ticks_per_s / classic_per_s:.1f}" if classic_per_s else "-",
                f"{run.report.ack(50):.1f}",
                f"{run.report.ack(99):.1f}",
                f"{run.server_cpu_s / million:.2f}",
                f"{run.postgres_cpu_s / million:.2f}",
                f"{run.report.cpu_s / million:.2f}",
                f"{run.peak_mb:.0f}",
                f"{run.busiest:.0%}",
                str(run.report.retries),
            ]
        )
    for copied in results.copies:
        million = copied.ticks / 1e6
        cells = [
            "raw COPY",
            "5,000",
            f"{copied.ticks:,}",
            f"{copied.seconds:.1f}",
            f"{copied.ticks_per_s:,.0f}",
        ]
        cells += [f"{copied.ticks_per_s / results.copy_per_s:.3f}"]
        cells += [f"{copied.ticks_per_s / classic_per_s:.1f}" if classic_per_s else "-", "-", "-", "-"]
        cells += [
            f"{copied.postgres_cpu_s / million:.2f}",
            f"{copied.client_cpu_s / million:.2f}",
            "-",
            "-",
            "-",
        ]
        rows.append(cells)
    return table(head, rows)


def desk_table(results: Results) -> str:
    """Return the desk's load and the idle workers: figures that a faster machine hardly changes."""
    desk = results.desk
    assert desk is not None
    sync = results.desk_sync_ms
    rows = [
        ["ack p50 / p99", f"{desk.report.ack(50):.2f} / {desk.report.ack(99):.2f} ms"],
        [
            "fdatasync p50 / p99, just before",
            f"{np.percentile(sync, 50):.2f} / {np.percentile(sync, 99):.2f} ms",
        ],
        ["server CPU, all workers", f"{desk.server_cpu_s / desk.seconds:.1%} of a core"],
        ["busiest worker's CPU", f"{desk.busiest * desk.server_cpu_s / desk.seconds:.1%} of a core"],
        ["PostgreSQL CPU", f"{desk.postgres_cpu_s / desk.seconds:.1%} of a core"],
        ["idle worker, resident", " / ".join(f"{rss:.0f}" for rss, _ in results.idle_mb) + " MB"],
        ["idle worker, unshared", " / ".join(f"{uss:.0f}" for _, uss in results.idle_mb) + " MB"],
    ]
    return table(["1,700 ticks/s in batches of 17", ""], rows)


def results_tables(results: Results) -> list[str]:
    """Return the results as tables."""
    return [runs_table(results), desk_table(results)]


def targets(results: Results) -> list[Target]:
    """Return what the figures have to be, for the batch sizes that ran."""
    bounds = {1_000: (0.5, 40.0, "0.75"), 100: (0.12, 12.0, ""), 17: (0.03, 4.0, "")}
    found = []
    for run in results.runs:
        if run.batch not in bounds:
            continue
        of_copy, of_classic, aim = bounds[run.batch]
        found.append(
            Target(f"{run.batch:,} a batch / COPY", run.ticks_per_s / results.copy_per_s, of_copy, aim=aim)
        )
        if results.classic:
            ratio = run.ticks_per_s / results.classic.ticks_per_s
            found.append(Target(f"{run.batch:,} a batch / classic", ratio, of_classic, unit="x"))
    if results.duplicates:
        ratio = results.duplicates.ticks_per_s / results.copy_per_s
        found.append(Target("all duplicates / COPY", ratio, 0.2))
    if results.desk:
        bound = float(np.percentile(results.desk_sync_ms, 99)) + 8.0
        found.append(
            Target("desk ack p99 (fdatasync p99 + 8)", results.desk.report.ack(99), bound, True, " ms")
        )
        share = results.desk.busiest * results.desk.server_cpu_s / results.desk.seconds * 100
        found.append(Target("desk CPU, busiest worker", share, 15.0, True, " %"))
        found.append(
            Target("idle worker, resident", max(rss for rss, _ in results.idle_mb), 110.0, True, " MB")
        )
    return found
