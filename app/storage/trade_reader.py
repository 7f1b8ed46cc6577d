"""Read stored trades: those behind positions, or later than a time, by pages. Lane side.

The first page comes with the ledger of its own snapshot: `Plan.until` says what is in it. Later pages may be read in
later transactions; rows that came meanwhile are left out of them, for those are told live.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.errors import Conflict
from app.market.columns import I8
from app.market.committed import Touched, Trades
from app.market.positions import KEY_DIGITS, Positions, TradeKey, journal_key
from app.market.timestamps import MAX_US
from app.storage.copy_rows import POSTGRES_EPOCH_US, copy_columns
from app.storage.ledger import LIVE_FOR
from app.storage.tick_reader import timestamp

_JOURNALS = f"""
    SELECT journal_id, journal_no, (extract(epoch FROM entered_at) * 1000000)::bigint,
        coalesce((extract(epoch FROM entered_from) * 1000000)::bigint, 0),
        coalesce((extract(epoch FROM done_until) * 1000000)::bigint, 0),
        updated_at > now() - interval '{LIVE_FOR}'
    FROM ingest_log
    WHERE entered_at IS NOT NULL AND (updated_at > now() - interval '{LIVE_FOR}'
        OR entered_at > %(top)s::timestamptz OR left(journal_id, {KEY_DIGITS}) = ANY(%(listed)s))
"""  # noqa: S608 - the constants above
_TOP = "SELECT coalesce((extract(epoch FROM max(entered_at)) * 1000000)::bigint, 0) FROM ingest_log"
_ENTERED = """
    SELECT journal_no, coalesce((extract(epoch FROM entered_from) * 1000000)::bigint, 0) FROM ingest_log
    WHERE entered_at > %s::timestamptz
"""
_NAMES = "SELECT symbol_id, symbol FROM instruments WHERE symbol_id = ANY(%s)"

# No stored price is NaN, and a column that may be NULL would change a row's width.
_COLUMNS = "symbol_id, time, seq, coalesce(last, 'NaN') AS last, volume, flags, journal_no, received_at"
_COLUMN_NAMES = ("symbol_id", "time", "seq", "last", "volume", "flags", "journal_no", "received_at")
_FORMATS = (">i4", ">i8", ">i8", ">f8", ">f8", ">i4", ">i4", ">i8")
_OF_SYMBOLS = "AND symbol_id IN (SELECT symbol_id FROM instruments WHERE symbol = ANY(%(symbols)s))"

_BEHIND = f"""
    SELECT {_COLUMNS} FROM ticks JOIN
        unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[]) AS j (no, low, high)
        ON journal_no = j.no AND received_at > j.low AND received_at <= j.high
    WHERE received_at >= %(from)s::timestamptz AND received_at <= %(to)s::timestamptz AND (flags & 8) <> 0
        AND (received_at, journal_no) > (%(from)s::timestamptz, %(from_no)s) {{symbols}}
    ORDER BY received_at, journal_no LIMIT %(limit)s
"""  # noqa: S608 - the constants above
_TOUCHED = """
    SELECT (SELECT symbol FROM instruments i WHERE i.symbol_id = t.symbol_id),
        (extract(epoch FROM min(time)) * 1000000)::bigint, (extract(epoch FROM max(time)) * 1000000)::bigint
    FROM ticks t JOIN
        unnest(%(numbers)s::integer[], %(lows)s::timestamptz[], %(highs)s::timestamptz[]) AS j (no, low, high)
        ON journal_no = j.no AND received_at > j.low AND received_at <= j.high
    WHERE received_at >= %(from)s::timestamptz AND received_at <= %(to)s::timestamptz
    GROUP BY t.symbol_id
"""
_LATER = f"""
    SELECT {_COLUMNS} FROM ticks
    WHERE time >= %(from)s::timestamptz AND time < %(to)s::timestamptz AND (flags & 8) <> 0 {{symbols}}
        AND (time, symbol_id, seq < 0, greatest(seq, 0), received_at, journal_no) > (%(from)s::timestamptz,
            %(symbol_id)s, %(seq)s < 0, greatest(%(seq)s, 0), %(received_at)s::timestamptz, %(journal_no)s)
    ORDER BY time, symbol_id, seq < 0, greatest(seq, 0), received_at, journal_no LIMIT %(limit)s
"""  # noqa: S608 - the constants above

_NEXT = """
    SELECT (extract(epoch FROM min(t.time)) * 1000000)::bigint FROM instruments i
    CROSS JOIN LATERAL
        (SELECT time FROM ticks WHERE symbol_id = i.symbol_id AND time >= %(to)s::timestamptz ORDER BY time LIMIT 1) t
    WHERE %(symbols)s::text[] IS NULL OR i.symbol = ANY(%(symbols)s)
"""

_ARCHIVED = """
    SELECT (extract(epoch FROM max(upper(range))) * 1000000)::bigint FROM tick_ranges
    WHERE state = 'archived' AND upper(range) > %(from)s::timestamptz
"""

_FIRST_WINDOW_US = 60_000_000
"""How much of the time is looked at for the first page. A page sorts all that it looks at."""

_LEAST_WINDOW_US = 1_000
_MOST_ARRIVALS_US = 600_000_000
"""No index tells when something arrived next, so a pause is crossed in such steps; what follows it may be dense."""

_QUICK_S, _SLOW_S = 0.05, 0.2
"""A page that takes less, or longer, is followed by one that looks at more, or less."""

_LAST_NO = 2**31 - 1
_LAST_SYMBOL = 2**31 - 1


@dataclass(slots=True, frozen=True)
class Journal:
    """Rows of a journal that are to be read: those received in (low_us, high_us]."""

    number: int
    key: int
    low_us: int
    high_us: int


@dataclass(slots=True)
class Plan:
    """What is to be read: of `journals`, or by time. `until`: what will have been seen then.

    numbers: of all live journals, by key. entered_us: of those that entered later nothing is in it.
    """

    until: Positions
    journals: list[Journal]
    numbers: dict[int, int]
    entered_us: int


@dataclass(slots=True)
class Place:
    """Where a replay has come to, and how much of the time to look at next. key: of the last trade, by time."""

    at_us: int
    journal_no: int = _LAST_NO
    key: TradeKey | None = None
    window_us: int = _FIRST_WINDOW_US


@dataclass(slots=True)
class TradePage:
    """Trades in order, and where the next page begins; None: this was the last one. keys: by time only."""

    trades: Trades
    place: Place | None
    keys: list[TradeKey] = field(default_factory=list)


def plan_behind(cur: Cursor, after: Positions, *, keep_unknown: bool = False) -> Plan:
    """Return what there is behind positions, in the transaction's snapshot.

    No position of `until` is before that of `after`, and with keep_unknown journals that the ledger does not have stay
    in it: a database that was set back gets their rows again, and they are not new.
    """
    cur.execute(_TOP)
    found = cur.fetchone()
    assert found is not None
    top_us = int(found[0])
    listed = [f"{key:0{KEY_DIGITS}x}" for key in after.done_us]
    cur.execute(_JOURNALS, {"top": timestamp(after.top_us), "listed": listed})
    done: dict[int, int] = {}
    journals, numbers = [], {}
    for journal_id, number, entered_us, from_us, done_us, is_live in cur.fetchall():
        key = journal_key(journal_id)
        seen_us = after.done_us.get(key)
        if seen_us is None:
            seen_us = done_us if entered_us <= after.top_us else from_us
        elif seen_us == 0:
            seen_us = from_us
        if done_us > seen_us:
            journals.append(Journal(number, key, seen_us, done_us))
        numbers[key] = number
        if is_live:
            done[key] = max(done_us, seen_us)
    if keep_unknown:
        done |= {key: us for key, us in after.done_us.items() if key not in numbers}
    return Plan(Positions(top_us, done), journals, numbers, top_us)


def read_behind(
    cur: Cursor, plan: Plan, symbols: Sequence[str] | None, place: Place | None, max_rows: int
) -> TradePage:
    """Return the next trades of the plan's journals, in order of arrival: by (received_us, journal number)."""
    if not plan.journals:
        return TradePage(_trades(cur, None, {}), None)
    low_us, high_us = min(j.low_us for j in plan.journals), max(j.high_us for j in plan.journals)
    at = place or Place(low_us)
    to_us = min(high_us, at.at_us + at.window_us)
    parameters = {
        **journal_arrays(plan),
        "from": timestamp(at.at_us),
        "from_no": at.journal_no,
        "to": timestamp(to_us),
        "symbols": None if symbols is None else list(symbols),
        "limit": max_rows,
    }
    began_s = time.perf_counter()
    query = _BEHIND.format(symbols="" if symbols is None else _OF_SYMBOLS)
    columns = _fetch(cur, query, parameters)
    trades = _trades(cur, columns, {number: key for key, number in plan.numbers.items()})
    if len(trades) == max_rows:
        last_us = int(columns["received_at"][-1])
        window_us = _next_window_us(at.window_us, began_s, last_us - at.at_us)
        return TradePage(trades, Place(last_us, int(columns["journal_no"][-1]), None, window_us))
    window_us = min(_MOST_ARRIVALS_US, _next_window_us(at.window_us, began_s))
    return TradePage(trades, None if to_us >= high_us else Place(to_us, window_us=window_us))


def read_touched(cur: Cursor, plan: Plan) -> list[Touched]:
    """Return the symbols of which the plan's journals have ticks, trades or not, and from when to when they are."""
    if not plan.journals:
        return []
    low_us, high_us = min(j.low_us for j in plan.journals), max(j.high_us for j in plan.journals)
    cur.execute(_TOUCHED, {**journal_arrays(plan), "from": timestamp(low_us), "to": timestamp(high_us)})
    return [Touched(*row) for row in cur.fetchall()]


def journal_arrays(plan: Plan) -> dict[str, object]:
    """Return the plan's journals as parameters of a statement."""
    return {
        "numbers": [j.number for j in plan.journals],
        "lows": [timestamp(j.low_us) for j in plan.journals],
        "highs": [timestamp(j.high_us) for j in plan.journals],
    }


def start_later(since_us: int, key: TradeKey | None = None) -> Place:
    """Return where a replay of the trades later than a time begins, or where it goes on."""
    return Place(since_us, key=key or TradeKey(since_us, _LAST_SYMBOL, 0, 0, 0))


def read_later(cur: Cursor, plan: Plan, symbols: Sequence[str] | None, place: Place, max_rows: int) -> TradePage:
    """Return the next stored trades by time, as of the plan. place: of `start_later`, or of the page before.

    Raises Conflict where some of them are archived: files are for pages, and leaving trades out would be wrong.
    """
    cur.execute(_ARCHIVED, {"from": timestamp(place.at_us)})
    archived = cur.fetchone()
    if archived is not None and archived[0] is not None:
        raise Conflict(
            f"Trades before {timestamp(archived[0])} are in the archive: ask GET /api/trades for them, and here for"
            " those from then on"
        )
    key = place.key or TradeKey(place.at_us, -1, 0, 0, 0)
    to_us = min(MAX_US, place.at_us + place.window_us)
    parameters = {
        "from": timestamp(key.time_us),
        "to": timestamp(to_us),
        "symbol_id": key.symbol_id,
        "seq": key.seq,
        "received_at": timestamp(key.received_us),
        "journal_no": key.journal_no,
        "symbols": None if symbols is None else list(symbols),
        "limit": max_rows,
    }
    began_s = time.perf_counter()
    query = _LATER.format(symbols="" if symbols is None else _OF_SYMBOLS)
    columns = _fetch(cur, query, parameters)
    rows = len(columns["time"])
    last = _key(columns, rows - 1) if rows else None
    columns = _as_of(cur, plan, columns)
    trades = _trades(cur, columns, {number: key for key, number in plan.numbers.items()})
    keys = [_key(columns, i) for i in range(len(trades))]
    if last is not None and rows == max_rows:
        window_us = _next_window_us(place.window_us, began_s, last.time_us - place.at_us)
        return TradePage(trades, Place(last.time_us, key=last, window_us=window_us), keys)
    window_us = _next_window_us(place.window_us, began_s)
    if last is None:
        cur.execute(_NEXT, parameters)
        found = cur.fetchone()
        if found is None or found[0] is None:
            return TradePage(trades, None)
        if found[0] > to_us + window_us:
            return TradePage(trades, Place(found[0]))
    return TradePage(trades, Place(to_us, window_us=window_us), keys)


def _next_window_us(window_us: int, began_s: float, span_us: int | None = None) -> int:
    """Return how much to look at next, after a page that began then. span_us: of its rows, if it was full."""
    took_s = time.perf_counter() - began_s
    if span_us is not None:
        window_us = min(window_us, 4 * span_us)
    elif took_s < _QUICK_S:
        window_us *= 2
    if took_s > _SLOW_S:
        window_us //= 2
    return max(_LEAST_WINDOW_US, window_us)


def _as_of(cur: Cursor, plan: Plan, columns: dict[str, I8]) -> dict[str, I8]:
    """Leave out the rows that were committed after the plan was made."""
    limits = {plan.numbers[key]: us for key, us in plan.until.done_us.items() if key in plan.numbers}
    cur.execute(_ENTERED, (timestamp(plan.entered_us),))
    limits.update({number: from_us for number, from_us in cur.fetchall() if number not in limits})
    kept = np.ones(len(columns["time"]), np.bool_)
    for number in np.unique(columns["journal_no"]).tolist():
        if number in limits:
            kept &= (columns["journal_no"] != number) | (columns["received_at"] <= limits[number])
    return {name: values[kept] for name, values in columns.items()}


def _fetch(cur: Cursor, query: str, parameters: dict[str, object]) -> dict[str, I8]:
    found = copy_columns(cur, cur.mogrify(query, parameters), _COLUMN_NAMES, _FORMATS)
    columns = dict(zip(_COLUMN_NAMES, found, strict=True))
    columns["time"] += POSTGRES_EPOCH_US
    columns["received_at"] += POSTGRES_EPOCH_US
    return columns


def _key(columns: dict[str, I8], row: int) -> TradeKey:
    names = ("time", "symbol_id", "seq", "received_at", "journal_no")
    return TradeKey(*(int(columns[name][row]) for name in names))


def _trades(cur: Cursor, columns: dict[str, I8] | None, keys: dict[int, int]) -> Trades:
    """Return rows as trades. keys: of journals by number; 0 for one that is not among them."""
    if columns is None or not len(columns["time"]):
        i8, f8, i4 = np.zeros(0, np.int64), np.zeros(0, np.float64), np.zeros(0, np.int32)
        return Trades([], i4, i8, f8, f8, i4, i8, i8)
    ids, symbol = np.unique(columns["symbol_id"], return_inverse=True)
    cur.execute(_NAMES, (ids.tolist(),))
    names = dict(cur.fetchall())
    numbers, at = np.unique(columns["journal_no"], return_inverse=True)
    return Trades(
        names=[names[number] for number in ids.tolist()],
        symbol=symbol.astype(np.int32),
        time_us=columns["time"],
        price=columns["last"].astype(np.float64),
        volume=columns["volume"].astype(np.float64),
        flags=columns["flags"].astype(np.int32),
        journal=np.array([keys.get(number, 0) for number in numbers.tolist()], np.int64)[at],
        received_us=columns["received_at"],
    )
