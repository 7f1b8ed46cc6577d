"""GET /api/stock_info and /api/financial_info: a stock's price and where it is from, days, ratios and news."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.desk import command, flushed, get, real_days, send
from tests.process.harness import Server, wait_until
from tests.process.reading import refusal
from tests.process.wire import ask, running, tick
from tests.real_market import real_data

KEYS = {"TICKHUB_API_KEY_INGEST": "ingest-0123456789", "TICKHUB_API_KEY_READ": "read-0123456789ab"}
RATIOS = ("date", "price", "market_cap", "pe_ratio", "pb_ratio", "dividend_yield", "iv_30d", "iv_rank")
TEN_MINUTES_MS = 600_000


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        wait_until(lambda: all(server.status("/api/symbols") == 200 for _ in range(20)), what="both workers' databases")
        yield server
        assert "Traceback" not in server.log()


def info(server: Server, ticker: str, **params: Any) -> dict[str, Any]:
    return get(server, f"/api/stock_info/{ticker}", **params)


def latest(server: Server, ticker: str) -> tuple[Any, Any, Any]:
    """Return price, time and source of the latest price, which the whole answer must agree with."""
    found = get(server, f"/api/stock_info/{ticker}/latest")
    assert list(found) == ["ticker", "price", "timestamp", "source"]
    whole = info(server, ticker)["price_info"]
    told = (found["price"], found["timestamp"], found["source"])
    assert (whole["current_price"], whole["timestamp"], whole["source"]) == told
    return told


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def day(symbol: str, date: str, close: float, **more: Any) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return {"symbol": symbol, "interval": "1d", "timestamp": date, "source": "vendor", **prices, **more}


def test_of_a_stock_that_nothing_is_known_of_there_are_nulls_and_empty_lists(server: Server) -> None:
    assert info(server, "VIX") == {
        "ticker": "VIX",
        "price_info": {"current_price": None, "timestamp": None, "source": None},
        "price_data": [],
        "financial_info": dict.fromkeys(RATIOS),
        "news": [],
    }
    assert latest(server, "vix") == (None, None, None)
    assert get(server, "/api/financial_info/VIX") == {"ticker": "VIX"} | dict.fromkeys(RATIOS)


def test_the_price_is_the_fresh_quotes_else_the_stale_ones_else_the_newest_close(server: Server) -> None:
    send(server, "price_history", [day("AAPL", "2025-01-02", 100.0), day("AAPL", "2025-01-03", 101.0)])
    assert latest(server, "AAPL") == (101.0, "2025-01-03T00:00:00.000000Z", "history")
    old = tick(symbol="AAPL", bid=150.0, ask=150.5, timestamp=now_ms() - TEN_MINUTES_MS)
    assert server.post([old])[0] == 200
    known = "/api/stock_info/AAPL/latest"
    wait_until(lambda: all(get(server, known)["price"] == 150.0 for _ in range(20)), what="every worker to know")
    price, moment, source = latest(server, "AAPL")
    assert (price, source) == (150.0, "stale")
    assert server.post([tick(symbol="AAPL", bid=151.0, ask=151.5, timestamp=now_ms())])[0] == 200
    quote = wait_until(lambda: (q := get(server, "/api/quotes/AAPL"))["bid"] == 151.0 and q, what="the quote")
    assert latest(server, "aapl.us") == (151.0, quote["timestamp"], "realtime")
    assert quote["timestamp"] > moment


@pytest.mark.long
def test_a_saved_price_counts_before_it_is_committed_for_every_worker(make_server: MakeServer) -> None:
    settings = {"TICKHUB_FLUSH_INTERVAL_S": "60", "TICKHUB_FLUSH_ROWS": "1000000"}
    server = make_server(workers=2, environ=settings).start().wait_ready()
    wait_until(lambda: all(server.status("/api/symbols") == 200 for _ in range(20)), what="both workers' databases")
    saved = {"timestamp": now_ms(), "price": 10.25, "bid": 10.0, "ask": 10.5}
    body = {"command": "save_realtime_data", "params": {"ticker": "TSLA", "data_type": "quote", "data": saved}}
    assert ask(server, "POST", "/db_command", json.dumps(body)).status == 200

    def told() -> set[Any]:
        return {get(server, "/api/stock_info/TSLA/latest")["price"] for _ in range(20)}  # each on its own connection

    wait_until(lambda: told() == {10.25}, what="both workers to know")
    assert server.stats()["buffer_size"] == 1


def test_a_saved_price_counts_before_the_quotes(server: Server) -> None:
    at = now_ms()
    command(server, "save_realtime_data", ticker="TSLA", data_type="quote", data=[{"timestamp": at - 5, "bid": 9.0}])
    assert latest(server, "TSLA")[0] == 9.0
    saved = {"timestamp": at, "price": 10.25, "bid": 10.0, "ask": 10.5}
    command(server, "save_realtime_data", ticker="TSLA", data_type="quote", data=[saved])
    assert get(server, "/api/quotes/TSLA")["price"] == 10.0, "a quote's price is its bid"
    assert latest(server, "TSLA")[0] == 10.25
    # A newer bid is none; a newer trade is.
    server.post([tick(symbol="TSLA", bid=11.0, ask=11.5, timestamp=at + 1)])
    flushed(server)
    assert latest(server, "TSLA")[0] == 10.25
    command(server, "save_realtime_data", ticker="TSLA", data_type="trade", data=[{"timestamp": at + 2, "price": 12.0}])
    assert latest(server, "TSLA")[0] == 12.0
    # One that is saved late is not the newest.
    command(server, "save_realtime_data", ticker="TSLA", data_type="trade", data=[{"timestamp": at - 9, "price": 1.0}])
    assert latest(server, "TSLA")[0] == 12.0


def test_a_price_that_a_thousand_ticks_did_not_repeat_is_forgotten(server: Server) -> None:
    at = now_ms() - 10_000
    command(server, "save_realtime_data", ticker="NVDA", data_type="quote", data=[{"timestamp": at, "price": 5.0}])
    for count, expected in ((999, 5.0), (1, 7.0)):
        at += 1000
        server.post([tick(symbol="NVDA", bid=7.0, ask=7.5, timestamp=at + number) for number in range(count)])
        flushed(server)
        assert latest(server, "NVDA")[0] == expected


def test_days_are_those_of_the_dates_with_both_ends(server: Server) -> None:
    dates = [f"2023-{month:02}-{number:02}" for month in range(1, 13) for number in (1, 15)] + ["2024-03-01"]
    send(server, "price_history", [day("MSFT", date, 100.0 + number) for number, date in enumerate(dates)])

    def told(**params: Any) -> list[str]:
        return [row["timestamp"][:10] for row in info(server, "MSFT", **params)["price_data"]]

    assert told(start_date="2023-02-01", end_date="2023-03-01") == ["2023-02-01", "2023-02-15", "2023-03-01"]
    assert told(start_date="2023-12-02") == ["2023-12-15", "2024-03-01"]
    assert told() == dates[4:], "the year before the newest day"
    assert told(end_date="2023-01-31") == dates[:2], "the year before that date"
    assert told(end_date="2020-01-01") == []
    assert told(show_price_history="false") == []
    assert told(latest="true") == ["2024-03-01"]
    assert told(latest="true", end_date="2023-06-30") == ["2023-06-15"]
    (row,) = info(server, "MSFT", latest="true")["price_data"]
    assert row == get(server, "/api/history/MSFT/daily", limit=1)["daily"][0]
    for params in ({"end_date": "0001-01-01"}, {"start_date": "0001-01-01", "end_date": "9999-12-31"}):
        assert len(told(**params)) in (0, len(dates))


def test_ratios_are_the_newest_ones_or_what_was_known_on_a_day(server: Server) -> None:
    rows = [
        {"symbol": "ORCL", "date": "2026-01-05", "price": 190.0, "market_cap": 5e11, "pe_ratio": 40.0, "iv_rank": 0.5},
        {"symbol": "ORCL", "date": "2026-01-12", "price": 195.0, "dividend_yield": 0.01},
    ]
    send(server, "financial_info", rows)
    first, second = ({"ticker": "ORCL"} | dict.fromkeys(RATIOS) | row for row in rows)
    del first["symbol"], second["symbol"]
    path = "/api/financial_info/ORCL"
    assert get(server, path) == second
    assert list(get(server, path)) == ["ticker", *RATIOS]
    assert get(server, path, date="2026-01-12") == get(server, path, date="2026-02-01") == second
    assert get(server, path, date="2026-01-11") == get(server, path, date="2026-01-05") == first
    assert get(server, path, date="2026-01-04") == {"ticker": "ORCL"} | dict.fromkeys(RATIOS)
    assert get(server, path, date="9999-12-31") == second
    assert info(server, "ORCL")["financial_info"] == {name: second[name] for name in RATIOS}


def test_news_are_the_newest_first(server: Server) -> None:
    news = [
        {"symbol": "AMD", "timestamp": f"2026-01-13T00:{number:02}:00Z", "url": f"http://x/{number}"} | more
        for number, more in enumerate([{"headline": "a", "summary": 'b "c"', "source": "d"}, *[{}] * 24])
    ]
    send(server, "news", news)
    told = info(server, "AMD")["news"]
    assert [row["url"] for row in told] == [f"http://x/{number}" for number in range(24, 4, -1)]
    assert told[0] == news[24] | {
        "timestamp": "2026-01-13T00:24:00.000000Z",
        "headline": None,
        "summary": None,
        "source": None,
    }
    assert [row["url"] for row in info(server, "AMD", latest="true")["news"]] == ["http://x/24"]


@real_data
def test_real_days_are_answered_as_they_were_sent(server: Server) -> None:
    sent = real_days("AAPL", "INTC")
    for begin in range(0, len(sent), 2000):
        send(server, "price_history", sent[begin : begin + 2000])
    answer = info(server, "INTC", start_date="2014-06-02", end_date="2014-06-13")
    expected = [row for row in sent if "2014-06-02" <= row["timestamp"] <= "2014-06-13"]
    assert len(expected) == 10
    told = [(row["timestamp"][:10], row["open"], row["close"], row["volume"]) for row in answer["price_data"]]
    assert told == [(row["timestamp"], row["open"], row["close"], row["volume"]) for row in expected]
    assert answer["price_info"]["current_price"] == sent[-1]["close"]
    assert answer["price_info"]["source"] == "history"


@pytest.mark.parametrize("path", ["/api/stock_info/FOO", "/api/stock_info/FOO/latest", "/api/financial_info/FOO"])
def test_an_unknown_stock_is_404(server: Server, path: str) -> None:
    assert refusal(server, path) == (404, "unknown_symbol", "Unknown symbol: FOO")


@pytest.mark.parametrize(
    ("path", "params", "name"),
    [
        ("/api/stock_info/AAPL", {"start_date": "yesterday"}, "start_date"),
        ("/api/stock_info/AAPL", {"end_date": "2026-01-13T00:00:00Z"}, "end_date"),
        ("/api/stock_info/AAPL", {"start_date": "2026-01-13", "end_date": "2026-01-12"}, "end_date"),
        ("/api/stock_info/AAPL", {"show_price_history": "maybe"}, "show_price_history"),
        ("/api/stock_info/AAPL", {"latest": "5"}, "latest"),
        ("/api/stock_info/AAPL", {"limit": "5"}, "limit"),
        ("/api/financial_info/AAPL", {"date": "13/01/2026"}, "date"),
    ],
)
def test_a_bad_parameter_is_named(server: Server, path: str, params: dict[str, str], name: str) -> None:
    status, code, message = refusal(server, path, **params)
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith(f"{name}: ")


def test_a_day_that_is_none_is_answered_with_one(server: Server) -> None:
    told = refusal(server, "/api/financial_info/AAPL", date="13/01/2026")
    assert told == (400, "bad_parameter", "date: '13/01/2026' is no day: write 2026-01-13")


@pytest.mark.long
def test_a_stale_price_is_read_from_upstream_and_is_stale_when_that_is_gone(make_server: MakeServer) -> None:
    other = make_server().start()
    upstream = f"http://127.0.0.1:{other.port}"
    here = make_server("--upstream-url", upstream, "--stale-data-timeout", "60").start()
    other.wait_ready()
    here.wait_ready()
    saved = {"timestamp": now_ms() - TEN_MINUTES_MS, "price": 1.0, "bid": 0.5, "ask": 1.5}
    for symbol in ("TSLA", "NVDA"):
        command(here, "save_realtime_data", ticker=symbol, data_type="quote", data=[saved])
    assert other.post([tick(symbol="TSLA", bid=110.0, ask=110.5, timestamp=now_ms())])[0] == 200
    there = wait_until(lambda: (q := get(other, "/api/quotes/TSLA"))["bid"] == 110.0 and q, what="the quote")
    price = wait_until(lambda: (p := latest(here, "TSLA"))[0] != 1.0 and p, what="the price from upstream")
    assert price == (110.0, there["timestamp"], "upstream")
    other.close()
    price, _, source = latest(here, "NVDA")
    assert (price, source) == (1.0, "stale")


@pytest.mark.long
def test_without_the_database_it_is_told_to_come_again_and_only_readers_are_answered(make_server: MakeServer) -> None:
    server = make_server(environ=KEYS).start().wait_ready()
    headers = {scope: {"X-API-Key": KEYS[f"TICKHUB_API_KEY_{scope}"]} for scope in ("INGEST", "READ")}
    settings = server.home / "postgres" / "postgresql.auto.conf"
    settings.write_text(f"{settings.read_text()}\nno_such_setting = 1\n")
    server.database.remove()
    wait_until(lambda: server.status("/health") == 503, what="the loss to be noticed")
    for path in ("/api/stock_info/AAPL", "/api/stock_info/AAPL/latest", "/api/financial_info/AAPL"):
        answer = ask(server, "GET", path, headers=headers["READ"])
        assert (answer.status, answer.json["code"]) == (503, "database_away"), (path, answer)
        assert int(answer.headers["retry-after"]) >= 1
        assert ask(server, "GET", path, headers=headers["INGEST"]).status == 403
        assert ask(server, "GET", path).status == 401
