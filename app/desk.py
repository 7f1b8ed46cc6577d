"""What one process of all does for the whole desk, and this worker's part in electing it. Greenlet side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from psycopg2.extensions import cursor as Cursor

from app.alerting import Alerting
from app.election import Election
from app.errors import TickhubError
from app.lanes import Lane
from app.meters import Meters
from app.storage.connection import Connection
from app.storage.lease import DESK
from app.stream.bus import Bus
from app.stream.hub import Hub
from app.webhook import Webhook

STATEMENT_TIMEOUT_S = 3.0
"""Also the longest that a transaction of a frozen process keeps the lease from the next one."""

T = TypeVar("T")


class Desk:
    """The election, and what the elected one does: alerts. connect: makes the (unopened) connection of a name."""

    def __init__(
        self,
        connect: Callable[[str, float], Connection],
        away: Callable[[], str | None],
        hub: Hub,
        bus: Bus,
        webhook_url: str,
        meters: Meters,
    ) -> None:
        self._meters = meters
        self._lane = Lane("desk")
        self._connection = connect("desk", STATEMENT_TIMEOUT_S)
        self.election = Election(DESK, self._lane, self._connection, away)
        self._webhook = (
            Webhook(webhook_url, lambda: self.election.term is not None, self.write, meters.alert_posted)
            if webhook_url
            else None
        )
        self.alerting = Alerting(
            self.election,
            self._lane,
            self._connection,
            hub,
            bus,
            away=away,
            has_webhook=self._webhook is not None,
            on_stored=self._stored,
        )

    def start(self, spawn: Callable[[Callable[[], None]], None]) -> None:
        """Start the greenlets."""
        spawn(self.election.run)
        spawn(self.alerting.run)
        spawn(self.alerting.repair)
        if self._webhook is not None:
            spawn(self._webhook.run)

    def write(self, fn: Callable[[Cursor], T]) -> T:
        """Return fn(cursor), run in a transaction; fn is lane-pure. Raises DatabaseAway, and what fn raises."""
        return self.alerting.run_on_lane(fn)

    def drain(self) -> None:
        """Give up the office, so that another process has it at once; idempotent."""
        self.election.stop()

    def stop(self) -> None:
        """Close the connection and let the lane end, whenever it comes back; idempotent."""
        try:
            self._lane.submit(self._connection.close)
        except TickhubError:
            return  # stopped already
        self._lane.stop()

    def _stored(self, alerts: int) -> None:
        self._meters.alerted(alerts)
        if self._webhook is not None:
            self._webhook.wake.set()
