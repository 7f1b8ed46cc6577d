"""Views of days, weeks, months, hours and sectors, and what is computed where vendors say nothing, against pandas."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from psycopg2.extensions import connection
from psycopg2.extras import execute_values

from app.datasets.registry import DATASETS
from app.market.adjusting import Action, adjusted_closes, daily_returns, volatility
from app.storage.rows_reader import read_rows
from tests.real_market import real_path

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
Day = tuple[str, date, float, float, float, float, float]


def put(conn: connection, days: Sequence[Day], source: str = "vendor", **more: float | None) -> None:
    """Store bars: (symbol, day, open, high, low, close, volume), and the same more columns in each."""
    names = "".join(f", {name}" for name in more)
    with conn, conn.cursor() as cur:
        cur.execute("SELECT symbol, symbol_id FROM instruments")
        ids = dict(cur.fetchall())
        rows = [
            (ids[symbol], "1d", datetime(*day.timetuple()[:3], tzinfo=UTC), source, *values, *more.values(), MONDAY)
            for symbol, day, *values in days
        ]
        execute_values(
            cur,
            'INSERT INTO price_history (symbol_id, "interval", time, source, open, high, low, close, volume'
            f"{names}, received_at) VALUES %s",
            rows,
            page_size=10_000,
        )


def put_bar(conn: connection, symbol: str, resolution: int, time: datetime, **values: float) -> None:
    names = "".join(f", {name}" for name in values)
    with conn, conn.cursor() as cur:
        cur.execute(
            f"INSERT INTO bars (symbol_id, resolution, time, ticks, volume, buy_volume, sell_volume{names})"
            f" SELECT symbol_id, %s, %s, 7, 30, 10, 20{', %s' * len(values)} FROM instruments WHERE symbol = %s",
            (resolution, time, *values.values(), symbol),
        )


def act(conn: connection, symbol: str, ex_date: str, kind: str, amount: float | None, ratio: float | None) -> None:
    with conn, conn.cursor() as cur:
        cur.execute(
            "INSERT INTO corporate_actions (symbol_id, ex_date, action_type, amount, ratio, received_at)"
            " SELECT symbol_id, %s, %s, %s, %s, now() FROM instruments WHERE symbol = %s",
            (ex_date, kind, amount, ratio, symbol),
        )


def ask(conn: connection, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    with conn, conn.cursor() as cur:
        cur.execute(query, arguments or None)
        return cur.fetchall()


def walk(symbol: str, count: int, first: date = date(2022, 1, 3), seed: int = 1) -> list[Day]:
    rng = np.random.default_rng(seed)
    days, day, close = [], first, 100.0
    while len(days) < count:
        if day.weekday() < 5:
            opened, close = close, close * math.exp(rng.normal(0, 0.02))
            high, low = max(opened, close) * 1.01, min(opened, close) * 0.99
            days.append((symbol, day, opened, high, low, close, 1000.0 + len(days)))
        day += timedelta(1)
    return days


def flat(symbol: str, day: date, price: float, volume: float) -> Day:
    return symbol, day, price, price, price, price, volume


def as_frame(days: Sequence[Day]) -> pd.DataFrame:
    frame = pd.DataFrame(days, columns=["symbol", "day", "open", "high", "low", "close", "volume"])
    return frame.set_index(pd.DatetimeIndex(frame.day))


HOW = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


def test_the_vendors_day_wins_and_other_days_are_made_of_ticks(conn: connection) -> None:
    put(conn, [("AAPL", date(2024, 1, 1), 1, 4, 1, 3, 50)])
    for day in (0, 1):
        sides = {"last_open": 10, "last_high": 14, "last_low": 9, "last_close": 12, "bid_open": 5, "bid_close": 5}
        put_bar(conn, "AAPL", 86400, MONDAY + timedelta(day), **sides)
    assert ask(conn, "SELECT * FROM price_history_daily WHERE symbol = 'AAPL' ORDER BY time") == [
        ("AAPL", MONDAY, 1, 4, 1, 3, 3, 50, None, "vendor"),
        ("AAPL", MONDAY + timedelta(1), 10, 14, 9, 12, 12, 30, None, "ticks"),
    ]


def test_days_made_of_ticks_are_adjusted_as_the_vendors_are(conn: connection) -> None:
    put(conn, [flat("AAPL", date(2024, 1, 3), 11, 1)])
    for day, close in ((0, 100), (1, 104)):
        put_bar(conn, "AAPL", 86400, MONDAY + timedelta(day), last_open=1, last_high=200, last_low=1, last_close=close)
    act(conn, "AAPL", "2024-01-02", "dividend", 5, None)
    act(conn, "AAPL", "2024-01-03", "split", None, 10)
    act(conn, "AAPL", "2024-01-04", "split", None, 2)  # not reached yet
    closes = ask(conn, "SELECT adj_close FROM price_history_daily WHERE symbol = 'AAPL' ORDER BY time")
    assert [row[0] for row in closes] == pytest.approx([100 * 0.95 / 10, 104 / 10, 11])
    for view in ("weekly", "monthly"):
        assert ask(conn, f"SELECT close, adj_close FROM price_history_{view}") == [(11, 11)]


def test_a_day_without_trades_is_one_of_bids_and_one_without_either_is_none(conn: connection) -> None:
    put_bar(conn, "NatGas", 86400, MONDAY, bid_open=2, bid_high=4, bid_low=1, bid_close=3)
    put_bar(conn, "NatGas", 86400, MONDAY + timedelta(1), ask_open=2, ask_high=4, ask_low=1, ask_close=3)
    assert ask(conn, "SELECT time, open, high, low, close FROM price_history_daily") == [(MONDAY, 2, 4, 1, 3)]


def test_of_two_vendors_a_day_comes_from_the_first_by_name(conn: connection) -> None:
    put(conn, [("AAPL", date(2024, 1, 1), 1, 1, 1, 1, 1), ("AAPL", date(2024, 1, 2), 1, 1, 1, 1, 1)], "b")
    put(conn, [("AAPL", date(2024, 1, 1), 2, 2, 2, 2, 2)], "a")
    assert ask(conn, "SELECT close, source FROM price_history_daily ORDER BY time") == [(2, "a"), (1, "b")]


def test_weeks_and_months_are_those_of_pandas(conn: connection) -> None:
    days = walk("AAPL", 300)
    put(conn, days)
    put(conn, walk("MSFT", 50, seed=2))
    for view, rule in (("weekly", "W-SUN"), ("monthly", "ME")):
        expected = as_frame(days).resample(rule).agg(HOW | {"symbol": "count"})
        got = ask(
            conn,
            "SELECT open, high, low, close, volume, days, (time AT TIME ZONE 'UTC')::date"
            f" FROM price_history_{view} WHERE symbol = 'AAPL' ORDER BY time",
        )
        assert [row[:6] for row in got] == [tuple(row) for row in expected.itertuples(index=False)]
        for row, end in zip(got, expected.index, strict=True):
            start = end - timedelta(6) if view == "weekly" else end.replace(day=1)
            assert row[6] == start.date()


def test_a_week_is_made_of_vendors_days_and_of_ticks_together(conn: connection) -> None:
    put(conn, [("AAPL", date(2024, 1, 1), 1, 4, 1, 3, 50)])
    put_bar(conn, "AAPL", 86400, MONDAY + timedelta(1), last_open=10, last_high=14, last_low=9, last_close=12)
    row = ask(conn, "SELECT time, open, high, low, close, adj_close, volume, days FROM price_history_weekly")
    assert row == [(MONDAY, 1, 14, 1, 12, 12, 80, 2)]


def test_hours_tell_their_volume_by_side(conn: connection) -> None:
    put_bar(conn, "AAPL", 3600, MONDAY)
    put_bar(conn, "AAPL", 60, MONDAY)
    assert ask(conn, "SELECT * FROM market_volume_hourly") == [("AAPL", MONDAY, 30, 10, 20, 7)]


def test_a_sector_changes_as_its_symbols_do(conn: connection) -> None:
    with conn, conn.cursor() as cur:
        cur.execute("UPDATE instruments SET sector = 'Technology' WHERE symbol IN ('AAPL', 'MSFT', 'AMD', 'INTC')")
        cur.execute("UPDATE instruments SET market_cap = 300 WHERE symbol = 'AAPL'")
        cur.execute("UPDATE instruments SET market_cap = 100 WHERE symbol = 'MSFT'")
    for symbol, first, second in (("AAPL", 100, 110), ("MSFT", 50, 45), ("AMD", 10, 10), ("TSLA", 1, 9)):
        put(conn, [flat(symbol, date(2024, 1, 5), first, 1), flat(symbol, date(2024, 1, 8), second, 2)])
    put_bar(conn, "INTC", 86400, MONDAY, last_open=4, last_high=4, last_low=4, last_close=4)
    put_bar(conn, "INTC", 86400, MONDAY + timedelta(7), last_open=5, last_high=5, last_low=5, last_close=5)
    ((*counts, average, weighted, volume, value),) = ask(
        conn,
        "SELECT symbols, rising, falling, average_return, weighted_return, volume, trading_value"
        " FROM sector_performance WHERE sector = 'Technology' AND time = '2024-01-08Z'",
    )
    assert counts == [4, 2, 1]
    assert average == pytest.approx((0.1 - 0.1 + 0 + 0.25) / 4)
    assert weighted == pytest.approx((0.1 * 300 - 0.1 * 100) / 400)
    assert volume == 2 + 2 + 2 + 30
    assert value == 220 + 90 + 20 + 150
    assert ask(conn, "SELECT DISTINCT sector FROM sector_performance") == [("Technology",)]


def test_a_split_is_no_fall_of_the_sector(conn: connection) -> None:
    with conn, conn.cursor() as cur:
        cur.execute("UPDATE instruments SET sector = 'Technology' WHERE symbol = 'AAPL'")
    put(conn, [flat("AAPL", date(2024, 1, 5), 700, 1), flat("AAPL", date(2024, 1, 8), 101, 1)])
    act(conn, "AAPL", "2024-01-06", "split", None, 7)
    query = "SELECT average_return FROM sector_performance ORDER BY time DESC LIMIT 1"
    assert ask(conn, query) == [(pytest.approx(0.01),)]


COMPUTED = """
    SELECT factored(p.close, p.time, f.ex_dates, f.products), c.daily_return, c.volatility
    FROM price_history p JOIN instruments i USING (symbol_id)
    LEFT JOIN LATERAL bar_factors(i.symbol_id, '1d', 'vendor') f ON true
    CROSS JOIN LATERAL day_changes(i.symbol_id, 'vendor', p.time, p.time) c
    WHERE p.source = 'vendor' AND i.symbol = 'AAPL' ORDER BY p.time
"""


OF_A_RANGE = """
    SELECT c.* FROM instruments i CROSS JOIN LATERAL day_changes(i.symbol_id, 'vendor', %s, %s) c
    WHERE i.symbol = 'AAPL' ORDER BY c.time
"""


def assert_computed_as_in_python(conn: connection, days: Sequence[Day], actions: Sequence[Action]) -> None:
    numbers = np.array([(day[1] - date(1970, 1, 1)).days for day in days])
    adjusted = adjusted_closes(numbers, np.array([float(day[5]) for day in days]), actions)
    returns = daily_returns(adjusted)
    got = np.array(ask(conn, COMPUTED), dtype=float)
    np.testing.assert_allclose(got[:, 0], adjusted, rtol=1e-12)
    np.testing.assert_allclose(got[:, 1], returns, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got[:, 2], volatility(returns), rtol=1e-9)
    # Of a range at once it is the same as of its days one by one.
    times = [datetime(*day[1].timetuple()[:3], tzinfo=UTC) for day in days]
    for first, last in ((0, len(days) - 1), (5, 30), (len(days) // 2, len(days) // 2), (len(days) - 25, len(days) - 1)):
        found = ask(conn, OF_A_RANGE, times[first], times[last])
        assert [row[0] for row in found] == times[first : last + 1]
        np.testing.assert_allclose(
            np.array([row[1:] for row in found], dtype=float), got[first : last + 1, 1:], rtol=1e-9, atol=1e-12
        )
    # The view's series is the vendor's, who is the first by name, unless there are others.
    if ask(conn, "SELECT count(DISTINCT source) FROM price_history") == [(1,)]:
        view = ask(conn, "SELECT adj_close FROM price_history_daily WHERE symbol = 'AAPL' ORDER BY time")
        np.testing.assert_allclose([row[0] for row in view], adjusted, rtol=1e-12)


def test_sql_adjusts_as_python_does(conn: connection) -> None:
    days = walk("AAPL", 120)
    put(conn, days)
    put(conn, walk("AAPL", 120, seed=9), "another")
    put(conn, walk("MSFT", 120, seed=4))
    actions = []
    for at, kind, amount, ratio in (
        (20, "dividend", 1.5, None),
        (50, "split", None, 7.0),
        (80, "stock_dividend", None, 0.05),
        (90, "merger", None, None),
        (110, "reverse_split", None, 0.1),
    ):
        # On a Saturday too: it counts from Monday.
        ex = days[at][1] - timedelta(days[at][1].weekday() == 0)
        act(conn, "AAPL", ex.isoformat(), kind, amount, ratio)
        actions.append(Action((ex - date(1970, 1, 1)).days, kind, amount, ratio))
    act(conn, "AAPL", "2099-01-01", "split", None, 2.0)
    assert_computed_as_in_python(conn, days, actions)


def test_rows_that_are_read_are_computed_by_source_whatever_page_they_are_on(conn: connection) -> None:
    put(conn, walk("AAPL", 60), "vendor")
    put(conn, walk("AAPL", 60, seed=9), "another", adj_close=5.0)
    put(conn, walk("MSFT", 60, seed=4), "vendor")
    for symbol, at in (("AAPL", "2022-02-15"), ("MSFT", "2022-03-01")):
        act(conn, symbol, at, "split", None, 7.0)
    everything: dict[tuple[str, int, str], tuple[float, ...]] = {}
    dataset = DATASETS["price_history"]
    for size in (7, 10_000):
        after, more, found = None, True, {}
        while more:
            with conn, conn.cursor() as cur:
                page = read_rows(
                    cur,
                    dataset,
                    symbol_id=None,
                    chosen={},
                    start_us=None,
                    end_us=None,
                    after=after,
                    descending=size == 7,
                    max_rows=size,
                )
            columns = {field.name: column for field, column in zip(page.table.fields, page.table.columns, strict=True)}
            for row in range(len(columns["symbol"])):
                key = (columns["symbol"][row], int(columns["timestamp"][row]), columns["source"][row])
                found[key] = tuple(float(columns[name][row]) for name in ("adj_close", "daily_return", "volatility"))
            after, more = page.last_key, page.more
        assert len(found) == 180
        assert not everything or found.keys() == everything.keys()
        for key, values in everything.items():
            np.testing.assert_allclose(found[key], values, rtol=1e-9, atol=1e-12)
        everything = found
    vendor = [values for key, values in sorted(everything.items()) if (key[0], key[2]) == ("AAPL", "vendor")]
    np.testing.assert_allclose(vendor, np.array(ask(conn, COMPUTED), dtype=float), rtol=1e-9, atol=1e-12)
    assert {values[0] for (_, _, source), values in everything.items() if source == "another"} == {5.0}


def test_an_action_that_cannot_be_leaves_what_it_touches_unknown(conn: connection) -> None:
    put(conn, walk("AAPL", 3))
    act(conn, "AAPL", "2022-01-05", "split", None, None)
    first, second, third = ask(conn, COMPUTED)
    assert (first[0], second[0]) == (None, None)
    assert third[0] is not None
    assert third[1] is None


def test_hardly_possible_numbers_are_no_error(conn: connection) -> None:
    days: list[Day] = []
    for at, close in enumerate([1e15, 5e-324, 1e-9, 1e15, 0.0, -1e15, 5e-324] * 5):
        days.append(flat("AAPL", date(2022, 1, 1) + timedelta(at), close, 1e15))
    put(conn, days)
    for at, number in enumerate([5e-324, 1e15, 1e-9, 0.0]):
        act(conn, "AAPL", f"2022-01-{10 + at}", "split", None, number)
        act(conn, "AAPL", f"2022-01-{10 + at}", "dividend", number, None)
    ask(conn, COMPUTED)
    with conn, conn.cursor() as cur:
        cur.execute("UPDATE instruments SET sector = 'Technology', market_cap = 1e15 WHERE symbol = 'AAPL'")
    for view in ("price_history_daily", "price_history_weekly", "price_history_monthly", "sector_performance"):
        assert ask(conn, f"SELECT * FROM {view}")


def test_real_days_of_apple_are_adjusted_in_sql_as_in_python(conn: connection) -> None:
    path = real_path("daily", "us_daily_ohlcv_lean_unadjusted.csv.gz")
    with gzip.open(path, "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if row["symbol"] == "AAPL" and row["date"] >= "2013"]
    names = ("open", "high", "low", "close", "volume")
    days: list[Day] = [("AAPL", date.fromisoformat(row["date"]), *(float(row[n]) for n in names)) for row in rows]
    put(conn, days)
    actions = []
    for ex, ratio in (("2014-06-09", 7.0), ("2020-08-31", 4.0)):
        act(conn, "AAPL", ex, "split", None, ratio)
        actions.append(Action((date.fromisoformat(ex) - date(1970, 1, 1)).days, "split", ratio=ratio))
    assert_computed_as_in_python(conn, days, actions)
    weeks = as_frame(days).resample("W-SUN").agg(HOW)
    got = ask(conn, "SELECT open, high, low, close, volume FROM price_history_weekly ORDER BY time")
    assert got == [tuple(row) for row in weeks.itertuples(index=False)]
