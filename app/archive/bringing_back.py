"""Archived ticks back into the database (docs/archive.md). Blocking, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from app.archive.checking import compare, in_order, read_file
from app.archive.weeks import Week
from app.archive.writing import pages_ahead
from app.storage.archive_files import Manifest
from app.storage.archive_rows import WholeTicks
from app.storage.connection import Connection
from app.storage.copy_rows import Column, copy_in, timestamps

_NULLABLE = ("bid", "ask", "last", "spread")
_PARTITION = "SELECT ensure_tick_partition(%s::timestamptz)"


def fill(
    connection: Connection,
    fetchers: Sequence[Connection],
    week: Week,
    folder: Path,
    manifest: Manifest,
    progress: Callable[[int], None],
    step: Callable[[str], None],
) -> None:
    """Make the week's partition, write the archived ticks to it and compare; nobody looks at it meanwhile.

    There must be none. Raises ArchiveError for a difference, DatabaseAway.
    """
    with connection.transaction() as cur:
        cur.execute(_PARTITION, (week.bounds["start"],))
    for file in manifest.files:
        for ticks in read_file(folder / file.name, file.symbols):
            with connection.transaction() as cur:
                for part in _patterns(ticks):
                    copy_in(cur, f"public.{week.partition}", part)
            progress(len(ticks))
            step("filling")
    found = in_order(read_file(folder / file.name, file.symbols) for file in manifest.files)
    with pages_ahead(connection, fetchers, week.partition) as wanted:
        compare(wanted, found, progress)


def _patterns(ticks: WholeTicks) -> Iterator[list[Column]]:
    """Yield the rows as columns of COPY, those of one pattern of NULLs together: such rows have one width."""
    absent = np.array([np.isnan(getattr(ticks, name)) for name in _NULLABLE])
    bits = (absent * np.array([[1], [2], [4], [8]])).sum(axis=0)
    for pattern in np.unique(bits):
        rows = ticks.take(bits == pattern)
        columns: list[Column] = []
        for field in fields(WholeTicks):
            values = getattr(rows, field.name)
            if field.name in _NULLABLE and (int(pattern) >> _NULLABLE.index(field.name)) & 1:
                continue
            if field.name in ("time_us", "received_us"):
                name = "time" if field.name == "time_us" else "received_at"
                columns.append((name, ">i8", timestamps(values)))
            else:
                columns.append((field.name, f">{values.dtype.str[1:]}", values))
        yield columns
