"""What rules of alerts look at: committed ticks in order of arrival, minutes' volumes, other values. Lane side.

Ticks are read behind the positions of journals, so that each is looked at once, whoever flushed it and whatever was
heard of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from app.alerts.evaluate import Value
from app.datasets.registry import DATASETS
from app.market.positions import Positions
from app.storage.tick_reader import timestamp
from app.storage.trade_reader import Plan, plan_behind

MOST_TICKS, LEAST_TICKS = 5000, 200
"""Ticks of one look: some 20 ms of a lane. What is left comes with the next one."""

FIRST_WINDOW_US = 1_000_000
"""How much of the arrivals is looked at when there is more than a look takes. Else each look at a backlog would sort
all of it: after an hour without a database it would not end in time, and so never."""

LEAST_WINDOW_US, MOST_WINDOW_US = 1_000, 1 << 50

MOST_LOOKS = 500_000
"""Ticks of one look times rules: half a second, where no two ticks are in order."""

MOST_VALUES = 1000

CATCHING_UP_S = 10.0
"""What is written so much later than it came was held up."""

MINUTES = 20
"""Minutes that the newest one's volume is compared with."""

_US = "(extract(epoch FROM {}) * 1000000)::bigint"

# The floors keep it to the newest end of the key, whatever is imported meanwhile: older ticks are no news.
_TICKS = f"""
    SELECT t.symbol_id, {_US.format("t.time")}, {_US.format("t.received_at")}, t.bid, t.ask, t.last, t.spread,
        t.flags & 8 <> 0
    FROM unnest(%(ids)s::integer[], %(floors)s::timestamptz[]) AS s (symbol_id, floor)
    CROSS JOIN LATERAL (
        SELECT k.symbol_id, k.time, k.received_at, k.bid, k.ask, k.last, k.spread, k.flags, k.journal_no
        FROM ticks k JOIN unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[])
            AS j (no, low, high) ON k.journal_no = j.no AND k.received_at > j.low AND k.received_at <= j.high
        WHERE k.symbol_id = s.symbol_id AND k.time >= s.floor) t
    ORDER BY t.received_at, t.journal_no LIMIT %(limit)s
"""  # noqa: S608 - the constants above
# As above for those that came within a window: an index of arrivals finds them, however many came after.
_ARRIVED = f"""
    SELECT k.symbol_id, {_US.format("k.time")}, {_US.format("k.received_at")}, k.bid, k.ask, k.last, k.spread,
        k.flags & 8 <> 0
    FROM ticks k JOIN unnest(%(ids)s::integer[], %(floors)s::timestamptz[]) AS s (symbol_id, floor)
        ON k.symbol_id = s.symbol_id AND k.time >= s.floor
    JOIN unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[]) AS j (no, low, high)
        ON k.journal_no = j.no AND k.received_at > j.low AND k.received_at <= j.high
    WHERE k.received_at > %(from)s::timestamptz AND k.received_at <= %(to)s::timestamptz
    ORDER BY k.received_at, k.journal_no LIMIT %(limit)s
"""  # noqa: S608 - the same
# Late by the ledger's own account: what is written came long before.
_CATCHING_UP = """
    SELECT EXISTS (SELECT FROM ingest_log WHERE entered_at IS NOT NULL
        AND updated_at > now() - %(late)s * interval '1 second'
        AND done_until < updated_at - %(late)s * interval '1 second')
"""
_INSTRUMENTS = f"""
    SELECT i.symbol_id, c.last IS NOT NULL, i.allow_nonpositive, {_US.format("c.last_updated")}
    FROM instruments i LEFT JOIN current c USING (symbol) WHERE i.symbol_id = ANY(%s)
"""  # noqa: S608 - the same
_MINUTES = f"""
    SELECT s.symbol_id, {_US.format("b.time")}, b.volume::float8
    FROM unnest(%(ids)s::integer[]) AS s (symbol_id) CROSS JOIN LATERAL (
        SELECT time, volume FROM bars WHERE symbol_id = s.symbol_id AND resolution = 60
            AND time > now() - %(minutes)s * interval '1 minute' AND time <= now()) b
    ORDER BY s.symbol_id, b.time
"""  # noqa: S608 - the same


class TickRow(NamedTuple):
    """A tick as rules see it; times in UTC microseconds, spread in points."""

    symbol_id: int
    at_us: int
    received_us: int
    bid: float | None
    ask: float | None
    last: float | None
    spread: float | None
    is_trade: bool


class InstrumentFacts(NamedTuple):
    """What is known of an instrument. newest_us: time of its newest tick (UTC microseconds); None: it has none."""

    symbol_id: int
    has_trades: bool
    nonpositive_ok: bool
    newest_us: int | None


def now_us(cur: Cursor) -> int:
    """Return the time of the transaction by the database's clock, UTC microseconds."""
    cur.execute("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
    row = cur.fetchone()
    assert row is not None
    return int(row[0])


@dataclass(slots=True)
class Behind:
    """Committed ticks in order of arrival, and how far they reach.

    window_us: what to ask the next time; not None: there is more.
    """

    ticks: list[TickRow]
    until: Positions
    window_us: int | None = None


def ticks_behind(
    cur: Cursor, after: Positions, floors: dict[int, int], rules: int, window_us: int | None = None
) -> Behind:
    """Return committed ticks behind the positions.

    floors: the symbols' ids, and the times (UTC microseconds) before which nothing of them counts. rules: that look.
    window_us: how much of the arrivals to look at; None: all, where there is not much.
    """
    plan = plan_behind(cur, after, keep_unknown=True)
    if not plan.journals or not floors:
        return Behind([], plan.until)
    most = min(MOST_TICKS, max(LEAST_TICKS, MOST_LOOKS // rules))
    from_us, high_us = min(j.low_us for j in plan.journals), max(j.high_us for j in plan.journals)
    to_us = high_us if window_us is None else min(high_us, from_us + window_us)
    parameters = {
        "ids": list(floors),
        "floors": [timestamp(us) for us in floors.values()],
        "numbers": [journal.number for journal in plan.journals],
        "lows": [timestamp(journal.low_us) for journal in plan.journals],
        "highs": [timestamp(journal.high_us) for journal in plan.journals],
        "from": timestamp(from_us),
        "to": timestamp(to_us),
        "limit": most,
    }
    cur.execute(_TICKS if window_us is None else _ARRIVED, parameters)
    rows = [TickRow(*row) for row in cur.fetchall()]
    if len(rows) == most:
        # Another journal may have one of the last row's microsecond; within a journal no two have the same.
        cut_us = rows[-1].received_us - 1
        rows = [row for row in rows if row.received_us <= cut_us]
        return Behind(rows, _cut(plan, cut_us), max(LEAST_WINDOW_US, 2 * (cut_us - from_us)))
    if to_us < high_us:
        return Behind(rows, _cut(plan, to_us), min(MOST_WINDOW_US, 2 * (window_us or FIRST_WINDOW_US)))
    return Behind(rows, plan.until)


def _cut(plan: Plan, cut_us: int) -> Positions:
    until = plan.until.copy()
    for journal in plan.journals:
        until.done_us[journal.key] = min(journal.high_us, max(journal.low_us, cut_us))
    return until


def is_catching_up(cur: Cursor) -> bool:
    """Tell whether workers are just writing what came long ago: the database was away, or they were."""
    cur.execute(_CATCHING_UP, {"late": CATCHING_UP_S})
    return cur.fetchone() == (True,)


def instrument_facts(cur: Cursor, ids: Sequence[int]) -> dict[int, InstrumentFacts]:
    """Return what is known of instruments, by id."""
    if not ids:
        return {}
    cur.execute(_INSTRUMENTS, (list(ids),))
    return {row[0]: InstrumentFacts(*row) for row in cur.fetchall()}


def minute_volumes(cur: Cursor, ids: Sequence[int]) -> dict[int, list[Value]]:
    """Return starts and volumes of the last minutes that have ticks, rising, by id; the running one is the last."""
    if not ids:
        return {}
    cur.execute(_MINUTES, {"ids": list(ids), "minutes": MINUTES + 1})
    found: dict[int, list[Value]] = {}
    for symbol_id, at_us, volume in cur.fetchall():
        found.setdefault(symbol_id, []).append((at_us, volume))
    return found


def values_of(cur: Cursor, dataset: str, about: object, field: str, seen_us: int) -> list[Value]:
    """Return values of a field of a dataset that are later than seen_us, rising in time; 0: only the newest one.

    about: of which symbol_id, futures symbol, strategy or host; nothing to a dataset that has one row a time.
    """
    declared = DATASETS[dataset]
    key = next((column for column in declared.keys if column.kind != "time"), None)
    value = sql.SQL("t.{}").format(sql.Identifier(declared.by_name[field].column))
    if field in declared.computed:
        value = sql.SQL("coalesce({}, {})").format(value, sql.SQL(declared.computed[field]))
    query = sql.SQL(
        "SELECT (extract(epoch FROM t.time) * 1000000)::bigint, ({value})::float8 FROM {table} t"
        " WHERE ({value}) IS NOT NULL AND t.time > %(seen)s::timestamptz{about} ORDER BY t.time {order} LIMIT %(limit)s"
    ).format(
        value=value,
        table=sql.Identifier(declared.table),
        about=sql.SQL("") if key is None else sql.SQL(" AND t.{} = %(about)s").format(sql.Identifier(key.column)),
        order=sql.SQL("ASC" if seen_us else "DESC"),
    )
    cur.execute(query, {"seen": timestamp(seen_us), "about": about, "limit": MOST_VALUES if seen_us else 1})
    return list(cur.fetchall())
