"""Trades and bars on /ws, on a real server: those of the database, once each, whatever the workers do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.live import client
from tests.process.wire import running

STORED = """
    SELECT symbol, to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), last
    FROM ticks JOIN instruments USING (symbol_id) WHERE flags & 8 <> 0
"""
LONG_AGO = "2020-01-01T00:00:00Z"
NOON = datetime(2026, 1, 13, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        yield server
        assert "Traceback" not in server.log()


def trade(number: int, symbol: str, **fields: Any) -> dict[str, Any]:
    """Return a trade; a later number may be an earlier time."""
    moment = NOON + timedelta(seconds=number * 7919 % 10_007)
    return {
        "symbol": symbol, "bid": None, "ask": None, "spread": None, "last": float(number), "volume": 1.0, "flags": 24,
        "timestamp": moment.isoformat(), "seq": number, **fields,
    }  # fmt: skip


def shown(said: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((one["symbol"], one["timestamp"], one["price"]) for one in said if one["type"] == "trade")


def stored(server: Server) -> Counter[tuple[Any, ...]]:
    return Counter(server.database.rows(STORED))


def test_trades_leave_after_their_commit_and_a_resend_makes_none(server: Server) -> None:
    with client(server) as reader, client(server) as other:
        for one in (reader, other):
            one.subscribe("NVDA", channels=["trades"])
        for number in range(3):
            server.post([trade(number, "NVDA", flags=40)])
        server.post([trade(0, "NVDA", flags=40), trade(9, "NVDA", flags=72), trade(10, "AMD")])
        for one in (reader, other):
            said = one.until(lambda said: said.get("price") == 9.0)
            assert [(t["price"], t["side"]) for t in said] == [(0, "buy"), (1, "buy"), (2, "buy"), (9, "sell")]
        server.wait_drained()
        assert [said for said in reader.sync() if said["type"] == "trade"] == []


def test_since_gives_what_is_stored_then_what_is_live(server: Server) -> None:
    server.post([trade(number, "AVGO") for number in range(50)])
    server.wait_drained()
    with client(server) as reader:
        reader.subscribe("AVGO", channels=["trades"], since=LONG_AGO)
        said = reader.until(lambda said: said["type"] == "replay_complete")
        assert [one["timestamp"] for one in said[:-1]] == sorted(one["timestamp"] for one in said[:-1])
        assert len(said) == 51
        server.post([trade(50, "AVGO")])
        (live,) = reader.until(lambda said: said["type"] == "trade")
    for at, rest in ((said[20], 30), (said[49], 1), (live, 0)):
        with client(server) as reader:
            reader.subscribe("AVGO", channels=["trades"], since=at["cursor"])
            again = reader.until(lambda said: said["type"] == "replay_complete")[:-1]
            assert len(shown(again)) == len(again) == rest


@pytest.mark.parametrize("since", ["yesterday", "pAAAA", "2026-01-13T12:00:00", -1.5, True])
def test_a_since_that_is_none_is_refused_and_the_connection_stays(server: Server, since: Any) -> None:
    with client(server) as reader:
        reader.say(action="subscribe", symbol="AVGO", channels=["trades"], since=since)
        assert reader.next("error")["code"] in ("bad_parameter", "bad_field")
        reader.say(action="subscribe", symbol="AVGO", since=LONG_AGO)
        assert reader.next("error")["code"] == "bad_parameter"
        reader.subscribe("AVGO", channels=["trades"])


def test_a_bar_runs_with_the_ticks_and_is_as_a_read_gives_it(server: Server) -> None:
    with client(server) as reader:
        reader.subscribe("META", channels=["bars"], interval="1m")
        wait_until(lambda: datetime.now(UTC).second < 55, what="a minute that lasts")
        now = datetime.now(UTC)
        for number, bid in enumerate((10.0, 12.0, 9.0)):
            fields = {"bid": bid, "ask": bid + 1, "last": None, "volume": 0, "flags": 6}
            server.post([trade(number, "META", **fields, timestamp=now.isoformat())])
        bar = reader.until(lambda said: said.get("ticks") == 3)[-1]
        read = server.request("GET", f"/api/bars/META?interval=1m&start={bar['timestamp']}")[1]["bars"][0]
        for field in ("timestamp", "open", "high", "low", "close", "volume", "ticks"):
            assert bar[field] == read[field], field
        assert (bar["high"], bar["low"], bar["close"], bar["complete"]) == (12, 9, 9, False)


def test_a_bar_closes_with_the_clock(server: Server) -> None:
    with client(server) as reader:
        reader.subscribe("ORCL", channels=["bars"], interval="1s")
        server.post([trade(1, "ORCL", bid=5.0, flags=6, timestamp=datetime.now(UTC).isoformat())])
        last = reader.until(lambda said: said["type"] == "bar" and said["complete"])[-1]
        assert (last["interval"], last["close"], last["ticks"]) == ("1s", 5.0, 1)


class Reader(threading.Thread):
    """Somebody who watches all trades, and comes back with the last cursor whenever it is cut off."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.said = server, list[dict[str, Any]]()
        self.cut_off = 0
        self.leave = threading.Event()

    def run(self) -> None:
        while not self.leave.is_set():
            since = next((one["cursor"] for one in reversed(self.said) if one["type"] == "trade"), LONG_AGO)
            with suppress(ConnectionClosed, InvalidHandshake, OSError, EOFError), client(self.server) as reader:
                reader.subscribe("*", channels=["trades"], since=since)
                while not self.leave.is_set():
                    with suppress(TimeoutError):
                        self.said.append(reader.hear(0.1))
            self.cut_off += 1


@pytest.mark.long
@pytest.mark.parametrize("workers", [2, 4])
def test_nothing_is_missing_or_repeated_while_workers_die(make_server: MakeServer, workers: int) -> None:
    server = make_server(workers=workers).start().wait_ready()
    readers = [Reader(server) for _ in range(4)]
    numbers = iter(range(1_000_000))
    symbols = ("TSLA", "NVDA", "AAPL")
    until = time.monotonic() + 20
    rounds = 0
    while time.monotonic() < until:
        batch = [trade(number, symbols[number % 3]) for number in (next(numbers) for _ in range(20))]
        for _ in range(2):  # the second one is a resend
            with suppress(OSError):
                server.post(batch)
        rounds += 1
        if rounds % 100 == 10 and rounds < 400:
            readers[rounds // 100].start()
        if rounds % 150 == 149:
            os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_ready()
    server.wait_drained()
    everything = stored(server)
    for reader in readers:
        if reader.ident is None:
            reader.start()
    for reader in readers:
        wait_until(lambda: len(shown(reader.said)) >= len(everything), what="the last trades")  # noqa: B023
        reader.leave.set()
    for reader in readers:
        reader.join()
        assert shown(reader.said) == everything
    assert sum(reader.cut_off for reader in readers) > len(readers)
