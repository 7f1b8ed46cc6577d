"""Where daily bars come from, and how each comes into price_history once. Used by `import-ohlc`.

A source is a journal of the ledger (storage/import_rows.py). A file's rows are numbered as they stand in it. Of a
symbol at the vendor a row number is a day, counted from 1970: so the ledger says up to which day the symbol is done,
and the same command, run tomorrow, asks for tomorrow's day only.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from msgspec import UNSET

from app.cli.fastconnect import MAX_DAYS, FastConnect
from app.cli.import_reader import content_hash
from app.cli.ohlc_files import BadRow, Reading, read_bars
from app.datasets.price_history import DATASET
from app.errors import DatabaseAway, LedgerMoved, TickhubError
from app.market.batches import LedgerEntry
from app.market.daily_bars import BadBar, DailyBar, daily_bar, fields_of
from app.market.tick_files import UnreadableFile
from app.storage.connection import Connection
from app.storage.import_job import UnknownSymbol, journal_of
from app.storage.import_rows import RowsImport
from app.storage.instruments import Known, find, find_or_add

TRIES = 6
"""A database that restarts is waited for: 0.5 + 1 + 2 + 4 + 8 s."""

EPOCH = date(1970, 1, 1)


@dataclass(slots=True)
class Tally:
    """What became of rows. rejects: the file that lists those that were left out; done_before: rows done by then."""

    stored: int = 0
    duplicates: int = 0
    set_aside: int = 0
    rejected: int = 0
    left_out: int = 0
    rejects: Path | None = None
    done_before: bool = False

    @property
    def rows(self) -> int:
        """Return how many rows were looked at."""
        return self.stored + self.duplicates + self.set_aside + self.rejected + self.left_out

    def __iadd__(self, other: Tally) -> Tally:
        for name in ("stored", "duplicates", "set_aside", "rejected", "left_out"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class Target:
    """The database, and the instruments that it knows."""

    def __init__(self, connection: Connection, add: bool, again: bool) -> None:
        self._connection = connection
        self._add = add
        self._again = again
        self._known: dict[str, Known | None] = {}

    def instrument(self, name: str) -> Known | None:
        """Return the instrument of this name or alias, None when there is none. Raises DatabaseAway."""
        if name not in self._known:
            with self._connection.transaction() as cur:
                self._known[name] = find_or_add(cur, name) if self._add else find(cur, name)
        return self._known[name]

    def needed(self, name: str) -> Known:
        """Return the instrument of this name or alias. Raises UnknownSymbol, DatabaseAway."""
        known = self.instrument(name)
        if known is None:
            raise UnknownSymbol(f"unknown symbol: {name} (--add-symbol adds it to the instruments)")
        return known

    def journal(self, *identity: object) -> Journal:
        """Return the newest journal of what is known by `identity`, again: a new one. Raises DatabaseAway."""
        digest = hashlib.sha256(json.dumps([*identity, ""]).encode()).hexdigest()[:32]
        journal_id = journal_of(self._connection, f"ohlc:{digest}", self._again)
        return Journal(RowsImport(self._connection, journal_id, DATASET, "update"))


class Journal:
    """A source's journal: waits for a database that went away."""

    def __init__(self, rows: RowsImport) -> None:
        self._rows = rows
        self.entry = rows.open()

    def write(self, bars: Sequence[tuple[int, str, DailyBar]], source: str, end_row: int) -> None:
        """Write (number, symbol, bar) up to end_row, but for what the ledger has.

        The ledger tells whether a commit whose answer was lost took place.
        """
        for attempt in range(TRIES):
            try:
                if attempt:
                    self.entry = self._rows.open()
                if end_row > self.entry.next_row:
                    left = [_record(symbol, bar, source) for at, symbol, bar in bars if at >= self.entry.next_row]
                    self.entry = self._rows.write(self.entry, left, end_row)
                return
            except DatabaseAway:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.5 * 2**attempt)
            except LedgerMoved as error:
                raise TickhubError("another import of the same is running") from error


def _record(symbol: str, bar: DailyBar, source: str) -> dict[str, Any]:
    absent = {"daily_return": UNSET, "volatility": UNSET}
    maybe = {name: getattr(bar, name) for name in ("adj_close", "volume", "trading_value")}
    return {
        "symbol": symbol,
        "interval": "1d",
        "timestamp": bar.time_us,
        "source": source,
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        **absent,
        **{name: UNSET if value is None else value for name, value in maybe.items()},
    }


@dataclass(slots=True)
class Rejects:
    """NAME.rejects: number, reason and text of every row that was left out; no file when there are none.

    goes_on: rows were done before, and what was left out of them stays listed.
    """

    path: Path
    goes_on: bool
    count: int = 0

    def write(self, bad: Sequence[BadRow]) -> None:
        """Add rows; they are on disk before the ledger counts them."""
        if not bad:
            return
        added = bool(self.count or (self.goes_on and self.path.exists()))
        with self.path.open("a" if added else "w", encoding="utf-8", errors="replace", newline="\n") as file:
            if not added:
                file.write("line\treason\ttext\n")
            for row in sorted(bad, key=lambda row: row.line):
                file.write(f"{row.line}\t{' '.join(row.reason.split())}\t{' '.join(row.text.split())}\n")
        self.count += len(bad)


def _finish(tally: Tally, start: LedgerEntry, end: LedgerEntry, rejects: Rejects) -> Tally:
    tally.stored = end.stored - start.stored
    tally.duplicates = end.duplicates - start.duplicates
    tally.set_aside = end.set_aside - start.set_aside
    tally.rejected = rejects.count
    tally.rejects = rejects.path if rejects.count else None
    tally.done_before = start.next_row > 0
    return tally


@dataclass(slots=True)
class FileBars:
    """A file of daily bars. wanted: the symbols to import, [] for all."""

    path: Path
    source: str
    symbol: str | None
    day_order: str
    wanted: list[str]
    reject_dir: Path

    def run(self, target: Target, progress: Callable[[int], object], again: Callable[[], object]) -> Tally:
        """Import what the ledger does not have yet. Raises UnreadableFile, UnknownSymbol, DatabaseAway.

        progress: told the bytes that were read, twice over: again() stands between the passes.
        """
        given = target.needed(self.symbol).symbol if self.symbol else ""
        wanted = {target.needed(name).symbol for name in self.wanted}
        before = self.path.stat()
        identity = [self.source, given, self.day_order, sorted(wanted), before.st_size]
        journal = target.journal("file", *identity, content_hash(self.path, progress))
        again()
        start, tally = journal.entry, Tally()
        rejects = Rejects(self.reject_dir / f"{self.path.name}.rejects", start.next_row > 0)
        nonpositive = _Nonpositive(target)
        position = 0
        for block in read_bars(self.path, Reading(given, self.day_order, nonpositive)):
            bars: list[tuple[int, str, DailyBar]] = []
            bad = [row for row, at in zip(block.bad, block.bad_rows, strict=True) if at >= start.next_row]
            for (at, bar), line in zip(block.bars, block.lines, strict=True):
                known = target.instrument(bar.symbol)
                if at < start.next_row:
                    continue
                if known is None:
                    bad.append(BadRow(line, f"Unknown symbol: {bar.symbol}", str(bar.day)))
                elif wanted and known.symbol not in wanted:
                    tally.left_out += 1
                else:
                    bars.append((at, known.symbol, bar))
            rejects.write(bad)
            journal.write(bars, self.source, block.end_row)
            progress(block.position - position)
            position = block.position
        after = self.path.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise UnreadableFile("the file changed while it was read: import it again when it is complete")
        return _finish(tally, start, journal.entry, rejects)


@dataclass(slots=True)
class _Nonpositive:
    target: Target

    def __call__(self, name: str) -> bool:
        known = self.target.instrument(name) if name else None
        return known is not None and known.nonpositive_ok


@dataclass(slots=True)
class VendorDays:
    """A symbol's days at FastConnect, both ends included. vendor_name: which vendor the ledger's days are of.

    settled: up to this day what the vendor does not have there was not; of later days it may only be late, so they are
    asked for again the next time.
    """

    vendor: FastConnect
    vendor_name: str
    source: str
    symbol: str
    first: date
    last: date
    reject_dir: Path
    settled: date = date.max
    rejects: Rejects = field(init=False)

    def run(self, target: Target, progress: Callable[[int], object]) -> Tally:
        """Import the days that the ledger does not have yet, a question at a time, each kept when it is answered.

        progress: told the days that are done. Raises VendorAway, VendorRefused, UnknownSymbol, DatabaseAway.
        """
        known = target.needed(self.symbol)
        journal = target.journal("days", self.vendor_name, known.symbol, self.symbol, self.first.isoformat())
        start = journal.entry
        path = self.reject_dir / f"{self.source}.{known.symbol.replace('/', '_')}.rejects"
        self.rejects = Rejects(path, start.next_row > 0)
        end = _number(self.last) + 1
        day = max(start.next_row, _number(self.first))
        progress(min(day, end) - _number(self.first))
        while day < end:
            until = min(day + MAX_DAYS, end)
            bars = self._bars(day, until - 1, known)
            done = min(until, max(_number(self.settled), *bars, day - 1) + 1)
            journal.write([(at, known.symbol, bar) for at, bar in sorted(bars.items())], self.source, done)
            progress(until - day)
            day = until
        return _finish(Tally(), start, journal.entry, self.rejects)

    def _bars(self, first: int, last: int, known: Known) -> dict[int, DailyBar]:
        """Ask for the days of these numbers; of a day that comes twice the later row counts."""
        rows = self.vendor.daily_bars(self.symbol, EPOCH + timedelta(first), EPOCH + timedelta(last))
        bars: dict[int, DailyBar] = {}
        bad: list[BadRow] = []
        for number, row in enumerate(rows, 1):
            try:
                bar = daily_bar(row, fields_of(row), symbol=self.symbol, nonpositive=known.nonpositive_ok)
                if bar.symbol.upper() != self.symbol.upper():
                    raise BadBar(f"{self.symbol} was asked for, not {bar.symbol}")
                if not first <= _number(bar.day) <= last:
                    raise BadBar(f"{bar.day} was not asked for")
                bars[_number(bar.day)] = bar
            except BadBar as error:
                bad.append(BadRow(number, str(error), json.dumps(row, ensure_ascii=False)[:1000]))
        self.rejects.write(bad)
        return bars


def _number(day: date) -> int:
    return (day - EPOCH).days
