"""The figures of the datasets bench as tables and targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.bench.asking import Asked
from tests.bench.tables import Target, table

T_975 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t at 97.5 % by the number of pairs: a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Writes:
    """Batches of one dataset: each over HTTP to its acknowledgement, each by the writer to its commit.

    seconds: of all that came over HTTP, until it was committed.
    """

    dataset: str
    batch: int
    acknowledged: Asked
    committed: Asked
    seconds: float

    @property
    def rows_per_s(self) -> float:
        return self.batch * len(self.acknowledged.ms) / self.seconds


@dataclass(frozen=True, slots=True)
class Read:
    """One kind of question over HTTP, and what its p99 has to stay under, 0 = nothing."""

    name: str
    asked: Asked
    bound_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Ticks a second that came in without what the desk's other data does meanwhile, and with it."""

    without: float
    with_all: float

    @property
    def ratio(self) -> float:
        return self.with_all / self.without


@dataclass(slots=True)
class Results:
    writes: list[Writes] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    without: str = ""
    """What the first of each pair is."""


def results_tables(results: Results) -> list[str]:
    """Return a table for everything that was measured."""
    tables = []
    if results.writes:
        tables.append(_writes_table(results.writes))
    if results.reads:
        tables.append(_reads_table(results.reads))
    if results.pairs:
        tables.append(_pairs_table(results))
    return tables


def interval(pairs: Sequence[Pair]) -> tuple[float, float, float]:
    """Return the geometric mean of the pairs' ratios with the ends of its interval of 95 %."""
    logs = [math.log(pair.ratio) for pair in pairs]
    mean = statistics.mean(logs)
    reach = T_975[len(pairs)] * statistics.stdev(logs) / math.sqrt(len(pairs)) if len(pairs) in T_975 else math.inf
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def targets(results: Results) -> list[Target]:
    """Return what the figures have to be."""
    found = []
    for write in results.writes:
        for what, asked in (("acknowledged", write.acknowledged), ("committed", write.committed)):
            name = f"{write.batch:,} {write.dataset} {what}, p99"
            found.append(Target(name, asked.percentile(99), 50.0, True, " ms"))
    found += [
        Target(f"{read.name}, p99", read.asked.percentile(99), read.bound_ms, True, " ms")
        for read in results.reads
        if read.bound_ms
    ]
    if results.pairs:
        found.append(Target("ticks in, with / without: upper end of 95 %", interval(results.pairs)[2], 1.0))
    return found


def _writes_table(writes: Sequence[Writes]) -> str:
    head = ["batches of records in", "batches", "ack p50 ms", "p99 ms", "commit p50 ms", "p99 ms", "max ms", "rows/s"]
    rows = [
        [
            write.dataset,
            str(len(write.acknowledged.ms)),
            *(f"{write.acknowledged.percentile(percent):.1f}" for percent in (50, 99)),
            *(f"{write.committed.percentile(percent):.1f}" for percent in (50, 99, 100)),
            f"{write.rows_per_s:,.0f}",
        ]
        for write in writes
    ]
    return table(head, rows)


def _reads_table(reads: Sequence[Read]) -> str:
    head = ["one question at a time", "rows", "requests", "p50 ms", "p99 ms", "max ms"]
    rows = [
        [
            read.name,
            f"{np.mean(read.asked.rows):,.0f}",
            f"{len(read.asked.ms):,}",
            *(f"{read.asked.percentile(percent):.2f}" for percent in (50, 99, 100)),
        ]
        for read in reads
    ]
    return table(head, rows)


def _pairs_table(results: Results) -> str:
    head = ["ticks in, pair", f"ticks/s {results.without}", "with everything", "ratio"]
    rows = [
        [str(number), f"{pair.without:,.0f}", f"{pair.with_all:,.0f}", f"{pair.ratio:.3f}"]
        for number, pair in enumerate(results.pairs, 1)
    ]
    mean, low, high = interval(results.pairs)
    return f"{table(head, rows)}\n\nmean ratio {mean:.3f}, 95 % of such runs lie in {low:.3f} to {high:.3f}"
