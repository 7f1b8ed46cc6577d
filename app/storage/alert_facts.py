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
from app.datasets.declare import Dataset
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

MOST_VALUES, LEAST_VALUES = 20_000, 20
"""Values of other datasets: of all rules at a look, and of each at least. What is left comes with the next one."""

CATCHING_UP_S = 10.0
"""What is written so much later than it came was held up."""

MINUTES = 20
"""Minutes that the newest one's volume is compared with."""

_US = "(extract(epoch FROM {}) * 1000000)::bigint"

# The floors keep it to the newest end of the key, whatever is imported meanwhile: older ticks are no news. OFFSET 0, or
# the planner, which does not know where floors are, goes by arrival: through the newest ticks of all symbols.
_TICKS = f"""
    SELECT t.symbol_id, {_US.format("t.time")}, {_US.format("t.received_at")}, t.bid, t.ask, t.last, t.spread,
        t.flags & 8 <> 0
    FROM unnest(%(ids)s::integer[], %(floors)s::timestamptz[]) AS s (symbol_id, floor)
    CROSS JOIN LATERAL (
        SELECT k.symbol_id, k.time, k.received_at, k.bid, k.ask, k.last, k.spread, k.flags, k.journal_no
        FROM ticks k WHERE k.symbol_id = s.symbol_id AND k.time >= s.floor OFFSET 0) t
    JOIN unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[]) AS j (no, low, high)
        ON t.journal_no = j.no AND t.received_at > j.low AND t.received_at <= j.high
    ORDER BY t.received_at, t.journal_no LIMIT %(limit)s
"""  # noqa: S608 - the constants above
# As above for those that came within a window: an index of arrivals finds them, however many came after. + 0, so that
# the key is not gone through as well.
_ARRIVED = f"""
    SELECT k.symbol_id, {_US.format("k.time")}, {_US.format("k.received_at")}, k.bid, k.ask, k.last, k.spread,
        k.flags & 8 <> 0
    FROM ticks k JOIN unnest(%(ids)s::integer[], %(floors)s::timestamptz[]) AS s (symbol_id, floor)
        ON k.symbol_id + 0 = s.symbol_id AND k.time >= s.floor
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
# Counted back from the newest minute, not from now: while nothing comes, what it is compared with stays the same.
# OFFSET 0, or the planner, which does not know which that is, may go through all minutes.
_MINUTES = f"""
    SELECT s.symbol_id, {_US.format("b.time")}, b.volume::float8
    FROM unnest(%(ids)s::integer[]) AS s (symbol_id) CROSS JOIN LATERAL (
        SELECT max(time) AS time FROM bars WHERE symbol_id = s.symbol_id AND resolution = 60
            AND time > now() - %(minutes)s * interval '1 minute' AND time <= now()) newest
    CROSS JOIN LATERAL (
        SELECT time, volume FROM bars WHERE symbol_id = s.symbol_id AND resolution = 60
            AND time >= newest.time - %(minutes)s * interval '1 minute' AND time <= newest.time OFFSET 0) b
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


class Wanted(NamedTuple):
    """Values that a rule asks for. about: which symbol_id, futures symbol, strategy or host; None: nothing tells rows
    apart. seen_us: UTC microseconds, 0: none was seen.
    """

    rule_id: int
    dataset: str
    field: str
    about: int | str | None
    seen_us: int


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
    """Return starts and volumes of minutes that have ticks, rising, by id: the newest one, and MINUTES before it.

    Nothing where the newest one is older than that.
    """
    if not ids:
        return {}
    cur.execute(_MINUTES, {"ids": list(ids), "minutes": MINUTES})
    found: dict[int, list[Value]] = {}
    for symbol_id, at_us, volume in cur.fetchall():
        found.setdefault(symbol_id, []).append((at_us, volume))
    return found


def values_of(cur: Cursor, asked: Sequence[Wanted]) -> dict[int, list[Value]]:
    """Return values of datasets that are later than those seen, rising in time, by rule; none seen: the newest one.

    Two statements a field at most, however many rules ask for it.
    """
    alike: dict[tuple[str, str, bool], list[Wanted]] = {}
    for one in asked:
        alike.setdefault((one.dataset, one.field, one.seen_us > 0), []).append(one)
    most = max(LEAST_VALUES, MOST_VALUES // max(1, len(asked)))
    found: dict[int, list[Value]] = {one.rule_id: [] for one in asked}
    for (dataset, field, has_seen), group in alike.items():
        parameters = {
            "rules": [one.rule_id for one in group],
            "abouts": [one.about for one in group],
            "seen": [timestamp(one.seen_us) for one in group],
            "limit": most if has_seen else 1,
        }
        cur.execute(_values(DATASETS[dataset], field, rising=has_seen), parameters)
        for rule_id, at_us, value in cur.fetchall():
            found[rule_id].append((at_us, value))
    return found


def _values(dataset: Dataset, field: str, *, rising: bool) -> sql.Composed:
    key = next((column for column in dataset.keys if column.kind != "time"), None)
    value = sql.SQL("t.{}").format(sql.Identifier(dataset.by_name[field].column))
    if field in dataset.computed:
        value = sql.SQL("coalesce({}, {})").format(value, sql.SQL(dataset.computed[field]))
    return sql.SQL(
        "SELECT s.rule_id, (extract(epoch FROM v.time) * 1000000)::bigint, v.value"
        " FROM unnest(%(rules)s::integer[], %(abouts)s::{kind}[], %(seen)s::timestamptz[]) AS s (rule_id, about, seen)"
        " CROSS JOIN LATERAL (SELECT t.time, ({value})::float8 AS value FROM {table} t"
        " WHERE ({value}) IS NOT NULL AND t.time > s.seen{about} ORDER BY t.time {order} LIMIT %(limit)s) v"
        " ORDER BY s.rule_id, v.time"
    ).format(
        kind=sql.SQL("integer" if key is not None and key.kind == "symbol" else "text"),
        value=value,
        table=sql.Identifier(dataset.table),
        about=sql.SQL("") if key is None else sql.SQL(" AND t.{} = s.about").format(sql.Identifier(key.column)),
        order=sql.SQL("ASC" if rising else "DESC"),
    )
