"""Two tickhubs: a quote that is stale here is read from the other, stored, and answered; trouble there is none here."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.wire import tick

TEN_MINUTES_MS = 600_000
PATIENT = ("--upstream-timeout-s", "20", "--stale-data-timeout", "300")
"""For a machine that is busy: these tests are not about how long it takes."""


def quote(server: Server, symbol: str) -> dict[str, Any]:
    status, answer, _ = server.request("GET", f"/api/quotes/{symbol}")
    assert status == 200, answer
    return dict(answer)


def fresh(**changes: Any) -> dict[str, Any]:
    return tick(flags=6, timestamp=time.time_ns() // 1_000_000) | changes


def old(**changes: Any) -> dict[str, Any]:
    found = fresh(**changes)
    return found | {"timestamp": found["timestamp"] - TEN_MINUTES_MS}


def stored(server: Server, symbol: str) -> list[float]:
    server.wait_drained()
    # A worker that has just started answers 503 until it is connected.
    answer = wait_until(
        lambda: (one := server.request("GET", f"/api/ticks/{symbol}"))[0] == 200 and one[1], what="the ticks"
    )
    return [one["bid"] for one in answer["ticks"]]


@pytest.mark.long
def test_a_stale_quote_is_read_through_and_stored_once(make_server: MakeServer) -> None:
    other = make_server(*PATIENT[2:]).start()
    here = make_server("--upstream-url", f"http://127.0.0.1:{other.port}", *PATIENT, workers=2).start()
    other.wait_ready()
    here.wait_ready()
    assert here.post([old(symbol="TSLA", bid=100.0), fresh(symbol="NVDA", bid=50.0)])[0] == 200
    newer = [fresh(symbol="TSLA", bid=110.0, ask=110.5), fresh(symbol="NVDA", bid=60.0)]
    assert other.post(newer)[0] == 200
    there = quote(other, "TSLA")

    def read_through() -> Any:
        found = quote(here, "tsla.us")
        # A worker that has just started does not know what a price is counted from.
        return not found["stale"] and found["change"] is not None and found

    found = wait_until(read_through, what="the quote from upstream")
    assert (found["bid"], found["ask"], found["timestamp"]) == (110.0, 110.5, there["timestamp"])
    assert found["change"] == 10.0, "it counts from what is known here"
    assert quote(here, "NVDA")["bid"] == 50.0, "what is fresh here is asked of nobody"
    for _ in range(3):
        quote(here, "TSLA")
    assert stored(here, "TSLA") == [100.0, 110.0]

    # One that was never seen here, among all, in TradingView's words as well.
    assert other.post([fresh(symbol="AMD", bid=70.0)])[0] == 200

    def of_all() -> Any:
        quotes = here.request("GET", "/api/quotes")[1]["quotes"]
        return next(one for one in quotes if one["symbol"] == "AMD")["bid"]

    assert wait_until(of_all, what="a quote that only upstream has") == 70.0
    (udf,) = here.request("GET", "/udf/quotes?symbols=AMD")[1]["d"]
    assert udf["v"]["bid"] == 70.0
    assert stored(here, "AMD") == [70.0]


@pytest.mark.long
def test_an_older_quote_of_upstream_changes_nothing(make_server: MakeServer) -> None:
    other = make_server().start()
    here = make_server("--upstream-url", f"http://127.0.0.1:{other.port}", *PATIENT).start()
    other.wait_ready()
    here.wait_ready()
    newer = old(symbol="TSLA", bid=100.0)
    assert here.post([newer])[0] == 200
    assert other.post([newer | {"timestamp": newer["timestamp"] - 1000, "bid": 90.0}])[0] == 200
    for _ in range(3):
        found = quote(here, "TSLA")
        assert (found["bid"], found["stale"]) == (100.0, True)
    assert stored(here, "TSLA") == [100.0]


@pytest.mark.long
def test_an_upstream_in_trouble_leaves_quotes_stale_and_nothing_else(make_server: MakeServer) -> None:
    other = make_server().start()
    here = make_server("--upstream-url", f"http://127.0.0.1:{other.port}", "--upstream-timeout-s", "1").start()
    other.wait_ready()
    here.wait_ready()
    assert here.post([old(symbol="TSLA", bid=100.0)])[0] == 200
    hung = [*other.worker_pids()]
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    try:
        found = quote(here, "TSLA")
        assert (found["bid"], found["stale"]) == (100.0, True)
    finally:
        for pid in hung:
            os.kill(pid, signal.SIGCONT)
    other.stop()
    found = quote(here, "TSLA")
    assert (found["bid"], found["stale"]) == (100.0, True)
    assert here.log().count("cannot be read") == 1, "once, however many asked"

    # It comes back, and is asked again by itself.
    other.start().wait_ready()
    assert other.post([fresh(symbol="TSLA", bid=110.0)])[0] == 200
    wait_until(lambda: quote(here, "TSLA")["bid"] == 110.0, what="the quote from upstream")
    assert "answers again" in here.log()


@pytest.mark.long
def test_two_that_ask_each_other_come_to_an_end(make_server: MakeServer) -> None:
    one, two = make_server(), make_server()
    one.flags += ["--upstream-url", f"http://127.0.0.1:{two.port}", *PATIENT]
    two.flags += ["--upstream-url", f"http://127.0.0.1:{one.port}", *PATIENT]
    one.start()
    two.start().wait_ready()
    one.wait_ready()
    assert one.post([old(symbol="TSLA", bid=100.0)])[0] == 200
    assert (quote(one, "TSLA")["bid"], quote(one, "TSLA")["stale"]) == (100.0, True)
    assert wait_until(lambda: quote(two, "TSLA")["bid"], what="the only quote that there is") == 100.0
    assert "cannot be read" not in one.log() + two.log()


@pytest.mark.long
def test_no_quote_is_read_through_outside_market_hours(make_server: MakeServer) -> None:
    other = make_server().start()
    here = make_server("--upstream-url", f"http://127.0.0.1:{other.port}", *PATIENT).start()
    other.wait_ready()
    here.wait_ready()
    hours = closed_now()
    body = f'{{"symbol": "QUIET", "exchange": "{hours}"}}'.encode()
    for server in (here, other):
        assert server.request("POST", "/api/symbols", body)[0] == 201
    assert here.post([old(symbol="QUIET", bid=100.0)])[0] == 200
    assert other.post([fresh(symbol="QUIET", bid=110.0)])[0] == 200
    found = quote(here, "QUIET")
    assert (found["bid"], found["stale"]) == (100.0, False)


def closed_now() -> str:
    """An exchange that is closed, and is so for an hour."""
    from app.market.sessions import in_market_hours

    now_us = time.time_ns() // 1000
    times = [now_us + minutes * 60_000_000 for minutes in range(-5, 60, 5)]
    return next(
        exchange
        for exchange in ("XNYS", "XTKS", "XLON", "XHKG", "XASX")
        if not any(in_market_hours(moment, exchange) for moment in times)
    )
