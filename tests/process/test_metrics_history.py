"""Metrics over HTTP: sent, answered by intervals and in sum, and the newest of them in every worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.datasets.registry import DATASETS
from app.web.api import ENDPOINTS
from tests.process.harness import Server, wait_until
from tests.process.live import client, send
from tests.process.reading import read, refusal
from tests.process.wire import Answer, ask, post, running

SETTINGS = {"TICKHUB_METRICS_INTERVAL_S": "0"}
KEYS = {"TICKHUB_API_KEY_READ": "read-0123456789ab", "TICKHUB_API_KEY_INGEST": "ingest-0123456789"}
DAY = "2026-01-13T"
HISTORY, SUMMARY, CURRENT = "/api/metrics/history", "/api/metrics/summary", "/api/metrics/current"
MARKET = [
    {"symbol": "aapl.us", "timestamp": f"{DAY}10:00:01Z", "last_price": 10.0, "volume": 5, "trades": 2},
    {"symbol": "AAPL", "timestamp": f"{DAY}10:04:59.999999Z", "last_price": 11.0, "volume": 7, "spread_bps": 2.0},
    {"symbol": "TSLA", "timestamp": f"{DAY}10:01:00Z", "bid": 1.0, "volume": 1, "spread_bps": 4.0},
    {"symbol": "AAPL", "timestamp": f"{DAY}10:05:00Z", "last_price": 9.0, "trades": 1, "spread_bps": 1.0},
]
STRATEGY = [
    {"strategy_name": "mean", "timestamp": f"{DAY}10:00:00Z", "pnl": 1.5, "positions": 1, "win_rate": 0.5},
    {"strategy_name": "mean", "timestamp": f"{DAY}10:02:00Z", "pnl": -2.5, "win_rate": 0.25},
]
EXECUTION = [{"timestamp": f"{DAY}10:00:{at:02}Z", "orders_submitted": at, "avg_latency_ms": at} for at in (1, 2, 3)]
SYSTEM = [
    {"host": "one", "timestamp": f"{DAY}10:00:00Z", "cpu_percent": 50, "health_status": "healthy", "active_alerts": 3},
    {"host": "one", "timestamp": f"{DAY}10:03:00Z", "cpu_percent": 100, "health_status": "tired", "active_alerts": 1},
]
RANGE = {"start": f"{DAY}10:00:00Z", "end": f"{DAY}11:00:00Z"}


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ=SETTINGS) as server:
        for name, sent in (
            ("market_data", MARKET),
            ("strategy_metrics", STRATEGY),
            ("execution_metrics", EXECUTION),
            ("system_metrics", SYSTEM),
        ):
            ingest(server, name, *sent)
        server.wait_drained()
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def pair(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        yield server
        assert "Traceback" not in server.log()


def ingest(server: Server, dataset: str, *records: dict[str, Any]) -> None:
    answer = post(server, json.dumps(records).encode(), f"/ingest/{dataset}", Content_Type="application/json")
    assert answer.json == {"status": "success", "received": len(records)}


def history(server: Server, **asked: Any) -> Answer:
    return ask(server, "POST", HISTORY, json.dumps(asked))


def rows(server: Server, group: str, **asked: Any) -> list[dict[str, Any]]:
    answer = history(server, **{"metric_types": [group], **RANGE, **asked})
    assert answer.status == 200, answer
    assert list(answer.json) == ["interval", "start", "end", group]
    return list(answer.json[group])


def refused(server: Server, **asked: Any) -> tuple[int, str, str]:
    answer = history(server, **asked)
    assert answer.status >= 400, answer
    return answer.status, answer.json["code"], answer.json["message"]


def test_intervals_have_what_is_usual_for_each_field(server: Server) -> None:
    five, ten = f"{DAY}10:00:00.000000Z", f"{DAY}10:05:00.000000Z"
    nothing = {"last_price": None, "bid": None, "ask": None, "volume": None, "trades": None, "spread_bps": None}
    assert rows(server, "market_data", interval="5m") == [
        {"symbol": "AAPL", "timestamp": five, **nothing, "last_price": 11.0, "volume": 12.0, "trades": 2}
        | {"spread_bps": 2.0},
        {"symbol": "TSLA", "timestamp": five, **nothing, "bid": 1.0, "volume": 1.0, "spread_bps": 4.0},
        {"symbol": "AAPL", "timestamp": ten, **nothing, "last_price": 9.0, "trades": 1, "spread_bps": 1.0},
    ]
    (row,) = rows(server, "strategy", interval="1h")
    assert row == {"strategy_name": "mean", "timestamp": five, "pnl": -2.5, "daily_pnl": None, "positions": 1} | {
        "signals": None,
        "win_rate": 0.375,
    }
    (row,) = rows(server, "execution", interval="1d")
    assert row["timestamp"] == f"{DAY}00:00:00.000000Z"
    assert (row["orders_submitted"], row["avg_latency_ms"], row["orders_filled"]) == (6, 2.0, None)
    assert isinstance(row["orders_submitted"], int)
    (row,) = rows(server, "system", interval="15m")
    assert (row["host"], row["cpu_percent"], row["health_status"], row["active_alerts"]) == ("one", 75.0, "tired", 3)


def test_the_answer_says_what_was_asked_and_has_the_groups_that_were_asked_for(server: Server) -> None:
    found = history(server, metric_types=["strategy", "market_data", "strategy"], interval="15m", **RANGE).json
    assert list(found) == ["interval", "start", "end", "strategy", "market_data"]
    assert (found["interval"], found["start"], found["end"]) == (
        "15m",
        f"{DAY}10:00:00.000000Z",
        f"{DAY}11:00:00.000000Z",
    )
    assert list(history(server).json) == ["interval", "start", "end", "market_data", "strategy", "execution", "system"]


@pytest.mark.parametrize(("of", "price"), [("min", 10.0), ("max", 11.0), ("avg", 10.5), ("sum", 21.0), ("last", 11.0)])
def test_each_aggregate_can_be_asked_of_each_field(server: Server, of: str, price: float) -> None:
    found = rows(server, "market_data", symbol="aapl", interval="5m", aggregates={"last_price": of})
    assert [row["last_price"] for row in found] == [price, 9.0]
    assert found[0]["volume"] == 12.0


def test_an_interval_that_the_range_cuts_has_what_lies_inside(server: Server) -> None:
    found = rows(server, "market_data", interval="1h", symbol="AAPL", start=f"{DAY}10:00:02Z", end=f"{DAY}10:05:00Z")
    assert [(row["timestamp"], row["volume"]) for row in found] == [(f"{DAY}10:00:00.000000Z", 7.0)]
    assert rows(server, "market_data", start=f"{DAY}10:05:00.000001Z") == []


def test_a_time_may_be_a_number_of_any_unit(server: Server) -> None:
    begin_s, end_s = 1_768_298_400, 1_768_302_000
    wanted = rows(server, "market_data")
    for unit in (1, 10**3, 10**6, 10**9):
        assert rows(server, "market_data", start=begin_s * unit, end=float(end_s * unit)) == wanted


def test_one_symbol_strategy_or_host_can_be_asked_for(server: Server) -> None:
    assert {row["symbol"] for row in rows(server, "market_data", symbol="TSLA.us")} == {"TSLA"}
    assert rows(server, "strategy", strategy_name="other") == []
    assert len(rows(server, "strategy", strategy_name="mean", symbol="TSLA")) == 1
    assert rows(server, "system", host="two") == []
    assert len(rows(server, "system", host="one")) == 1


@pytest.mark.parametrize(
    ("time_range", "seconds"),
    [
        *(("MINUTE_5", 300), ("MINUTE_15", 900), ("HOUR_1", 3600), ("HOUR_4", 14_400), ("DAY_1", 86_400)),
        *(("WEEK_1", 604_800), ("MONTH_1", 2_592_000), (None, 3600)),
    ],
)
def test_a_range_goes_up_to_now(server: Server, time_range: str | None, seconds: int) -> None:
    before = datetime.now(UTC)
    found = history(server, time_range=time_range, metric_types=["execution"]).json
    start, end = (datetime.fromisoformat(found[name]) for name in ("start", "end"))
    assert end - start == timedelta(seconds=seconds)
    assert before <= end <= datetime.now(UTC)


def test_what_was_sent_just_now_is_in_the_last_five_minutes(server: Server) -> None:
    now = datetime.now(UTC)
    ingest(server, "strategy_metrics", {"strategy_name": "new", "timestamp": now.isoformat(), "pnl": 7.0})
    server.wait_drained()
    asked = {"metric_types": ["strategy"], "time_range": "MINUTE_5", "interval": "1m", "strategy_name": "new"}
    assert [row["pnl"] for row in history(server, **asked).json["strategy"]] == [7.0]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"time_range": "YEAR_1"}, "time_range"),
        ({"time_range": "HOUR_1", "start": "2026-01-13"}, "time_range"),
        ({"end": "2026-01-13"}, "start"),
        ({"start": "2026-01-13T10:00:00"}, "start"),
        ({"start": "2026-01-14", "end": "2026-01-13"}, "end"),
        ({"start": True}, "start"),
        ({"start": -1}, "start"),
        ({"start": 10**19}, "start"),
        ({"start": "2999-01-01"}, "start"),
        ({"interval": "2m"}, "interval"),
        ({"interval": None}, "interval"),
        ({"metric_types": []}, "metric_types"),
        ({"metric_types": ["market"]}, "metric_types"),
        ({"metric_types": "strategy"}, "metric_types"),
        ({"aggregates": {"bid": "median"}}, "aggregates"),
        ({"aggregates": {"color": "avg"}}, "aggregates"),
        ({"aggregates": {"bid": "avg"}, "metric_types": ["strategy"]}, "aggregates"),
        ({"aggregates": {"health_status": "max"}}, "aggregates"),
        ({"strategy_name": "a\0"}, "strategy_name"),
        ({"symbol": 5}, "symbol"),
        ({"intervall": "5m"}, "intervall"),
    ],
)
def test_what_cannot_be_asked_is_named(server: Server, asked: dict[str, Any], name: str) -> None:
    status, code, message = refused(server, **asked)
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith(f"{name}: ")


def test_a_body_that_is_no_json_and_a_symbol_that_is_none_are_400(server: Server) -> None:
    assert refused(server, symbol="FOO") == (400, "unknown_symbol", "Unknown symbol: FOO")
    answer = ask(server, "POST", HISTORY, b'{"interval":')
    assert (answer.status, answer.json["code"]) == (400, "bad_json")
    assert refusal(server, SUMMARY, symbol="FOO")[:2] == (400, "unknown_symbol")
    assert refusal(server, SUMMARY, time_range="ever")[2].startswith("time_range: ")
    assert refusal(server, SUMMARY, interval="5m")[2].startswith("interval: unknown parameter")


@pytest.mark.long
def test_more_intervals_than_an_answer_holds_are_refused_with_a_way_out(server: Server) -> None:
    day = datetime(2024, 1, 1, tzinfo=UTC)
    with_names = [
        {"strategy_name": f"s{name}", "timestamp": (day + timedelta(minutes=at)).isoformat()}
        for at in range(1000)
        for name in range(51)
    ]
    for begin in range(0, len(with_names), 17_000):
        ingest(server, "strategy_metrics", *with_names[begin : begin + 17_000])
    server.wait_drained()
    asked = {"metric_types": ["strategy"], "start": "2024-01-01", "end": "2024-01-02"}
    status, code, message = refused(server, interval="1m", **asked)
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith("interval: of 1m there are more than 50000 here")
    assert len(history(server, interval="5m", **asked).json["strategy"]) == 200 * 51
    assert len(history(server, interval="1m", strategy_name="s7", **asked).json["strategy"]) == 1000


def test_a_summary_says_what_a_range_comes_to(server: Server) -> None:
    found = read(server, SUMMARY, **RANGE).json
    assert list(found) == ["start", "end", "market_data", "strategy", "execution", "system"]
    market = found["market_data"]
    assert (market["rows"], market["first"], market["last"]) == (
        4,
        f"{DAY}10:00:01.000000Z",
        f"{DAY}10:05:00.000000Z",
    )
    assert market["fields"]["last_price"] == {"min": 9.0, "max": 11.0, "avg": 10.0, "last": 9.0}
    assert market["fields"]["ask"] == {"min": None, "max": None, "avg": None, "last": None}
    assert market["fields"]["volume"]["last"] == 7.0
    assert found["strategy"]["fields"]["pnl"] == {"min": -2.5, "max": 1.5, "avg": -0.5, "last": -2.5}
    assert read(server, SUMMARY, symbol="tsla", **RANGE).json["market_data"]["rows"] == 1
    empty = read(server, SUMMARY, start="2020-01-01", end="2020-01-02").json["execution"]
    assert (empty["rows"], empty["first"], empty["last"]) == (0, None, None)


@pytest.mark.long
def test_a_read_key_is_enough_and_no_other_scope_is(data_template: Path) -> None:
    with running(data_template, environ=KEYS) as server:
        for method, path in (("POST", HISTORY), ("GET", SUMMARY), ("GET", CURRENT)):
            body = b"{}" if method == "POST" else None
            assert ask(server, method, path, body).status == 401
            assert ask(server, method, path, body, {"X-API-Key": KEYS["TICKHUB_API_KEY_INGEST"]}).status == 403
            assert ask(server, method, path, body, {"X-API-Key": KEYS["TICKHUB_API_KEY_READ"]}).status == 200


def test_no_dataset_takes_the_name_of_another_route() -> None:
    create_app()  # its modules declare the endpoints
    declared = [(one.method, one.path) for one in ENDPOINTS]
    assert len(set(declared)) == len(declared), "two views of one route: which is asked is chance"
    heads = {path.split("/")[2] for _, path in declared if path.count("/") > 2 and path.startswith("/api/")}
    assert {"metrics", "history", "ticks", "quotes", "options"} <= heads
    # Below /api/financial_info is the same data in a shape of its own.
    assert DATASETS.keys() & (heads | {"quotes", "symbols", "bars", "alert_rules"}) <= {"financial_info"}


def test_the_newest_of_all_groups_comes_from_every_worker_and_live(pair: Server) -> None:
    now = datetime.now(UTC)
    send(pair, "VIX", bid=20.0, ask=20.5)
    ingest(pair, "strategy_metrics", {"strategy_name": "mean", "timestamp": now.isoformat(), "pnl": 1.5})
    ingest(pair, "strategy_metrics", {"strategy_name": "old", "timestamp": "2026-01-01T00:00:00Z", "win_rate": 0.5})
    ingest(pair, "execution_metrics", {"timestamp": now.isoformat(), "orders_filled": 4})
    soon = (now + timedelta(seconds=50)).isoformat()  # so that nothing which is collected is newer
    ingest(pair, "system_metrics", {"host": "one", "timestamp": soon, "cpu_percent": 12.5, "health_status": "fine"})
    ingest(pair, "market_data", {"symbol": "VIX", "timestamp": soon, "volume": 3.5, "trades": 2, "last_price": 1.0})

    def right(found: dict[str, Any]) -> bool:
        strategies, vix = found["strategy"], found["market_data"].get("VIX", {})
        return (
            strategies.get("mean", {}).get("pnl") == 1.5
            and strategies.get("old", {}).get("win_rate") == 0.5
            and found["execution"].get("orders_filled") == 4
            and (found["system"]["host"], found["system"]["cpu_percent"]) == ("one", 12.5)
            and found["system"]["health_status"] == "fine"
            and (vix.get("last_price"), vix.get("volume"), vix.get("trades")) == (20.0, 3.5, 2)
        )

    # Each connection is taken by either worker: all that answer must know it in the end, and go on knowing it.
    wait_until(lambda: all(right(read(pair, CURRENT).json) for _ in range(20)), what="both workers to know it")
    with client(pair, "/ws/metrics") as one, client(pair, "/ws/metrics") as other:
        for reader in (one, other):
            wait_until(lambda reader=reader: right(json.loads(reader.ws.recv(20))), what="a frame with all groups")


@pytest.mark.long
def test_with_the_database_away_the_newest_stays_known_and_history_is_refused(make_server: Any) -> None:
    server = make_server()
    server.start().wait_ready()
    ingest(server, "strategy_metrics", {"strategy_name": "mean", "timestamp": f"{DAY}10:00:00Z", "pnl": 1.5})
    server.wait_drained()
    wait_until(lambda: read(server, CURRENT).json["strategy"].get("mean"), what="the record")
    server.database.pause()
    try:
        wait_until(lambda: read(server, "/stats").json["database_status"] == "disconnected", what="it to be missed")
        ingest(server, "strategy_metrics", {"strategy_name": "mean", "timestamp": f"{DAY}10:00:01Z", "pnl": 2.5})
        found = read(server, CURRENT).json
        assert found["strategy"]["mean"]["pnl"] == 2.5
        assert refused(server)[:2] == (503, "database_away")
        assert refusal(server, SUMMARY)[:2] == (503, "database_away")
        with client(server, "/ws/metrics") as reader:
            frames = [json.loads(reader.ws.recv(20)) for _ in range(15)]
        assert all(frame["strategy"]["mean"]["pnl"] == 2.5 for frame in frames)
    finally:
        server.database.resume()
