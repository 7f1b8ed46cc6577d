"""Trades and bars on /ws, on a real server: those of the database, once each, whatever the workers do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.live import Client, client, trade
from tests.process.proxy import Proxy
from tests.process.wire import running

STORED = """
    SELECT symbol, to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), last
    FROM ticks JOIN instruments USING (symbol_id) WHERE flags & 8 <> 0
"""
LONG_AGO = "2020-01-01T00:00:00Z"
BACKLOG = 5000
"""Trades that are flushed at once; as many wait for a reader that is as slow as those of a busy machine."""



@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        yield server
        assert "Traceback" not in server.log()


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
        for one in (reader, other):  # each request may be another worker's, and commits of two have no order
            sides = {said["price"]: said["side"] for said in (one.next("trade") for _ in range(4))}
            assert sides == {0: "buy", 1: "buy", 2: "buy", 9: "sell"}
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


@pytest.mark.parametrize("since", ["1000-01-01", "9999-12-31T23:59:59.999999Z", f"t{'A' * 14}.{'A' * 43}"])
def test_whatever_since_means_the_live_ones_follow(server: Server, since: str) -> None:
    """The last one is a cursor that somebody made."""
    with client(server) as reader:
        reader.subscribe("PLTR", channels=["trades"], since=since)
        reader.until(lambda said: said["type"] == "replay_complete")
        server.post([trade(len(since), "PLTR")])  # of each a trade of its own
        assert reader.until(lambda said: said["type"] == "trade")[-1]["price"] == len(since)


def test_what_is_unsubscribed_while_it_is_replayed_is_not_sent_on(server: Server) -> None:
    server.post([trade(number, symbol) for number in range(5000) for symbol in ("AMZN", "GOOG")])
    server.wait_drained()
    with client(server) as reader:
        reader.subscribe("AMZN", "GOOG", channels=["trades"], since=LONG_AGO)
        reader.say(action="unsubscribe", symbol="AMZN", channels=["trades"])
        said = reader.until(lambda said: said["type"] == "replay_complete")
        at = next(at for at, one in enumerate(said) if one["type"] == "unsubscribed")
        symbols = Counter(one.get("symbol") for one in said)
        assert symbols["GOOG"] == 5000
        assert symbols["AMZN"] < 5000
        # What was queued before still leaves.
        assert sum(one.get("symbol") == "AMZN" for one in said[at:]) <= 1000


@pytest.mark.long
@pytest.mark.parametrize("when", ["at first", "later"])
def test_readers_stay_while_the_database_is_away_and_get_trades_and_bars_once_it_is_back(
    make_server: MakeServer, database: Database, proxy: Proxy, when: str
) -> None:
    server = make_server("--database-url", proxy.url, workers=2)
    server.database = database
    if when == "later":
        proxy.open()
    server.start().wait_accepting()
    if when == "later":
        server.wait_ready()
        server.post([trade(1, "TSLA", bid=1.0, flags=6)])
        server.wait_drained()
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for _ in range(6)]
        for reader in readers:
            reader.subscribe("TSLA", channels=["trades"])
            reader.subscribe("TSLA", channels=["bars"], interval="1d")
            reader.subscribe("NVDA", channels=["quotes"])
        if when == "later":
            proxy.close()
            wait_until(lambda: server.status("/health") == 503, what="the loss to be noticed")
        numbers = range(10, 10 + BACKLOG)
        for start in range(numbers.start, numbers.stop, 1000):
            server.post([trade(number, "TSLA", bid=float(number), flags=26) for number in range(start, start + 1000)])
        server.post([trade(1, "NVDA", bid=77.0, flags=6)])
        for reader in readers:
            reader.until(lambda said: said["type"] == "quote" and said["bid"] == 77.0)
        with ThreadPoolExecutor(len(readers)) as pool:
            ticks = len(numbers) + (when == "later")
            everything = [pool.submit(until_the_day_has, reader, ticks) for reader in readers]
            proxy.open()
        server.wait_drained()
        server.wait_ready()
        (read,) = server.request("GET", "/api/bars/TSLA?interval=1d&start=2026-01-13&end=2026-01-14")[1]["bars"]
        for reader, result in zip(readers, everything, strict=True):
            said = result.result() + reader.sync()
            assert Counter(one["price"] for one in said if one["type"] == "trade") == Counter(map(float, numbers))
            last = [one for one in said if one["type"] == "bar"][-1]
            for name in ("open", "high", "low", "close", "volume", "ticks"):
                assert last[name] == read[name], name


def until_the_day_has(reader: Client, ticks: int) -> list[dict[str, Any]]:
    """Read until all trades of the backlog came, and the bar of the day that has them and those before."""
    said: list[dict[str, Any]] = []
    missing = {"trade": BACKLOG, "bar": 1}
    while any(count > 0 for count in missing.values()):
        said.append(reader.hear())
        if said[-1].get("ticks", ticks) == ticks:
            missing[said[-1]["type"]] = missing.get(said[-1]["type"], 0) - 1
    return said


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


@pytest.mark.long
def test_every_bar_closes_with_the_clock_once_though_ticks_go_on(server: Server) -> None:
    with client(server) as reader:
        reader.subscribe("ORCL", channels=["bars"], interval="1s")
        said: list[dict[str, Any]] = []
        for number in range(10_000):
            fields = {"bid": 5.0 + number % 7, "flags": 6, "timestamp": datetime.now(UTC).isoformat()}
            server.post([trade(number, "ORCL", **fields)])
            said += [bar for bar in reader.sync() if bar["type"] == "bar"]
            closed = [bar for bar in said if bar["complete"]]
            if len({bar["timestamp"] for bar in closed}) >= 4:
                break
            time.sleep(0.05)  # ticks go on, some twenty a bar
        assert len({str(bar) for bar in said}) == len(said)
        last = {bar["timestamp"]: bar for bar in closed}
        began = [bar["timestamp"] for bar in said if bar["timestamp"] <= max(last)]
        assert sorted(last) == sorted(set(began))
        read = server.request("GET", f"/api/bars/ORCL?interval=1s&start={min(last)}")[1]["bars"]
        by_start = {bar["timestamp"]: bar for bar in read}
        for start, bar in last.items():
            for field in ("open", "high", "low", "close", "volume", "ticks", "complete"):
                assert bar[field] == by_start[start][field], field


def test_who_joins_others_gets_the_running_bar_of_a_quiet_symbol_too(server: Server) -> None:
    with client(server) as reader, client(server) as other:
        server.post([trade(1, "CSCO", bid=5.0, flags=6, timestamp=datetime.now(UTC).isoformat())])
        reader.subscribe("CSCO", channels=["bars"], interval="1M")
        running = reader.until(lambda said: said["type"] == "bar" and said["ticks"])[-1]
        for _ in range(2):  # the second time as who begins anew
            other.subscribe("CSCO", channels=["bars"], interval="1M")
            assert other.next("bar") == running
            other.say(action="unsubscribe", symbol="CSCO")
            other.next("unsubscribed")


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
    waiting = list(readers)
    numbers = iter(range(1_000_000))
    symbols = ("TSLA", "NVDA", "AAPL")
    kills, next_s = 0, time.monotonic()
    while kills < 5 or not any(reader.cut_off for reader in readers):
        batch = [trade(number, symbols[number % 3]) for number in (next(numbers) for _ in range(20))]
        for _ in range(2):  # the second one is a resend
            with suppress(OSError):
                server.post(batch)
        if time.monotonic() < next_s:
            continue
        if waiting:
            waiting.pop().start()
            next_s = time.monotonic() + 1
        elif all(reader.said for reader in readers):
            os.kill(server.worker_pids()[0], signal.SIGKILL)
            kills, next_s = kills + 1, time.monotonic() + 3
    server.wait_ready()
    server.wait_drained()
    everything = stored(server)
    for reader in readers:
        wait_until(lambda: len(shown(reader.said)) >= len(everything), what=f"the last trades of {reader.said[-3:]}")  # noqa: B023
        reader.leave.set()
    for reader in readers:
        reader.join()
        assert shown(reader.said) == everything
        assert [one for one in reader.said if one["type"] == "error"] == []
    assert sum(reader.cut_off for reader in readers) > len(readers)
