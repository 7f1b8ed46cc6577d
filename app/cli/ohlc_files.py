"""Files of daily bars on disk, CSV (plain, gzip, zip) or Parquet, as blocks of rows. Used by `import-ohlc`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.cli.import_reader import BROKEN, unpacked, utf8
from app.market.daily_bars import BadBar, DailyBar, daily_bar, fields_of
from app.market.tick_files import UnreadableFile

BLOCK_ROWS = 2_000
"""One transaction: a few dozen milliseconds, so that a cut-off import has little to repeat."""

CELL_CHARS = 10_000
"""No cell of a price file is as long: one without line ends must not be taken into memory."""


@dataclass(slots=True, frozen=True)
class BadRow:
    """A row that was left out. line: its line in a text file, its ordinal from 1 in a Parquet file."""

    line: int
    reason: str
    text: str


@dataclass(slots=True)
class BarBlock:
    """Consecutive rows. bars: each with its ordinal from 0; end_row: the ordinal behind the last row.

    lines: of the bars, in their order; bad_rows: ordinals of the bad ones. position: bytes of the file that were read
    up to here.
    """

    bars: list[tuple[int, DailyBar]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    bad_rows: list[int] = field(default_factory=list)
    end_row: int = 0
    position: int = 0


@dataclass(slots=True, frozen=True)
class Reading:
    """How rows are to be read: the symbol of rows that have none, the order of day and month, prices below zero."""

    symbol: str = ""
    day_order: str = "dmy"
    nonpositive: Callable[[str], bool] = lambda _: False

    def bar(self, cells: Mapping[str, object], fields: Mapping[str, str]) -> DailyBar:
        """Return the bar in these cells. Raises BadBar."""
        name = str(cells.get(fields.get("symbol", ""), "") or "").strip() or self.symbol
        return daily_bar(
            cells, fields, symbol=self.symbol, day_order=self.day_order, nonpositive=self.nonpositive(name)
        )


def read_bars(path: Path, reading: Reading) -> Iterator[BarBlock]:
    """Yield the file's rows, a block at a time. Raises UnreadableFile, also when the file breaks midway.

    A file none of whose first rows can be read is refused whole: it is another kind of file.
    """
    try:
        with path.open("rb") as raw:
            if raw.read(4) == b"PAR1":
                rows = _parquet_rows(path)
                yield from _blocks(rows, reading)
                return
            with unpacked(raw) as stream:
                yield from _blocks(_csv_rows(stream, raw.tell), reading)
    except (*BROKEN, csv.Error) as error:
        raise UnreadableFile(f"the file cannot be read to its end: {error}") from error


@dataclass(slots=True)
class _Row:
    line: int
    cells: dict[str, object] | None
    text: str
    position: int


def _blocks(rows: Iterator[_Row], reading: Reading) -> Iterator[BarBlock]:
    header = next(rows, None)
    if header is None or header.cells is None:
        raise UnreadableFile("the file is empty")
    try:
        fields = fields_of(header.cells)
        if "symbol" not in fields and not reading.symbol:
            raise BadBar("the file does not name the symbol: give it with --symbol")
    except BadBar as error:
        raise UnreadableFile(str(error)) from error
    block = BarBlock()
    for number, row in enumerate(rows):
        try:
            if row.cells is None:
                raise BadBar("it has more cells than the header")
            block.bars.append((number, reading.bar(row.cells, fields)))
            block.lines.append(row.line)
        except BadBar as error:
            block.bad.append(BadRow(row.line, str(error), row.text))
            block.bad_rows.append(number)
        block.end_row, block.position = number + 1, row.position
        if len(block.bars) + len(block.bad) >= BLOCK_ROWS:
            _refuse_other_kinds(block)
            yield block
            block = BarBlock()
    if block.bars or block.bad:
        _refuse_other_kinds(block)
        yield block


def _refuse_other_kinds(block: BarBlock) -> None:
    seen = len(block.bars) + len(block.bad)
    if block.end_row == seen and not block.bars:
        first = block.bad[0]
        raise UnreadableFile(f"none of the first {seen} rows is a daily bar; line {first.line}: {first.reason}")


def _csv_rows(stream: IO[bytes], position: Callable[[], int]) -> Iterator[_Row]:
    csv.field_size_limit(CELL_CHARS)
    lines = _lines(stream)
    first = next(lines, "")
    separator = max(",;\t", key=first.count)
    names = next(csv.reader([first], delimiter=separator), [])
    if not names:
        return
    yield _Row(1, dict.fromkeys(names), first, position())
    reader = csv.reader(lines, delimiter=separator)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            named: dict[str, object] | None = None
            if len(cells) <= len(names):
                # Of two columns with one name the first counts, as everywhere in spreadsheets.
                named = dict(reversed(list(zip(names, cells, strict=False))))
            yield _Row(reader.line_num + 1, named, separator.join(cells), position())


def _lines(stream: IO[bytes]) -> Iterator[str]:
    rest = b""
    for piece in utf8(stream):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (f"{line.decode(errors='replace')}\n" for line in whole)
        if len(rest) > 100 * CELL_CHARS:
            raise UnreadableFile("there are lines of more than a million characters: this is no file of bars")
    if rest:
        yield rest.decode(errors="replace")


def _parquet_rows(path: Path) -> Iterator[_Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            yield _Row(0, dict.fromkeys(names), "", 0)
            fields = fields_of(names)
            wanted = sorted(set(fields.values()))
            size, total, number = path.stat().st_size, max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(BLOCK_ROWS, columns=wanted):
                for cells in batch.to_pylist():
                    number += 1
                    text = "\t".join(str(value) for value in cells.values())
                    yield _Row(number, cells, text, size * number // total)
    except pa.ArrowException as error:
        raise UnreadableFile(f"the file cannot be read: {error}") from error
