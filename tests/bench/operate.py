"""What operators do, and what it costs: backups, a restore, the archive, upkeep, and ticks coming in meanwhile."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.backup.tools import Tools
from app.storage.embedded_place import installed_binaries
from tests.bench import asking, operate_report
from tests.bench.asking import Asker
from tests.bench.client import BenchError
from tests.bench.history import DAYS
from tests.bench.loading import Loaded, load
from tests.bench.operate_report import Beside, Day, Results, Taken
from tests.bench.postgres import Postgres, kept_in, query
from tests.bench.rows import SYMBOLS
from tests.bench.running import progress
from tests.bench.senders import Load, Senders
from tests.bench.server import ROOT, Server, free_port
from tests.bench.table_rows import digests

HELP = "backups, restore, archive and upkeep of ten million ticks, and what they cost ticks that come in"
QUICK_IS = "a tenth of the rows, one pair"
REPORT = operate_report

TICKS, QUICK_SHARE = 10_000_000, 0.1
PAIRS = 3
TICKS_PER_S, BATCH, BESIDE_S = 20_000, 100, 30.0
MEASURES = ("backup", "archive", "beside")
EVERYTHING_DAYS = 1
"""hot_days with which all of the history is old."""
READ_AS = "arrow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", nargs="+", default=list(MEASURES), choices=MEASURES, help="what is measured (default: everything)"
    )
    parser.add_argument("--workers", type=int, default=2, help="tickhub's workers (default 2)")


class Bench:
    """The measures of one call. The bench's cluster is the embedded one of a data directory, as `serve` has it."""

    def __init__(self, directory: Path, server: Postgres, loaded: Loaded, args: argparse.Namespace) -> None:
        self._data, self._server, self._args = directory / "postgres", server, args
        self._restored, self._backups = directory / "restored", directory / "backups"
        self._scratch = directory / "scratch"
        self._share = QUICK_SHARE if args.quick else 1.0
        self._url = server.url("tickhub")
        self._sent = 0
        self.results = Results(loaded)

    def all(self) -> None:
        """Measure what was asked for. The archive is that of the restored database, which has to be equal."""
        if "backup" in self._args.only or "archive" in self._args.only:
            self.backup()
            with self.restored() as url:
                if "archive" in self._args.only:
                    self.archive(url)
        if "beside" in self._args.only:
            self.beside()

    def backup(self) -> None:
        """Take full backups and run pg_basebackup alone in turn."""
        tools = Tools(installed_binaries(), self._url)
        for number in range(1 if self._args.quick else PAIRS):
            ways = [("alone", lambda: self._basebackup(tools)), ("full", lambda: self._app("backup", "full"))]
            for name, take in ways if number % 2 else ways[::-1]:
                shutil.rmtree(self._backups, ignore_errors=True)
                self._server.settle()
                seconds = timed(take)
                self.results.backups.append(Taken(name, seconds))
                progress(f"{name}: {seconds:.1f} s")
        if self.results.backups[-1].name == "alone":
            self._app("backup", "full")
        self.results.database_bytes = sum(
            path.stat().st_size for path in (self._backups / "base").rglob("*") if path.is_file()
        )
        for what in ("verify", "dump"):
            self.results.other.append(Taken(f"backup {what}", timed(lambda what=what: self._app("backup", what))))

    def _basebackup(self, tools: Tools) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        tools.run("pg_basebackup", f"--pgdata={self._scratch}", "--format=plain", "--checkpoint=fast", "--no-password")
        shutil.rmtree(self._scratch)

    @contextmanager
    def restored(self) -> Iterator[str]:
        """Restore the backup into an empty data directory, compare its tables row for row; give its URL."""
        seconds = timed(lambda: self._app("restore", data=self._restored))
        self.results.other.append(Taken("restore", seconds))
        progress(f"restored in {seconds:.1f} s")
        with kept_in(self._restored) as server:
            url = server.url("tickhub")
            ours, theirs = digests(self._url), digests(url)
            if ours != theirs:
                raise BenchError(f"restored tables differ: {sorted(dict(ours.items() ^ theirs.items()))}")
            self.results.tables_equal = len(ours)
            progress(f"{len(ours)} tables are equal, row for row")
            yield url

    def archive(self, url: str) -> None:
        """Archive everything, verified; then read days of it, and all ticks again to see that they are the same."""
        ticks = sum(self.results.loaded.ticks.values())
        [(self.results.hot_bytes,)] = query(
            url, "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('ticks')"
        )
        os.sync()
        self.results.archive_s = timed(
            lambda: self._app("archive", "run", "--hot-days", str(EVERYTHING_DAYS), data=self._restored)
        )
        [(left,)] = query(url, "SELECT count(*) FROM ticks")
        files = list((self._restored / "archive").rglob("*.parquet"))
        self.results.archived, self.results.archive_bytes = ticks - left, sum(path.stat().st_size for path in files)
        progress(f"archived {ticks - left:,} ticks in {self.results.archive_s:.1f} s")
        if left:
            raise BenchError(f"{left} ticks were not archived")
        with self._serving(self._restored) as served, Asker() as asker:
            for kind in (READ_AS, "csv"):
                self.days(asker, served, kind)

    def days(self, asker: Asker, served: Server, kind: str) -> None:
        """Read every day of every symbol; the first day warms up. What the days have together is all there was."""
        got: dict[str, int] = dict.fromkeys(SYMBOLS, 0)
        days = []
        for day in DAYS:
            for name in SYMBOLS:
                path = f"/api/ticks/{name}?start={day}&end={day + timedelta(days=1)}&format={kind}"
                fetched = asker.call(asking.fetch, served.address, path, kind)
                got[name] += fetched.rows
                days.append(Day(kind, name, fetched.rows, fetched.seconds * 1e3))
        if got != self.results.loaded.ticks:
            raise BenchError(f"archived ticks read back: {got} instead of {self.results.loaded.ticks}")
        self.results.days += days[len(SYMBOLS) :]
        progress(f"archived days as {kind}: {max(day.ms for day in days):.0f} ms at most")

    def beside(self) -> None:
        """Send ticks at an even pace: with nothing else going on, then beside each of the commands."""
        # The ticks that come in are of the history's last week, which stays hot.
        hot_days = (datetime.now(UTC).date() - DAYS[-2]).days
        shutil.rmtree(self._backups, ignore_errors=True)
        ways: dict[str, Callable[[], None] | None] = {
            "nothing": None,
            "backup full": lambda: self._app("backup", "full"),
            "maintain all": lambda: self._app("maintain", "all"),
            "archive run": lambda: self._app("archive", "run", "--hot-days", str(hot_days)),
        }
        with self._serving(self._data) as served:
            served.wait_alone()
            for name, command in ways.items():
                self._server.settle()
                self.results.beside.append(self._beside(served, name, command, len(ways)))
        # Not in between: the disk is busy for a while with what is deleted.
        shutil.rmtree(self._backups, ignore_errors=True)

    def _beside(self, served: Server, name: str, command: Callable[[], None] | None, of: int) -> Beside:
        ticks = int(TICKS_PER_S * BESIDE_S * self._share) // BATCH * BATCH
        sending = Load(
            ticks, BATCH, connections=4, per_second=TICKS_PER_S / BATCH, skip=self._sent, of=ticks * of
        )
        runs: list[float] = []
        failed: list[Exception] = []
        over = threading.Event()

        def again_and_again() -> None:
            try:
                while command is not None and not over.is_set():
                    runs.append(timed(command))
            except Exception as error:
                failed.append(error)

        with Senders(served.address, sending) as senders:
            thread = threading.Thread(target=again_and_again)
            thread.start()
            try:
                report = senders.run()
            finally:
                over.set()
                thread.join()
        if failed:
            raise failed[0]
        self._sent += ticks
        served.wait_processed(self._sent)
        progress(f"ticks in beside {name}: ack p99 {report.ack(99):.1f} ms, {len(runs)} runs")
        return Beside(name, report, ticks, runs)

    def _app(self, *command: str, data: Path | None = None) -> None:
        args = [*command, "--data-dir", str(data or self._data)]
        if command[0] in ("backup", "restore"):
            args += ["--backup-dir", str(self._backups)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TICKHUB_")}
        done = subprocess.run(
            [sys.executable, "-m", "app", *args], cwd=ROOT, env=kept, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-1000:]}")

    def _serving(self, data: Path) -> Server:
        port = free_port()
        command = ["app", "serve", "--port", str(port), "--data-dir", str(data), "--workers", str(self._args.workers)]
        return Server([*command, "--metrics-interval", "0"], data / "bench_server.log", {}, port)


def timed(what: Callable[[], None]) -> float:
    """Run it; return how many seconds it took."""
    start_s = time.monotonic()
    what()
    return time.monotonic() - start_s


def measure(directory: Path, server: Postgres, args: argparse.Namespace) -> Results:
    """Measure in an empty directory, and return the results."""
    ticks = int(TICKS * (QUICK_SHARE if args.quick else 1.0))
    loaded = load(server.url("tickhub"), ticks, 0.0, progress)
    progress(f"loaded in {loaded.seconds:.0f} s: {ticks:,} ticks, {loaded.bars:,} bars")
    bench = Bench(directory, server, loaded, args)
    bench.all()
    return bench.results
