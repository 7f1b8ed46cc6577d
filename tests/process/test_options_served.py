"""Option quotes from the wire to the chain that is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.option_files import CHAINS, ROW_FIELDS, real_chain
from tests.process.harness import Server
from tests.process.reading import read, refusal, store
from tests.process.wire import post, running, tick
from tests.real_market import real_data

OPTIONS = "/api/options/AAPL"
SETTINGS = {"TICKHUB_FLUSH_INTERVAL_S": "0.01", "TICKHUB_OPTION_RATE": "0.05", "TICKHUB_OPTION_DIVIDEND_YIELD": "0.01"}
SENT = [
    {
        "symbol": "aapl.us",
        "expiration_date": "2026-02-20",
        "strike_price": strike,
        "option_type": kind,
        "timestamp": "2026-01-13T15:00:00Z",
        "bid": 4.0,
        "ask": 4.2,
        "underlying_price": 100.0,
    }
    for strike in (95.0, 100.0, 105.0, 150.0)
    for kind in ("call", "put")
]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ=SETTINGS) as server:
        assert send(server, SENT) == {"status": "success", "received": len(SENT)}
        yield server
        assert "Traceback" not in server.log()


def send(server: Server, records: list[dict[str, Any]]) -> Any:
    answer = post(server, json.dumps(records).encode(), "/ingest/option_quotes", Content_Type="application/json")
    assert answer.status == 200, answer
    server.wait_drained()
    return answer.json


def chain(server: Server, path: str = OPTIONS, **params: Any) -> dict[str, Any]:
    answer = read(server, path, **params)
    assert answer.status == 200, answer
    return dict(answer.json)


def test_what_was_sent_is_answered_with_what_the_model_adds(server: Server) -> None:
    found = chain(server)
    assert (found["ticker"], found["date"]) == ("AAPL", "2026-01-13")
    assert [(row["strike_price"], row["option_type"]) for row in found["options"]] == [
        (row["strike_price"], row["option_type"]) for row in SENT
    ]
    (row,) = [row for row in found["options"] if (row["strike_price"], row["option_type"]) == (100.0, "call")]
    assert tuple(row) == ROW_FIELDS
    assert row["contract_symbol"] == "AAPL  260220C00100000"
    assert row["greeks_source"] == "computed"
    assert row["timestamp"] == "2026-01-13T15:00:00.000000Z"
    assert row["last_price"] is None
    # What QuantLib 1.44 implies from 4.1 for 38.25 days at 5 % and 1 % (blackFormulaImpliedStdDev).
    assert row["implied_volatility"] == pytest.approx(0.3020845678367842, abs=1e-9)


@pytest.mark.parametrize("path", ["/api/options/aapl", "/api/options/AAPL.US"])
def test_any_name_of_the_underlying_will_do(server: Server, path: str) -> None:
    assert chain(server, path) == chain(server)


def test_filters_choose(server: Server) -> None:
    assert len(chain(server, option_type="put", strike_range_percent=5)["options"]) == 3
    assert len(chain(server, max_days_to_expiry=37)["options"]) == 0
    assert len(chain(server, max_days_to_expiry=38, date="2026-01-13")["options"]) == 8
    assert chain(server, date="2026-01-12") == {"ticker": "AAPL", "date": "2026-01-12", "options": []}


def test_an_instrument_without_options_has_none(server: Server) -> None:
    assert chain(server, "/api/options/VIX") == {"ticker": "VIX", "date": None, "options": []}


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"date": "yesterday"}, "date"),
        ({"date": "2026-01-13T00:00:00Z"}, "date"),
        ({"option_type": "CALL"}, "option_type"),
        ({"strike_range_percent": "nan"}, "strike_range_percent"),
        ({"strike_range_percent": "-1"}, "strike_range_percent"),
        ({"max_days_to_expiry": "-1"}, "max_days_to_expiry"),
        ({"max_days_to_expiry": "1.5"}, "max_days_to_expiry"),
        ({"limit": "5"}, "limit"),
    ],
)
def test_a_bad_parameter_is_named(server: Server, params: dict[str, str], name: str) -> None:
    status, code, message = refusal(server, OPTIONS, **params)
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith(f"{name}: ")


def test_an_unknown_underlying_is_404(server: Server) -> None:
    assert refusal(server, "/api/options/FOO")[:2] == (404, "unknown_symbol")


def test_the_underlying_costs_what_its_ticks_say(server: Server) -> None:
    store(server, [tick(symbol="TSLA", timestamp=1_768_316_400_000, bid=101.5, ask=101.6, flags=6)])  # 15:00 UTC
    quote = SENT[0] | {"symbol": "TSLA", "timestamp": "2026-01-13T15:00:30Z"}
    send(server, [{name: value for name, value in quote.items() if name != "underlying_price"}])
    (row,) = chain(server, "/api/options/TSLA")["options"]
    assert (row["underlying_price"], row["in_the_money"]) == (101.5, True)
    assert row["implied_volatility"] is None  # at 4.1 the call would cost less than exercise pays


@real_data
def test_a_real_chain_comes_back_as_it_was_sent(server: Server) -> None:
    day = date(2014, 6, 11)
    _, records = real_chain(day)
    assert send(server, records)["received"] == len(records) == CHAINS[day]
    rows = chain(server, date=str(day))["options"]
    assert len(rows) == len(records)
    sent = {(row["expiration_date"], row["strike_price"], row["option_type"]): row for row in records}
    for row in rows:
        record = sent[row["expiration_date"], row["strike_price"], row["option_type"]]
        for name in ("last_price", "volume", "open_interest", "delta", "vega", "underlying_price"):
            assert row[name] == record.get(name), (row, name)
    # Sent again they are duplicates, and change nothing.
    send(server, records)
    assert chain(server, date=str(day))["options"] == rows
