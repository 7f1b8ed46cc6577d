"""Ticks to Parquet: a file of a frozen partition or of late ticks, and the manifest. Blocking, bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from zlib import crc32

from psycopg2.extensions import cursor as Cursor

from app.archive.place import sync
from app.archive.weeks import Week
from app.storage.archive_files import FORMAT, Group, Key, Manifest, TickFile, encode, file_sha256
from app.storage.archive_rows import SELECT, WholeTicks, read_whole, schema, to_arrow
from app.storage.connection import Connection

GROUP_ROWS = 16_384
"""Rows of a row group: a page of 20,000 decodes three of them at most. Larger ones hardly make smaller files."""

PAGE_ROWS = 4 * GROUP_ROWS
"""Ticks in memory at a time, some 20 MB with all copies; `pages_ahead` has more of them, one for each fetcher."""

PORTION_BYTES = 8 << 20
"""A file gets to the disk in portions: the journal's sync, and with it every acknowledgement, waits for one of them."""

COMPRESSION_LEVEL = 3

# Sorted times and arrivals are small differences; prices and sizes of an hour are few different ones.
_ENCODINGS = {"time": "DELTA_BINARY_PACKED", "ordinal": "DELTA_BINARY_PACKED", "received_at": "DELTA_BINARY_PACKED"}
_KEY = "symbol_id, time, seq"
_NAMES = "SELECT symbol_id, symbol FROM instruments"
Progress = Callable[[int], None]
"""Told how many rows were done."""

Stored = tuple[Any, ...]
"""A key as the database has it: symbol_id, time as a datetime, seq."""


def names_of(connection: Connection) -> dict[int, str]:
    """Return the names of all instruments by id. Raises DatabaseAway."""
    with connection.transaction() as cur:
        cur.execute(_NAMES)
        return dict(cur.fetchall())


@contextmanager
def pages_ahead(connection: Connection, fetchers: Sequence[Connection], table: str) -> Iterator[Iterator[WholeTicks]]:
    """Give the rows of a partition in the order of its key, in pages, each a transaction: nobody may be writing to it.

    The next pages are fetched meanwhile, one by each of the fetchers: the server works on as many cores. Until the end
    of the block all these connections are in use.
    """
    free: SimpleQueue[Connection] = SimpleQueue()
    for fetcher in fetchers:
        free.put(fetcher)

    def fetch(after: Stored | None, last: Stored | None) -> WholeTicks:
        fetcher = free.get()
        try:
            return _page(fetcher, table, after, last)
        finally:
            free.put(fetcher)

    def fetched() -> Iterator[WholeTicks]:
        coming: deque[Future[WholeTicks]] = deque()
        after = None
        while True:
            last = _last_of_page(connection, table, after)
            coming.append(threads.submit(fetch, after, last))
            if last is None:
                break
            if len(coming) > len(fetchers):
                yield coming.popleft().result()
            after = last
        while coming:
            page = coming.popleft().result()
            if len(page):
                yield page

    with ThreadPoolExecutor(len(fetchers)) as threads:
        try:
            yield fetched()
        finally:
            threads.shutdown(cancel_futures=True)


def _last_of_page(connection: Connection, table: str, after: Stored | None) -> Stored | None:
    """Return the key of the last row of a whole page behind a key; None: what is left is no more than a page."""
    with connection.transaction() as cur:
        limits = _where(cur, after, None)
        cur.execute(f"SELECT {_KEY} FROM public.{table} {limits} ORDER BY {_KEY} OFFSET {PAGE_ROWS - 1} LIMIT 1")  # noqa: S608 - names of ours
        return cur.fetchone()


def _page(connection: Connection, table: str, after: Stored | None, last: Stored | None) -> WholeTicks:
    """Return the rows behind a key, to another one and with it."""
    with connection.transaction() as cur:
        limits = _where(cur, after, last)
        return read_whole(cur, f"SELECT {SELECT} FROM public.{table} {limits} ORDER BY {_KEY}".encode())  # noqa: S608 - see above


def _where(cur: Cursor, after: Stored | None, last: Stored | None) -> str:
    limits = [
        cur.mogrify(f"({_KEY}) {comparison} %s", (key,)).decode()
        for comparison, key in ((">", after), ("<=", last))
        if key is not None
    ]
    return f"WHERE {' AND '.join(limits)}" if limits else ""


def write_file(path: Path, parts: Iterable[WholeTicks], names: Mapping[int, str], progress: Progress) -> TickFile:
    """Write ticks, sorted by (symbol_id, time, seq), to a Parquet file and sync it; return what manifests say."""
    from pyarrow.parquet import ParquetWriter

    form = schema()
    by_dictionary = [name for name in form.names if name not in _ENCODINGS and name != "raw_seq"]
    groups: list[tuple[int, Key, Key]] = []
    symbols: dict[int, str] = {}
    synced_bytes = 0
    writer: Any = ParquetWriter(
        path,
        form,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=by_dictionary,
        column_encoding=_ENCODINGS,
        write_statistics=["symbol_id", "time"],
        version="2.6",
    )
    with writer:
        for ticks in parts:
            symbols.update({int(number): names.get(int(number), "") for number in set(ticks.symbol_id.tolist())})
            writer.write_table(to_arrow(ticks, names), row_group_size=GROUP_ROWS)
            for start in range(0, len(ticks), GROUP_ROWS):
                last = min(start + GROUP_ROWS, len(ticks)) - 1
                groups.append((last + 1 - start, ticks.key(start)[:2], ticks.key(last)[:2]))
            written_bytes = path.stat().st_size
            if written_bytes - synced_bytes >= PORTION_BYTES:
                sync(path)
                synced_bytes = written_bytes
            progress(len(ticks))
    sync(path)
    placed, footer = _parts(path)
    found = [Group(*group, *part) for group, part in zip(groups, placed, strict=True)]
    rows = sum(group.rows for group in found)
    return TickFile(path.name, rows, path.stat().st_size, file_sha256(path), symbols, found, footer)


def _parts(path: Path) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """Return offset, length and CRC-32 of each row group, and offset and CRC-32 of what follows them."""
    from pyarrow.parquet import read_metadata

    about = read_metadata(path)
    found: list[tuple[int, int, int]] = []
    with path.open("rb") as file:
        for number in range(about.num_row_groups):
            group = about.row_group(number)
            columns = [group.column(at) for at in range(group.num_columns)]
            start = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
            size = sum(column.total_compressed_size for column in columns)
            file.seek(start)
            found.append((start, size, crc32(file.read(size))))
        end = found[-1][0] + found[-1][1]
        file.seek(end)
        return found, (end, crc32(file.read()))


def write_manifest(
    folder: Path, week: Week, number: int, files: list[TickFile], derived_rows: int
) -> tuple[str, str, dict[str, int]]:
    """Write a manifest and sync it; return its name, its SHA-256, and what `tick_ranges` says of sizes."""
    sizes = {
        "rows": sum(file.rows for file in files),
        "derived_rows": derived_rows,
        "bytes": sum(file.bytes for file in files),
    }
    manifest = Manifest(
        format=FORMAT,
        start_us=week.start_us,
        end_us=week.end_us,
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        columns=[(field.name, str(field.type)) for field in schema()],
        files=files,
        **sizes,
    )
    data, sha256 = encode(manifest)
    path = folder / f"manifest-{number}.json"
    path.write_bytes(data)
    sync(path)
    sync(folder)
    return path.name, sha256, sizes
