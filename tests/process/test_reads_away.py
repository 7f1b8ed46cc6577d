"""Reads while the database is dead or hangs: quotes from memory, the rest refused with when to come again, and back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.live import client, trade
from tests.process.proxy import Proxy
from tests.process.reading import DAY_MS, made_ticks, read, rows_of, store
from tests.process.wire import ask, tick

NEEDS_DATABASE = [
    "/api/symbols",
    "/api/ticks/AAPL",
    "/api/ticks/AAPL?start=2026-01-13&end=2026-01-14",
    "/api/ticks/AAPL?start=2026-01-13&format=csv",
    "/api/ticks/AAPL?start=2026-01-13&format=arrow",
    "/api/ticks/FOO",
    "/api/bars/AAPL",
    "/api/bars/AAPL?interval=1s&format=ndjson&start=0",
    "/udf/symbols?symbol=AAPL",
    "/udf/search?query=A",
    "/udf/history?symbol=AAPL&resolution=1&from=0&to=1999999999",
]


def quote(server: Server, symbol: str) -> dict[str, Any]:
    answer = ask(server, "GET", f"/api/quotes/{symbol}")
    assert answer.status == 200, answer
    return dict(answer.json)


def kill(server: Server) -> Callable[[], None]:
    """Kill the database, and let it not come back until the returned function is called."""
    settings = server.home / "postgres" / "postgresql.auto.conf"
    text = settings.read_text()
    settings.write_text(f"{text}\nno_such_setting = 1\n")
    server.database.remove()
    return lambda: settings.write_text(text) and None


def pause(server: Server) -> Callable[[], None]:
    server.database.pause()
    return server.database.resume


@pytest.mark.long
@pytest.mark.parametrize("trouble", [kill, pause])
def test_without_the_database_quotes_go_on_and_the_rest_is_told_to_come_again(
    make_server: MakeServer, trouble: Callable[[Server], Callable[[], None]]
) -> None:
    server = make_server(environ={"TICKHUB_QUOTE_TIMEOUT_S": "1", "TICKHUB_PAGE_TIMEOUT_S": "2"}).start().wait_ready()
    store(server, made_ticks("AAPL", range(DAY_MS, DAY_MS + 100)))
    store(server, [tick(symbol="TSLA", bid=10.0, flags=6)])
    before = quote(server, "AAPL"), quote(server, "TSLA")
    ticks_before = rows_of(server, "/api/ticks/AAPL")
    undo = trouble(server)
    try:
        assert (quote(server, "aapl.us"), quote(server, "TSLA")) == before
        assert server.post([tick(symbol="TSLA", bid=11.0, flags=6)])[0] == 200
        assert quote(server, "TSLA")["bid"] == 11.0
        assert {found["symbol"] for found in ask(server, "GET", "/api/quotes").json["quotes"]} >= {"AAPL", "TSLA"}
        some = ask(server, "GET", "/api/quotes?symbols=TSLA,AAPL").json
        assert [found["symbol"] for found in some["quotes"]] == ["TSLA", "AAPL"]
        udf = ask(server, "GET", "/udf/quotes?symbols=TSLA").json
        assert udf["d"][0]["v"]["bid"] == 11.0
        wait_until(lambda: server.status("/health") == 503, what="the loss to be noticed")
        for path in NEEDS_DATABASE:
            answer = ask(server, "GET", path)
            assert (answer.status, answer.json["code"]) == (503, "database_away"), (path, answer)
            assert int(answer.headers["retry-after"]) >= 1
        for path in ("/api/ticks/AAPL?limit=0", "/api/bars/AAPL?interval=7m", "/api/ticks/AAPL?foo=1"):
            assert ask(server, "GET", path).status == 400, path
        body = b'{"symbol":"NEW"}'
        added = ask(server, "POST", "/api/symbols", body, {"Content-Type": "application/json"})
        assert (added.status, added.json["code"]) == (503, "database_away")
    finally:
        undo()
    server.wait_ready()
    wait_until(lambda: read(server, "/api/ticks/AAPL").status == 200, what="reads to be back")
    assert rows_of(server, "/api/ticks/AAPL") == ticks_before
    wait_until(lambda: len(rows_of(server, "/api/ticks/TSLA")) == 2, what="the tick that came meanwhile")
    assert quote(server, "TSLA")["bid"] == 11.0
    assert rows_of(server, "/api/bars/TSLA", interval="1M")[-1]["close"] == 11.0
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_worker_that_has_just_begun_looks_for_the_database_before_it_calls_it_away(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url)
    server.database = database
    proxy.open()
    server.start().wait_ready()
    store(server, [trade(number, "AAPL") for number in range(3)])
    proxy.delay_s = 0.05  # of each answer: the first look takes some of them
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGKILL)
    # The master has the socket: whoever connects now is the next worker's first client.
    with ThreadPoolExecutor() as pool:
        page = pool.submit(ask, server, "GET", "/api/ticks/AAPL")
        with client(server) as reader:
            reader.subscribe("*", channels=["trades"], since="2020-01-01")
            assert [reader.next("trade", "replay_complete")["type"] for _ in range(4)][-1] == "replay_complete"
        assert (page.result().status, len(page.result().json["ticks"])) == (200, 3), page.result()
