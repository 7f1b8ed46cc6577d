"""The weekly partitions of `ticks`: made before they are needed, in transactions of their own. Lane side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


class Partitions:
    """Remembers which weeks have a partition on this connection's database."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._generation = -1

    def ensure(self, connection: Connection, time_us: npt.NDArray[np.int64]) -> bool:
        """Make the partitions that these times need; return False when more are to be made by further calls.

        Raises DatabaseAway.
        """
        connection.open()
        if connection.generation != self._generation:
            self._known.clear()
            self._generation = connection.generation
        wanted = sorted({int(week) for week in np.unique(week_of(time_us))} - self._known)
        for week in wanted[:MAX_NEW_PER_CALL]:
            # One transaction each: two flushes that make the same ones in another order cannot deadlock.
            with connection.transaction() as cur:
                cur.execute(
                    "SELECT ensure_tick_partition(to_timestamp(%s::double precision))",
                    (week_start_us(week) / 1_000_000,),
                )
            self._known.add(week)
        return len(wanted) <= MAX_NEW_PER_CALL


def ensure_partitions(connection: Connection, time_us: npt.NDArray[np.int64]) -> None:
    """Make the partitions that these times need, without remembering. Raises DatabaseAway."""
    partitions = Partitions()
    while not partitions.ensure(connection, time_us):
        pass
