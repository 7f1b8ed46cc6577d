"""Query lanes: every read of the database for a request goes through here. Greenlet side.

Three kinds of reads, each with connections of its own, so that a quote never waits for an export:

    run -> a free reader of the kind (bounded wait) -> fn(cursor, ...) on its lane, in a read-only transaction
           the server ends a statement at the kind's timeout
           whatever goes on after that, or for a client that left, is cancelled; then its socket is shut down

A reader is a lane and its connection. It is made when first needed and used last-in first-out, so that the ones that
are rarely needed can stay idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.lock import Semaphore

from app.errors import ClientGone, DatabaseAway, NotReady, QueryTimeout, RequestError
from app.lanes import INTERRUPT_GRACE_S, Lane
from app.meters import ReadMeters
from app.settings import Settings
from app.storage.connection import Connection

T = TypeVar("T")

SERVER_GRACE_S = 0.5
"""What a read may take beyond its timeout, which the server keeps for each statement: for several statements, and for
making bytes of the rows."""

CANCEL_GRACE_S = 1.0
"""How long a cancelled query may go on. A server that is there ends it within milliseconds."""

WATCH_EVERY_S = 0.25
"""Reads that take longer look this often whether their client is still there; the others never do."""

STOP_TIMEOUT_S = 2.0
OWN_CONNECTIONS = 3
"""Connections of a worker that are no reader's: the flusher's, the reference lane's and the desk's."""


class Kind(StrEnum):
    """What a read is for; kinds never wait for each other."""

    QUOTE = "quote"
    PAGE = "page"
    EXPORT = "export"


QUOTE, PAGE, EXPORT = Kind.QUOTE, Kind.PAGE, Kind.EXPORT


class Client(Protocol):
    """Whoever waits for the answer."""

    def gone(self) -> bool:
        """Tell whether nobody waits any more; cheap, never blocks."""


@dataclass(eq=False, slots=True)
class _Reader:
    lane: Lane
    connection: Connection
    ender: gevent.Greenlet | None = None
    """Ends what runs, and gives the reader back; else whoever started the read does."""


class _Readers:
    """The readers of one kind: at most `lanes`."""

    def __init__(self, kind: Kind, lanes: int, timeout_s: float) -> None:
        self.kind = kind
        self.timeout_s = timeout_s
        self.lanes = lanes
        self.places = Semaphore(lanes)
        self.waiting = 0
        self.free: list[_Reader] = []
        self.running: dict[_Reader, AsyncResult] = {}
        self.made = 0


def shares(db_pool_size: int) -> dict[Kind, int]:
    """Share out a worker's connections among the kinds of reads: a page is what most people ask for."""
    left = max(len(Kind), db_pool_size - OWN_CONNECTIONS)
    quote = 2 if left > len(Kind) else 1
    export = max(1, (left - quote + 1) // 3)
    return {QUOTE: quote, PAGE: left - quote - export, EXPORT: export}


def _name(fn: Callable[..., Any]) -> str:
    """Return what people call a function, a bound or partial one too."""
    fn = getattr(fn, "func", fn)
    return str(getattr(fn, "__qualname__", type(fn).__name__))


def _read(connection: Connection, kind: Kind, timeout_s: float, fn: Callable[..., T], *args: Any) -> T:
    """Run `fn` in a transaction; as a quote, with one for each of its statements. Lane side."""
    with (connection.looking if kind is QUOTE else connection.reading)(timeout_s) as cur:
        return fn(cur, *args)


class Reads:
    """Run the reads of one worker, bounded in number and time."""

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[str], Connection],
        away: Callable[[], str | None],
        meters: ReadMeters,
    ) -> None:
        """Take what it needs; nothing is opened.

        connect: makes the (unopened) connection of a name. away: why the database is known to be unusable, or None; it
        may wait for a moment until that is known.
        """
        timeouts_s = {
            QUOTE: settings.quote_timeout_s,
            PAGE: settings.page_timeout_s,
            EXPORT: settings.export_timeout_s,
        }
        self._wait_s = settings.lane_wait_s
        self._connect = connect
        self._away = away
        self._meters = meters
        self._readers = {
            kind: _Readers(kind, lanes, timeouts_s[kind]) for kind, lanes in shares(settings.db_pool_size).items()
        }
        self._cancelling: Lane | None = None
        self._closed = False

    def run(
        self,
        kind: Kind,
        fn: Callable[..., T],
        *args: Any,
        client: Client | None = None,
    ) -> T:
        """Return fn(cursor, *args), run on a lane of the kind in a read-only transaction; fn is lane-pure.

        client: the read is cancelled when it leaves. Raises what fn raises; QueryTimeout when all lanes stay busy or
        the query takes too long; DatabaseAway, at once when that is known; ClientGone; NotReady at the end of the
        worker. A greenlet that is killed here cancels its query.
        """
        began, outcome = time.monotonic(), "failed"
        try:
            value = self._run(self._readers[kind], fn, args, client)
            outcome = "ok"
        except QueryTimeout:
            outcome = "timeout"
            raise
        except RequestError:  # an answer like any other: unknown symbol, say
            outcome = "ok"
            raise
        except DatabaseAway:
            outcome = "away"
            raise
        except (ClientGone, gevent.GreenletExit):
            outcome = "cancelled"
            raise
        finally:
            self._meters.read(kind, outcome, time.monotonic() - began, _name(fn))
        return value

    def use(self) -> dict[Kind, tuple[int, int, int]]:
        """Return by kind how many lanes there may be, how many are busy, and how many requests wait for one."""
        return {kind: (one.lanes, len(one.running), one.waiting) for kind, one in self._readers.items()}

    def drain(self) -> None:
        """Cancel what runs, and begin nothing any more; idempotent."""
        self._closed = True
        enders = [
            self._end(readers, reader) for readers in self._readers.values() for reader in list(readers.running)
        ]
        gevent.joinall(enders, timeout=STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Drain, then close connections and let the lanes end; idempotent."""
        self.drain()
        closing = []
        for readers in self._readers.values():
            while readers.free:
                closing.append(_retire(readers.free.pop()))
        if self._cancelling is not None:
            self._cancelling.stop()
        gevent.wait(closing, timeout=STOP_TIMEOUT_S)

    def _run(
        self,
        readers: _Readers,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        client: Client | None,
    ) -> T:
        self._check()
        reader = self._take(readers, client)
        result = readers.running[reader] = reader.lane.submit(
            _read, reader.connection, readers.kind, readers.timeout_s, fn, *args
        )
        try:
            left = self._wait(result, readers.timeout_s + SERVER_GRACE_S, client)
        except BaseException:
            self._end(readers, reader)  # goes on by itself: this greenlet is being killed
            raise
        if result.ready():
            if reader.ender is None:
                self._give(readers, reader)
            value: T = result.get(block=False)
            return value
        ender = self._end(readers, reader)
        if left:
            raise ClientGone
        ended_by_cancel: bool = ender.get()
        if ended_by_cancel:
            raise QueryTimeout(QueryTimeout.__doc__)
        raise DatabaseAway("the database does not answer")

    def _check(self) -> None:
        reason = self._away()
        if self._closed:
            raise NotReady("the server is going down")
        if reason is not None:
            raise DatabaseAway(reason)

    def _take(self, readers: _Readers, client: Client | None) -> _Reader:
        if not readers.places.acquire(blocking=False):
            began = time.monotonic()
            readers.waiting += 1
            try:
                got = readers.places.acquire(timeout=self._wait_s)
            finally:
                readers.waiting -= 1
            self._meters.waited(readers.kind, time.monotonic() - began)
            if not got:
                raise QueryTimeout("All connections for such queries are busy. Ask again later.")
            try:
                self._check()
                if client is not None and client.gone():
                    raise ClientGone
            except BaseException:
                readers.places.release()
                raise
        if readers.free:
            reader = readers.free.pop()
            reader.ender = None
            return reader
        readers.made += 1
        name = f"{readers.kind} {readers.made}"
        return _Reader(Lane(name), self._connect(name))

    def _wait(self, result: AsyncResult, most_s: float, client: Client | None) -> bool:
        """Wait for the outcome, `most_s` at most; whether it was given up because the client left."""
        if client is None:
            result.wait(most_s)
            return False
        until = time.monotonic() + most_s
        while (left_s := until - time.monotonic()) > 0:
            result.wait(min(WATCH_EVERY_S, left_s))
            if result.ready():
                break
            if client.gone():
                return True
        return False

    def _give(self, readers: _Readers, reader: _Reader) -> None:
        del readers.running[reader]
        readers.places.release()
        if self._closed:
            _retire(reader)
        else:
            readers.free.append(reader)

    def _end(self, readers: _Readers, reader: _Reader) -> gevent.Greenlet:
        """Have what runs ended, and the reader given back; idempotent, does not wait.

        Whether cancelling was enough is the greenlet's value.
        """
        if reader.ender is None:
            reader.ender = gevent.spawn(self._end_now, readers, reader)
        return reader.ender

    def _end_now(self, readers: _Readers, reader: _Reader) -> bool:
        result = readers.running[reader]
        if self._cancelling is None:
            self._cancelling = Lane("cancel")
        canceller = reader.connection.canceller
        cancelling = self._cancelling.submit(canceller.cancel) if canceller is not None else None
        # Both: a message that is still under way could hit the reader's next query.
        gevent.wait([result] if cancelling is None else [result, cancelling], timeout=CANCEL_GRACE_S)
        was_enough: bool = result.ready()
        if not was_enough:
            reader.connection.interrupt()
            result.wait(INTERRUPT_GRACE_S)
        if cancelling is not None and not cancelling.ready():
            reader.lane.submit(reader.connection.close)
        if result.ready():
            self._give(readers, reader)
        else:
            del readers.running[reader]
            readers.places.release()
            _retire(reader)
            self._meters.stuck(readers.kind)
        return was_enough


def _retire(reader: _Reader) -> AsyncResult:
    """Have a reader's connection closed and its thread ended, whenever it comes back from what it does."""
    closed = reader.lane.submit(reader.connection.close)
    reader.lane.stop()
    return closed
