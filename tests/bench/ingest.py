"""How fast ticks come in: tickhub over HTTP beside the classic receiver and raw binary COPY."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import ingest_report, machine
from tests.bench.classic import classic
from tests.bench.client import BenchError
from tests.bench.copying import copy_run
from tests.bench.ingest_report import Results, Run
from tests.bench.postgres import Postgres, query
from tests.bench.running import progress
from tests.bench.senders import Load, Senders
from tests.bench.server import Server, tickhub

HELP = "ticks in: tickhub, the classic receiver and raw COPY side by side"
QUICK_IS = "a tenth of the rows"
REPORT = ingest_report

TICKS = {17: 150_000, 100: 500_000, 1_000: 2_000_000, 5_000: 2_000_000}
CLASSIC_TICKS, COPY_TICKS = 50_000, 2_000_000
DESK_BATCH, DESK_PER_SECOND, DESK_SECONDS, DESK_QUICK_SECONDS = 17, 1_700, 20, 5
DUPLICATES_BATCH = 1_000
IDLE_S = 3.0
RESOLUTIONS = (60, 3600, 86400)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=list(TICKS),
        choices=list(TICKS),
        help="ticks a batch (default: all)",
    )
    parser.add_argument("--workers", type=int, default=2, help="tickhub's workers (default 2)")
    parser.add_argument(
        "--connections", type=int, default=8, help="connections of each of the 2 senders (default 8)"
    )
    parser.add_argument(
        "--copy-runs", type=int, default=3, help="runs of raw COPY, the median counts (default 3)"
    )


class Bench:
    """The runs of one call, on one PostgreSQL, in one directory."""

    def __init__(self, server: Postgres, directory: Path, args: argparse.Namespace) -> None:
        self._server, self._directory, self._args = server, directory, args
        self._share = 0.1 if args.quick else 1.0
        self.results = Results()

    def all(self) -> None:
        """Run everything. The COPY runs lie between the others, because a machine's speed drifts."""
        steps: list[Callable[[], None]] = []
        for batch in self._args.batches:
            steps.append(partial(self.tickhub, batch))
            if batch == 100:
                steps.append(self.classic)
        # Uncounted: whoever comes first pays for WAL files and caches that all others find made.
        copy_run(self._server, self._ticks(COPY_TICKS // 4, 5_000))
        copies = self._args.copy_runs
        places = {round(index * len(steps) / max(copies - 1, 1)) for index in range(copies)}
        for place, step in enumerate([*steps, None]):
            if place in places:
                self.copy()
            if step is not None:
                step()
        self.desk()

    def _ticks(self, ticks: int, batch: int) -> int:
        return max(int(ticks * self._share) // batch, 1) * batch

    def copy(self) -> None:
        copied = copy_run(self._server, self._ticks(COPY_TICKS, 5_000))
        self.results.copies.append(copied)
        progress(f"raw COPY: {copied.ticks_per_s:,.0f} ticks/s")

    def classic(self) -> None:
        load = self._load(self._ticks(CLASSIC_TICKS, 100), 100)
        threads = load.senders * load.connections + 4
        with self._server.database("bench_classic") as url:
            server = classic(self._directory / "classic", url, threads)
            with server, Senders(server.address, load) as senders:
                self.results.classic = self._measure("classic", server, senders, load)
                verify(url, load.ticks, bars=False)

    def tickhub(self, batch: int) -> None:
        """Send the load of one batch size; at 1,000 a second time, when every tick is a duplicate."""
        load = self._load(self._ticks(TICKS[batch], batch), batch)
        with self._tickhub(f"tickhub_{batch}") as (server, url), Senders(server.address, load) as senders:
            self.results.runs.append(self._measure("tickhub", server, senders, load))
            verify(url, load.ticks)
            if batch == DUPLICATES_BATCH:
                self._server.settle()
                again = self._measure("all sent again", server, senders, load, before=load.ticks)
                self.results.duplicates = again
                duplicates = server.stats()["duplicates"]
                if duplicates != load.ticks:
                    raise BenchError(f"{duplicates} duplicates counted, {load.ticks} sent")
                verify(url, load.ticks)

    def desk(self) -> None:
        """Send the desk's open-market load at its own pace, to a server that has been idle before."""
        seconds = DESK_QUICK_SECONDS if self._args.quick else DESK_SECONDS
        rate = DESK_PER_SECOND / DESK_BATCH
        load = Load(DESK_PER_SECOND * seconds, DESK_BATCH, senders=1, connections=4, per_second=rate)
        with self._tickhub("tickhub_desk") as (server, url), Senders(server.address, load) as senders:
            time.sleep(IDLE_S)
            self.results.idle_mb = server.worker_memory_mb()
            self.results.desk_sync_ms = machine.fdatasync_ms(self._directory)
            self.results.desk = self._measure("desk's load", server, senders, load)
            verify(url, load.ticks)

    def _load(self, ticks: int, batch: int) -> Load:
        return Load(ticks, batch, senders=2, connections=self._args.connections)

    @contextmanager
    def _tickhub(self, name: str) -> Iterator[tuple[Server, str]]:
        directory = self._directory / name
        with self._server.database(name) as url, tickhub(directory, url, self._args.workers) as server:
            server.wait_alone()
            self._server.settle()
            yield server, url

    def _measure(self, name: str, server: Server, senders: Senders, load: Load, before: int = 0) -> Run:
        workers, cpu_s, postgres_cpu_s = (
            server.worker_cpu_s(),
            server.cpu_s(),
            machine.tree_cpu_s(self._server.pid),
        )
        report = senders.run()
        done_s = server.wait_processed(before + load.ticks)
        used = [now - workers.get(pid, 0.0) for pid, now in server.worker_cpu_s().items()]
        run = Run(
            name=name,
            batch=load.batch,
            ticks=load.ticks,
            seconds=done_s - report.first_s,
            report=report,
            server_cpu_s=server.cpu_s() - cpu_s,
            postgres_cpu_s=machine.tree_cpu_s(self._server.pid) - postgres_cpu_s,
            peak_mb=max(server.worker_peaks_mb()),
            busiest=max(used) / max(sum(used), 1e-9),
        )
        progress(f"{name}, {load.batch} a batch: {run.ticks_per_s:,.0f} ticks/s")
        return run


def verify(url: str, ticks: int, bars: bool = True) -> None:
    """Raise BenchError unless the database holds exactly the ticks that were sent, in ticks and in bars."""
    found = {"ticks": query(url, "SELECT count(*) FROM ticks")[0][0]}
    expected = {"ticks": ticks}
    if bars:
        sums = dict(query(url, "SELECT resolution, sum(ticks)::bigint FROM bars GROUP BY resolution"))
        found |= {f"bars of {resolution} s": sums.get(resolution, 0) for resolution in RESOLUTIONS}
        expected |= {f"bars of {resolution} s": ticks for resolution in RESOLUTIONS}
        found["rejected_ticks"] = query(url, "SELECT count(*) FROM rejected_ticks")[0][0]
        expected["rejected_ticks"] = 0
    if found != expected:
        raise BenchError(f"the database holds {found} instead of {expected}")


def measure(directory: Path, server: Postgres, args: argparse.Namespace) -> Results:
    """Measure in an empty directory, and return the results."""
    bench = Bench(server, directory, args)
    bench.all()
    return bench.results
