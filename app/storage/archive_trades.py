"""Trades of archived minutes, each with the quote at it: what `trades_between` (migration 0014) says of hot ones. Lane
side.

Ticks come from files, what was sent as trades and bars before the minute from the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.market.columns import F8, I4, I8, Mask
from app.market.flags import BUY, SELL, is_trade
from app.storage.archive_files import Manifest
from app.storage.archive_reader import read_minutes
from app.storage.archive_rows import WholeTicks
from app.storage.tick_reader import timestamp

MINUTE_US = 60_000_000

MOST_TICKS, MOST_SPAN_US = 50_000, 60 * MINUTE_US
"""Looked at together: what a page of trades takes is rarely more, and a pause between trades is not read."""

TradeRow = tuple[str, int, int, float, float, float, str, float, float, int]
"""symbol, time_us, seq, price, volume, value, trade_type, bid, ask, symbol_id; NaN: not known."""

_LEAST = 1e-150
"""A product with less is less than any float: PostgreSQL would not compute it."""

_INSTRUMENTS = "SELECT symbol_id, symbol, allow_nonpositive FROM instruments WHERE symbol_id = ANY(%s)"
_TICKS = """
    SELECT (extract(epoch FROM m.low) * 1000000)::bigint, coalesce(sum(b.ticks), 0)::bigint
    FROM unnest(%(lows)s::timestamptz[]) m (low)
    LEFT JOIN bars b ON b.symbol_id = ANY(%(ids)s) AND b.resolution = 60 AND b.time = m.low GROUP BY 1
"""
_SENT = """
    SELECT t.symbol_id, (extract(epoch FROM t.time) * 1000000)::bigint, t.seq, t.price, t.volume, t.value, t.trade_type,
        t.bid_price, t.ask_price, (extract(epoch FROM t.received_at) * 1000000)::bigint
    FROM unnest(%(lows)s::timestamptz[]) m (low) JOIN trades_sent t
        ON t.symbol_id = ANY(%(ids)s) AND t.time >= m.low AND t.time < m.low + interval '1 minute'
"""
_CLOSE = """(SELECT price FROM (
    (SELECT {side}_close AS price FROM bars WHERE symbol_id = k.id AND resolution = 60 AND {side}_close IS NOT NULL
         AND time >= date_trunc('hour', k.low, 'UTC') AND time < k.low ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT {side}_close FROM bars WHERE symbol_id = k.id AND resolution = 3600 AND {side}_close IS NOT NULL
         AND time >= date_trunc('day', k.low, 'UTC') AND time < date_trunc('hour', k.low, 'UTC')
     ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT {side}_close FROM bars WHERE symbol_id = k.id AND resolution = 86400 AND {side}_close IS NOT NULL
         AND time >= date_trunc('day', k.low, 'UTC') - interval '168 hours'
         AND time < date_trunc('day', k.low, 'UTC') ORDER BY time DESC LIMIT 1)
    LIMIT 1) before)"""
_BEFORE = f"""
    SELECT k.id, (extract(epoch FROM k.low) * 1000000)::bigint, {_CLOSE.format(side="bid")}, {_CLOSE.format(side="ask")}
    FROM unnest(%(ids)s::integer[], %(lows)s::timestamptz[]) k (id, low)
"""  # noqa: S608 - the constants above


@dataclass(slots=True)
class _Trades:
    """n trades in any order; NaN and "" where nothing was said."""

    symbol_id: I4
    time_us: I8
    seq: I8
    price: F8
    volume: F8
    value: F8
    side: list[str]
    bid: F8
    ask: F8
    received_us: I8
    journal_no: I4

    def __len__(self) -> int:
        return len(self.time_us)


def read_archived_trades(
    cur: Cursor,
    root: Path,
    folder: str,
    manifest: Manifest,
    ids: Sequence[int],
    minutes_us: I8,
) -> Iterator[list[TradeRow]]:
    """Yield all trades of these minutes, which lie within the manifest's range, some minutes at a time.

    minutes_us: in the direction; the rows of each part are in no order. Raises ArchiveAway.
    """
    cur.execute(_INSTRUMENTS, (list(ids),))
    known = {number: (str(symbol), bool(nonpositive_ok)) for number, symbol, nonpositive_ok in cur.fetchall()}
    cur.execute(_TICKS, {"ids": list(ids), "lows": [timestamp(us) for us in minutes_us.tolist()]})
    for part in _parts(minutes_us, dict(cur.fetchall())):
        ticks = read_minutes(root, folder, manifest, ids, part.tolist())
        nonpositive_ok = np.isin(ticks.symbol_id, [number for number, (_, any_price) in known.items() if any_price])
        sent = _sent(cur, ids, part)
        trades = _joined(sent, _of_ticks(ticks, nonpositive_ok, sent))
        if len(trades):
            yield _rows(cur, trades, len(sent), ticks, nonpositive_ok, known)


def _parts(minutes_us: I8, counts: dict[int, int]) -> Iterator[I8]:
    """Yield the minutes in runs that are near each other and have few enough ticks, or one by one."""
    first, ticks = 0, 0
    for at, us in enumerate(minutes_us.tolist()):
        ticks += counts[us]
        if at > first and (ticks > MOST_TICKS or abs(us - int(minutes_us[first])) >= MOST_SPAN_US):
            yield minutes_us[first:at]
            first, ticks = at, counts[us]
    yield minutes_us[first:]


def _sent(cur: Cursor, ids: Sequence[int], minutes_us: I8) -> _Trades:
    cur.execute(_SENT, {"ids": list(ids), "lows": [timestamp(us) for us in minutes_us.tolist()]})
    columns = list(zip(*cur.fetchall(), strict=True)) or [()] * 10
    symbol_id, time_us, seq, price, volume, value, side, bid, ask, received_us = columns
    return _Trades(
        symbol_id=np.array(symbol_id, np.int32),
        time_us=np.array(time_us, np.int64),
        seq=np.array(seq, np.int64),
        price=np.array(price, np.float64),
        volume=np.array(volume, np.float64),  # None becomes NaN
        value=np.array(value, np.float64),
        side=[str(name or "") for name in side],
        bid=np.array(bid, np.float64),
        ask=np.array(ask, np.float64),
        received_us=np.array(received_us, np.int64),
        journal_no=np.zeros(len(symbol_id), np.int32),
    )


def _of_ticks(ticks: WholeTicks, nonpositive_ok: Mask, sent: _Trades) -> _Trades:
    """Return the ticks that are trades, but for those that a sent one stands for."""
    kept = is_trade(ticks.flags) & _said(ticks.last, nonpositive_ok)
    instead = set(zip(sent.symbol_id.tolist(), sent.time_us.tolist(), sent.seq.tolist(), strict=True))
    if instead:
        keys = zip(ticks.symbol_id.tolist(), ticks.time_us.tolist(), ticks.seq.tolist(), strict=True)
        kept &= np.fromiter((key not in instead for key in keys), np.bool_, len(ticks))
    nonpositive_ok = nonpositive_ok[kept]
    ticks = ticks.take(kept)
    sides = {BUY: "buy", SELL: "sell", BUY | SELL: "neutral"}
    return _Trades(
        ticks.symbol_id,
        ticks.time_us,
        ticks.seq,
        ticks.last,
        ticks.volume,
        np.full(len(ticks), np.nan),
        [sides.get(bits, "") for bits in (ticks.flags & (BUY | SELL)).tolist()],
        np.where(_said(ticks.bid, nonpositive_ok), ticks.bid, np.nan),
        np.where(_said(ticks.ask, nonpositive_ok), ticks.ask, np.nan),
        ticks.received_us,
        ticks.journal_no,
    )


def _said(price: F8, nonpositive_ok: Mask) -> Mask:
    """Tell which prices are some."""
    return (price > 0) | ((price <= 0) & nonpositive_ok)


def _joined(one: _Trades, other: _Trades) -> _Trades:
    joined: dict[str, Any] = {
        field.name: np.concatenate([getattr(one, field.name), getattr(other, field.name)])
        for field in fields(_Trades)
        if field.name != "side"
    }
    return _Trades(side=one.side + other.side, **joined)


def _rows(
    cur: Cursor,
    trades: _Trades,
    sent: int,
    ticks: WholeTicks,
    nonpositive_ok: Mask,
    known: dict[int, tuple[str, bool]],
) -> list[TradeRow]:
    """Return the trades, the first `sent` of which are no ticks, with quotes, values and sides."""
    _quote(trades, ticks, nonpositive_ok)
    lacking = np.flatnonzero(np.isnan(trades.bid) | np.isnan(trades.ask))
    if len(lacking):
        minutes = trades.time_us // MINUTE_US * MINUTE_US
        keys = sorted(set(zip(trades.symbol_id[lacking].tolist(), minutes[lacking].tolist(), strict=True)))
        cur.execute(_BEFORE, {"ids": [number for number, _ in keys], "lows": [timestamp(us) for _, us in keys]})
        before = {(number, us): (bid, ask) for number, us, bid, ask in cur.fetchall()}
        closes = np.array(
            [before[int(trades.symbol_id[row]), int(minutes[row])] for row in lacking], np.float64
        )  # None becomes NaN
        for at, prices in enumerate((trades.bid, trades.ask)):
            prices[lacking] = np.where(np.isnan(prices[lacking]), closes[:, at], prices[lacking])
    tiny = (np.abs(trades.price) < _LEAST) | (trades.volume < _LEAST)
    with np.errstate(over="ignore"):
        product = np.where(tiny, 0.0, trades.price) * trades.volume
    value = np.where(np.isnan(trades.value), product, trades.value)
    twice, quotes = trades.price * 2, trades.bid + trades.ask
    by_quote = np.where(twice > quotes, "buy", np.where(twice < quotes, "sell", "neutral"))
    side = [said or str(told) for said, told in zip(trades.side, by_quote.tolist(), strict=True)]
    columns = (trades.time_us, trades.seq, trades.price, trades.volume, value)
    return list(
        zip(
            [known[number][0] for number in trades.symbol_id.tolist()],
            *(values.tolist() for values in columns),
            side,
            trades.bid.tolist(),
            trades.ask.tolist(),
            trades.symbol_id.tolist(),
            strict=True,
        )
    )


def _quote(trades: _Trades, ticks: WholeTicks, nonpositive_ok: Mask) -> None:
    """Give each trade without a bid or an ask the newest one of the ticks before it in its minute, if there is one."""
    count = len(trades)
    both = {
        name: np.concatenate([getattr(trades, name), getattr(ticks, name)])
        for name in ("symbol_id", "time_us", "seq", "received_us", "journal_no")
    }
    # The order of ticks (docs/receive.md); at one place trades first: what is there with them is not before them.
    is_tick = np.arange(count + len(ticks)) >= count
    derived = both["seq"] < 0
    numbers = np.maximum(both["seq"], 0)
    order = np.lexsort(
        (is_tick, both["journal_no"], both["received_us"], numbers, derived, both["time_us"], both["symbol_id"])
    )
    minute = (both["time_us"] // MINUTE_US)[order]
    symbol = both["symbol_id"][order]
    for name in ("bid", "ask"):
        own, prices = getattr(trades, name), getattr(ticks, name)
        price = np.concatenate([np.full(count, np.nan), np.where(_said(prices, nonpositive_ok), prices, np.nan)])[order]
        at = np.maximum.accumulate(np.where(np.isnan(price), -1, np.arange(len(price))))
        same = (at >= 0) & (minute[at] == minute) & (symbol[at] == symbol)
        found = np.empty(len(price))
        found[order] = np.where(same, price[at], np.nan)
        own[:] = np.where(np.isnan(own), found[:count], own)
