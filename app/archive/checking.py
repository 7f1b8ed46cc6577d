"""Read files back, and compare them with what they were made of, row for row. Blocking, bounded memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.archive.place import ArchiveError
from app.archive.writing import PAGE_ROWS
from app.errors import ArchiveAway
from app.storage.archive_files import Manifest, TickFile, file_sha256
from app.storage.archive_rows import WholeTicks, first_difference, from_columns, joined, schema
from app.storage.tick_reader import timestamp


def read_file(path: Path, names: Mapping[int, str]) -> Iterator[WholeTicks]:
    """Yield the ticks of a file in its order. Raises ArchiveError when it is not one of ours, or is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, read_dictionary=["symbol"]) as file:
            if file.schema_arrow != schema():
                raise ArchiveError(f"{path} has other columns than an archive's")
            for batch in file.iter_batches(batch_size=PAGE_ROWS):
                columns = {name: _values(batch.column(name)) for name in batch.schema.names if name != "symbol"}
                _check_symbols(path, batch.column("symbol"), columns["symbol_id"], names)
                yield from_columns(columns, names)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def compare(wanted: Iterable[WholeTicks], found: Iterable[WholeTicks], progress: Callable[[int], None]) -> int:
    """Compare rows in their order, every bit; return how many they are. Raises ArchiveError at the first difference."""
    rows = 0
    rest: WholeTicks | None = None
    files = iter(found)
    for page in wanted:
        at = 0
        while at < len(page):
            if rest is None or not len(rest):
                rest = next(files, None)
                if rest is None:
                    raise ArchiveError(f"{_words(page, at)} is missing in the file, and all behind it")
            size = min(len(rest), len(page) - at)
            mine, theirs = page.take(slice(at, at + size)), rest.take(slice(size))
            wrong = first_difference(mine, theirs)
            if wrong is not None:
                raise ArchiveError(f"{_words(mine, wrong)} is not the same in the file: {_words(theirs, wrong)}")
            rest = rest.take(slice(size, None))
            at += size
        rows += len(page)
        progress(len(page))
    if (rest is not None and len(rest)) or next(files, None) is not None:
        raise ArchiveError(f"the file has more than the {rows:,} rows that it was made of")
    return rows


def in_order(files: Iterable[Iterable[WholeTicks]]) -> Iterator[WholeTicks]:
    """Yield the ticks of files that are each in the order of (symbol_id, time, seq), in that order; a page of each is
    in memory."""
    pages = [iter(file) for file in files]
    heads = [next(file, None) for file in pages]
    while any(head is not None for head in heads):
        # To the end of the page that ends first nothing is missing of any file.
        last = min(head.key(-1) for head in heads if head is not None)
        parts = []
        for at, head in enumerate(heads):
            if head is None:
                continue
            until = bisect_right(range(len(head)), last, key=head.key)
            parts.append(head.take(slice(until)))
            heads[at] = head.take(slice(until, None)) if until < len(head) else next(pages[at], None)
        found = [part for part in parts if len(part)]
        yield found[0] if len(found) == 1 else _sorted(joined(found))


def _sorted(ticks: WholeTicks) -> WholeTicks:
    return ticks.take(np.lexsort((ticks.seq, ticks.time_us, ticks.symbol_id)))


def check_files(folder: Path, manifest: Manifest, progress: Callable[[int], None]) -> None:
    """Check size, checksum, order and number of rows of every file. Raises ArchiveError, ArchiveAway."""
    for file in manifest.files:
        path = folder / file.name
        check_bytes(path, file)
        rows = 0
        last = (-(2**31), -(2**63), -(2**63))
        for ticks in read_file(path, file.symbols):
            key = np.lexsort((ticks.seq, ticks.time_us, ticks.symbol_id))
            if not np.array_equal(key, np.arange(len(ticks))) or ticks.key(0) <= last:
                raise ArchiveError(f"{path} is not in the order of its key")
            if ticks.time_us.min() < manifest.start_us or ticks.time_us.max() >= manifest.end_us:
                raise ArchiveError(f"{path} holds ticks outside of its range")
            last = ticks.key(-1)
            rows += len(ticks)
            progress(len(ticks))
        if rows != file.rows:
            raise ArchiveError(f"{path} has {rows:,} rows, its manifest says {file.rows:,}")


def check_bytes(path: Path, file: TickFile) -> None:
    """Check that a file is, byte for byte, what its manifest says. Raises ArchiveError, ArchiveAway."""
    try:
        size, sha256 = path.stat().st_size, file_sha256(path)
    except OSError as error:
        raise ArchiveAway(f"{path} cannot be read: {error.strerror}") from error
    if (size, sha256) != (file.bytes, file.sha256):
        raise ArchiveError(f"{path} is not what was written: its checksum is another one")


def _values(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if column.null_count:
        column = pc.fill_null(column, float("nan") if pa.types.is_floating(column.type) else 0)
    return column.to_numpy(zero_copy_only=False)


def _check_symbols(path: Path, column: Any, symbol_id: Any, names: Mapping[int, str]) -> None:
    said = np.array(column.dictionary.to_pylist() or [""], object)[column.indices.to_numpy()]
    for number in np.unique(symbol_id):
        if set(said[symbol_id == number]) != {names.get(int(number), "")}:
            raise ArchiveError(f"{path} names symbol {number} otherwise than its manifest")


def _words(ticks: WholeTicks, row: int) -> str:
    symbol_id, time_us, seq = ticks.key(row)
    return f"the tick of symbol {symbol_id} at {timestamp(time_us)} with seq {seq}"
