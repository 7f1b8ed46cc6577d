"""POST /db_command: tables of one symbol, as programs that know DataFrames send them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.process.desk import command, get
from tests.process.harness import Server
from tests.process.wire import AWAY, ask, post, running

KEYS = {
    "TICKHUB_API_KEY_INGEST": "ingest-0123456789",
    "TICKHUB_API_KEY_READ": "read-0123456789ab",
    "TICKHUB_API_KEY_ADMIN": "admin-0123456789a",
}
TIME = "2026-01-13T15:00:00.000000Z"


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--max-body-mb", "1", environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def keyed(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY, environ=KEYS) as server:
        yield server


def ticks(server: Server, symbol: str) -> list[dict[str, Any]]:
    return list(get(server, f"/api/ticks/{symbol}")["ticks"])


def test_a_saved_quote_is_a_tick_with_flags_6_and_a_saved_trade_one_with_24(server: Server) -> None:
    server.database.rows("UPDATE instruments SET digits = 2 WHERE symbol = 'AAPL'")
    quote = {"timestamp": TIME, "price": 190.15, "bid": 190.1, "ask": 190.2, "volume": 7, "spread": 99}
    answer = command(server, "save_realtime_data", ticker="aapl.us", data_type="quote", data=[quote])
    assert (answer.status, answer.json) == (200, {"status": "success", "received": 1})
    trade = {"timestamp": "2026-01-13T15:00:01Z", "price": 190.2, "volume": 100}
    answer = command(server, "save_realtime_data", ticker="AAPL", data_type="trade", data=[trade])
    assert answer.json == {"status": "success", "received": 1}
    first, second = ticks(server, "AAPL")
    names = ("timestamp", "bid", "ask", "last", "volume", "flags", "buy_volume")
    assert [first[name] for name in names] == [TIME, 190.1, 190.2, 190.15, 7, 6, 0]
    assert [second[name] for name in names] == ["2026-01-13T15:00:01.000000Z", None, None, 190.2, 100, 24, 0]
    assert (first["spread"], second["spread"]) == (pytest.approx(10), None), "computed, whatever was sent"
    # Sent again nothing changes.
    command(server, "save_realtime_data", ticker="AAPL", data_type="trade", data=[trade], on_duplicate="update")
    assert ticks(server, "AAPL") == [first, second]


@pytest.mark.parametrize(
    ("index_col", "orient"), [("index", "index"), ("Date", "Date"), ("timestamp", "timestamp"), (None, "Datetime")]
)
def test_a_data_frame_comes_in_as_its_records(server: Server, index_col: str | None, orient: str) -> None:
    symbol = {"index": "TSLA", "Date": "NVDA", "timestamp": "MSFT", "Datetime": "ORCL"}[orient]
    frame = pd.DataFrame(
        {"bid": [10.0, math.nan, 12.0], "ask": [10.5, 11.5, 12.5], "price": [10.2, 11.2, math.nan]},
        index=pd.date_range("2026-01-13 15:00", periods=3, freq="min", tz="UTC", name=orient),
    )
    rows = frame.reset_index().assign(**{orient: lambda table: table[orient].astype(str)}).to_dict("records")
    assert "NaN" in json.dumps(rows), "as Python writes what JSON has no word for"
    more = {} if index_col is None else {"index_col": index_col}
    answer = command(server, "save_realtime_data", ticker=symbol, data_type="quote", data=rows, **more)
    assert answer.json == {"status": "success", "received": 3}
    found = [(one["timestamp"], one["bid"], one["ask"], one["last"]) for one in ticks(server, symbol)]
    assert found == [
        ("2026-01-13T15:00:00.000000Z", 10.0, 10.5, 10.2),
        ("2026-01-13T15:01:00.000000Z", None, 11.5, 11.2),
        ("2026-01-13T15:02:00.000000Z", 12.0, 12.5, None),
    ]
    # And as pandas itself writes JSON: null for NaN; with epoch milliseconds for times.
    plain = frame.assign(**{orient: frame.index.as_unit("ms").asi8}).reset_index(drop=True)
    rows = json.loads(plain.to_json(orient="records"))
    answer = command(server, "save_realtime_data", ticker=symbol, data_type="quote", data=rows, **more)
    assert answer.json["received"] == 3
    assert len(ticks(server, symbol)) == 3, "the same ticks"


def test_option_quotes_are_saved_by_their_underlying(server: Server) -> None:
    row = {
        "expiration_date": "2026-02-20T00:00:00.000",
        "strike_price": 190,
        "option_type": "Call",
        "bid": 4.0,
        "ask": 4.2,
        "in_the_money": math.nan,
        "implied_volatility": 0.3,
        "quoted": TIME,
    }
    answer = command(server, "save_options_data", ticker="AAPL", data_type="options", data=[row], index_col="quoted")
    assert (answer.status, answer.json) == (200, {"status": "success", "received": 1})
    (found,) = get(server, "/api/options/AAPL")["options"]
    assert (found["expiration_date"], found["strike_price"], found["option_type"]) == ("2026-02-20", 190.0, "call")
    assert (found["bid"], found["ask"], found["implied_volatility"], found["timestamp"]) == (4.0, 4.2, 0.3, TIME)
    # data_type names the type of those that do not.
    puts = [{name: value for name, value in row.items() if name != "option_type"}]
    assert command(server, "save_options_data", ticker="AAPL", data_type="puts", data=puts, index_col="quoted").json
    assert [one["option_type"] for one in get(server, "/api/options/AAPL")["options"]] == ["call", "put"]


def test_ratios_are_saved_and_a_second_row_of_a_day_does_what_is_asked_of_it(server: Server) -> None:
    row = {"date": "2026-01-13", "price": 190.0, "pe_ratio": 30.5, "market_cap": math.nan}
    answer = command(server, "save_financial_info", ticker="AMD", data=row, index_col="date")
    assert (answer.status, answer.json) == (200, {"status": "success", "received": 1})
    expected = {"ticker": "AMD", "date": "2026-01-13", "price": 190.0, "market_cap": None, "pe_ratio": 30.5}
    expected |= dict.fromkeys(("pb_ratio", "dividend_yield", "iv_30d", "iv_rank"))
    assert get(server, "/api/financial_info/AMD") == expected
    command(server, "save_financial_info", ticker="AMD", data=[row | {"pe_ratio": 31}], on_duplicate="ignore")
    assert get(server, "/api/financial_info/AMD") == expected
    command(server, "save_financial_info", ticker="AMD", data=[{"Date": "2026-01-13", "pe_ratio": 31}])
    assert get(server, "/api/financial_info/AMD") == expected | {"pe_ratio": 31.0}
    command(server, "save_financial_info", ticker="AMD", data=[row | {"pe_ratio": 32}], on_duplicate="error")
    assert get(server, "/api/financial_info/AMD") == expected | {"pe_ratio": 31.0}
    rejected = server.database.rows("SELECT code FROM rejected_records WHERE dataset = 'financial_info'")
    assert rejected == [("conflict",)]


def test_each_row_is_judged_by_itself_and_may_have_a_symbol_of_its_own(server: Server) -> None:
    rows = [
        {"timestamp": TIME, "price": 1.5},
        {"timestamp": TIME},
        {"price": 1.5},
        5,
        {"timestamp": TIME, "price": 1.5, "symbol": "FOO"},
        {"timestamp": TIME, "price": math.inf},
        {"timestamp": "never", "price": 1.5},
        {"timestamp": TIME, "price": 2.5, "ticker": "cscO", "volume": 3},
    ]
    answer = command(server, "save_realtime_data", ticker="INTC", data_type="trade", data=rows)
    assert (answer.status, answer.json["status"], answer.json["received"]) == (200, "partial", 2)
    told = [(one["index"], one["code"], one["message"]) for one in answer.json["rejected"]]
    assert told == [
        (1, "missing_field", "Missing required fields: price"),
        (2, "missing_field", "Missing required fields: timestamp"),
        (3, "bad_field", "a record must be an object"),
        (4, "unknown_symbol", "Unknown symbol: FOO"),
        (5, "bad_field", "last must be a finite number"),
        (6, "bad_field", "timestamp is not a time: 'never'"),
    ]
    assert [one["last"] for one in ticks(server, "INTC")] == [1.5]
    assert [(one["last"], one["volume"]) for one in ticks(server, "CSCO")] == [(2.5, 3)]
    alone = command(server, "save_financial_info", ticker="FOO", data=[{"date": "2026-01-13"}])
    assert (alone.status, alone.json["code"], alone.json["message"]) == (400, "unknown_symbol", "Unknown symbol: FOO")
    quote = command(server, "save_realtime_data", data_type="quote", data=[{"timestamp": TIME}])
    assert (quote.status, quote.json["code"]) == (400, "missing_field")
    assert quote.json["message"] == "Missing required fields: ticker, bid, ask"


def test_nothing_to_save_is_no_error(server: Server) -> None:
    answer = command(server, "save_options_data", ticker="AAPL", data=[])
    assert (answer.status, answer.json) == (200, {"status": "success", "received": 0})


@pytest.mark.parametrize(
    ("sent", "code", "about"),
    [
        (b"{", "bad_json", "JSON"),
        (b"[]", "bad_field", "the body must be an object"),
        (b"{}", "missing_field", "command"),
        ({"command": 5, "params": {}}, "bad_field", "command"),
        ({"command": "drop_everything", "params": {}}, "unknown_command", "drop_everything"),
        ({"command": "save_financial_info"}, "missing_field", "params"),
        ({"command": "save_financial_info", "params": []}, "bad_field", "params"),
        ({"command": "save_financial_info", "params": {"ticker": "AAPL"}}, "missing_field", "data"),
        ({"command": "save_financial_info", "params": {"data": "x"}}, "bad_field", "data"),
        ({"command": "save_financial_info", "params": {"data": [], "ticker": 5}}, "bad_field", "ticker"),
        ({"command": "save_financial_info", "params": {"data": [], "index_col": []}}, "bad_field", "index_col"),
        ({"command": "save_financial_info", "params": {"data": [], "on_duplicate": "merge"}}, "bad_field", "on_dupl"),
        ({"command": "save_options_data", "params": {"data": [], "data_type": 5}}, "bad_field", "data_type"),
        ({"command": "save_realtime_data", "params": {"data": []}}, "missing_field", "data_type"),
        ({"command": "save_realtime_data", "params": {"data": [], "data_type": "bar"}}, "bad_field", "data_type"),
    ],
)
def test_what_is_no_command_is_a_400_that_says_why(server: Server, sent: Any, code: str, about: str) -> None:
    answer = post(server, sent if isinstance(sent, bytes) else json.dumps(sent).encode(), "/db_command")
    assert (answer.status, answer.json["code"]) == (400, code), answer
    assert about in answer.json["message"]


def test_a_large_table_is_taken_and_one_that_is_too_large_is_not(server: Server) -> None:
    rows = [{"timestamp": 1_768_316_400_000 + number, "price": 5.5, "volume": 1} for number in range(10_000)]
    answer = command(server, "save_realtime_data", ticker="META", data_type="trade", data=rows)
    assert answer.json == {"status": "success", "received": len(rows)}
    assert server.database.rows(
        "SELECT count(*) FROM ticks JOIN instruments USING (symbol_id) WHERE symbol = 'META'"
    ) == [(len(rows),)]
    answer = command(server, "save_realtime_data", ticker="META", data_type="trade", data=rows * 3)
    assert (answer.status, answer.json["code"]) == (413, "too_large")


def test_only_a_key_that_may_send_may_command(keyed: Server) -> None:
    body = {"command": "save_financial_info", "params": {"ticker": "AAPL", "data": {"date": "2026-01-13"}}}
    answers = {
        scope: ask(keyed, "POST", "/db_command", json.dumps(body), {"X-API-Key": KEYS[f"TICKHUB_API_KEY_{scope}"]})
        for scope in ("INGEST", "READ", "ADMIN")
    }
    # The database is away: what is acknowledged is on disk all the same.
    assert [answers[scope].status for scope in ("INGEST", "READ", "ADMIN")] == [200, 403, 200]
    assert ask(keyed, "POST", "/db_command", json.dumps(body)).status == 401
    stats = ask(keyed, "GET", "/stats", headers={"X-API-Key": KEYS["TICKHUB_API_KEY_READ"]}).json
    assert stats["buffer_size"] == 2
