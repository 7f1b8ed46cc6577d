"""How fast a long answer is made: quickly while nobody else is served, else in small steps with rests. Greenlet side.

A page of an export keeps a core of the machine busy for 50 ms, half of it in the database; whatever else a worker does
waits behind that. A quote among ticks that come in took 40 ms (p99) beside an export at full speed, 15 beside this.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from app.row_stream import PAGE_ROWS

SHORT_PAGE_ROWS = 4_000
"""Some 10 ms of work, as long as a kernel may let a process wait that another one keeps from its core."""

REST_EACH_S = 0.01
"""Rest for each request of others that came since the last page was asked for..."""

MOST_REST = 2.0
"""...but at most so many times as long as making the page took: an export comes to its end beside any load."""


class Pace:
    """The pace of one answer."""

    def __init__(self, begun: Callable[[], int]) -> None:
        """Take how to count the requests that the worker has begun so far."""
        self._begun = begun
        self._start()

    def rest(self, worked_s: float) -> int:
        """Rest as the others need it, and return how many rows the next page should have.

        worked_s: how long making the last page took. While the client was slower than that, this has rested already.
        """
        others = self._begun() - self._seen
        wanted_s = min(others * REST_EACH_S, MOST_REST * worked_s)
        rested_s = max(time.monotonic() - self._began_s - worked_s, 0.0)
        if wanted_s > rested_s:
            gevent.sleep(wanted_s - rested_s)
        self._start()
        return SHORT_PAGE_ROWS if others else PAGE_ROWS

    def _start(self) -> None:
        self._seen, self._began_s = self._begun(), time.monotonic()


def first_page_rows(limit: int | None) -> int:
    """Return how many rows the first page should have: all, if they are one page, else few, for they come at once."""
    return PAGE_ROWS if limit is not None and limit <= PAGE_ROWS else SHORT_PAGE_ROWS
