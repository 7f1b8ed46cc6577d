"""What a quote is, read plainly from all the ticks of an instrument: the model for the board and the reader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from app.market.calendars import find_calendar
from app.market.quotes import Quote
from tests.batches import Tick

Arrived = tuple[Tick, int]
"""A tick, and when it was received (UTC microseconds)."""


def arrivals(batches: Sequence[Sequence[Tick]], received_us: int) -> list[Arrived]:
    """Return the ticks as they are stored: each identity once, received a microsecond after the one before."""
    rows = [tick for batch in batches for tick in batch]
    first: dict[tuple[str, int, int], Arrived] = {}
    for number, row in enumerate(rows):
        first.setdefault((row.symbol, row.time_us, row.seq), (row, received_us + number))
    return list(first.values())


def quote(
    symbol: str,
    arrived: Sequence[Arrived],
    zone: str | None = None,
    digits: int | None = None,
    nonpositive_ok: bool = False,
    now_us: int = 1 << 60,
    stale_after_s: float = 60.0,
    exchange: str | None = None,
) -> Quote:
    """Return the quote of the symbol among these ticks."""
    rows = [tick for tick, _ in sorted((one for one in arrived if one[0].symbol == symbol), key=_order)]
    if not rows:
        return Quote(symbol, *[None] * 12, True)

    def points(side: str) -> list[tuple[Tick, float]]:
        found = []
        for row in rows:
            price = getattr(row, side)
            counts = not math.isnan(price) and (price > 0 or nonpositive_ok)
            if counts and (side != "last" or row.flags & 8):
                found.append((row, price))
        return found

    newest = {side: found[-1][1] if (found := points(side)) else None for side in ("bid", "ask", "last")}
    side = "bid" if newest["last"] is None else "last"
    price = newest[side]
    tick = rows[-1]
    if exchange is None:
        today = _date(tick.time_us, zone)
        before = [price for row, price in points(side) if _date(row.time_us, zone) < today]
        since = [price for row, price in points(side) if _date(row.time_us, zone) == today]
    else:
        cut_us = _close_before_session(tick.time_us, exchange)
        before = [price for row, price in points(side) if row.time_us < cut_us]
        since = [price for row, price in points(side) if row.time_us >= cut_us]
    reference = before[-1] if before else since[0] if since else None
    change = percent = None
    if price is not None and reference is not None:
        change = float(Decimal(str(price)) - Decimal(str(reference)))
        percent = round(100 * change / reference, 6) if reference > 0 else None
    spread = tick.spread
    if math.isnan(spread) and digits is not None:
        spread = round((tick.ask - tick.bid) * 10.0**digits, 6)
    return Quote(
        symbol,
        price,
        newest["bid"],
        newest["ask"],
        newest["last"],
        None if math.isnan(spread) else spread,
        tick.volume,
        tick.volume if tick.flags & 40 == 40 else 0.0,
        tick.volume if tick.flags & 72 == 72 else 0.0,
        tick.flags,
        (datetime(1970, 1, 1) + timedelta(microseconds=tick.time_us)).isoformat(timespec="microseconds") + "Z",
        change,
        percent,
        _is_open(now_us, exchange) and now_us - tick.time_us > stale_after_s * 1e6,
    )


def _order(arrived: Arrived) -> tuple[int, int]:
    tick, received_us = arrived
    return tick.time_us, tick.seq if tick.seq >= 0 else 2**60 + received_us


def _is_open(time_us: int, exchange: str | None) -> bool:
    """Whether the exchange trades at a time; one that has no calendar, and at a time beyond them, always does."""
    if exchange is None or time_us >= 4_102_444_800_000_000:
        return True
    calendar = find_calendar(exchange)
    assert calendar is not None
    year = datetime.fromtimestamp(time_us // 10**6, UTC).year
    hours = (times for session in calendar.sessions(year) for times in session.open)
    return any(start_us <= time_us < end_us for start_us, end_us in hours)


def _close_before_session(time_us: int, exchange: str) -> int:
    """Where prices of the sessions before end: a minute after their bell, or where the next one opens already."""
    calendar = find_calendar(exchange)
    assert calendar is not None
    year = datetime.fromtimestamp(time_us // 10**6, UTC).year
    cut_us = shut_us = 0
    for session in (one for number in (year - 1, year) for one in calendar.sessions(number)):
        midnight = datetime.combine(session.date, datetime.min.time(), ZoneInfo(calendar.zone))
        begins_us = min(session.open[0][0], int(midnight.timestamp()) * 10**6)
        if begins_us > time_us:
            break
        cut_us = min(shut_us + 60_000_000, begins_us)
        shut_us = session.open[-1][1]
    return cut_us


def _date(time_us: int, zone: str | None) -> date:
    return datetime.fromtimestamp(time_us // 10**6, ZoneInfo(zone) if zone else UTC).date()
