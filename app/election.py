"""Who of all workers, of all hosts, does what only one may do: whoever holds a leased row. Greenlet side.

    RENEW_S    the holder renews so often, the others look so often whether it is free
    TERM_S     so long a claim holds, by the database's clock
    MARGIN_S   so much earlier its holder stops believing in it

A holder counts its term from before it asked, so its belief ends before the row is free, whatever the answer took; one
that was frozen finds that out at its next look at the clock. What it is just then writing is refused by the term's
number (`storage/lease.py`). One that is killed is replaced within TERM_S + RENEW_S.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable

import gevent
from gevent.event import Event
from psycopg2.extensions import cursor as Cursor

from app.errors import DatabaseAway, TickhubError
from app.lanes import Lane, LaneTimeout
from app.storage.connection import Connection
from app.storage.lease import Term, claim, release

RENEW_S = 1.0
TERM_S = 5.0
MARGIN_S = 1.0
CALL_TIMEOUT_S = 3.0
"""For a claim, which takes a millisecond, and what the lane is doing before. Below TERM_S - MARGIN_S - RENEW_S it would
not help: the holder gives up then."""

log = logging.getLogger("tickhub")


def clock_s() -> float:
    """Return seconds that also go on while the machine sleeps, where there is such a clock: the database's do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def new_holder() -> str:
    """Return a name that no other process has, and that tells people which one it is."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(6)}"


class Election:
    """This worker's part in an election.

    lane, connection: used for claims, and by the elected one for its work. away: why the database is known to be
    unusable, or None.
    """

    def __init__(
        self,
        name: str,
        lane: Lane,
        connection: Connection,
        away: Callable[[], str | None],
        *,
        holder: str | None = None,
        now: Callable[[], float] = clock_s,
    ) -> None:
        self._name, self._lane, self._connection, self._away, self._now = name, lane, connection, away, now
        self.holder = holder or new_holder()
        self._term: Term | None = None
        self._until_s = 0.0
        self._stopping = False
        self.began = Event()
        """Set when a term has begun; whoever waits for it clears it."""

    @property
    def term(self) -> Term | None:
        """Return the term that this worker is in just now, None when it is not elected, or not sure to be."""
        return self._term if self._term is not None and self._now() < self._until_s else None

    def run(self) -> None:
        """Take part for ever; to be spawned as a greenlet."""
        while not self._stopping:
            try:
                self._take_part()
            except TickhubError as error:
                log.debug("the election was not held: %s", error)
            except Exception:
                log.exception("the election failed")
            gevent.sleep(RENEW_S)

    def stop(self) -> None:
        """Take part no more; another one can be elected at once. Idempotent."""
        self._stopping = True
        term, self._term = self._term, None
        if term is None or self._away() is not None:
            return
        try:
            self._lane.call_within(CALL_TIMEOUT_S, self._connection.interrupt, _release, self._connection, term)
        except TickhubError as error:
            log.debug("the term was not ended: %s", error)

    def _take_part(self) -> None:
        reason = self._away()
        if reason is not None:
            raise DatabaseAway(reason)
        asked_s = self._now()
        try:
            found = self._lane.call_within(
                CALL_TIMEOUT_S, self._connection.interrupt, _claim, self._connection, self._name, self.holder
            )
        except LaneTimeout as error:
            raise DatabaseAway(str(error)) from error
        was, self._term = self._term, None if self._stopping else found
        self._until_s = asked_s + TERM_S - MARGIN_S
        if found is not None and self._stopping:
            self._lane.call_within(CALL_TIMEOUT_S, self._connection.interrupt, _release, self._connection, found)
        elif found is not None and found != was:
            log.info("[ELECTION] this worker is elected (term %d)", found.number)
            self.began.set()
        elif found is None and was is not None:
            log.warning("[ELECTION] another worker is elected")


def _claim(connection: Connection, name: str, holder: str) -> Term | None:
    with connection.transaction() as cur:
        _give_up_soon(cur)
        return claim(cur, name, holder, TERM_S)


def _release(connection: Connection, term: Term) -> bool:
    with connection.transaction() as cur:
        _give_up_soon(cur)
        return release(cur, term)


def _give_up_soon(cur: Cursor) -> None:
    # The row may be locked by one that was frozen in its transaction: the server ends that (the connection's timeout).
    # A claim that a crash of the database takes back does no harm: what is written needs its row to be there.
    cur.execute("SET LOCAL lock_timeout = '1s'; SET LOCAL synchronous_commit = off")
