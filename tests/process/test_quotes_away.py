"""Quotes count from acceptance, and are answered while the database is away."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.proxy import Proxy
from tests.process.wire import tick


def quote(server: Server, symbol: str) -> dict[str, Any]:
    status, answer, _ = server.request("GET", f"/api/quotes/{symbol}")
    assert status == 200, answer
    return dict(answer)


@pytest.mark.long
def test_quotes_are_answered_from_memory_while_the_database_is_away(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url, "--quote-timeout-s", "1")
    server.database = database
    proxy.open()
    server.start().wait_ready()
    yesterday, today, later = (tick(symbol="AAPL", flags=6) for _ in range(3))
    yesterday |= {"timestamp": yesterday["timestamp"] - 48 * 3_600_000, "bid": 180.0}
    assert server.post([yesterday, today])[0] == 200
    server.wait_drained()
    before = quote(server, "AAPL.US")
    assert (before["symbol"], before["bid"], before["change"]) == ("AAPL", 190.1, 10.1)
    unasked = wait_until(lambda: quote(server, "TSLA"), what="a quote without ticks")
    assert (unasked["price"], unasked["stale"]) == (None, True)

    for trouble in (proxy.close, proxy.swallow):
        trouble()
        assert quote(server, "AAPL") == before
        assert server.post([later | {"bid": (bid := before["bid"] + 1)}])[0] == 200
        after = quote(server, "AAPL")
        assert (after["bid"], after["change"]) == (bid, round(bid - 180.0, 6))
        status, everything, _ = server.request("GET", "/api/quotes")
        assert (status, len(everything["quotes"]), everything["rejected"]) == (200, 17, [])
        assert after in everything["quotes"]
        status, refused, _ = server.request("GET", "/api/ticks/AAPL")
        assert (status, refused["code"]) == (503, "database_away")
        proxy.open()
        server.wait_drained()
        before, later = quote(server, "AAPL"), tick(symbol="AAPL", flags=6)
        assert before == after


@pytest.mark.long
def test_a_worker_that_never_was_asked_knows_the_quotes_when_the_database_goes(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url)
    server.database = database
    proxy.open()
    server.start().wait_ready()
    assert server.post([tick(symbol="NVDA", bid=5.5, flags=6)])[0] == 200
    server.wait_drained()
    server.stop()
    server.start().wait_ready()

    def known_without_a_database() -> bool:
        proxy.close()
        wait_until(lambda: server.status("/health") == 503, what="the loss to be noticed")
        status, answer, _ = server.request("GET", "/api/quotes/NVDA")
        assert (status, answer.get("code", "")) in ((200, ""), (503, "database_away"))
        known = status == 200 and answer["price"] == 5.5
        proxy.open()
        server.wait_ready()
        return known

    wait_until(known_without_a_database, what="the quotes to have been read")


@pytest.mark.long
def test_a_worker_begun_without_the_database_says_so_instead_of_giving_nulls(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url)
    server.database = database
    proxy.open()
    server.start().wait_ready()
    yesterday, today, later = (tick(symbol="AAPL", flags=6) for _ in range(3))
    yesterday |= {"timestamp": yesterday["timestamp"] - 48 * 3_600_000, "bid": 180.0}
    assert server.post([yesterday, today])[0] == 200
    server.wait_drained()
    server.stop()
    proxy.close()
    server.start().wait_accepting()
    status, refused, _ = server.request("GET", "/api/quotes/AAPL")
    assert (status, refused["code"]) == (503, "database_away")
    for path, names in (("/api/quotes?symbols=aapl.us,TSLA", ["AAPL", "TSLA"]), ("/api/quotes", None)):
        status, some, _ = server.request("GET", path)
        assert (status, some["quotes"]) == (200, [])
        assert {one["code"] for one in some["rejected"]} == {"database_away"}
        assert names is None or [one["symbol"] for one in some["rejected"]] == names
    # What comes in meanwhile is known; what yesterday's price was is not.
    assert server.post([later | {"bid": 191.0}])[0] == 200
    alone = wait_until(lambda: _of_the_worker_that_has_it(server), what="the worker that took the tick")
    assert (alone["bid"], alone["change"], alone["change_percent"]) == (191.0, None, None)
    proxy.open()
    server.wait_drained()
    wait_until(lambda: server.request("GET", "/api/quotes/AAPL")[0] == 200, what="the quote of the database")
    found = quote(server, "AAPL")
    assert (found["bid"], found["change"]) == (191.0, 11.0)


def _of_the_worker_that_has_it(server: Server) -> dict[str, Any] | None:
    status, answer, _ = server.request("GET", "/api/quotes/AAPL")
    return dict(answer) if status == 200 else None
