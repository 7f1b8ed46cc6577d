"""An instrument's exchange decides what its change is counted from: in quotes, in TradingView's words and on /ws."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.process.harness import Server, wait_until
from tests.process.live import client
from tests.process.wire import ask, running, tick


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        yield server
        assert "Traceback" not in server.log()


def at(text: str, zone: str) -> int:
    """Epoch milliseconds of a wall time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def add(server: Server, **fields: Any) -> dict[str, Any]:
    # A worker that has just started answers 503 until it is connected.
    answer = wait_until(
        lambda: (one := ask(server, "POST", "/api/symbols", json.dumps(fields))).status != 503 and one,
        what="a worker that is connected",
    )
    assert answer.status == 201, answer
    return dict(answer.json)


def change_everywhere(server: Server, symbol: str) -> Any:
    """The change and the close that it is counted from, once everybody says the same."""

    def agreed() -> Any:
        quote = ask(server, "GET", f"/api/quotes/{symbol}").json
        udf = ask(server, "GET", f"/udf/quotes?symbols={symbol}").json["d"][0]["v"]
        with client(server) as reader:
            reader.subscribe(symbol)
            snapshot = reader.next("quote")
        changes = {quote["change"], udf["ch"], snapshot["change"]}
        percents = {quote["change_percent"], udf["chp"], snapshot["change_percent"]}
        return len(changes) == len(percents) == 1 and (quote["change"], udf["prev_close_price"])

    return wait_until(agreed, what="a change that all agree on")


@pytest.mark.parametrize(
    ("symbol", "exchange", "zone", "prices", "expected"),
    [
        (
            "DESK.N",
            "NASDAQ",
            "America/New_York",
            {
                "2026-01-09T15:59:00": 100.0,
                "2026-01-09T16:00:02": 101.0,  # the closing auction
                "2026-01-09T18:00:00": 105.0,
                "2026-01-12T10:00:00": 110.0,
            },
            (9.0, 101.0),
        ),
        (
            "DESK.C",
            "CME",
            "America/Chicago",
            {"2026-01-09T15:59:00": 100.0, "2026-01-11T17:30:00": 102.0, "2026-01-12T08:00:00": 104.0},
            (4.0, 100.0),
        ),
        (
            "DESK.F",
            "FX",
            "America/New_York",
            {"2026-01-09T16:59:00": 1.1, "2026-01-11T17:05:00": 1.2, "2026-01-11T23:59:00": 1.25},
            (0.15, 1.1),
        ),
    ],
)
def test_a_change_counts_from_the_close_of_the_session_before(
    server: Server, symbol: str, exchange: str, zone: str, prices: dict[str, float], expected: tuple[float, float]
) -> None:
    add(server, symbol=symbol, exchange=exchange)
    for text, price in prices.items():
        status, answer = server.post([tick(symbol=symbol, bid=price, flags=6, timestamp=at(text, zone))])
        assert (status, answer["received"]) == (200, 1), answer
    server.wait_drained()
    assert change_everywhere(server, symbol) == expected


def test_what_an_instrument_is_can_be_told_and_read(server: Server) -> None:
    told = {"symbol": "TOLD", "exchange": "HOSE", "sector": "Banks", "industry": "Retail banks", "market_cap": 4.5e14}
    added = add(server, **told)
    assert {name: added[name] for name in told} == told
    listed = {one["symbol"]: one for one in ask(server, "GET", "/api/symbols").json["symbols"]}
    assert listed["TOLD"] == added
    assert (listed["TSLA"]["sector"], listed["TSLA"]["market_cap"]) == (None, None)
    assert add(server, symbol="SOMEWHERE", exchange="MyBroker")["calendar"] is None
    assert (listed["TOLD"]["calendar"], listed["TSLA"]["calendar"]) == ("XSTC", None)
    for wrong in ({"market_cap": -1}, {"market_cap": "much"}, {"sector": "x" * 201}, {"industry": 5}):
        answer = ask(server, "POST", "/api/symbols", json.dumps({"symbol": "WRONG"} | wrong))
        assert (answer.status, answer.json["code"]) == (400, "bad_field")
        assert next(iter(wrong)) in answer.json["message"]
