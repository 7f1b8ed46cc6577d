"""Read stored alerts by pages, in the order of time. Lane side."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.formats.table import NULL_INT, Field, Table
from app.storage.tick_reader import timestamp

ALERTS: tuple[Field, ...] = (
    Field("symbol", "text", "the symbol's name; null: it is about none"),
    Field("timestamp", "time", "when it came about, UTC: the time of the tick, or of the look"),
    Field("alert_type", "text", "kind of alert"),
    Field("message", "text", "what was told"),
    Field("severity", "text", "info, warning, critical, or the sender's"),
    Field("alert_id", "int", "number of the alert"),
    Field("rule_id", "int", "number of the rule, which may be gone; null: it was sent from outside"),
    Field("value", "float", "the value that gave the alert, in the unit of the rule"),
)
_KEY = struct.Struct(">qq")
_READ = """
    SELECT i.symbol, (extract(epoch FROM a.time) * 1000000)::bigint, a.alert_type, a.message, a.severity, a.alert_id,
        a.rule_id, a.value
    FROM alerts a LEFT JOIN instruments i USING (symbol_id)
    WHERE (%(symbol_id)s::integer IS NULL OR a.symbol_id = %(symbol_id)s)
        AND (%(alert_type)s::text IS NULL OR a.alert_type = %(alert_type)s)
        AND (%(severity)s::text IS NULL OR a.severity = %(severity)s)
        AND (%(start)s::timestamptz IS NULL OR a.time >= %(start)s)
        AND (%(end)s::timestamptz IS NULL OR a.time < %(end)s)
        AND (%(after)s::timestamptz IS NULL OR (a.time, a.alert_id) {behind} (%(after)s, %(after_id)s))
    ORDER BY a.time {order}, a.alert_id {order} LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts: of [start_us, end_us), of this type, of this severity; None: all."""

    start_us: int | None = None
    end_us: int | None = None
    alert_type: str | None = None
    severity: str | None = None


@dataclass(slots=True)
class AlertsPage:
    """Alerts in the asked order, the place of the last one, and whether there are more behind it."""

    table: Table
    last_key: bytes | None
    more: bool


def read_alerts(
    cur: Cursor, symbol_id: int | None, asked: AlertFilter, *, after: bytes | None, descending: bool, max_rows: int
) -> AlertsPage:
    """Return at most max_rows alerts behind `after` in the asked direction.

    symbol_id: of one instrument; None: all. Raises ValueError for an `after` that no page gave.
    """
    after_us, after_id = None, None
    if after is not None:
        if len(after) != _KEY.size:
            raise ValueError("not an alert's place")
        after_us, after_id = _KEY.unpack(after)
    parameters = {
        "symbol_id": symbol_id,
        "alert_type": asked.alert_type,
        "severity": asked.severity,
        "start": None if asked.start_us is None else timestamp(asked.start_us),
        "end": None if asked.end_us is None else timestamp(asked.end_us),
        "after": None if after_us is None else timestamp(after_us),
        "after_id": after_id,
        "limit": max_rows + 1,
    }
    query = _READ.format(behind="<" if descending else ">", order="DESC" if descending else "ASC")
    cur.execute(query, parameters)
    found = cur.fetchall()
    rows = found[:max_rows]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(ALERTS)
    table = Table(
        ALERTS,
        [
            np.array([NULL_INT if value is None else value for value in column], np.int64)
            if field.kind in ("time", "int")
            else np.array(column, np.float64)
            if field.kind == "float"
            else list(column)
            for field, column in zip(ALERTS, columns, strict=True)
        ],
    )
    last_key = _KEY.pack(rows[-1][1], rows[-1][5]) if rows else None
    return AlertsPage(table, last_key, len(found) > max_rows)
