"""`python -m app export SYMBOL...`: ticks or bars into one file, or a folder of Parquet files by symbol and day."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import quote

import numpy as np
from psycopg2.extensions import cursor as Cursor
from tqdm import tqdm

from app.cli import database
from app.cli.arguments import time_argument
from app.cli.export_files import ReaderGone, WholeFile, failed, output
from app.errors import BadParameter, DatabaseAway, SettingsError
from app.formats.encoders import Encoder, Format, Gzipped, make_encoder
from app.formats.table import Field, Table
from app.market.intervals import INTERVALS, Buckets
from app.row_stream import PAGE_ROWS, Source
from app.runtime_config import connection as connection_of
from app.settings import Settings
from app.sources import BARS_END_US, BarSource, TickSource
from app.storage.bar_reader import BarQuery
from app.storage.connection import Connection
from app.storage.import_job import UnknownSymbol, find_instruments
from app.storage.instruments import Known
from app.storage.rebuild import all_instruments
from app.storage.tick_counts import ticks_of_days

TRIES = 6
"""A database that restarts is waited for: 0.5 + 1 + 2 + 4 + 8 s."""

_DAY_US = 86_400_000_000
_SYMBOL = Field("symbol", "text", "the instrument's name")
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".parquet": "parquet",
    ".pq": "parquet",
}

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("symbols", nargs="*", metavar="SYMBOL", help="name or alias, in any case")
    parser.add_argument("--all", action="store_true", help="every instrument")
    parser.add_argument("--what", choices=("ticks", "bars"), default="ticks", help="default: ticks")
    when = "RFC 3339 with offset, a date (midnight UTC), or epoch s, ms, us, ns"
    parser.add_argument("--start", type=time_argument, metavar="TIME", help=f"first time that is exported: {when}")
    parser.add_argument("--end", type=time_argument, metavar="TIME", help="first time that is not exported any more")
    bars = parser.add_argument_group("bars")
    bars.add_argument("--interval", choices=INTERVALS, help="default: 1m")
    bars.add_argument("--price", choices=("bid", "ask", "mid", "last"), help="default: bid")
    bars.add_argument("--tz", metavar="ZONE", help="where days, weeks and months begin (default: UTC)")
    parser.add_argument("--format", choices=get_args(Format), help="default: what the file's name ends with, else csv")
    parser.add_argument("--gzip", action="store_true", help="zipped; so is a file whose name ends with .gz")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", metavar="FILE", help="one file; - is stdout")
    target.add_argument(
        "--partition", type=Path, metavar="DIR", help="DIR/symbol=X/date=YYYY-MM-DD/part-0.parquet (UTC days)"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Export, and tell how much it was; a file is whole or not there.

    Starts the embedded database when it is down, and leaves it running. Raises SettingsError for arguments that make
    no sense together, UnknownSymbol, ExportError, DatabaseAway, QueryTimeout.
    """
    _check(args)
    source = _source(args)
    _patiently(lambda: database.run(argparse.Namespace(action="up"), settings))
    connection = connection_of(settings, settings.export_timeout_s, "export")
    try:
        instruments = _patiently(lambda: _instruments(connection, args))
        export = _Export(connection, settings.export_timeout_s, source)
        total = export.expected(instruments) if args.what == "ticks" else None
        unit = args.what.removesuffix("s")
        with tqdm(total=total, unit=unit, unit_scale=True, disable=None, file=sys.stderr) as export.progress:
            if args.partition:
                export.to_folder(instruments, args.partition)
            else:
                export.to_file(instruments, args)
    except ReaderGone:
        return 0
    finally:
        connection.close()
    where = args.partition or args.out
    print(f"{where}: {export.summary(args.what)}", file=sys.stderr if args.out == "-" else sys.stdout)
    return 0


def _check(args: argparse.Namespace) -> None:
    if bool(args.symbols) == args.all:
        raise SettingsError("name one or more symbols, or give --all")
    if None not in (args.start, args.end) and args.end < args.start:
        raise SettingsError("--end is before --start")
    if args.what == "ticks" and (args.interval or args.price or args.tz):
        raise SettingsError("--interval, --price and --tz are about bars: give --what bars")
    if not args.partition:
        return
    if args.format not in (None, "parquet") or args.gzip:
        raise SettingsError("--partition writes Parquet, which is compressed already: leave --format and --gzip out")
    for name in ("start", "end"):
        # The file of a day replaces the one that is there: a part of the day would take the rest away.
        if (getattr(args, name) or 0) % _DAY_US:
            raise SettingsError(f"--partition writes whole days: --{name} must be midnight UTC, as 2026-01-13")


def _source(args: argparse.Namespace) -> Source:
    if args.what == "ticks":
        return TickSource(args.start, args.end)
    start_us, end_us = (None if us is None else min(max(us, 0), BARS_END_US) for us in (args.start, args.end))
    interval, price, tz = args.interval or "1m", args.price or "bid", args.tz or "UTC"
    try:
        buckets = Buckets(interval, tz)
    except BadParameter as error:
        raise SettingsError(f"--tz: {error}") from error
    query = BarQuery(buckets, price, start_us, end_us, fill=False, now_us=time.time_ns() // 1000)
    return BarSource(query, {"interval": interval, "price": price}, ())


def _instruments(connection: Connection, args: argparse.Namespace) -> list[Known]:
    if args.all:
        return sorted(all_instruments(connection), key=lambda known: known.symbol)
    try:
        found = find_instruments(connection, args.symbols, add=False)
    except UnknownSymbol as error:
        raise UnknownSymbol(str(error).split(" (")[0]) from error  # without the importer's advice to add it
    return list({known.symbol_id: known for known in found}.values())


def _patiently(do: Callable[[], T]) -> T:
    """Do it, again and again for a while where the database is away. Raises DatabaseAway and what `do` raises."""
    for attempt in range(TRIES):
        try:
            return do()
        except DatabaseAway:
            if attempt == TRIES - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


@dataclass(slots=True)
class _Export:
    """One run: many short reads in order, so that it holds nobody up; what arrives behind it is not in it."""

    connection: Connection
    timeout_s: float
    source: Source
    progress: tqdm[Any] = field(default_factory=lambda: tqdm(disable=True))
    rows: int = 0
    files: int = 0
    symbols: int = 0
    began: float = field(default_factory=time.monotonic)

    def expected(self, instruments: Sequence[Known]) -> int:
        """Return how many ticks there are, those of a day of which a part is asked for included."""
        ids = [known.symbol_id for known in instruments]
        return self._read(lambda cur: ticks_of_days(cur, ids, *self.source.range))

    def to_file(self, instruments: Sequence[Known], args: argparse.Namespace) -> None:
        """Write all into one file, with a symbol column in front unless one symbol was asked for."""
        path = Path(args.out)
        zipped = path.suffix == ".gz"
        form: Format = args.format or _SUFFIXES.get(path.with_suffix("").suffix if zipped else path.suffix, "csv")
        several = args.all or len(args.symbols) > 1
        fields = (_SYMBOL, *self.source.fields) if several else self.source.fields
        head = self.source.head(instruments[0]) if instruments else {}
        extra = {name: text for name, text in head.items() if not (several and name == "symbol")}
        encoder = make_encoder(form, fields, list_name=self.source.list_name, extra=extra)
        if zipped or args.gzip:
            encoder = Gzipped(encoder)
        with output(args.out) as file:
            file.write(encoder.head())
            for known in instruments:
                for table in self._pages(known):
                    if several:
                        symbols: list[str | None] = [known.symbol] * len(table)
                        table = Table(fields, [symbols, *table.columns])
                    file.write(encoder.rows(table))
            file.write(encoder.tail(None))
        self.files = 1

    def to_folder(self, instruments: Sequence[Known], folder: Path) -> None:
        """Write a file for each symbol and day (UTC) that has rows; others stay as they are."""
        for known in instruments:
            days = _by_day(self._pages(known))
            # As Hive does it: a / in a name would be a folder.
            of_symbol = folder / f"symbol={quote(known.symbol, safe='')}"
            day, table = next(days, (None, None))
            while day is not None:
                path = of_symbol / f"date={np.datetime64(day, 'D')}" / "part-0.parquet"
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise failed(path, error) from error
                encoder: Encoder = make_encoder("parquet", self.source.fields, list_name="", extra={})
                with WholeFile(path) as file:
                    file.write(encoder.head())
                    this_day = day
                    while day == this_day and table is not None:
                        file.write(encoder.rows(table))
                        day, table = next(days, (None, None))
                    file.write(encoder.tail(None))
                self.files += 1

    def summary(self, what: str) -> str:
        """Return what was done, for a person; the symbols are those that had any."""
        seconds = time.monotonic() - self.began
        files = "" if self.files == 1 else f" in {self.files:,} files"
        symbols = f"{self.symbols} symbol{'' if self.symbols == 1 else 's'}"
        rate = self.rows / max(seconds, 1e-3)
        return f"{self.rows:,} {what} of {symbols}{files}; {seconds:.1f} s, {rate:,.0f} {what}/s"

    def _pages(self, known: Known) -> Iterator[Table]:
        self.progress.set_description(known.symbol)
        after: bytes | None = None
        while True:
            page = self._read(
                lambda cur, after=after: self.source.read(  # type: ignore[misc]  # a default cannot be annotated
                    cur, known, after=after, descending=False, max_rows=PAGE_ROWS
                )
            )
            if len(page.table):
                self.symbols += after is None
                yield page.table
                self.rows += len(page.table)
                self.progress.update(len(page.table))
            if not page.more:
                return
            after = page.place

    def _read(self, read: Callable[[Cursor], T]) -> T:
        def once() -> T:
            with self.connection.reading(self.timeout_s) as cur:
                return read(cur)

        return _patiently(once)


def _by_day(tables: Iterator[Table]) -> Iterator[tuple[int, Table]]:
    """Cut tables where the day (UTC) changes; yield the days since 1970 and the parts."""
    for table in tables:
        days = np.asarray(table.columns[0]) // _DAY_US
        cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(table)]
        for start, stop in pairwise(cuts):
            yield int(days[start]), table.slice(start, stop)
