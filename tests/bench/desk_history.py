"""What a desk has gathered, in bulk into a migrated database: years of prices, chains of options, a week of metrics.

The rows are as if each had come in over HTTP: the rollup of the metrics is made by what a flush makes it with.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg2

from app.datasets.registry import DATASETS
from app.storage.rollups import Rollup
from tests.bench.asking import get_request
from tests.bench.client import post_request
from tests.bench.rows import SYMBOLS

Question = tuple[str, list[bytes], int, float]
"""Name, requests, rows of each answer, what its p99 has to stay under in milliseconds."""

LAST_DAY = datetime.date(2026, 1, 13)
YEARS = 20
UNDERLYING, PRICE, CHAIN_DAYS = "TSLA", 440.0, 5
EXPIRATIONS, STRIKES, STRIKE_STEP, FIRST_STRIKE = 25, 100, 4.0, 242.0
RANGE_PERCENT, MAX_DAYS = 20.0, 90
METRICS_OF = SYMBOLS[:8]
METRICS_ROWS = 5_000_000
DAY_S = 86_400
MOST_ROWS = 10_000
"""Of one answer."""
HOURS_AT_ONCE = 24

_PRICES = """
    INSERT INTO price_history (symbol_id, "interval", time, source, open, high, low, close, volume, received_at)
    SELECT symbol_id, '1d', day, 'vendor', close - 1, close + 2, close - 2, close, 1e6 + n, day
    FROM instruments
    CROSS JOIN LATERAL (
        SELECT day, n, 100 + symbol_id + n %% 50 + random() AS close
        FROM generate_series(%(first)s::timestamptz, %(last)s::timestamptz, '1 day') WITH ORDINALITY d (day, n)
        WHERE extract(isodow FROM day AT TIME ZONE 'UTC') < 6
    ) days
    WHERE symbol = ANY(%(symbols)s)
"""
_CHAIN = """
    INSERT INTO option_quotes (symbol_id, expiration_date, strike_price, option_type, time, bid, ask, last_price,
        volume, open_interest, implied_volatility, delta, gamma, theta, vega, rho, greeks_source, underlying_price,
        received_at)
    SELECT symbol_id, %(day)s::date + 7 * e, %(strike)s + s * %(step)s, kind,
        %(day)s::timestamptz + interval '20 hours', price, price + 0.1, price + 0.05, s, e * 10,
        CASE WHEN %(greeks)s THEN 0.4 END, CASE WHEN %(greeks)s THEN 0.5 END, CASE WHEN %(greeks)s THEN 0.01 END,
        CASE WHEN %(greeks)s THEN -0.1 END, CASE WHEN %(greeks)s THEN 0.2 END, CASE WHEN %(greeks)s THEN 0.1 END,
        CASE WHEN %(greeks)s THEN 'vendor' END, %(price)s, %(day)s::timestamptz + interval '20 hours'
    FROM instruments, generate_series(1, %(expirations)s) e, generate_series(0, %(strikes)s - 1) s,
        unnest(ARRAY['call', 'put']) kind,
        LATERAL (SELECT greatest(CASE kind WHEN 'call' THEN %(price)s - %(strike)s - s * %(step)s
            ELSE %(strike)s + s * %(step)s - %(price)s END, 0) + 3 + e AS price) p
    WHERE symbol = %(symbol)s
"""
_METRICS = """
    INSERT INTO market_data (symbol_id, time, last_price, bid, ask, volume, trades, spread_bps, received_at)
    SELECT symbol_id, at, 100 + random(), 100 + random(), 101 + random(), floor(random() * 100), floor(random() * 9),
        random() * 10, at
    FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 second', '1 second') at,
        (SELECT symbol_id FROM instruments WHERE symbol = ANY(%(symbols)s)) i
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What the database holds; metrics are of [metrics_start, metrics_end), each symbol every second."""

    metrics_start: datetime.datetime
    metrics_end: datetime.datetime


def load(url: str, share: float, progress: Callable[[str], None]) -> Held:
    """Fill the tables of prices, options and metrics; share: of the metrics' rows."""
    seconds = round(METRICS_ROWS * share / len(METRICS_OF)) // 3600 * 3600
    end = datetime.datetime.combine(LAST_DAY, datetime.time(20), datetime.UTC)
    held = Held(end - datetime.timedelta(seconds=seconds), end)
    conn = psycopg2.connect(url)
    try:
        with conn.cursor() as cur:
            cur.execute("TRUNCATE price_history, option_quotes, market_data, market_data_rollup")
            first = LAST_DAY.replace(year=LAST_DAY.year - YEARS)
            cur.execute(_PRICES, {"first": first, "last": LAST_DAY, "symbols": SYMBOLS})
            progress(f"{cur.rowcount:,} bars of days")
            _chains(cur)
            conn.commit()
            for month in (held.metrics_start, held.metrics_end):
                cur.execute("SELECT ensure_month_partition('market_data', %s)", (month,))
            conn.commit()
            cur.execute(_METRICS, {"start": held.metrics_start, "end": end, "symbols": METRICS_OF})
            progress(f"{cur.rowcount:,} rows of market_data")
            conn.commit()
            cur.execute("SELECT symbol_id FROM instruments WHERE symbol = ANY(%s)", (METRICS_OF,))
            ids = [int(symbol_id) for (symbol_id,) in cur.fetchall()]
            for keys in _minutes(held, ids):
                Rollup(DATASETS["market_data"]).remake(cur, keys)
                conn.commit()
        conn.autocommit = True
        with conn.cursor() as cur:
            for table in ("price_history", "option_quotes", "market_data", "market_data_rollup"):
                cur.execute(f"VACUUM (ANALYZE) {table}")
    finally:
        conn.close()
    return held


def _chains(cur: psycopg2.extensions.cursor) -> None:
    """Store a chain a day, whose greeks were sent; another underlying's have to be computed."""
    common = {
        "strike": FIRST_STRIKE,
        "step": STRIKE_STEP,
        "price": PRICE,
        "expirations": EXPIRATIONS,
        "strikes": STRIKES,
    }
    for symbol, greeks in ((UNDERLYING, True), (SYMBOLS[1], False)):
        for back in range(CHAIN_DAYS):
            day = LAST_DAY - datetime.timedelta(days=back)
            cur.execute("SELECT ensure_month_partition('option_quotes', %s)", (day,))
            cur.execute(_CHAIN, {**common, "day": day, "symbol": symbol, "greeks": greeks})


def _minutes(held: Held, ids: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Yield a key in each minute of the metrics, some hours' at a time."""
    start_us, end_us = (round(moment.timestamp()) * 1_000_000 for moment in (held.metrics_start, held.metrics_end))
    step_us = HOURS_AT_ONCE * 3_600_000_000
    for begin_us in range(start_us, end_us, step_us):
        minutes = range(begin_us, min(begin_us + step_us, end_us), 60_000_000)
        yield [(symbol_id, minute_us) for minute_us in minutes for symbol_id in ids]


def questions(held: Held, count: int) -> Iterator[Question]:
    """Yield what is asked, `count` times each."""
    year_ago = LAST_DAY.replace(year=LAST_DAY.year - 1)
    days = sum((year_ago + datetime.timedelta(days=n)).isoweekday() < 6 for n in range((LAST_DAY - year_ago).days))
    paths = [f"/api/history/{name}/daily?start={year_ago}&end={LAST_DAY}" for name in SYMBOLS]
    yield "a year of daily OHLC", _turns([get_request(path) for path in paths], count), days, 15.0
    for symbol, words in ((UNDERLYING, "greeks sent"), (SYMBOLS[1], "greeks computed")):
        path = f"/api/options/{symbol}?option_type=call&strike_range_percent={RANGE_PERCENT}"
        requests = _turns([get_request(f"{path}&max_days_to_expiry={MAX_DAYS}")], count)
        yield f"5,000 contracts filtered, {words}", requests, _contracts(), 30.0
    for words, seconds, interval, step_s, bound_ms in (
        ("the last hour by 1m", 3600, "1m", 60, 10.0),
        ("a day by 5m", DAY_S, "5m", 300, 50.0),
        ("a week by 5m", 7 * DAY_S, "5m", 300, 100.0),
    ):
        start = max(held.metrics_end - datetime.timedelta(seconds=seconds), held.metrics_start)
        buckets = round((held.metrics_end - start).total_seconds()) // step_s
        asked = [_history(start, held.metrics_end, interval, name) for name in METRICS_OF]
        yield f"metrics of a symbol, {words}", _turns(asked, count), buckets, bound_ms
        if buckets * len(METRICS_OF) <= MOST_ROWS:
            every = [_history(start, held.metrics_end, interval, None)]
            rows = buckets * len(METRICS_OF)
            yield f"metrics of {len(METRICS_OF)} symbols, {words}", _turns(every, count // 5), rows, bound_ms


def _history(start: datetime.datetime, end: datetime.datetime, interval: str, symbol: str | None) -> bytes:
    asked = {
        "metric_types": ["market_data"],
        "interval": interval,
        "start": start.isoformat(),
        "end": end.isoformat(),
        **({} if symbol is None else {"symbol": symbol}),
    }
    return post_request("/api/metrics/history", json.dumps(asked).encode())


def _turns(requests: list[bytes], count: int) -> list[bytes]:
    return [requests[number % len(requests)] for number in range(count)]


def _contracts() -> int:
    """Return how many calls lie in the asked range of strikes and days."""
    strikes = [FIRST_STRIKE + STRIKE_STEP * number for number in range(STRIKES)]
    near = sum(abs(strike / PRICE - 1) * 100 <= RANGE_PERCENT for strike in strikes)
    return near * sum(7 * number <= MAX_DAYS for number in range(1, EXPIRATIONS + 1))
