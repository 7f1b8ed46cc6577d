"""Alerts in the database: stored once with what is still to be told, and ticked off when it was. Lane side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct
from psycopg2.extensions import cursor as Cursor

from app.alerts.evaluate import Alert
from app.market.rfc3339 import rfc3339
from app.storage.tick_reader import timestamp

_STORE = """
    INSERT INTO alerts (symbol_id, time, alert_type, message, severity, rule_id, value)
    VALUES (%s, %s::timestamptz, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING alert_id
"""
_OUT = "INSERT INTO alert_outbox (alert_id, is_posted) VALUES (%s, %s)"
_TOLD = """
    SELECT o.alert_id, i.symbol, (extract(epoch FROM a.time) * 1000000)::bigint, a.alert_type, a.message, a.severity,
        a.rule_id, a.value, o.tries
    FROM alert_outbox o JOIN alerts a USING (alert_id) LEFT JOIN instruments i USING (symbol_id)
"""
_UNPUSHED = f"{_TOLD} WHERE NOT o.is_pushed ORDER BY o.alert_id LIMIT %s"
# Those of rules only: whoever is elected writes them, one look after another, so numbers rise from commit to commit.
# They have an index of their own: workers ask every second, however many were sent from outside since.
_NEWEST = "SELECT coalesce(max(alert_id), 0) FROM alerts WHERE rule_id IS NOT NULL"
_LATER_THAN = """
    SELECT a.alert_id, i.symbol, (extract(epoch FROM a.time) * 1000000)::bigint, a.alert_type, a.message, a.severity,
        a.rule_id, a.value, 0
    FROM alerts a LEFT JOIN instruments i USING (symbol_id)
    WHERE a.alert_id > %s AND a.rule_id IS NOT NULL ORDER BY a.alert_id LIMIT %s
"""
_UNPOSTED = f"{_TOLD} WHERE NOT o.is_posted AND o.next_try <= now() ORDER BY o.next_try, o.alert_id LIMIT %s"
_PUSHED = "UPDATE alert_outbox SET is_pushed = true WHERE alert_id = ANY(%s)"
_POSTED = "UPDATE alert_outbox SET is_posted = true WHERE alert_id = %s"
_LATER = """
    UPDATE alert_outbox SET tries = tries + 1, next_try = now() + %s * interval '1 second' WHERE alert_id = %s
"""
_GIVE_UP = """
    UPDATE alert_outbox o SET is_posted = true FROM alerts a
    WHERE NOT o.is_posted AND a.alert_id = o.alert_id AND a.received_at <= now() - %s * interval '1 second'
"""
_CLEAR = "DELETE FROM alert_outbox WHERE is_pushed AND is_posted"


class StoredAlert(Struct):
    """An alert as it is told; timestamp RFC 3339. tries: of the webhook, in vain."""

    alert_id: int
    symbol: str | None
    timestamp: str
    alert_type: str
    message: str
    severity: str | None
    rule_id: int | None
    value: float | None
    tries: int = 0


@dataclass(slots=True)
class ToldAfter:
    """Alerts in the order of their numbers, and the last of these."""

    alerts: list[StoredAlert]
    last_id: int


def store(cur: Cursor, alerts: Sequence[tuple[int | None, Alert]], *, has_webhook: bool) -> int:
    """Store alerts (with the ids of their symbols) that are to be told; return how many were not there."""
    stored = 0
    for symbol_id, one in alerts:
        values = (one.alert_type, one.message, one.severity, one.rule_id, one.value)
        cur.execute(_STORE, (symbol_id, timestamp(one.at_us), *values))
        row = cur.fetchone()
        if row is not None:
            cur.execute(_OUT, (row[0], not has_webhook))
            stored += 1
    return stored


def unpushed(cur: Cursor, most: int) -> list[StoredAlert]:
    """Return alerts that live readers were not told, oldest first."""
    cur.execute(_UNPUSHED, (most,))
    return [_alert(row) for row in cur.fetchall()]


def told_after(cur: Cursor, after_id: int | None, most: int) -> ToldAfter:
    """Return the alerts of rules that were stored behind after_id, and where to go on; None: from now on."""
    if after_id is None:
        cur.execute(_NEWEST)
        row = cur.fetchone()
        assert row is not None
        return ToldAfter([], row[0])
    cur.execute(_LATER_THAN, (after_id, most))
    alerts = [_alert(row) for row in cur.fetchall()]
    return ToldAfter(alerts, alerts[-1].alert_id if alerts else after_id)


def unposted(cur: Cursor, most: int) -> list[StoredAlert]:
    """Return alerts that the webhook is to be told now."""
    cur.execute(_UNPOSTED, (most,))
    return [_alert(row) for row in cur.fetchall()]


def pushed(cur: Cursor, ids: Sequence[int]) -> None:
    """Note that live readers were told."""
    cur.execute(_PUSHED, (list(ids),))
    cur.execute(_CLEAR)


def posted(cur: Cursor, alert_id: int) -> None:
    """Note that the webhook has an alert, or that it is given up."""
    cur.execute(_POSTED, (alert_id,))
    cur.execute(_CLEAR)


def give_up(cur: Cursor, older_s: float) -> int:
    """Note that the webhook is told no more of alerts that are so old; return how many there were."""
    cur.execute(_GIVE_UP, (older_s,))
    given_up = cur.rowcount
    if given_up:
        cur.execute(_CLEAR)
    return given_up


def post_later(cur: Cursor, alert_id: int, wait_s: float) -> None:
    """Note that the webhook did not take an alert, and when to try again."""
    cur.execute(_LATER, (wait_s, alert_id))


def _alert(row: tuple[int, str | None, int, str, str, str | None, int | None, float | None, int]) -> StoredAlert:
    return StoredAlert(row[0], row[1], rfc3339(row[2]), *row[3:])
