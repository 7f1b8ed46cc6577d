"""GET /api/history: days with returns and volatility, trades, foreign trading, basis, alerts; by pages and formats."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.process.desk import FORMATS, get, real_days, send
from tests.process.harness import Server
from tests.process.reading import DAY_MS, read, refusal, store
from tests.process.wire import AWAY, ask, running, tick
from tests.real_market import real_data

DAY = timedelta(1)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
KEYS = {"TICKHUB_API_KEY_INGEST": "ingest-0123456789", "TICKHUB_API_KEY_READ": "read-0123456789ab"}
PATHS = ("AAPL/daily", "AAPL/trades", "AAPL/foreign", "basis", "alerts")


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        yield server
        assert "Traceback" not in server.log()


def bars(symbol: str, closes: list[float], first: datetime = FIRST, **more: Any) -> list[dict[str, Any]]:
    """Return a vendor's daily bars of consecutive days."""
    return [
        {
            "symbol": symbol,
            "interval": "1d",
            "timestamp": f"{first + number * DAY:%Y-%m-%d}",
            "source": "vendor",
            **dict.fromkeys(("open", "high", "low", "close"), close),
            **more,
        }
        for number, close in enumerate(closes)
    ]


def walk(count: int, seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    return [round(float(close), 4) for close in 100 * np.exp(np.cumsum(rng.normal(0, 0.02, count)))]


def daily(server: Server, symbol: str, **params: Any) -> list[dict[str, Any]]:
    answer = get(server, f"/api/history/{symbol}/daily", **params)
    assert answer["symbol"] == symbol
    return list(answer["daily"])


def every_page(server: Server, path: str, name: str, **params: Any) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    found: list[dict[str, Any]] = []
    for _ in range(200):
        page = get(server, path, **params)
        assert len(page[name]) <= params["limit"]
        found += page[name]
        if page["next_page_token"] is None:
            return found
        assert len(page[name]) == params["limit"]
        params["page_token"] = page["next_page_token"]
    raise AssertionError("the pages have no end")


def in_every_format(server: Server, path: str, name: str, **params: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of an answer in each format, with values as JSON has them."""
    found = {}
    for form in FORMATS:
        data = read(server, path, format=form, **params).data
        if form == "json":
            rows = json.loads(data)[name]
        elif form == "ndjson":
            rows = [json.loads(line) for line in data.splitlines()]
        elif form == "csv":
            texts = csv.DictReader(io.StringIO(data.decode(), newline=""))
            rows = [{key: _typed(text) for key, text in row.items()} for row in texts]
        else:
            stream = io.BytesIO(data)
            table = pa.ipc.open_stream(stream).read_all() if form == "arrow" else pq.read_table(stream)
            rows = [{key: _plain(value) for key, value in row.items()} for row in table.to_pylist()]
        found[form] = rows
    return found


def _typed(text: str) -> Any:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None


def _plain(value: Any) -> Any:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


@pytest.mark.parametrize(
    ("path", "dataset", "first", "second", "field"),
    [
        (
            "/api/price_history?symbol=CSCO&start=2024-01-02&end=2024-01-03",
            "corporate_actions",
            {"symbol": "CSCO", "ex_date": "2024-01-03", "action_type": "split", "ratio": 2},
            {"symbol": "CSCO", "ex_date": "2024-01-03", "action_type": "split", "ratio": 4},
            "adj_close",
        ),
        (
            "/api/history/INTC/daily?start=2024-01-02&end=2024-01-03",
            "price_history",
            bars("INTC", [50.0], FIRST + 1 * DAY, source="a")[0],
            bars("INTC", [60.0], FIRST + 6 * DAY)[0],
            "adj_close",
        ),
        (
            "/api/foreign_snapshots?symbol=ORCL&start=2024-01-02T10:02:00Z",
            "foreign_snapshots",
            {"symbol": "ORCL", "timestamp": "2024-01-02T10:00:00Z", "f_buy_vol": 0},
            {"symbol": "ORCL", "timestamp": "2024-01-02T10:01:00Z", "f_buy_vol": 80},
            "buy_speed_per_min",
        ),
    ],
    ids=lambda value: value.split("?")[0] if isinstance(value, str) and "?" in value else "",
)
def test_a_parquet_file_is_made_anew_when_what_is_computed_in_it_follows_from_other_rows(
    server: Server, path: str, dataset: str, first: dict[str, Any], second: dict[str, Any], field: str
) -> None:
    send(server, "price_history", bars("CSCO", [40.0, 40.0, 40.0]))
    send(server, "price_history", bars("INTC", [50.0, 50.0, 50.0]))
    send(server, "corporate_actions", [{"symbol": "INTC", "ex_date": "2024-01-05", "action_type": "split", "ratio": 2}])
    send(server, "foreign_snapshots", [{"symbol": "ORCL", "timestamp": "2024-01-02T10:02:00Z", "f_buy_vol": 100}])
    seen = []
    for record in (first, second):
        send(server, dataset, [record])
        (row,) = next(value for value in ask(server, "GET", path).json.values() if isinstance(value, list))
        answer = ask(server, "GET", f"{path}&format=parquet", headers={"Range": "bytes=0-"})
        assert answer.status == 206
        assert pq.read_table(io.BytesIO(answer.data))[field].to_pylist() == [row[field]]
        seen.append(row[field])
    assert seen[0] != seen[1]


def test_days_are_the_vendors_with_what_follows_from_them(server: Server) -> None:
    closes = walk(60)
    send(server, "price_history", bars("AAPL", closes, volume=1000.0))
    rows = daily(server, "AAPL")
    assert list(rows[0]) == [
        *("timestamp", "open", "high", "low", "close", "adj_close", "volume", "daily_return", "volatility"),
        *("trading_value", "source"),
    ]
    assert [row["close"] for row in rows] == closes
    assert [row["adj_close"] for row in rows] == closes
    assert rows[0]["timestamp"] == "2024-01-01T00:00:00.000000Z"
    assert {row["source"] for row in rows} == {"vendor"}
    returns = np.array(closes[1:]) / np.array(closes[:-1]) - 1
    assert rows[0]["daily_return"] is None
    assert [row["daily_return"] for row in rows[1:]] == pytest.approx(returns.tolist(), rel=1e-12)
    assert [row["volatility"] for row in rows[:20]] == [None] * 20
    deviations = [float(np.std(returns[end - 20 : end], ddof=1)) * math.sqrt(252) for end in range(20, 60)]
    assert [row["volatility"] for row in rows[20:]] == pytest.approx(deviations, rel=1e-9)


def test_a_part_says_the_same_of_a_day_as_the_whole(server: Server) -> None:
    send(server, "price_history", bars("TSLA", walk(60, seed=2)))
    whole = daily(server, "TSLA")
    assert daily(server, "TSLA", start="2024-02-01", end="2024-02-11") == whole[31:41]
    assert daily(server, "TSLA", limit=3) == whole[-3:], "without a range the newest ones, in ascending time"
    assert daily(server, "TSLA", limit=3, order="desc") == whole[:-4:-1]
    for order in ("asc", "desc"):
        paged = every_page(server, "/api/history/TSLA/daily", "daily", limit=7, order=order)
        assert paged == (whole if order == "asc" else whole[::-1])
    assert get(server, "/api/history/tsla.us/daily")["daily"] == whole
    every = in_every_format(server, "/api/history/TSLA/daily", "daily", start="2024-01-15")
    assert all(rows == whole[14:] for rows in every.values())


def test_days_without_a_vendor_are_made_of_their_ticks(server: Server) -> None:
    closes = walk(30, seed=3)
    at = [DAY_MS + number * 86_400_000 + 3_600_000 for number in range(len(closes))]
    days = zip(closes, at, strict=True)
    store(server, [tick(symbol="NVDA", bid=close, ask=close + 1, timestamp=time) for close, time in days])
    rows = daily(server, "NVDA")
    assert [(row["close"], row["source"]) for row in rows] == [(close, "ticks") for close in closes]
    assert [row["adj_close"] for row in rows] == closes
    assert rows[1]["daily_return"] == pytest.approx(closes[1] / closes[0] - 1)
    assert [row["volatility"] is None for row in rows] == [True] * 20 + [False] * 10
    # The vendor's day takes the place of the ticks', and what he says of it stands.
    (day,) = bars("NVDA", [50.0], datetime(2026, 1, 20, tzinfo=UTC), daily_return=0.5, volatility=0.25, adj_close=25.0)
    send(server, "price_history", [day])
    row = daily(server, "NVDA")[7]
    names = ("close", "adj_close", "daily_return", "volatility", "source")
    assert [row[name] for name in names] == [50.0, 25.0, 0.5, 0.25, "vendor"]
    assert row["timestamp"] == "2026-01-20T00:00:00.000000Z"
    assert daily(server, "NVDA")[8]["daily_return"] == pytest.approx(closes[8] / 50.0 - 1)


def test_days_say_what_the_view_and_the_dataset_say(server: Server) -> None:
    send(server, "price_history", bars("MSFT", walk(50, seed=4)))
    split, later = ("2024-01-30", "split", None, 2.0), ("2024-03-30", "split", None, 5.0)
    actions = [split, ("2024-02-10", "dividend", 1.0, None), later]
    send(
        server,
        "corporate_actions",
        [
            {"symbol": "MSFT", "ex_date": day, "action_type": kind, "amount": amount, "ratio": ratio}
            for day, kind, amount, ratio in actions
        ],
    )
    rows = daily(server, "MSFT")
    viewed = server.database.rows(
        "SELECT open, close, adj_close, source FROM price_history_daily WHERE symbol = 'MSFT' ORDER BY time"
    )
    assert [(row["open"], row["close"], row["adj_close"], row["source"]) for row in rows] == viewed
    assert rows[0]["adj_close"] != rows[0]["close"]
    records = get(server, "/api/price_history", symbol="MSFT")["records"]
    for name in ("adj_close", "daily_return", "volatility"):
        told, expected = ([row[name] for row in found] for found in (rows, records))
        assert [value is None for value in told] == [value is None for value in expected]
        assert [value or 0 for value in told] == pytest.approx([value or 0 for value in expected], rel=1e-9)


@real_data
def test_real_days_come_back_as_they_were_sent(server: Server) -> None:
    sent = real_days("IBM", "ORCL")
    for begin in range(0, len(sent), 2000):
        send(server, "price_history", sent[begin : begin + 2000])
    names = ("open", "high", "low", "close", "volume")
    rows = daily(server, "ORCL", start="1990-01-01", limit=10_000)
    assert [[row[name] for name in names] for row in rows] == [[record[name] for name in names] for record in sent]
    assert [row["timestamp"][:10] for row in rows] == [record["timestamp"] for record in sent]
    year = daily(server, "ORCL", start="2013-01-01", end="2014-01-01")
    assert len(year) == 252
    assert year == [row for row in rows if row["timestamp"].startswith("2013")]


def test_trades_of_a_day_are_those_of_the_exchanges_day(server: Server) -> None:
    server.database.rows("UPDATE instruments SET timezone = 'America/New_York' WHERE symbol = 'META'")
    at = [f"2026-01-{moment}:00Z" for moment in ("13T04:59", "13T05:00", "13T20:00", "14T04:59", "14T05:00")]
    ticks = [tick(symbol="META", last=1.0 + number, flags=56, volume=10, timestamp=at[number]) for number in (0, 2, 3)]
    store(server, [*ticks, tick(symbol="META", timestamp=at[2], last=9.0)])  # a quote is none
    sent = [{"symbol": "META", "timestamp": at[number], "price": 1.0 + number, "volume": 5} for number in (1, 4)]
    send(server, "trades", sent)

    def told(**params: Any) -> list[float]:
        return [row["price"] for row in get(server, "/api/history/META/trades", **params)["trades"]]

    assert told(date="2026-01-13") == [2.0, 3.0, 4.0]
    assert told(date="2026-01-14") == [5.0]
    assert told(date="2026-01-12") == [1.0]
    assert told(date="2026-01-15") == []
    assert told(start="2026-01-13", end="2026-01-14") == [1.0, 2.0, 3.0], "a bare date is midnight UTC"
    whole = get(server, "/api/history/meta.us/trades")
    assert (whole["symbol"], [row["price"] for row in whole["trades"]]) == ("META", [1.0, 2.0, 3.0, 4.0, 5.0])
    assert [row["trade_type"] for row in whole["trades"][2:4]] == ["buy", "buy"]
    assert whole["trades"][1]["value"] == 10.0
    assert every_page(server, "/api/history/META/trades", "trades", limit=2, order="asc") == whole["trades"]
    every = in_every_format(server, "/api/history/META/trades", "trades", date="2026-01-13")
    assert all(rows == whole["trades"][1:4] for rows in every.values())
    for params in ({"date": "2026-01-13", "start": "2026-01-13"}, {"date": "yesterday"}, {"date": "9999-12-31"}):
        status, code, message = refusal(server, "/api/history/META/trades", **params)
        assert (status, code) == (400, "bad_parameter")
        assert message.startswith("date: ")


def test_foreign_trading_of_a_symbol_comes_by_pages_and_formats(server: Server) -> None:
    sent = [
        {
            "symbol": symbol,
            "timestamp": f"2026-01-13T02:{number:02}:00Z",
            "f_buy_vol": 100.0 * number,
            "f_sell_vol": 50.0 * number,
        }
        for symbol in ("AAPL", "AMD")
        for number in range(30)
    ]
    send(server, "foreign_snapshots", sent)
    answer = get(server, "/api/history/AMD/foreign")
    assert (answer["symbol"], answer["next_page_token"], len(answer["foreign"])) == ("AMD", None, 30)
    row = answer["foreign"][5]
    assert row == sent[35] | {
        "timestamp": "2026-01-13T02:05:00.000000Z",
        "f_net_vol": 250.0,
        "buy_speed_per_min": 100.0,
        "sell_speed_per_min": 50.0,
    }
    assert every_page(server, "/api/history/AMD/foreign", "foreign", limit=7, order="asc") == answer["foreign"]
    every = in_every_format(server, "/api/history/AMD/foreign", "foreign", start="2026-01-13", end="2026-01-14")
    assert all(rows == answer["foreign"] for rows in every.values())


def test_basis_is_of_one_future_or_of_all(server: Server) -> None:
    sent = [
        {"futures_symbol": future, "timestamp": f"2026-01-13T02:{number:02}:00Z", "futures_price": 1300.0 + number}
        | {"spot_value": 1290.0}
        for number in range(10)
        for future in ("VN30F1M", "VN30F2M")
    ]
    send(server, "basis_history", sent)
    everything = get(server, "/api/history/basis")
    assert (everything["symbol"], len(everything["basis"])) == (None, 20)
    one = get(server, "/api/history/basis", futures_symbol="VN30F1M")
    assert one["symbol"] == "VN30F1M"
    assert [row["basis"] for row in one["basis"]] == [10.0 + number for number in range(10)]
    assert every_page(server, "/api/history/basis", "basis", limit=3, order="asc") == everything["basis"]
    every = in_every_format(server, "/api/history/basis", "basis", futures_symbol="VN30F1M")
    assert all(rows == one["basis"] for rows in every.values())
    assert get(server, "/api/history/basis", futures_symbol="none")["basis"] == []
    assert refusal(server, "/api/history/basis", futures_symbol="a\0b")[:2] == (400, "bad_parameter")


def test_alerts_are_filtered_and_come_by_pages(server: Server) -> None:
    server.database.rows(
        "INSERT INTO alerts (symbol_id, time, alert_type, message, severity)"
        " SELECT i.symbol_id, timestamptz '2026-01-13T00:00Z' + n * interval '1 s',"
        " CASE n % 2 WHEN 0 THEN 'spread_above' ELSE 'no_tick' END, n::text,"
        " CASE n % 3 WHEN 0 THEN 'info' ELSE 'warning' END"
        " FROM generate_series(0, 29) n JOIN instruments i ON i.symbol = CASE WHEN n < 20 THEN 'AVGO' ELSE 'GOOG' END"
    )
    found = get(server, "/api/history/alerts", symbol="avgo.us")
    assert found["symbol"] == "AVGO"
    assert [row["message"] for row in found["alerts"]] == [str(number) for number in range(20)]
    assert get(server, "/api/history/alerts")["symbol"] is None
    chosen = get(server, "/api/history/alerts", symbol="AVGO", alert_type="no_tick", severity="info")["alerts"]
    assert [row["message"] for row in chosen] == ["3", "9", "15"]
    paged = every_page(server, "/api/history/alerts", "alerts", limit=7, order="asc", symbol="AVGO")
    assert paged == found["alerts"]


@pytest.mark.parametrize("path", ["VIX/daily", "VIX/trades", "VIX/foreign"])
def test_a_known_symbol_without_rows_has_an_empty_list(server: Server, path: str) -> None:
    name = path.split("/")[1]
    assert get(server, f"/api/history/{path}") == {"symbol": "VIX", name: [], "next_page_token": None}


@pytest.mark.parametrize("path", ["FOO/daily", "FOO/trades", "FOO/foreign"])
def test_an_unknown_symbol_is_404(server: Server, path: str) -> None:
    assert refusal(server, f"/api/history/{path}") == (404, "unknown_symbol", "Unknown symbol: FOO")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"start": "yesterday"}, "start"),
        ({"start": "2026-01-13T00:00:00"}, "start"),
        ({"start": "2026-01-13", "end": "2026-01-12"}, "end"),
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"order": "up"}, "order"),
        ({"format": "xml"}, "format"),
        ({"page_token": "AAAAAAAAAAAA"}, "page_token"),
        ({"no_such": "1"}, "no_such"),
    ],
)
def test_a_bad_parameter_is_named(server: Server, path: str, params: dict[str, str], name: str) -> None:
    status, code, message = refusal(server, f"/api/history/{path}", **params)
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith(f"{name}: ")


@pytest.mark.long
def test_without_the_database_it_is_told_to_come_again_and_only_readers_are_answered(data_template: Path) -> None:
    with running(data_template, "--database-url", AWAY, environ=KEYS) as server:
        for path in PATHS:
            for key, expected in ((KEYS["TICKHUB_API_KEY_READ"], 503), (KEYS["TICKHUB_API_KEY_INGEST"], 403)):
                answer = ask(server, "GET", f"/api/history/{path}", headers={"X-API-Key": key})
                assert answer.status == expected, (path, answer)
                if expected == 503:
                    assert answer.json["code"] == "database_away"
                    assert int(answer.headers["retry-after"]) >= 1
