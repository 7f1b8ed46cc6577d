"""`python -m app import FILE...`: load tick files straight into the database, each once."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from app.cli import database
from app.cli.import_reader import Block, content_hash, read_blocks
from app.cli.url import database_url
from app.errors import DatabaseAway, LedgerMoved, TickhubError
from app.market.batches import LedgerEntry
from app.market.clock import BrokerClock
from app.market.columns import StoredTicks
from app.market.file_rows import FileRows
from app.market.file_ticks import FileTicks
from app.market.tick_files import UnreadableFile
from app.settings import Settings
from app.storage.connection import Connection
from app.storage.import_job import ImportJob, find_instruments, journal_of
from app.storage.instruments import Known

STATEMENT_TIMEOUT_S = 600.0
"""One COPY of a block is seconds even on a slow disk; waiting for a server's flush must not end an import."""

TRIES = 6
"""A database that restarts is waited for: 0.5 + 1 + 2 + 4 + 8 s."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="MT5 tick export, CSV or Parquet; .gz, .zip"
    )
    parser.add_argument(
        "--symbol", help="instrument of the ticks (name or alias), where the file does not say"
    )
    parser.add_argument(
        "--timezone",
        metavar="ZONE",
        help="clock of the file's times, as America/New_York+7h (default: the setting tick_timezone)",
    )
    parser.add_argument("--add-symbol", action="store_true", help="add symbols that are not known yet")
    parser.add_argument(
        "--merge", action="store_true", help="import into a range that holds ticks sent without seq"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="import once more what is imported already, as after a deletion; what is still there is not doubled",
    )
    parser.add_argument(
        "--reject-dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where FILE.rejects goes (default: here)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Import the files, one after another; return 1 when one failed.

    Starts the embedded database when it is down, and leaves it running. Raises TickhubError.
    """
    spec = args.timezone or settings.tick_timezone
    try:
        clock = BrokerClock(spec)
    except ValueError as error:
        raise TickhubError(f"--timezone: {error}") from error
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: database_url(settings), settings.db_connect_timeout_s, STATEMENT_TIMEOUT_S, "import"
    )
    failed = False
    named = Counter[str]()
    try:
        for path in args.files:
            named[path.name] += 1
            number = f".{named[path.name]}" if named[path.name] > 1 else ""
            rejects = args.reject_dir / f"{path.name}{number}.rejects"
            try:
                _Import(path, rejects, clock, connection, args, settings).run()
            except (TickhubError, OSError) as error:
                failed = True
                print(f"{path}: {error}", file=sys.stderr)
    finally:
        connection.close()
    return 1 if failed else 0


@dataclass(slots=True)
class _Import:
    """One file's import."""

    path: Path
    rejects: Path
    clock: BrokerClock
    connection: Connection
    args: argparse.Namespace
    settings: Settings
    known: dict[str, Known] = field(default_factory=dict)

    def run(self) -> None:
        """Import the file and print its summary line."""
        began = time.monotonic()
        given: Known | None = None
        if self.args.symbol:
            (given,) = self._instruments([self.args.symbol])
        before = self.path.stat()
        with tqdm(total=before.st_size, unit="B", unit_scale=True, desc=self.path.name, disable=None) as bar:
            digest = content_hash(self.path, bar.update)
            identity: list[str | int] = [given.symbol if given else "", self.clock.spec, before.st_size, digest]
            job = self._job(identity)
            start, created_us = job.open()
            bar.reset()
            with _Rejects(self.rejects) as rejects:
                entry = self._write_blocks(job, start, created_us, given, rejects, bar)
            if (
                after := self.path.stat()
            ).st_size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
                raise UnreadableFile(
                    "the file changed while it was read: import it again when it is complete"
                )
        print(_summary(self.path, start, entry, rejects, time.monotonic() - began))

    def _job(self, identity: list[str | int]) -> ImportJob:
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        journal_id = journal_of(self.connection, f"import:{key}", self.args.again)
        return ImportJob(self.connection, journal_id, self.args.merge)

    def _write_blocks(
        self,
        job: ImportJob,
        entry: LedgerEntry,
        created_us: int,
        given: Known | None,
        rejects: _Rejects,
        bar: tqdm[Any],
    ) -> LedgerEntry:
        """Write what the ledger does not have yet.

        The file is read from its beginning even then: how often a microsecond occurred, and whether the clock
        was set back, is known only from there. Limits of time count from the first start, so that a later one
        decides alike.
        """
        oldest = datetime.combine(self.settings.oldest_time, datetime.min.time(), UTC)
        newest_us = created_us + self.settings.max_future_skew_s * 1_000_000
        ticks_of = FileTicks(self.clock, round(oldest.timestamp()) * 1_000_000, newest_us)
        first_name: str | None = None
        done = 0
        for block in _ahead(read_blocks(self.path)):
            rows = block.rows
            if given:
                first_name = _same_name(rows.names, first_name)
                rows = replace(rows, names=[], symbol=np.zeros(len(rows), np.int32))
                instruments = [given]
            elif rows.names:
                instruments = self._instruments(rows.names)
            elif len(rows):
                raise UnreadableFile("the file does not name the symbol: give it with --symbol")
            else:
                instruments = []
            ids = np.array([known.symbol_id for known in instruments], np.int32)
            nonpositive = np.array([known.nonpositive_ok for known in instruments], np.bool_)
            ticks, rows = ticks_of.build(rows, ids, nonpositive, entry.journal_no, created_us)
            rejects.write(rows)
            entry = self._write(job, entry, ticks, block, instruments)
            done += block.rows.total
            bar.set_postfix_str(f"{done / max(bar.format_dict['elapsed'], 1e-3):,.0f} ticks/s", refresh=False)
            bar.update(block.position - bar.n)
        return entry

    def _instruments(self, names: list[str]) -> list[Known]:
        missing = [name for name in names if name not in self.known]
        found = find_instruments(self.connection, missing, self.args.add_symbol)
        self.known.update(zip(missing, found, strict=True))
        return [self.known[name] for name in names]

    def _write(
        self, job: ImportJob, entry: LedgerEntry, ticks: StoredTicks, block: Block, instruments: list[Known]
    ) -> LedgerEntry:
        """Write what the ledger does not have of a block; wait for a database that went away.

        The ledger tells whether a commit whose answer was lost took place.
        """
        for attempt in range(TRIES):
            try:
                if attempt:
                    entry = job.open()[0]
                if block.end_row <= entry.next_row:
                    return entry
                left = ticks.take(ticks.row_no >= entry.next_row)
                return job.write(entry, left, block.end_row, instruments)
            except DatabaseAway:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.5 * 2**attempt)
            except LedgerMoved as error:
                raise TickhubError("another import of this file is running") from error
        raise AssertionError("unreachable")


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yield the blocks, each read and parsed on a thread of its own while the one before is written."""
    with ThreadPoolExecutor(1, "reader") as reader:
        following = reader.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = reader.submit(next, blocks, None)
            yield block


def _same_name(names: list[str], first: str | None) -> str | None:
    """With --symbol a file may name one symbol in its own way, not several."""
    for name in names:
        if first is not None and name != first:
            raise UnreadableFile(f"the file holds several symbols ({first}, {name}): leave --symbol out")
        first = name
    return first


class _Rejects:
    """FILE.rejects: number, reason and text of every line that was left out; no file when there are none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> _Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: FileRows) -> None:
        """Add the rows' bad lines; they are on disk before the ledger counts them."""
        if not rows.bad:
            return
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8", errors="replace", newline="\n")
            self._file.write("line\treason\ttext\n")
        for bad in sorted(rows.bad, key=lambda bad: bad.line):
            self._file.write(f"{bad.line}\t{' '.join(bad.reason.split())}\t{rows.text_of(bad.line)}\n")
        self._file.flush()
        self.count += len(rows.bad)


def _summary(path: Path, start: LedgerEntry, end: LedgerEntry, rejects: _Rejects, seconds: float) -> str:
    rows = end.next_row - start.next_row
    if not rows and start.next_row:
        return (
            f"{path}: already imported, nothing to do ({end.next_row} rows, {end.stored} stored, "
            f"{end.duplicates} duplicates, {end.set_aside} set aside, {end.skipped} rejected); "
            "--again imports it once more"
        )
    line = f"{path}: {rows} rows, {end.stored - start.stored} stored"
    line += f", {end.duplicates - start.duplicates} duplicates"
    if end.set_aside > start.set_aside:
        line += f", {end.set_aside - start.set_aside} set aside (see rejected_ticks)"
    line += f", {end.skipped - start.skipped} rejected"
    if rejects.count:
        line += f" (see {rejects.path})"
    if start.next_row:
        line += f"; went on at row {start.next_row}"
    return f"{line}; {seconds:.1f} s, {rows / max(seconds, 1e-3):,.0f} ticks/s"
