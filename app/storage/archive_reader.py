"""Read a page of archived ticks: DuckDB over the row groups that it needs. Lane side.

duckdb is imported when first needed: it costs 60 MB and some tenths of a second.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ArchiveAway
from app.storage.archive_files import Manifest, TickFile
from app.storage.archive_rows import WholeTicks, from_columns, joined

MEMORY_LIMIT = "256MB"

_COLUMNS = """symbol_id, epoch_us(time) AS time, ordinal, coalesce(raw_seq, 0) AS raw_seq,
    coalesce(bid, 'NaN'::DOUBLE) AS bid, coalesce(ask, 'NaN'::DOUBLE) AS ask, coalesce(last, 'NaN'::DOUBLE) AS last,
    coalesce(spread, 'NaN'::DOUBLE) AS spread, volume, flags, journal_no, epoch_us(received_at) AS received_at"""
_WHERE = """symbol_id = $symbol_id AND time >= make_timestamptz($low::BIGINT)
    AND time < make_timestamptz($high::BIGINT)"""
# The order of tick_reader: at one time those with a seq of the sender's first, by it, then the others by arrival.
_KEY = ("epoch_us(time)", "ordinal < 0", "greatest(ordinal, 0)", "epoch_us(received_at)", "journal_no::BIGINT")
_AT_TIMES = f"""
    SELECT {_COLUMNS} FROM read_parquet($files) WHERE {_WHERE} AND epoch_us(time) IN (SELECT unnest($times))
"""  # noqa: S608 - the constants above
_BEHIND = "AND ({key}) {compare} ($time::BIGINT, $derived::BOOLEAN, $number::BIGINT, $received::BIGINT, $no::BIGINT)"

Place = tuple[int, bool, int, int, int]
"""Where a tick is in the order: time_us, whether its seq is derived, the seq if not, received_us, journal_no."""


def read_archived(
    root: Path,
    folder: str,
    manifest: Manifest,
    symbol_id: int,
    low_us: int,
    high_us: int,
    *,
    after: Place | None,
    descending: bool,
    max_rows: int,
) -> WholeTicks:
    """Return the first `max_rows` ticks of [low_us, high_us) behind `after` in the direction.

    folder: the manifest's, from root. Raises ArchiveAway when files cannot be read.
    """
    low_us, high_us = max(low_us, manifest.start_us), min(high_us, manifest.end_us)
    counted_low_us, counted_high_us = low_us, high_us
    if after is not None and descending:
        high_us, counted_high_us = min(high_us, after[0] + 1), min(high_us, after[0])
    elif after is not None:
        low_us, counted_low_us = max(low_us, after[0]), max(low_us, after[0] + 1)
    files = [file for file in manifest.files if _has(file, symbol_id, low_us, high_us)]
    if not files or low_us >= high_us:
        return nothing()
    most = max(files, key=lambda file: file.rows)
    # Of the ticks at the time of `after` some are before it, so they do not count.
    enough_us = _enough(most, symbol_id, counted_low_us, counted_high_us, max_rows, descending)
    if enough_us is not None and descending:
        low_us = max(low_us, enough_us)
    elif enough_us is not None:
        high_us = min(high_us, enough_us)
    parameters: dict[str, Any] = {"symbol_id": symbol_id, "low": low_us, "high": high_us, "limit": max_rows}
    behind = ""
    if after is not None:
        names = ("time", "derived", "number", "received", "no")
        parameters |= dict(zip(names, after, strict=True))
        behind = _BEHIND.format(key=", ".join(_KEY), compare="<" if descending else ">")
    order = ", ".join(f"{part} DESC" if descending else part for part in _KEY)
    # One statement for files with the same names of symbols; a renamed symbol's late ticks are read by themselves.
    parts: list[WholeTicks] = []
    for name in sorted({file.symbols.get(symbol_id, "") for file in files}):
        paths = [root / folder / file.name for file in files if file.symbols.get(symbol_id, "") == name]
        query = f"SELECT {_COLUMNS} FROM read_parquet($files) WHERE {_WHERE} {behind} ORDER BY {order} LIMIT $limit"  # noqa: S608 - the constants above
        parts.append(from_columns(_run(query, parameters, paths), {symbol_id: name}))
    if len(parts) == 1:
        return parts[0]
    whole = joined(parts)
    keys = (whole.journal_no, whole.received_us, np.maximum(whole.seq, 0), whole.seq < 0, whole.time_us)
    rows = np.lexsort(keys)
    return whole.take((rows[::-1] if descending else rows)[:max_rows])


def read_keys(root: Path, folder: str, manifest: Manifest, symbol_id: int, times_us: Sequence[int]) -> WholeTicks:
    """Return every archived tick of a symbol at these times. Raises ArchiveAway when files cannot be read."""
    wanted = sorted(set(times_us))
    parts: list[WholeTicks] = []
    for file in manifest.files:
        if not wanted or not _has(file, symbol_id, wanted[0], wanted[-1] + 1):
            continue
        parameters = {"symbol_id": symbol_id, "low": wanted[0], "high": wanted[-1] + 1, "times": wanted}
        parts.append(from_columns(_run(_AT_TIMES, parameters, [root / folder / file.name]), file.symbols))
    return joined(parts) if parts else nothing()


def nothing() -> WholeTicks:
    """Return no ticks."""
    i4, i8, f8 = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
    return WholeTicks(i4, i8, i8, f8, f8, f8, f8, f8, f8, f8, i4, i4, i8)


def _has(file: TickFile, symbol_id: int, low_us: int, high_us: int) -> bool:
    low, high = (symbol_id, low_us), (symbol_id, high_us)
    return any(group.last >= low and group.first < high for group in file.groups)


def _enough(
    file: TickFile, symbol_id: int, low_us: int, high_us: int, rows: int, descending: bool
) -> int | None:
    """Return the bound of a part of [low_us, high_us) that has so many rows in whole row groups; None: all of it.

    Of the group at the edge of the range it is not known how many of its rows are inside: it does not count.
    """
    found = 0
    for group in reversed(file.groups) if descending else file.groups:
        inside = group.first >= (symbol_id, low_us) and group.last < (symbol_id, high_us)
        if not inside:
            continue
        found += group.rows
        if found >= rows:
            return group.first[1] if descending else group.last[1] + 1
    return None


@cache
def _database() -> Any:
    import duckdb

    config: dict[str, Any] = {
        "threads": 1,  # the lane's own: a page is small, and the cores are for ticks
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    return duckdb.connect(":memory:", config=config)


def _run(query: str, parameters: dict[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    import duckdb

    # A cursor is a connection of its own to the same memory: lanes do not meet in it.
    files = [glob.escape(str(path)) for path in paths]
    try:
        with _database().cursor() as cur:
            found: dict[str, Any] = cur.execute(query, {**parameters, "files": files}).fetchnumpy()
    except duckdb.Error as error:
        raise ArchiveAway(f"The archive cannot be read: {str(error).splitlines()[0]}") from error
    return found
