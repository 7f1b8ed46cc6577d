"""Read pages of archived ticks: DuckDB over the row groups that they need. Lane side.

duckdb is imported when first needed: it costs 60 MB and some tenths of a second.
"""

from __future__ import annotations

import glob
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.errors import ArchiveAway
from app.storage.archive_files import Group, Manifest, TickFile, check_parts
from app.storage.archive_rows import WholeTicks, from_columns, joined

MEMORY_LIMIT = "256MB"

SMALL_ROWS, SMALL_GROUPS, LARGE_GROUPS = 5_000, 1, 4
"""Row groups decoded together: for a small page what it needs; for an export what the next pages need, too, as asking
DuckDB costs as much as decoding one."""

PIECES = 6
"""Of which so many are kept, some 7 MB each at most."""

_MINUTE_US = 60_000_000

_COLUMNS = """symbol_id, epoch_us(time) AS time, ordinal, coalesce(raw_seq, 0) AS raw_seq,
    coalesce(bid, 'NaN'::DOUBLE) AS bid, coalesce(ask, 'NaN'::DOUBLE) AS ask, coalesce(last, 'NaN'::DOUBLE) AS last,
    coalesce(spread, 'NaN'::DOUBLE) AS spread, volume, flags, journal_no, epoch_us(received_at) AS received_at"""
_WHERE = """symbol_id = $symbol_id AND time >= make_timestamptz($low::BIGINT)
    AND time < make_timestamptz($high::BIGINT)"""
_READ = f"SELECT {_COLUMNS} FROM read_parquet($files) WHERE {_WHERE}"  # noqa: S608 - the constants above
_AT_TIMES = f"""
    SELECT {_COLUMNS} FROM read_parquet($files) WHERE {_WHERE} AND epoch_us(time) IN (SELECT unnest($times))
"""  # noqa: S608 - the constants above
_IN_MINUTES = f"""
    SELECT {_COLUMNS} FROM read_parquet($files)
    WHERE time >= make_timestamptz($low::BIGINT) AND time < make_timestamptz($high::BIGINT)
        AND symbol_id IN (SELECT unnest($ids)) AND epoch_us(time) // {_MINUTE_US} IN (SELECT unnest($minutes))
"""  # noqa: S608 - the constants above
Place = tuple[int, bool, int, int, int]
"""Where a tick is in the order: time_us, whether its seq is derived, the seq if not, received_us, journal_no."""


class _File(NamedTuple):
    """What is needed of a file. symbol: its name there, which derived seq are made of."""

    path: Path
    symbol: str
    groups: tuple[Group, ...]
    footer: tuple[int, int]


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
    if after is not None and descending:
        high_us = min(high_us, after[0] + 1)
    elif after is not None:
        low_us = max(low_us, after[0])
    parts: list[WholeTicks] = []
    pieces = _pieces(manifest, symbol_id, SMALL_GROUPS if max_rows <= SMALL_ROWS else LARGE_GROUPS)
    for start_us, end_us in reversed(pieces) if descending else pieces:
        if end_us <= low_us or start_us >= high_us:
            continue
        files = [
            _File(root / folder / file.name, file.symbols.get(symbol_id, ""), tuple(groups), file.footer)
            for file in manifest.files
            if (groups := _groups(file, symbol_id, start_us, end_us))
        ]
        if not files:
            continue
        for file in files:
            _check_there(file.path)
        ticks = _piece(tuple(files), symbol_id, start_us, end_us)
        first = int(np.searchsorted(ticks.time_us, low_us))
        last = int(np.searchsorted(ticks.time_us, high_us))
        if after is not None and descending:
            last = _bisected(ticks, after, first, last, bisect_left)
        elif after is not None:
            first = _bisected(ticks, after, first, last, bisect_right)
        if descending:
            parts.append(ticks.take(np.arange(last - 1, max(first, last - max_rows) - 1, -1)))
        else:
            parts.append(ticks.take(slice(first, min(last, first + max_rows))))
        max_rows -= len(parts[-1])
        if max_rows <= 0:
            break
    return parts[0] if len(parts) == 1 else joined([nothing(), *parts])


def _pieces(manifest: Manifest, symbol_id: int, groups: int) -> list[tuple[int, int]]:
    """Return the manifest's range in pieces that have so many row groups of a symbol, one after the other."""
    of_symbol = [
        [group.first for group in file.groups if group.first[0] <= symbol_id <= group.last[0]]
        for file in manifest.files
    ]
    firsts = max(of_symbol, key=len)
    cuts = [us for number, us in firsts[groups::groups] if number == symbol_id]
    edges = sorted({manifest.start_us, *cuts, manifest.end_us})
    return list(itertools.pairwise(edges))


@lru_cache(maxsize=PIECES)  # pages of one read come one after the other, and no file is ever changed
def _piece(files: tuple[_File, ...], symbol_id: int, start_us: int, end_us: int) -> WholeTicks:
    """Return a symbol's ticks of [start_us, end_us) in the order of tick_reader; nobody may change them."""
    for file in files:
        check_parts(file.path, file.groups, file.footer)
    parts: list[WholeTicks] = []
    # One statement for files with the same name of it; a renamed symbol's late ticks are read by themselves.
    for name in sorted({file.symbol for file in files}):
        paths = [file.path for file in files if file.symbol == name]
        found = _run(_READ, {"symbol_id": symbol_id, "low": start_us, "high": end_us}, paths)
        parts.append(from_columns(found, {symbol_id: name}))
    ticks = _in_order(parts[0] if len(parts) == 1 else joined(parts))
    for field in fields(WholeTicks):
        getattr(ticks, field.name).setflags(write=False)
    return ticks


def _in_order(ticks: WholeTicks) -> WholeTicks:
    """Return one symbol's ticks by time, at one time those with a seq of the sender's first, by it, then by arrival."""
    steps = np.diff(ticks.time_us)
    # As a rule all are numbered by their senders, and a file is in that order.
    if ((steps > 0) | ((steps == 0) & (ticks.seq[:-1] >= 0) & (ticks.seq[1:] > ticks.seq[:-1]))).all():
        return ticks
    if (steps < 0).any():  # of several files
        ticks = ticks.take(np.argsort(ticks.time_us, kind="stable"))
    same = np.flatnonzero(np.diff(ticks.time_us) == 0)
    if not len(same):
        return ticks
    # Only ticks of one time may be out of order, and each time has its place.
    at = np.union1d(same, same + 1)
    few = ticks.take(at)
    order = np.arange(len(ticks))
    order[at] = at[np.lexsort((few.journal_no, few.received_us, np.maximum(few.seq, 0), few.seq < 0, few.time_us))]
    return ticks.take(order)


def _bisected(ticks: WholeTicks, place: Place, first: int, last: int, how: Callable[..., int]) -> int:
    """Return where a place is among the rows [first, last)."""

    def key(row: int) -> Place:
        seq = int(ticks.seq[row])
        return int(ticks.time_us[row]), seq < 0, max(seq, 0), int(ticks.received_us[row]), int(ticks.journal_no[row])

    return first + how(range(first, last), place, key=key)


def _check_there(path: Path) -> None:
    """Notice a file that is gone, whose rows are still in memory. Raises ArchiveAway."""
    try:
        path.stat()
    except OSError as error:
        raise ArchiveAway(f"The archive's {path} cannot be read: {error.strerror}") from error


def read_keys(root: Path, folder: str, manifest: Manifest, symbol_id: int, times_us: Sequence[int]) -> WholeTicks:
    """Return every archived tick of a symbol at these times. Raises ArchiveAway when files cannot be read."""
    wanted = sorted(set(times_us))
    parts: list[WholeTicks] = []
    for file in manifest.files:
        groups = _groups(file, symbol_id, wanted[0], wanted[-1] + 1) if wanted else []
        if not groups:
            continue
        check_parts(root / folder / file.name, groups, file.footer)
        parameters = {"symbol_id": symbol_id, "low": wanted[0], "high": wanted[-1] + 1, "times": wanted}
        parts.append(from_columns(_run(_AT_TIMES, parameters, [root / folder / file.name]), file.symbols))
    return joined(parts) if parts else nothing()


def read_minutes(
    root: Path, folder: str, manifest: Manifest, symbol_ids: Sequence[int], minutes_us: Sequence[int]
) -> WholeTicks:
    """Return every archived tick of these symbols and minutes, in no order. Raises ArchiveAway."""
    low, high = min(minutes_us), max(minutes_us) + _MINUTE_US
    parameters = {"low": low, "high": high, "minutes": [us // _MINUTE_US for us in minutes_us]}
    ids = sorted(symbol_ids)
    parts: list[WholeTicks] = []
    for file in manifest.files:
        groups = [group for group in file.groups if _may_have(group, ids, low, high)]
        if groups:
            check_parts(root / folder / file.name, groups, file.footer)
            found = _run(_IN_MINUTES, {**parameters, "ids": ids}, [root / folder / file.name])
            parts.append(from_columns(found, file.symbols))
    return joined(parts) if parts else nothing()


def nothing() -> WholeTicks:
    """Return no ticks."""
    i4, i8, f8 = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
    return WholeTicks(i4, i8, i8, f8, f8, f8, f8, f8, f8, f8, i4, i4, i8)


def _groups(file: TickFile, symbol_id: int, low_us: int, high_us: int) -> list[Group]:
    """Return the row groups that may have a symbol's ticks of [low_us, high_us)."""
    low, high = (symbol_id, low_us), (symbol_id, high_us)
    return [group for group in file.groups if group.last >= low and group.first < high]


def _may_have(group: Group, symbol_ids: Sequence[int], low_us: int, high_us: int) -> bool:
    """Tell whether a row group may have ticks of [low_us, high_us) of one of these symbols, which are in order."""
    some = range(bisect_left(symbol_ids, group.first[0]), bisect_right(symbol_ids, group.last[0]))
    return any(group.last >= (symbol_ids[at], low_us) and group.first < (symbol_ids[at], high_us) for at in some)


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
