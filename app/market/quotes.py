"""Quotes: the newest prices of an instrument, and how far they are from the session before. Pure.

An instrument's price is its newest last if it has trades, else its bid (MT5's chart convention).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

import msgspec

from app.market.rfc3339 import rfc3339
from app.market.sessions import Market, in_market_hours

PERCENT_DIGITS = 6
"""Decimals of change_percent: beyond them is nothing but what division leaves."""

PriceSide = Literal["bid", "last"]


class Key(msgspec.Struct, frozen=True, order=True):
    """An order key without its journal: UTC microseconds, then order_no (docs/receive.md)."""

    time_us: int
    order_no: int


class Point(msgspec.Struct, frozen=True):
    """A price, and the key of the tick that made it."""

    key: Key
    price: float


class QuoteRow(msgspec.Struct):
    """What the database knows of an instrument's newest prices; None where there is none yet.

    bid, ask, last: the newest of each, last of trades only; the rest is of the newest tick, whose key is `key`.
    before: the last price (of `side`) before the session of the newest tick (market/calendars.py, Span: before its
    cut); open: the first one since then, read only where there is none before; closing: the last one before the
    session's own close, read only where the newest tick is after it. spread in points, volumes in the instrument's
    units.
    """

    symbol: str
    digits: int | None = None
    exchange: str | None = None
    timezone: str | None = None
    bid: Point | None = None
    ask: Point | None = None
    last: Point | None = None
    key: Key | None = None
    spread: float | None = None
    volume: float | None = None
    buy_volume: float | None = None
    sell_volume: float | None = None
    flags: int | None = None
    before: Point | None = None
    open: Point | None = None
    closing: Point | None = None

    @property
    def market(self) -> Market:
        """Return where it is traded."""
        return self.exchange, self.timezone

    @property
    def side(self) -> PriceSide:
        """Return which of its prices is the instrument's price."""
        return "bid" if self.last is None else "last"


class Quote(msgspec.Struct):
    """A quote as it is answered, fields in that order. spread in points; timestamp RFC 3339.

    stale: older than stale_data_timeout_s, in market hours. An instrument without any tick has nothing but nulls, and
    is stale.
    """

    symbol: str
    price: float | None
    bid: float | None
    ask: float | None
    last: float | None
    spread: float | None
    volume: float | None
    buy_volume: float | None
    sell_volume: float | None
    flags: int | None
    timestamp: str | None
    change: float | None
    change_percent: float | None
    stale: bool


def quotes_of(rows: Iterable[QuoteRow], now_us: int, stale_after_s: float) -> list[Quote]:
    """Return the rows as they are answered at this time (UTC microseconds)."""
    return [_quote(row, now_us, stale_after(stale_after_s, row.exchange, now_us)) for row in rows]


def stale_after(stale_after_s: float, exchange: str | None, now_us: int) -> float:
    """Return the age (seconds) at which a quote is stale now (UTC microseconds): infinite outside market hours."""
    return stale_after_s if in_market_hours(now_us, exchange) else math.inf


def make_quote(
    symbol: str,
    bid: float | None,
    ask: float | None,
    last: float | None,
    spread: float | None,
    volume: float | None,
    buy_volume: float | None,
    sell_volume: float | None,
    flags: int | None,
    time_us: int | None,
    reference: float | None,
    now_us: int,
    stale_after_s: float,
) -> Quote:
    """Return the quote. reference: the price that `change` is counted from; stale_after_s: of `stale_after`."""
    price = bid if last is None else last
    change, percent = change_from(reference, price)
    return Quote(
        symbol,
        price,
        bid,
        ask,
        last,
        spread,
        volume,
        buy_volume,
        sell_volume,
        flags,
        None if time_us is None else rfc3339(time_us),
        change,
        percent,
        time_us is None or now_us - time_us > stale_after_s * 1e6,
    )


def change_from(reference: float | None, price: float | None) -> tuple[float | None, float | None]:
    """Return the change and its percentage of the reference; None where not known.

    The change is that of the decimal numbers which people see: 10.3 - 10.2 is 0.1. A percentage of a reference that is
    not above zero would say nothing.
    """
    if reference is None or price is None:
        return None, None
    change = float(Decimal(repr(price)) - Decimal(repr(reference)))
    return change, round(100 * change / reference, PERCENT_DIGITS) if reference > 0 else None


def _quote(row: QuoteRow, now_us: int, stale_after_s: float) -> Quote:
    reference = row.before or row.open
    return make_quote(
        row.symbol,
        _price(row.bid),
        _price(row.ask),
        _price(row.last),
        row.spread,
        row.volume,
        row.buy_volume,
        row.sell_volume,
        row.flags,
        row.key.time_us if row.key else None,
        _price(reference),
        now_us,
        stale_after_s,
    )


def _price(point: Point | None) -> float | None:
    return None if point is None else point.price
