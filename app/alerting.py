"""Alerts of the elected process, told to the readers of all workers. Greenlet side.

    a flush tells (app/live_trades.py), or a second has passed -> the elected one looks (app/alert_round.py)
    alerts that are stored -> hub, and by the bus the hubs of the other workers -> ticked off

One that was stored and not ticked off is told by whoever is elected next; each worker tells its readers once.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

import gevent
import msgspec
from gevent.event import Event
from psycopg2.extensions import cursor as Cursor

from app.alert_round import NoMoreElected, Round, look
from app.election import Election
from app.errors import DatabaseAway, TickhubError
from app.lanes import Lane, LaneTimeout
from app.market.committed import Touched
from app.storage.alert_facts import FIRST_WINDOW_US
from app.storage.alert_outbox import StoredAlert, give_up, pushed, told_after, unpushed
from app.storage.connection import Connection
from app.storage.lease import Term
from app.stream.bus import ALERTS, Bus
from app.stream.frames import BadFrame
from app.stream.hub import Hub
from app.stream.messages import AlertUpdate

SWEEP_S = 1.0
"""How often rules look though nothing is heard: for the clock, other datasets, what was lost, rules that are new."""

LEAST_S = 0.2
"""Between two looks, whatever is committed: soon enough for people, and a look is ten statements."""

CALL_TIMEOUT_S = 4.0
RETRY_S = 1.0

MORE_S = 0.02
"""Between looks at a backlog: the lane and the interpreter are others' too."""

STEADY_S = 10.0
"""Looks must have gone on for so long before it means something that there was no tick: workers write first what they
could not."""

REPAIR_S = 1.0
"""How often a worker with readers of alerts asks for those that it did not hear of: a message may be lost, another host
be out of reach."""

MOST_PUSHED = 200
REMEMBERED = 10_000

T = TypeVar("T")

log = logging.getLogger("tickhub")


class Alerting:
    """What a worker does about alerts. lane, connection: those of the election."""

    def __init__(
        self,
        election: Election,
        lane: Lane,
        connection: Connection,
        hub: Hub,
        bus: Bus,
        *,
        away: Callable[[], str | None] = lambda: None,
        has_webhook: bool = False,
        on_stored: Callable[[int], None] = lambda alerts: None,
    ) -> None:
        self._election, self._lane, self._connection = election, lane, connection
        self._hub, self._bus, self._away = hub, bus, away
        self._has_webhook, self._on_stored = has_webhook, on_stored
        self._symbols: frozenset[str] = frozenset()
        self._told: OrderedDict[int, None] = OrderedDict()
        self._swept_term: Term | None = None
        """The term in which what was left to tell was told."""
        self._window_us: int | None = None
        self._steady_from_s: float | None = None
        self._repaired_id: int | None = None
        self._wake = Event()
        bus.on(ALERTS, self._came)

    def committed(self, touched: Iterable[Touched]) -> None:
        """Tell of a commit, whoever's; returns at once."""
        if self._symbols and any(one.symbol in self._symbols for one in touched):
            self._wake.set()

    def run(self) -> None:
        """Look for ever, while elected; to be spawned as a greenlet."""
        while True:
            term = self._election.term
            if term is None:
                self._symbols = frozenset()
                self._election.began.wait(SWEEP_S)
                self._election.began.clear()
                gevent.sleep(0)
                continue
            try:
                self._look(term)
            except Exception as error:
                # Whatever was stored may be untold, and a look that did not end is to be a smaller one.
                self._swept_term, self._steady_from_s = None, None
                self._window_us = FIRST_WINDOW_US
                if isinstance(error, NoMoreElected):
                    log.warning("alerts: another process was elected meanwhile")
                elif isinstance(error, TickhubError):
                    log.debug("alerts were not looked for: %s", error)
                else:
                    log.exception("looking for alerts failed")
                gevent.sleep(RETRY_S)
            if self._window_us is not None:
                gevent.sleep(MORE_S)
                continue
            gevent.sleep(LEAST_S)
            self._wake.wait(SWEEP_S)
            self._wake.clear()

    def repair(self) -> None:
        """Tell this worker's readers for ever what it did not hear of; to be spawned as a greenlet."""
        while True:
            gevent.sleep(REPAIR_S)
            if not self._hub.wants_alerts():
                self._repaired_id = None
                continue
            try:
                self._repair()
            except TickhubError as error:
                log.debug("alerts were not compared: %s", error)
            except Exception:
                log.exception("looking for alerts that were not heard of failed")
                gevent.sleep(RETRY_S)

    def _repair(self) -> None:
        after = self._repaired_id
        found = self.run_on_lane(lambda cur: told_after(cur, after, MOST_PUSHED))
        if found.alerts:
            self._tell(found.alerts)
        self._repaired_id = found.last_id

    def run_on_lane(self, fn: Callable[[Cursor], T]) -> T:
        """Return fn(cursor), run on the lane in a transaction; fn is lane-pure. Raises DatabaseAway, what fn raises."""
        reason = self._away()
        if reason is not None:
            raise DatabaseAway(reason)
        found: T = self._call(_in_transaction, self._connection, fn)
        return found

    def _look(self, term: Term) -> None:
        """Look once, and tell what there is to tell."""
        now_s = time.monotonic()
        if self._swept_term != term or self._steady_from_s is None:
            self._steady_from_s = now_s
        found: Round = self._call(
            look,
            self._connection,
            term,
            has_webhook=self._has_webhook,
            window_us=self._window_us,
            is_steady=now_s - self._steady_from_s >= STEADY_S,
        )
        self._window_us = found.window_us
        self._symbols = found.symbols
        if found.alerts:
            self._on_stored(found.alerts)
        if self._swept_term != term and not self._has_webhook:
            self.run_on_lane(lambda cur: give_up(cur, 0))  # of when there was one
        if found.alerts or self._swept_term != term:
            self._push()
            self._swept_term = term

    def _push(self) -> None:
        """Tell readers what is stored and was not told."""
        while True:
            alerts = self.run_on_lane(lambda cur: unpushed(cur, MOST_PUSHED))
            if alerts:
                self._tell(alerts)
                if self._bus.reaches_somebody:
                    self._bus.send(ALERTS, _encoder.encode(alerts))
                ids = [one.alert_id for one in alerts]
                self.run_on_lane(lambda cur, ids=ids: pushed(cur, ids))  # type: ignore[misc]  # bound now
            if len(alerts) < MOST_PUSHED:
                return

    def _came(self, message: bytes) -> None:
        try:
            alerts = _decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadFrame(f"no alerts: {error}") from error
        self._tell(alerts)

    def _tell(self, alerts: Iterable[StoredAlert]) -> None:
        updates = []
        for one in alerts:
            if one.alert_id in self._told:
                continue
            self._told[one.alert_id] = None
            updates.append(update_of(one))
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._hub.alerts(updates)

    def _call(self, fn: Callable[..., T], *args: object, **kwargs: object) -> T:
        try:
            return self._lane.call_within(CALL_TIMEOUT_S, self._connection.interrupt, fn, *args, **kwargs)
        except LaneTimeout as error:
            raise DatabaseAway(str(error)) from error


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[StoredAlert])


def update_of(alert: StoredAlert) -> AlertUpdate:
    """Return what live readers are told; symbol is empty where the alert is about none."""
    return AlertUpdate(
        alert.symbol or "",
        alert.timestamp,
        alert.alert_type,
        alert.message,
        alert.severity,
        alert.alert_id,
        alert.rule_id,
        alert.value,
    )


def _in_transaction(connection: Connection, fn: Callable[[Cursor], T]) -> T:
    with connection.transaction() as cur:
        return fn(cur)
