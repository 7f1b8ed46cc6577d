"""Partitions, of `ticks` by week and of datasets by month: made before they are needed, in transactions of their own.

Lane side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

from app.storage.connection import Connection

WEEK_US = 7 * 86_400 * 1_000_000
_MONDAY_US = 4 * 86_400 * 1_000_000
"""1970-01-05 was a Monday."""


def week_of(time_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return each time's week number; week w begins at Monday `week_start_us(w)`."""
    return np.asarray((time_us - _MONDAY_US) // WEEK_US)


def week_start_us(week: int) -> int:
    """Return the Monday 00:00 UTC that begins a week, in microseconds."""
    return week * WEEK_US + _MONDAY_US


MAX_NEW_PER_CALL = 64
"""Partitions made in one go (about a second): forty years of stray dates in one request are many short calls on the
flush lane, not one long one that looks like a hanging database."""


class _Remembered:
    """Remembers which partitions, by number, are there on a connection's database."""

    def __init__(self, make: Callable[[Cursor, int], None]) -> None:
        """make: makes the partition of a number, if it is not there."""
        self._make = make
        self._known: set[int] = set()
        self._generation = -1

    def ensure(self, connection: Connection, numbers: Iterable[int]) -> bool:
        connection.open()
        if connection.generation != self._generation:
            self._known.clear()
            self._generation = connection.generation
        wanted = sorted(set(numbers) - self._known)
        for number in wanted[:MAX_NEW_PER_CALL]:
            # One transaction each: two flushes that make the same ones in another order cannot deadlock.
            with connection.transaction() as cur:
                self._make(cur, number)
            self._known.add(number)
        return len(wanted) <= MAX_NEW_PER_CALL


class Partitions:
    """Remembers which weeks of ticks have a partition on this connection's database."""

    def __init__(self) -> None:
        self._weeks = _Remembered(_make_week)

    def ensure(self, connection: Connection, time_us: npt.NDArray[np.int64]) -> bool:
        """Make the partitions that these times need; return False when more are to be made by further calls.

        Raises DatabaseAway.
        """
        return self._weeks.ensure(connection, map(int, np.unique(week_of(time_us))))


def _make_week(cur: Cursor, number: int) -> None:
    cur.execute(
        "SELECT ensure_tick_partition(to_timestamp(%s::double precision))", (week_start_us(number) / 1_000_000,)
    )


class MonthPartitions:
    """Remembers which months of a table have a partition on this connection's database."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._months = _Remembered(self._make)

    def ensure(self, connection: Connection, time_us: npt.NDArray[np.int64]) -> bool:
        """Make the partitions that these times need, and the next month's while there are records of this one.

        Returns False when more are to be made by further calls. Raises DatabaseAway.
        """
        months = set(map(int, np.unique(time_us.astype("M8[us]").astype("M8[M]").astype(np.int64))))
        now = int(np.datetime64(int(time.time()), "s").astype("M8[M]").astype(np.int64))
        return self._months.ensure(connection, months | {now + 1} if now in months else months)

    def _make(self, cur: Cursor, number: int) -> None:
        start = str(np.datetime64(number, "M").astype("M8[D]"))
        cur.execute("SELECT ensure_month_partition(%s, %s::timestamptz)", (self._table, start))


def ensure_partitions(connection: Connection, time_us: npt.NDArray[np.int64]) -> None:
    """Make the partitions that these times need, without remembering. Raises DatabaseAway."""
    partitions = Partitions()
    while not partitions.ensure(connection, time_us):
        pass
