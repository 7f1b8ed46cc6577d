"""`python -m app coverage [SYMBOL...]`: how good the stored ticks are, day by day; as a table, rows, or a picture."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from tqdm import tqdm

from app.cli import database
from app.cli.export_files import ReaderGone, output
from app.coverage_sources import KINDS, table_of
from app.errors import SettingsError
from app.formats.encoders import Format, make_encoder
from app.formats.table import Field, Table
from app.market.sessions import Market
from app.quality.days import Day
from app.quality.hours import hours, quarters
from app.quality.picture import Cell, draw
from app.quality.tally import Limits
from app.runtime_config import connection as connection_of
from app.settings import Settings
from app.storage.connection import Connection
from app.storage.coverage_reader import USUAL_DAYS, Found, chosen_days, clock_of, read_coverage
from app.storage.import_job import UnknownSymbol, find_instruments
from app.storage.instruments import Known, read_market
from app.storage.rebuild import all_instruments

_SYMBOL = Field("symbol", "text", "the instrument's name")
_USUAL = Limits()
_HEADINGS = (
    "symbol",
    "day",
    "ticks",
    "open",
    "covered",
    "gaps",
    "longest",
    "crossed",
    "<= 0",
    "outliers",
    "again",
    "late",
    "waiting",
    "rejected",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("symbols", nargs="*", metavar="SYMBOL", help="name or alias, in any case; default: all")
    when = "a date at the exchange, as 2026-01-13"
    parser.add_argument("--start", type=_date, metavar="DATE", help=f"first day (default: {USUAL_DAYS} before): {when}")
    parser.add_argument("--end", type=_date, metavar="DATE", help="day before which they end (default: tomorrow)")
    parser.add_argument("--gap-s", type=_seconds(1), default=_USUAL.gap_s, metavar="S", help="a longer one is a gap")
    parser.add_argument("--late-s", type=_seconds(0), default=_USUAL.late_s, metavar="S", help="a later one is late")
    parser.add_argument(
        "--outlier-z", type=_seconds(1), default=_USUAL.outlier_z, metavar="Z", help="a greater score is an outlier"
    )
    parser.add_argument("--what", choices=tuple(KINDS), default="days", help="rows of csv and json (default: days)")
    parser.add_argument("--format", choices=("table", "csv", "json"), help="default: table, with --what csv")
    parser.add_argument("--png", metavar="FILE", help="a heat map: hours down of one symbol, else symbols down")


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write 2026-01-13") from error


def _seconds(least: float) -> Any:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number < 1e9:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of {least:g} and more")
        return number

    return read


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Tell of the days; a file is whole or not there.

    Starts the embedded database when it is down, and leaves it running. Raises SettingsError for arguments that make
    no sense together, UnknownSymbol, BadParameter, ExportError, ArchiveAway, DatabaseAway.
    """
    form = args.format or ("table" if args.what == "days" else "csv")
    if form == "table" and args.what != "days":
        raise SettingsError("--format table shows days: give --format csv or json")
    database.run(argparse.Namespace(action="up"), settings)
    connection = connection_of(settings, settings.export_timeout_s, "coverage")
    looked_at = _Look(connection, settings.export_timeout_s, args)
    shown: _Rows | _Days = _Days() if form == "table" else _Rows(form, args.what)
    try:
        with output("-") as out:
            out.write(shown.head())
            for known, zone, found in looked_at:
                out.write(shown.rows(known, zone, found))
            out.write(shown.tail())
    except ReaderGone:
        return 0
    finally:
        connection.close()
    if args.png:
        picture = looked_at.picture()
        with output(args.png) as file:
            file.write(picture)
    return 0


@dataclass(slots=True)
class _Look:
    """Looks at the days that were asked for, a transaction each, and keeps what a picture needs of them."""

    connection: Connection
    timeout_s: float
    args: argparse.Namespace
    cells: dict[str, dict[date, Cell]] = field(default_factory=dict)
    days: set[date] = field(default_factory=set)
    title: str = "no days"

    def __iter__(self) -> Iterator[tuple[Known, str, Found]]:
        """Yield the instrument, the zone of its exchange's clocks, and what was found, a day at a time."""
        args, now_us = self.args, time.time_ns() // 1000
        instruments = self._instruments()
        by_hour = bool(args.png) and len(instruments) == 1
        chosen: list[tuple[Known, Market, list[Day]]] = []
        for known in instruments:
            with self.connection.reading(self.timeout_s) as cur:
                market = read_market(cur, known.symbol_id)
            chosen.append((known, market, chosen_days(market, args.start, args.end, now_us)))
        total = sum(len(days) for _, _, days in chosen)
        limits = Limits(args.gap_s, args.late_s, args.outlier_z)
        with tqdm(total=total, unit="day", disable=None, leave=False, file=sys.stderr) as progress:
            for known, market, days in chosen:
                progress.set_description(known.symbol)
                zone = clock_of(market)
                for day in days:
                    edges = {"edges_us": quarters(day)} if by_hour or args.what == "hours" else {}
                    with self.connection.reading(self.timeout_s) as cur:
                        found = read_coverage(cur, known, day, limits, **edges)
                    self._keep(known, zone, found, by_hour)
                    progress.update()
                    yield known, zone, found

    def picture(self) -> bytes:
        """Return the heat map of all that was looked at, as PNG."""
        return draw(self.title, sorted(self.days), self.cells)

    def _instruments(self) -> Sequence[Known]:
        if not self.args.symbols:
            return sorted(all_instruments(self.connection), key=lambda known: known.symbol)
        try:
            found = find_instruments(self.connection, self.args.symbols, add=False)
        except UnknownSymbol as error:
            raise UnknownSymbol(str(error).split(" (")[0]) from error  # without the importer's advice to add it
        return list({known.symbol_id: known for known in found}.values())

    def _keep(self, known: Known, zone: str, found: Found, by_hour: bool) -> None:
        day, limits = found.coverage.day.date, f"gaps longer than {self.args.gap_s:g} s"
        self.days.add(day)
        if not by_hour:
            self.title = f"Coverage, {limits}"
            cells = self.cells.setdefault(known.symbol, {})
            cells[day] = Cell(found.coverage.covered, found.coverage.ticks)
            return
        self.title = f"Coverage of {known.symbol} by the hour, {zone}, {limits}"
        for number in range(24):
            self.cells.setdefault(f"{number:02}", {})
        for hour in hours(found.coverage, zone):
            covered = 1 - hour.gaps_us / hour.session_us if hour.session_us else math.nan
            self.cells[f"{hour.hour:02}"][day] = Cell(covered, hour.ticks)


class _Rows:
    """Rows as programs want them, with the symbol in front."""

    def __init__(self, form: str, what: Any) -> None:
        self._what = what
        self._fields = (_SYMBOL, *KINDS[what].fields)
        kind: Format = "csv" if form == "csv" else "json"
        self._encoder = make_encoder(kind, self._fields, list_name=what, extra={})

    def head(self) -> bytes:
        return self._encoder.head()

    def rows(self, known: Known, zone: str, found: Found) -> bytes:
        table = table_of(self._what, found, zone)
        symbols: list[str | None] = [known.symbol] * len(table)
        return self._encoder.rows(Table(self._fields, [symbols, *table.columns])) if len(table) else b""

    def tail(self) -> bytes:
        return self._encoder.tail(None)


class _Days:
    """A line a day for people; of those that are closed only where there are ticks."""

    def __init__(self) -> None:
        self._wide = 12

    def head(self) -> bytes:
        return self._line(_HEADINGS)

    def rows(self, known: Known, zone: str, found: Found) -> bytes:
        one = found.coverage
        if not one.day.open and not one.ticks:
            return b""
        longest_us = max((gap.us for gap in one.gaps), default=0)
        cells = (
            known.symbol,
            f"{one.day.date}",
            f"{one.ticks:,}",
            _clock(one.day.session_us),
            "-" if math.isnan(one.covered) else f"{math.floor(one.covered * 1000) / 10:.1f} %",
            f"{len(one.gaps):,}",
            _clock(longest_us),
            f"{one.crossed:,}",
            f"{one.nonpositive:,}",
            "?" if one.outliers is None else f"{len(one.outliers):,}",
            f"{found.duplicates:,}",
            f"{one.late:,}",
            f"{found.waiting:,}",
            f"{found.rejected:,}",
        )
        return self._line(cells)

    def tail(self) -> bytes:
        return b""

    def _line(self, cells: Sequence[str]) -> bytes:
        self._wide = max(self._wide, len(cells[0]))
        widths = (self._wide, 10, 10, 8, 7, 6, 8, 7, 6, 8, 8, 8, 7, 8)
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return ("  ".join([cells[0].ljust(self._wide), *others]) + "\n").encode()


def _clock(us: int) -> str:
    """Return a length as hours, minutes and seconds."""
    seconds = us // 1_000_000
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
