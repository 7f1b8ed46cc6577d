"""The views with symbol names: they hold what the tables hold, and read no more than they answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection, cursor

from app.storage.ticks_writer import TickStore
from tests.tick_sets import MIDNIGHT_US, Row, rows, stored

NAMES = {1: "TSLA", 2: "NVDA", 3: "AAPL"}
SIDES = ("bid", "ask", "mid", "last")
BAR = ["symbol", "time", "ticks", "volume", "buy_volume", "sell_volume"]
BAR += [f"{side}_{part}" for side in SIDES for part in ("open", "high", "low", "close")]
BAR += ["spread_min", "spread_max"]
TICK = ["symbol", "time", "seq", "bid", "ask", "last", "spread", "volume", "buy_volume", "sell_volume", "flags"]
TICK += ["received_at"]
DAY_S = 86_400


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        open_cursor.execute("SET timezone = 'UTC'")
        for week in (-1, 0, 1):
            open_cursor.execute(
                "SELECT ensure_tick_partition(to_timestamp(%s))", (MIDNIGHT_US / 1e6 + week * 7 * DAY_S,)
            )
        conn.commit()
        yield open_cursor


def _rows(cur: cursor, query: str) -> list[dict[str, Any]]:
    cur.execute(query)
    names = [column.name for column in cur.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cur.fetchall()]


@pytest.mark.parametrize(
    ("view", "columns"),
    [*((view, BAR) for view in ("bars_1m", "bars_5m", "bars_1h", "bars_1d")), ("ticks_view", TICK)],
)
def test_a_view_has_the_columns_that_the_page_names(cur: cursor, view: str, columns: list[str]) -> None:
    cur.execute(f"SELECT * FROM {view}")
    assert [column.name for column in cur.description or ()] == columns


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows(max_size=25), min_size=1, max_size=2))
def test_bars_of_five_minutes_are_made_of_those_of_one(cur: cursor, batches: list[list[Row]]) -> None:
    for batch in batches:
        TickStore().write(cur, stored(batch), NAMES)
    parts: dict[tuple[str, datetime], list[dict[str, Any]]] = defaultdict(list)
    for minute in _rows(cur, "SELECT * FROM bars_1m ORDER BY symbol, time"):
        start = minute["time"] - timedelta(minutes=minute["time"].minute % 5)
        parts[minute["symbol"], start].append(minute)
    expected = []
    for (symbol, start), minutes in parts.items():
        bar: dict[str, Any] = {"symbol": symbol, "time": start}
        for name in ("ticks", "volume", "buy_volume", "sell_volume"):
            bar[name] = sum(minute[name] for minute in minutes)

        def there(name: str, minutes: list[dict[str, Any]] = minutes) -> list[float]:
            return [minute[name] for minute in minutes if minute[name] is not None]

        for side in SIDES:
            bar[f"{side}_open"] = next(iter(there(f"{side}_open")), None)
            bar[f"{side}_high"] = max(there(f"{side}_high"), default=None)
            bar[f"{side}_low"] = min(there(f"{side}_low"), default=None)
            bar[f"{side}_close"] = next(reversed(there(f"{side}_close")), None)
        bar["spread_min"] = min(there("spread_min"), default=None)
        bar["spread_max"] = max(there("spread_max"), default=None)
        expected.append(bar)
    assert _rows(cur, "SELECT * FROM bars_5m ORDER BY symbol, time") == expected
    cur.execute("SELECT sum(volume)::text FROM bars_5m UNION SELECT sum(volume)::text FROM bars WHERE resolution = 60")
    assert len(cur.fetchall()) == 1
    cur.connection.rollback()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows())
def test_the_other_views_are_their_tables_with_names(cur: cursor, ticks: list[Row]) -> None:
    TickStore().write(cur, stored(ticks), NAMES)
    for view, resolution in (("bars_1m", 60), ("bars_1h", 3600), ("bars_1d", 86400)):
        found = _rows(cur, f"SELECT * FROM {view} ORDER BY symbol, time")
        table = f"SELECT b.*, symbol FROM bars b JOIN instruments USING (symbol_id) WHERE resolution = {resolution}"
        assert found == [{name: row[name] for name in BAR} for row in _rows(cur, f"{table} ORDER BY symbol, time")]
    found = _rows(cur, "SELECT * FROM ticks_view ORDER BY symbol, time, seq")
    table = "SELECT t.*, symbol FROM ticks t JOIN instruments USING (symbol_id) ORDER BY symbol, time, seq"
    assert found == [{name: row[name] for name in TICK} for row in _rows(cur, table)]
    cur.connection.rollback()


# What a query reads


def test_the_index_of_the_five_minutes_tempts_no_other_query(conn: connection) -> None:
    """Nor before the first ANALYZE, when the planner knows nothing of the table."""
    with conn.cursor() as cur:
        cur.execute(
            "INSERT INTO bars (symbol_id, resolution, time, ticks, volume, buy_volume, sell_volume)"
            " SELECT s, r, time, 1, 0, 0, 0 FROM generate_series(1, 2) AS s, unnest(ARRAY[60, 86400]) AS r,"
            " generate_series(timestamptz '2026-01-01', '2026-01-31', make_interval(secs => r)) AS time"
        )
        for condition in (
            "resolution = 60 AND time >= '2026-01-30' ORDER BY time LIMIT 1000",
            "resolution = 60 AND time >= '2026-01-30'",
            "resolution = 86400 AND time >= '2026-01-02' AND time < '2026-01-04'",
        ):
            cur.execute(f"EXPLAIN SELECT * FROM bars WHERE symbol_id = 1 AND {condition}")
            plan = "\n".join(line for (line,) in cur.fetchall())
            assert "bars_5m_key" not in plan
            assert "Index Cond" in plan.split("bars_pkey")[1]
            assert "time" in plan.split("Index Cond")[1].split("\n")[0]


_FILL_BARS = """
    INSERT INTO bars (symbol_id, resolution, time, ticks, volume, buy_volume, sell_volume, bid_open, bid_close)
    SELECT symbol_id, resolution, time, 10, 1, 1, 0, 1.5, 2.5
    FROM generate_series(1, 3) AS symbol_id, unnest(ARRAY[60, 3600, 86400]) AS resolution,
         generate_series(%(end)s - interval '1 year', %(end)s, make_interval(secs => resolution)) AS time
"""
_FILL_TICKS = """
    INSERT INTO ticks SELECT symbol_id, time, 0, 1, 2, NULL, 1, 0, 0, 0, 6, 1, time
    FROM generate_series(1, 3) AS symbol_id,
         generate_series(%(end)s - interval '60 days', %(end)s, interval '20 seconds') AS time
"""
_QUERIES = {
    "bars_5m": "SELECT * FROM bars_5m WHERE symbol = 'NVDA' AND time >= now() - interval '1 day' ORDER BY time",
    "bars_5m, both ends": "SELECT time, bid_open, bid_close FROM bars_5m WHERE symbol = 'NVDA'"
    " AND time BETWEEN now() - interval '100 days' AND now() - interval '98 days' ORDER BY 1",
    "bars_5m, two symbols": "SELECT * FROM bars_5m WHERE symbol IN ('NVDA', 'TSLA')"
    " AND time >= now() - interval '1 day' ORDER BY time",
    "bars_1m": "SELECT * FROM bars_1m WHERE symbol = 'NVDA' AND time >= now() - interval '1 day' ORDER BY time",
    "bars_1h": "SELECT * FROM bars_1h WHERE symbol = 'NVDA' AND time >= now() - interval '30 days' ORDER BY time",
    "bars_1d": "SELECT * FROM bars_1d WHERE symbol = 'NVDA' AND time >= now() - interval '90 days' ORDER BY time",
    "ticks_view": "SELECT * FROM ticks_view WHERE symbol = 'NVDA' AND time >= now() - interval '1 day' ORDER BY time",
    "ticks_view, both ends": "SELECT * FROM ticks_view WHERE symbol = 'NVDA'"
    " AND time BETWEEN now() - interval '30 days' AND now() - interval '29 days' ORDER BY time DESC LIMIT 5000",
    "history": "SELECT * FROM nvda_history WHERE time >= now() - interval '1 day' ORDER BY time",
    "history, newest": "SELECT * FROM nvda_history ORDER BY time DESC LIMIT 100",
}


def _scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes that read ticks or bars, if they ran at all."""
    if plan.get("Relation Name", "").startswith(("ticks", "bars")) and plan["Actual Loops"]:
        yield plan
    for part in plan.get("Plans", ()):
        yield from _scans(part)


@pytest.mark.long
def test_a_range_of_one_symbol_is_read_by_index_and_nothing_beside_it(conn: connection) -> None:
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    with conn.cursor() as cur:
        for week in range(11):
            cur.execute("SELECT ensure_tick_partition(%s)", (end - timedelta(weeks=week),))
        cur.execute(_FILL_BARS, {"end": end})
        cur.execute(_FILL_TICKS, {"end": end})
        cur.execute("ANALYZE bars; ANALYZE ticks; ANALYZE instruments")
        # The embedded server's, and PostgreSQL's own, which an external database may have.
        for page_cost in ("1.1", "4"):
            cur.execute("SET LOCAL random_page_cost = %s", (page_cost,))
            for name, query in _QUERIES.items():
                cur.execute(query)
                answered = cur.rowcount * (5 if name.startswith("bars_5m") else 1)
                assert answered > 80, name
                cur.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")
                plan = (cur.fetchone() or ())[0][0]["Plan"]
                read = 0
                for node in _scans(plan):
                    rows_read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                    assert node["Node Type"] != "Seq Scan" or rows_read == 0, (name, page_cost, node)
                    read += rows_read * node["Actual Loops"]
                assert read <= answered + 10, f"{name}: {read} rows read for {answered}"
