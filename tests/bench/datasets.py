"""The desk's other data: batches of every dataset in, prices, chains and metrics out, and what it costs ticks."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from app.storage.connection import Connection
from app.storage.sink import DatabaseSink
from app.storage.writers import writers
from tests.bench import asking, datasets_report, desk_history
from tests.bench.asking import Asked, Asker
from tests.bench.client import BenchError, post_request
from tests.bench.datasets_report import Pair, Read, Results, Writes
from tests.bench.desk_records import batches, encoded
from tests.bench.ingest import verify
from tests.bench.postgres import Postgres, query
from tests.bench.running import progress
from tests.bench.senders import Load, Senders
from tests.bench.server import ROOT, Server, tickhub
from tests.dataset_rows import RecordFeeder

HELP = "the desk's other data: every dataset in, prices, chains and metrics out, and what that costs ticks"
QUICK_IS = "a tenth of the rows, three pairs"
REPORT = datasets_report

BATCH, BATCHES = 1_000, 100
REQUESTS, WARM, CONNECTIONS = 1_000, 50, 4
PAIRS, QUICK_PAIRS, PAIR_TICKS, PAIR_BATCH = 7, 3, 500_000, 100
QUICK_SHARE = 0.1
MEASURES = ("writes", "reads", "pairs")
WITHOUT = ("--metrics-interval", "0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", nargs="+", default=list(MEASURES), choices=MEASURES, help="what is measured (default: everything)"
    )
    parser.add_argument("--workers", type=int, default=2, help="tickhub's workers (default 2)")
    parser.add_argument(
        "--against",
        type=Path,
        help="a checkout whose tickhub is the first of each pair (default: this one, which collects no metrics)",
    )


class Bench:
    """The measures of one call: one PostgreSQL, one directory."""

    def __init__(self, server: Postgres, directory: Path, args: argparse.Namespace) -> None:
        self._server, self._directory, self._args = server, directory, args
        self._share = QUICK_SHARE if args.quick else 1.0
        self.results = Results()

    def all(self) -> None:
        """Measure what was asked for."""
        if "writes" in self._args.only or "reads" in self._args.only:
            with ExitStack() as stack:
                asker = stack.enter_context(Asker())
                url = stack.enter_context(self._server.database("bench_datasets"))
                served = stack.enter_context(tickhub(self._directory / "datasets", url, self._args.workers, *WITHOUT))
                served.wait_alone()
                if "writes" in self._args.only:
                    self.writes(asker, served, url)
                if "reads" in self._args.only:
                    self.reads(asker, served, url)
        if "pairs" in self._args.only:
            self.pairs()

    def writes(self, asker: Asker, served: Server, url: str) -> None:
        """Send every dataset, one after the other, then have its writer write as much again into an empty table."""
        count = int(BATCHES * self._share)
        for dataset in DATASETS.values():
            before = rows_in(url, dataset)
            done = served.stats()["ticks_processed"]
            requests = [post_request(f"/ingest/{dataset.name}", body) for body in encoded(dataset, count + 1, BATCH)]
            # The first one makes months, and symbols with their views.
            asker.call(asking.ask_in_turn, served.address, requests[:1], 0, 1)
            served.wait_processed(done + BATCH)
            began_s = time.monotonic()
            acknowledged = asker.call(asking.ask_in_turn, served.address, requests[1:], 0, 1)
            seconds = served.wait_processed(done + (count + 1) * BATCH) - began_s
            expected = BATCH if dataset.adds_symbols else (count + 1) * BATCH
            if (stored := rows_in(url, dataset) - before) != expected:
                raise BenchError(f"{stored} {dataset.name} stored instead of {expected}")
            with self._server.database("bench_writer") as fresh:
                committed = asker.call(write_batches, fresh, dataset.name, count)
            write = Writes(dataset.name, BATCH, acknowledged, committed, seconds)
            self.results.writes.append(write)
            progress(
                f"{dataset.name}: ack p99 {acknowledged.percentile(99):.1f} ms,"
                f" commit p99 {committed.percentile(99):.1f} ms, {write.rows_per_s:,.0f} rows/s"
            )

    def reads(self, asker: Asker, served: Server, url: str) -> None:
        """Ask for what desks look at, in a database that holds years of it."""
        held = desk_history.load(url, self._share, progress)
        self._server.settle()
        for name, requests, rows, bound_ms in desk_history.questions(held, max(int(REQUESTS * self._share), 100)):
            warm = requests[:WARM]
            asked = asker.call(asking.ask_in_turn, served.address, [*warm, *requests], len(warm), CONNECTIONS)
            if asked.rows.min() < rows or asked.rows.max() > rows:
                raise BenchError(f"{name}: {asked.rows.min()} to {asked.rows.max()} rows instead of {rows}")
            self.results.reads.append(Read(name, asked, bound_ms))
            progress(f"{name}: p99 {asked.percentile(99):.2f} ms")

    def pairs(self) -> None:
        """Send the same ticks to the one and the other in turn; who begins changes from pair to pair."""
        root = ROOT if self._args.against is None else self._args.against.resolve()
        flags = WITHOUT if self._args.against is None else ()
        self.results.without = "collecting nothing" if self._args.against is None else "of the other checkout"
        one, other = partial(self._ticks_per_s, "without", root, *flags), partial(self._ticks_per_s, "with", ROOT)
        one()  # uncounted: whoever comes first pays for files and caches that the others find made
        for number in range(QUICK_PAIRS if self._args.quick else PAIRS):
            if number % 2:
                with_all, without = other(), one()
            else:
                without, with_all = one(), other()
            self.results.pairs.append(Pair(without, with_all))
            progress(f"pair {number + 1}: {without:,.0f} and {with_all:,.0f} ticks/s")

    def _ticks_per_s(self, name: str, root: Path, *flags: str) -> float:
        ticks = int(PAIR_TICKS * self._share)
        directory = self._directory / f"{name}_{time.monotonic_ns()}"
        with self._server.database("bench_pair") as url:
            server = tickhub(directory, url, self._args.workers, *flags, root=root)
            with server, Senders(server.address, Load(ticks, PAIR_BATCH)) as senders:
                server.wait_alone()
                self._server.settle()
                report = senders.run()
                seconds = server.wait_processed(ticks) - report.first_s
                verify(url, ticks)
        return ticks / seconds


def rows_in(url: str, dataset: Dataset) -> int:
    """Return how many rows a dataset's table has."""
    [(count,)] = query(url, f"SELECT count(*) FROM {dataset.table}")
    return int(count)


def write_batches(url: str, name: str, count: int) -> Asked:
    """Write batches of a dataset by its writer, a transaction each; the first one is not counted."""
    from app.storage.schema import migrate  # Alembic's import is no part of the asking process else

    migrate(url)
    dataset = DATASETS[name]
    sink = DatabaseSink(Connection(lambda: url, 5, 60, "bench"), writers())
    feeder = RecordFeeder()
    taken: list[float] = []
    try:
        entry = sink.ledger(feeder.journal_id)
        for records in batches(dataset, count + 1, BATCH):
            batch = feeder.records((dataset, dataset.policy, records))
            start_s = time.perf_counter()
            written = sink.write(feeder.journal_id, entry, batch)
            taken.append((time.perf_counter() - start_s) * 1e3)
            # What is changed to what it was counts as a duplicate.
            done = written.entry.stored + written.entry.duplicates - entry.stored - entry.duplicates
            if done != BATCH:
                raise BenchError(f"{done} {name} stored of {BATCH}")
            entry = written.entry
    finally:
        sink.close()
    return Asked(np.array(taken[1:]), np.full(count, BATCH))


def measure(directory: Path, server: Postgres, args: argparse.Namespace) -> Results:
    """Measure in an empty directory, and return the results."""
    bench = Bench(server, directory, args)
    bench.all()
    return bench.results
