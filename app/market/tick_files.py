"""Tick files as columns: MetaTrader 5's "Export ticks" and tables with named columns, block by block.

Pure: bytes or Arrow tables in, arrays out. pyarrow is imported where it is used, because it costs 40 MB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from app.errors import TickhubError
from app.market import flags as flag
from app.market.accept import MAX_FLAGS, MAX_SEQ
from app.market.columns import F8, I4, I8, Mask
from app.market.file_rows import BadLine, FileRows, joined, no_rows, without
from app.market.file_times import dates_and_times, epoch_or_text, timestamps

_NUMBERS = ("bid", "ask", "last", "spread", "volume", "volume_real")
_KNOWN = {"symbol", "date", "time", "timestamp", "time_msc", "seq", "flags", *_NUMBERS}
PIECE_BYTES = 32 * 1024
"""Into what a block with bad lines is cut first: each bad line costs another parsing of its piece (0.4 ms)."""

_ARROW_ROW = re.compile(r"Row #(\d+)")
_ARROW_MESSAGE = re.compile(r"column #(\d+): .*(invalid .*)", re.DOTALL)


class UnreadableFile(TickhubError):
    """The file is no tick file, or not one that can be imported exactly."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a file are: known names in lower case, '' for those that do not matter."""

    columns: tuple[str, ...]
    delimiter: str = ""

    @property
    def time(self) -> str:
        """The column that tells the time; `date` stands for DATE and TIME together."""
        return next(name for name in ("date", "time_msc", "timestamp", "time") if name in self.columns)


def read_layout(header: str) -> Layout:
    """Return the layout that the first line of a text file tells. Raises UnreadableFile."""
    delimiter = max("\t,;", key=header.count)
    names = [name.strip().strip('"<>').strip().lower() for name in header.split(delimiter)]
    return named_layout(names, delimiter)


def named_layout(names: list[str], delimiter: str = "") -> Layout:
    """Return the layout of columns with these names. Raises UnreadableFile."""
    columns = tuple(name if name in _KNOWN else "" for name in (name.lower() for name in names))
    known = [name for name in columns if name]
    if len(set(known)) < len(known):
        raise UnreadableFile(f"a column occurs twice: {', '.join(known)}")
    if "date" in known and "time" not in known:
        raise UnreadableFile("there is a DATE column but no TIME")
    if not {"time", "timestamp", "time_msc"} & set(known) or not {"bid", "ask", "last"} & set(known):
        shown = ", ".join(name[:20] for name in names[:10])
        raise UnreadableFile(
            "the first line must name the columns: a time (<DATE> and <TIME>, time, timestamp or time_msc) "
            f"and bid, ask or last; it reads: {shown}"
        )
    return Layout(columns, delimiter)


def parse_text(text: bytes, first_line: int, first_row: int, layout: Layout) -> FileRows:
    """Parse a block of whole lines; blank ones are no rows.

    text: UTF-8. first_line: the number of its first line; first_row: the ordinal of its first row. A block
    that the parser refuses is cut until the lines to blame stand alone, so that one way of reading decides
    about every line.
    """
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    if not text.endswith(b"\n"):
        text += b"\n"
    parts: list[FileRows] = []
    ahead = [text]
    line, row = first_line, first_row
    while ahead:
        part = ahead.pop()
        count = part.count(b"\n")
        if count == len(part):  # blank lines only, which the parser calls an empty file
            line += count
            continue
        parsed = _parse_part(part, line, row, layout, alone=count == 1)
        if isinstance(parsed, int):
            ahead += reversed(_cut(part, parsed))
            continue
        parts.append(parsed)
        line += count
        row += parsed.total
    rows = joined(parts) if parts else no_rows("seq" in layout.columns, [])
    return replace(rows, text=text, first_line=first_line)


def _cut(text: bytes, suspect: int) -> list[bytes]:
    """Cut two or more lines: pieces when it is much, else what is before the suspected line, it, and the rest."""
    bounds: set[int] = set()
    if len(text) > 2 * PIECE_BYTES:
        bounds = {text.find(b"\n", at) + 1 for at in range(PIECE_BYTES, len(text), PIECE_BYTES)}
    if not bounds - {0, len(text)}:
        lines = text.split(b"\n")[:-1]
        suspect = min(suspect, len(lines) - 1)
        before = sum(len(line) + 1 for line in lines[:suspect])
        bounds = {before, before + len(lines[suspect]) + 1}
    return [text[start:end] for start, end in pairwise(sorted(bounds | {0, len(text)}))]


def parse_table(table: Any, first_row: int, layout: Layout) -> FileRows:
    """Turn an Arrow table (a batch of a Parquet file) into rows. Raises UnreadableFile for a wrong type."""
    import pyarrow as pa

    row = np.arange(first_row, first_row + table.num_rows, dtype=np.int64)
    try:
        return _rows_of(table.rename_columns(_unique(layout)), row, row + 1, [], layout)
    except pa.ArrowException as error:
        raise UnreadableFile(str(error)) from error


def _parse_part(text: bytes, first_line: int, first_row: int, layout: Layout, alone: bool) -> FileRows | int:
    """Parse some lines, or return which one (from 0) is probably to blame; when `alone`, it is a bad line."""
    import pyarrow as pa
    from pyarrow import csv

    has_seq = "seq" in layout.columns
    wrong: list[tuple[int, str]] = []

    def note(invalid: Any) -> str:
        wrong.append(
            (invalid.number - 1, f"{invalid.actual_columns} columns instead of {len(layout.columns)}")
        )
        return "skip"

    types = {name: pa.float64() for name in _NUMBERS} | {"flags": pa.int64(), "seq": pa.int64()}
    types |= {
        "symbol": pa.dictionary(pa.int32(), pa.string()),
        "date": pa.dictionary(pa.int32(), pa.string()),
    }
    types |= {"time": pa.time64("us") if layout.time == "date" else pa.string()}
    types |= {"timestamp": pa.string(), "time_msc": pa.string()}
    quote: Any = '"' if layout.delimiter != "\t" else False
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            # one chunk, so that row numbers count from its beginning
            csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=_unique(layout)),
            csv.ParseOptions(delimiter=layout.delimiter, quote_char=quote, invalid_row_handler=note),
            csv.ConvertOptions(
                column_types=types,
                include_columns=[name for name in layout.columns if name],
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if not alone:
            found = _ARROW_ROW.search(str(error))
            return int(found[1]) - 1 if found else text.count(b"\n") // 2
        return no_rows(has_seq, [BadLine(first_line, _reason(str(error), layout))])
    lines = _line_numbers(text, first_line, table.num_rows + len(wrong))
    if lines is None:  # a quote that opens and does not close has eaten line ends
        if not alone:
            return text.count(b"\n") // 2
        return no_rows(has_seq, [BadLine(first_line, "quotes do not match")])
    ordinals = np.arange(len(lines), dtype=np.int64)
    here = np.ones(len(lines), np.bool_)
    here[[number for number, _ in wrong]] = False
    bad = [BadLine(int(lines[number]), reason) for number, reason in wrong]
    return _rows_of(table, ordinals[here] + first_row, lines[here], bad, layout)


def _line_numbers(text: bytes, first_line: int, rows: int) -> I8 | None:
    """Return the line of each row, int64[rows]; None when there are not as many that are not blank."""
    if text.count(b"\n") == rows:
        return np.arange(first_line, first_line + rows, dtype=np.int64)
    filled = [number for number, line in enumerate(text.split(b"\n"), first_line) if line]
    return np.array(filled, np.int64) if len(filled) == rows else None


def _rows_of(table: Any, row: I8, line: I8, bad: list[BadLine], layout: Layout) -> FileRows:
    """Turn a table with the layout's column names into rows; those with impossible values are bad."""
    count = table.num_rows
    total = count + len(bad)
    reasons: list[tuple[Mask, str]] = []

    def column(name: str) -> Any:
        return table.column(name).combine_chunks()

    if layout.time == "date":
        time_us, time_ok = dates_and_times(column("date"), column("time"))
        utc = np.zeros(count, np.bool_)
    elif layout.delimiter or _is_text(column(layout.time)):
        time_us, utc, time_ok = epoch_or_text(column(layout.time), layout.time)
    else:
        time_us, utc, time_ok = timestamps(column(layout.time), layout.time)
    reasons.append((~time_ok, "the time cannot be read"))

    def number(name: str) -> F8:
        if name not in layout.columns:
            return np.full(count, np.nan)
        values, absent = _floats(column(name))
        reasons.append((~absent & ~np.isfinite(values), f"{name} is not a finite number"))
        return values

    def whole(name: str, low: int, high: int) -> tuple[I8, Mask]:
        values, absent = _integers(column(name))
        reasons.append((~absent & ((values < low) | (values > high)), f"{name} is out of range"))
        return np.clip(values, low, high), absent

    bid, ask, last, spread, volume = (number(name) for name in ("bid", "ask", "last", "spread", "volume"))
    real = number("volume_real")
    volume = np.nan_to_num(np.where(real > 0, real, volume), nan=0.0)
    if "flags" in layout.columns:
        flags = whole("flags", 0, MAX_FLAGS)[0].astype(np.int32)
    elif "date" in layout.columns:
        flags = _stated_sides(bid, ask, last, volume)
    else:
        flags = np.zeros(count, np.int32)
    seq = None
    if "seq" in layout.columns:
        seq, absent = whole("seq", 0, MAX_SEQ - 1)
        reasons.append((absent, "seq is missing"))
    names: list[str] = []
    symbol = np.zeros(count, np.int32)
    if "symbol" in layout.columns:
        names, symbol = _names(column("symbol"))
        reasons.append((symbol < 0, "symbol is missing"))
    rows = FileRows(
        row, line, time_us, utc, bid, ask, last, spread, volume, flags, symbol, seq, names, bad, total
    )
    return without(rows, reasons)


def _stated_sides(bid: F8, ask: F8, last: F8, volume: F8) -> I4:
    """Return the flags of an export without FLAGS: what a line states is what changed."""
    flags = np.where(np.isnan(bid), 0, flag.BID) | np.where(np.isnan(ask), 0, flag.ASK)
    flags |= np.where(last > 0, flag.LAST, 0) | np.where(volume > 0, flag.VOLUME, 0)
    return flags.astype(np.int32)


def _reason(message: str, layout: Layout) -> str:
    found = _ARROW_MESSAGE.search(message)
    if found is None:
        return message.splitlines()[0]
    return f"{layout.columns[int(found[1])]}: {found[2]}"


def _unique(layout: Layout) -> list[str]:
    return [name or f"column {i}" for i, name in enumerate(layout.columns)]


def _is_text(array: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type))


def _floats(array: Any) -> tuple[F8, Mask]:
    """Return (float64[n] with NaN where null, bool[n] null)."""
    import pyarrow as pa

    absent = array.is_null().to_numpy(zero_copy_only=False)
    return array.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64), absent


def _integers(array: Any) -> tuple[I8, Mask]:
    """Return (int64[n] with 0 where null, bool[n] null)."""
    import pyarrow as pa

    absent = array.is_null().to_numpy(zero_copy_only=False)
    return array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), absent


def _names(array: Any) -> tuple[list[str], I4]:
    """Return the distinct names and for each row its index, -1 where null."""
    import pyarrow as pa

    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    return [str(name).strip() for name in array.dictionary.to_pylist()], array.indices.fill_null(-1).to_numpy(
        zero_copy_only=False
    ).astype(np.int32)
