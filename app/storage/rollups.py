"""Keep a dataset's rollup exact: make the buckets again that a flush touched. Lane side.

The flush has written its records; then it locks the hours that hold them, in one order, until it commits, and makes
their minutes, five minutes and hours again from what is stored. Each statement sees what was committed before it began:
of two that write the same hour the second waits at the lock, and then counts the records of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import msgspec
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset
from app.datasets.rollup import RESOLUTIONS_S, remaking, rollup_keys

_SECOND_US = 1_000_000

LOCKS = 64
"""Hours share so many locks a dataset: a flush of ten thousand keys must not fill the server's table of locks."""

_LOCK = "SELECT pg_advisory_xact_lock(%s, lock) FROM unnest(%s::integer[]) AS lock"


class Rollup:
    """The rollup of one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        assert dataset.time is not None
        self._time_at = dataset.key.index(dataset.time)
        self._names = [column.column for column in rollup_keys(dataset)]
        self._remake = remaking(dataset)
        self._class = crc32(f"tickhub {dataset.name} rollup".encode()) >> 1

    def remake(self, cur: Cursor, keys: Iterable[tuple[Any, ...]]) -> None:
        """Make the buckets again in which these keys of records lie, as last thing that is done to the dataset.

        The transaction must be READ COMMITTED.
        """
        at = self._time_at
        touched = {(*key[:at], *key[at + 1 :], key[at] // _SECOND_US // 60 * 60) for key in keys}
        hours = {(*key, start // RESOLUTIONS_S[-1]) for *key, start in touched}
        cur.execute(_LOCK, (self._class, sorted({crc32(msgspec.msgpack.encode(hour)) % LOCKS for hour in hours})))
        for seconds, statement in self._remake:
            cur.execute(statement, self._arrays(touched, seconds))

    def _arrays(self, touched: set[tuple[Any, ...]], seconds: int) -> dict[str, Any]:
        """Return the buckets of a resolution that hold these minutes, in order, as columns."""
        buckets = sorted({(*key, start // seconds * seconds) for *key, start in touched})
        *keys, starts = map(list, zip(*buckets, strict=True))
        bounds = {"low": min(starts), "high": max(starts) + seconds}
        return {**dict(zip(self._names, keys, strict=True)), "starts": starts, **bounds}
