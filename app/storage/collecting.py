"""What is collected of the market: samples of what was committed since the one before. Lane side.

A sample and the place up to which ticks were counted for it are written together, with a check that the writer is
still elected. The sample then goes the way of any sender's records; until that is known to be so, it stays where it
is, and whoever is elected sends it again: its keys and its values are the same, so it is stored once.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from psycopg2.extensions import cursor as Cursor

from app.errors import StorageError
from app.market.positions import Positions
from app.storage.lease import Term, is_held
from app.storage.tick_reader import timestamp
from app.storage.trade_reader import Plan, journal_arrays, plan_behind

NAME = "market_data"

LATE_US = 60_000_000
"""A tick that is so much older than the moment before, and than its arrival, was not of this interval: sent again, or
from long ago. One that only its worker held up, while the database was away, is as old as its arrival."""

MOST_WINDOW_US = 60_000_000
LEAST_WINDOW_US = 500_000
"""How much of what arrived is counted at once: a minute at 400,000 ticks a second would not end in a statement's time,
so who failed asks for less. What is left comes with the next sample."""

# One snapshot: what is counted, and up to where.
_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '1s'; SET LOCAL jit = off"
_NOW = "SELECT (extract(epoch FROM now()) * 1000000)::bigint"
_STATE = "SELECT positions::text, moment_us, sample::text FROM collected WHERE name = %s"
_SAVE = """
    INSERT INTO collected (name, positions, moment_us, sample, term, updated_at)
    VALUES (%(name)s, %(positions)s, %(moment_us)s, %(sample)s, %(term)s, now())
    ON CONFLICT (name) DO UPDATE SET positions = excluded.positions, moment_us = excluded.moment_us,
        sample = excluded.sample, term = excluded.term, updated_at = excluded.updated_at
"""
# The price is the quote's: the newest trade's, the bid where nothing is traded.
_COUNT = """
    SELECT i.symbol, CASE WHEN c.last > 0 OR i.allow_nonpositive AND c.last IS NOT NULL THEN c.last ELSE c.bid END,
        c.bid, c.ask, f.volume, f.trades,
        CASE WHEN c.ask + c.bid > 0 THEN round((20000 * (c.ask - c.bid) / (c.ask + c.bid))::numeric, 4)::float8 END
    FROM (
        SELECT t.symbol_id, count(*) FILTER (WHERE (t.flags & 8) <> 0) AS trades,
            coalesce(round((sum(t.volume) FILTER (WHERE (t.flags & 8) <> 0))::numeric, 8), 0)::float8 AS volume
        FROM ticks t JOIN
            unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[]) AS j (no, low, high)
            ON t.journal_no = j.no AND t.received_at > j.low AND t.received_at <= j.high
        WHERE t.received_at > %(from)s::timestamptz AND t.received_at <= %(to)s::timestamptz
            AND t.time >= %(oldest)s::timestamptz
            AND t.time >= least(%(floor)s::timestamptz, t.received_at - %(late)s * interval '1 microsecond')
        GROUP BY t.symbol_id) f
    JOIN instruments i USING (symbol_id) JOIN current c USING (symbol)
    ORDER BY i.symbol
"""
# Any row of these arrivals. They lie in the order in which they came, and only the index of arrivals knows that.
_SOME_ARRIVAL = """
    SELECT (extract(epoch FROM t.received_at) * 1000000)::bigint
    FROM ticks t JOIN
        unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[]) AS j (no, low, high)
        ON t.journal_no = j.no AND t.received_at > j.low AND t.received_at <= j.high
    WHERE t.received_at > %(from)s::timestamptz AND t.received_at <= %(to)s::timestamptz
        AND t.time >= %(oldest)s::timestamptz LIMIT 1
"""
_BY_ARRIVAL = "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off"
_BY_ANYTHING = "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = on"
# A line that a value has crossed, with an alert, and has not come back behind.
_ALERTS = """
    SELECT count(*) FROM alert_rules r WHERE EXISTS (
        SELECT FROM jsonb_each(coalesce(r.state -> 'watches', '{}')) w
        WHERE w.value ->> 'armed' = 'false' AND w.value ->> 'fired_us' IS NOT NULL)
"""


class NoMoreElected(StorageError):
    """Another process was elected; nothing was written."""


class MarketRow(Struct, array_like=True):
    """A symbol in a sample, as its dataset has it."""

    symbol: str
    last_price: float | None
    bid: float | None
    ask: float | None
    volume: float
    trades: int
    spread_bps: float | None


class Sample(Struct, array_like=True):
    """Symbols that had a tick since the moment before. moment_us: UTC microseconds."""

    moment_us: int
    rows: list[MarketRow]


class Collected(Struct):
    """What a look found. sample: is to be sent; None: it is not time. now_us: by the database's clock.

    active_alerts: lines that are crossed; None where there is no new sample, but one that may not have been sent.
    """

    sample: Sample | None
    now_us: int
    active_alerts: int | None = None


_SAMPLES = msgspec.json.Decoder(Sample)
_POSITIONS = msgspec.json.Decoder(Positions)


def collect(cur: Cursor, term: Term, interval_us: int, window_us: int, sent_us: int | None) -> Collected:
    """Take the sample that is due at a multiple of the interval, or find the one that nobody is known to have sent.

    In a transaction of its own. sent_us: moment of the newest sample that this process has sent. Raises NoMoreElected.
    """
    cur.execute(_BEGIN)
    now_us = _number(cur, _NOW)
    moment_us = now_us // interval_us * interval_us
    cur.execute(_STATE, (NAME,))
    row = cur.fetchone()
    if row is not None and row[1] != sent_us:
        # It may have been: the one before was killed, or took over itself and does not know.
        waiting = _SAMPLES.decode(row[2])
        if waiting.rows:
            return Collected(waiting, now_us)
    if row is not None and moment_us <= row[1]:
        return Collected(None, now_us)
    if row is None:
        positions, rows = plan_behind(cur, Positions()).until, list[MarketRow]()
    else:
        plan = plan_behind(cur, _POSITIONS.decode(row[0]), keep_unknown=True)
        positions, rows = _count(cur, plan, int(row[1]) - LATE_US, window_us)
    sample = Sample(moment_us, rows)
    cur.execute(
        _SAVE,
        {
            "name": NAME,
            "positions": msgspec.json.encode(positions).decode(),
            "moment_us": moment_us,
            "sample": msgspec.json.encode(sample).decode(),
            "term": term.number,
        },
    )
    alerts = _number(cur, _ALERTS)
    if not is_held(cur, term):
        raise NoMoreElected
    return Collected(sample, now_us, alerts)


def _count(cur: Cursor, plan: Plan, floor_us: int, window_us: int) -> tuple[Positions, list[MarketRow]]:
    """Return how far was counted, and the symbols that had a tick."""
    if not plan.journals:
        return plan.until, []
    high_us = max(journal.high_us for journal in plan.journals)
    from_us = _without_pause(cur, plan, floor_us, window_us)
    to_us = min(high_us, from_us + window_us)
    parameters = {
        **journal_arrays(plan),
        "from": timestamp(from_us),
        "to": timestamp(to_us),
        "oldest": timestamp(min(floor_us, from_us - LATE_US)),
        "floor": timestamp(floor_us),
        "late": LATE_US,
    }
    cur.execute(_COUNT, parameters)
    rows = [MarketRow(*row) for row in cur.fetchall()]
    until = plan.until.copy()
    if to_us < high_us:
        for journal in plan.journals:
            until.done_us[journal.key] = min(journal.high_us, max(journal.low_us, to_us))
    return until, rows


def _without_pause(cur: Cursor, plan: Plan, floor_us: int, window_us: int) -> int:
    """Return a moment before which nothing arrived that is to be counted, and soon behind which something did.

    A journal that was idle for hours begins that long ago: its pause is to cost no windows, which the others wait for.
    """
    low_us, found_us = min(j.low_us for j in plan.journals), max(j.high_us for j in plan.journals)
    if found_us - low_us <= window_us:
        return low_us
    parameters = {**journal_arrays(plan), "oldest": timestamp(min(floor_us, low_us - LATE_US))}
    cur.execute(_BY_ARRIVAL)
    while found_us - window_us > low_us:
        bounds = {"from": timestamp(low_us), "to": timestamp(found_us - window_us)}
        cur.execute(_SOME_ARRIVAL, {**parameters, **bounds})
        row = cur.fetchone()
        if row is None:
            low_us = found_us - window_us
        else:
            found_us = int(row[0])
    cur.execute(_BY_ANYTHING)
    return low_us


def _number(cur: Cursor, query: str) -> int:
    cur.execute(query)
    row = cur.fetchone()
    assert row is not None
    return int(row[0])
