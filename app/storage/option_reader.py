"""Read option chains: of each contract the newest quote of a day, and what the underlying cost then. Lane side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.errors import BadParameter
from app.market.option_chain import Chain, Times, underlying_at
from app.market.options import Floats
from app.storage.copy_rows import POSTGRES_EPOCH_US, copy_columns
from app.storage.instruments import Known
from app.storage.quote_reader import chart_side

OptionType = Literal["call", "put", "all"]

OLD_PRICE = timedelta(days=7)
"""An underlying's price from before a day is taken for that day if it is no older: over holidays, not over a halt."""

_NEWEST_DAY = """
    SELECT (max(time) AT TIME ZONE 'UTC')::date FROM option_quotes WHERE symbol_id = %s
"""
_ZONE = "SELECT timezone FROM instruments WHERE symbol_id = %s"
_CHAIN = """
    SELECT DISTINCT ON (expiration_date, strike_price, option_type)
        expiration_date - DATE '1970-01-01' AS expiration, strike_price AS strike, (option_type = 'call')::int AS call,
        time, {floats}, coalesce(in_the_money::int, -1) AS in_the_money,
        (contract_symbol IS NOT NULL OR greeks_source IS NOT NULL)::int AS has_texts
    {rows}
"""
_TEXTS = """
    SELECT DISTINCT ON (expiration_date, strike_price, option_type) contract_symbol, greeks_source {rows}
"""
_ROWS = """
    FROM option_quotes
    WHERE symbol_id = %(symbol_id)s AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz
        AND (%(type)s = 'all' OR option_type = %(type)s)
        AND strike_price BETWEEN %(lowest)s AND %(highest)s
        AND expiration_date BETWEEN %(first_day)s::date AND %(last_day)s::date
    ORDER BY expiration_date, strike_price, option_type, time DESC
"""
_FLOATS = (
    "bid",
    "ask",
    "last_price",
    "volume",
    "open_interest",
    "implied_volatility",
    "delta",
    "gamma",
    "theta",
    "vega",
    "rho",
    "underlying_price",
)
_NAMES = ("expiration", "strike", "call", "time", *_FLOATS, "in_the_money", "has_texts")
_FORMATS = (">i4", ">f8", ">i4", ">i8", *[">f8"] * len(_FLOATS), ">i4", ">i4")

_SENT_PRICE = """
    SELECT underlying_price FROM option_quotes
    WHERE symbol_id = %(symbol_id)s AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz
        AND underlying_price IS NOT NULL
    ORDER BY time DESC, expiration_date, strike_price, option_type LIMIT 1
"""
_PRICES = """
    SELECT time, price FROM (
        (SELECT time + interval '24 hours' AS time, {side}_close AS price FROM bars
         WHERE symbol_id = %(symbol_id)s AND resolution = 86400 AND {side}_close IS NOT NULL
             AND time >= %(old)s::timestamptz AND time < %(start)s::timestamptz
         ORDER BY bars.time DESC LIMIT 1)
        UNION ALL
        SELECT time, {side}_close FROM bars
        WHERE symbol_id = %(symbol_id)s AND resolution = 60 AND {side}_close IS NOT NULL
            AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz
    ) prices
    ORDER BY time
"""
_EVER = 1e308


@dataclass(frozen=True, slots=True)
class ChainQuery:
    """Which quotes of an underlying.

    day: UTC; None: the newest that has any. strike_range_percent: strikes that far from the underlying's price at
    most. max_days_to_expiry: calendar days from `day`; contracts that expired before it are out then.
    """

    day: date | None = None
    option_type: OptionType = "all"
    strike_range_percent: float | None = None
    max_days_to_expiry: int | None = None


def read_chain(cur: Cursor, instrument: Known, query: ChainQuery) -> tuple[date | None, Chain]:
    """Return the day and its quotes, by expiration, strike and type (call, put).

    The day is None where there is no quote at all and none was asked for. The statements must see one snapshot.
    Raises BadParameter for a range around a price that is not known.
    """
    day = query.day if query.day is not None else _newest_day(cur, instrument.symbol_id)
    cur.execute(_ZONE, (instrument.symbol_id,))
    (zone,) = cur.fetchone() or (None,)
    if day is None:
        return None, _chain(instrument.symbol, zone, [np.zeros(0)] * len(_NAMES))
    parameters: dict[str, Any] = {
        "symbol_id": instrument.symbol_id,
        "start": f"{day}T00:00:00Z",
        "end": _start_of(day, 1, "infinity"),
        "old": _start_of(day, -OLD_PRICE.days, "-infinity"),
    }
    price_times, prices = _underlying(cur, instrument, parameters)
    lowest, highest = -_EVER, _EVER
    if query.strike_range_percent is not None and _any_on(cur, parameters):
        price = _newest_price(cur, parameters, prices)
        if price is None:
            raise BadParameter(
                f"strike_range_percent: what {instrument.symbol} cost on {day} is not known, so there is nothing to be "
                "around: store its ticks, or send underlying_price with the quotes"
            )
        share = query.strike_range_percent / 100
        lowest, highest = price * (1 - share), price * (1 + share)
    days = query.max_days_to_expiry
    rows = cur.mogrify(
        _ROWS,
        parameters
        | {
            "type": query.option_type,
            "lowest": lowest,
            "highest": highest,
            "first_day": "-infinity" if days is None else str(day),
            "last_day": "infinity" if days is None else _day_after(day, days),
        },
    ).decode()
    floats = ", ".join(f"coalesce({name}, 'NaN') AS {name}" for name in _FLOATS)
    columns = copy_columns(cur, _CHAIN.format(floats=floats, rows=rows), _NAMES, _FORMATS)
    chain = _chain(instrument.symbol, zone, columns)
    if columns[-1].any():
        cur.execute(_TEXTS.format(rows=rows))
        chain.contract_symbols, chain.greeks_sources = map(list, zip(*cur.fetchall(), strict=True))
    at_quote = underlying_at(chain.times_us, price_times, prices)
    chain.underlyings = np.where(np.isnan(chain.underlyings), at_quote, chain.underlyings)
    return day, chain


def _chain(symbol: str, zone: str | None, columns: list[Any]) -> Chain:
    days, strikes, calls, times, *floats, pays, _ = columns
    told: list[bool | None] = [None if value < 0 else value > 0 for value in pays.tolist()]
    chain = Chain(
        symbol,
        zone,
        days.astype(np.int64).astype("M8[D]"),
        strikes,
        calls > 0,
        times.astype(np.int64) + POSTGRES_EPOCH_US,
        *floats,
    )
    chain.in_the_money = told
    return chain


def _newest_day(cur: Cursor, symbol_id: int) -> date | None:
    cur.execute(_NEWEST_DAY, (symbol_id,))
    row = cur.fetchone()
    return row[0] if row else None


def _any_on(cur: Cursor, parameters: dict[str, Any]) -> bool:
    cur.execute(
        "SELECT FROM option_quotes WHERE symbol_id = %(symbol_id)s AND time >= %(start)s::timestamptz"
        " AND time < %(end)s::timestamptz LIMIT 1",
        parameters,
    )
    return cur.fetchone() is not None


def _underlying(cur: Cursor, instrument: Known, parameters: dict[str, Any]) -> tuple[Times, Floats]:
    """Return what the underlying cost from when on: the close before the day, and of every minute of it."""
    side = chart_side(cur, instrument.symbol)
    query = cur.mogrify(_PRICES.format(side=side), parameters)
    times, prices = copy_columns(cur, query, ("time", "price"), (">i8", ">f8"))
    return times + POSTGRES_EPOCH_US, prices


def _newest_price(cur: Cursor, parameters: dict[str, Any], prices: Floats) -> float | None:
    cur.execute(_SENT_PRICE, parameters)
    row = cur.fetchone()
    if row is not None:
        return float(row[0])
    return float(prices[-1]) if len(prices) else None


def _start_of(day: date, days: int, beyond: str) -> str:
    try:
        return f"{day + timedelta(days=days)}T00:00:00Z"
    except OverflowError:
        return beyond


def _day_after(day: date, days: int) -> str:
    try:
        return str(day + timedelta(days=days))
    except OverflowError:
        return "infinity"
