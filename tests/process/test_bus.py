"""Every worker knows what every worker was sent, with the database away, and after deaths."""

from __future__ import annotations

import os
import signal
import urllib.request
from contextlib import closing
from typing import Any

import psutil
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database, wait_until
from tests.process.live import client, trade
from tests.process.proxy import Proxy
from tests.process.wire import AWAY, tick
from tests.process.workers import Workers, owner_of


def quote(bid: float, **changes: Any) -> dict[str, Any]:
    return tick(symbol="AAPL", bid=bid, ask=bid + 1, flags=6, **changes)


def wait_bids(workers: Workers, pids: list[int], bid: float) -> None:
    wait_until(lambda: [workers.bid(pid, "AAPL") for pid in pids] == [bid] * len(pids), what=f"{bid} in every worker")


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_tick_sent_to_one_worker_is_in_every_workers_quotes_while_the_database_is_away(
    make_server: MakeServer, database: Database, proxy: Proxy, count: int
) -> None:
    server = make_server("--database-url", proxy.url, workers=count)
    server.database = database
    proxy.open()
    server.start().wait_ready()
    with closing(Workers(server)) as workers:
        pids = workers.reach(count)
        proxy.close()
        wait_until(lambda: server.status("/health") == 503, what="the loss to be noticed")
        for at, pid in enumerate(pids):
            workers.post(pid, quote(100.0 + at))
            wait_bids(workers, pids, 100.0 + at)
        # Sent again, and to another one: nobody counts or shows it twice.
        again = quote(200.0)
        for pid in (*pids, *pids):
            workers.post(pid, again)
        wait_bids(workers, pids, 200.0)
        sent = 3 * count
        assert server.stats()["ticks_received"] == sent
        proxy.open()
        stats = server.wait_drained()
        assert (stats["ticks_received"], stats["stored"]) == (sent, count + 1)
        server.wait_ready()
        wait_bids(workers, pids, 200.0)
    assert "message of another worker" not in server.log()
    assert server.stop() == 0
    assert list((server.home / "run" / "bus").glob("*.sock")) == []


@pytest.mark.long
def test_a_worker_that_was_killed_knows_the_quotes_again_though_there_is_no_database(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, workers=2)
    server.start().wait_accepting()
    with closing(Workers(server)) as workers:
        first, second = workers.reach(2)
        workers.post(first, quote(100.0))
        wait_bids(workers, [first, second], 100.0)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in server.worker_pids(), what="the master to notice")
        (fresh,) = set(workers.reach(2)) - {second}
        wait_bids(workers, [fresh, second], 100.0)
        for at, pid in enumerate((second, fresh)):
            workers.post(pid, quote(101.0 + at))
            wait_bids(workers, [fresh, second], 101.0 + at)
        assert len(list((server.home / "run" / "bus").glob("*.sock"))) == 2


@pytest.mark.long
def test_a_large_batch_reaches_the_others_whole(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, workers=2)
    server.start().wait_accepting()
    with closing(Workers(server)) as workers:
        first, second = workers.reach(2)
        rows = [{"bid": 10.0 + at, "ask": 9000.0, "flags": 6} for at in range(5000)]
        workers.post(first, *(tick(symbol=symbol, **row) for row in rows for symbol in ("TSLA", "VIX")))
        wait_until(lambda: workers.bid(second, "TSLA") == workers.bid(second, "VIX") == 5009.0, what="the last ticks")


@pytest.mark.long
def test_what_goes_over_the_bus_is_in_the_metrics(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, workers=2)
    server.start().wait_accepting()
    with closing(Workers(server)) as workers:
        first, second = workers.reach(2)
        workers.post(first, quote(100.0))
        wait_bids(workers, [second], 100.0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    counts = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("tickhub_bus")}
    assert counts['tickhub_bus_messages_total{result="sent",way="datagrams"}'] >= 1
    assert counts['tickhub_bus_messages_total{result="received",way="datagrams"}'] >= 1


@pytest.mark.long
def test_a_worker_that_hangs_costs_the_others_bounded_memory_and_hears_of_all_later(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    with closing(Workers(server)) as workers, client(server) as reader:
        pids = workers.reach(2)
        reader.subscribe("TSLA", channels=["trades"])
        for pid in pids:
            workers.post(pid, trade(1, "AMD"))
        # Whose reader it is: the one that is stopped, so that it must hear of what it missed.
        pid = owner_of(reader.ws.local_address[1], pids)
        (busy,) = set(pids) - {pid}
        before = psutil.Process(busy).memory_info().rss
        psutil.Process(pid).suspend()
        try:
            for start in range(0, 20_000, 1000):
                workers.post(busy, *(trade(number, "TSLA") for number in range(start, start + 1000)))
            assert psutil.Process(busy).memory_info().rss - before < 64 << 20
        finally:
            psutil.Process(pid).resume()
        assert [reader.next("trade")["price"] for _ in range(20_000)] == list(range(20_000))
        server.wait_drained()
        assert [said for said in reader.sync() if said["type"] == "trade"] == []
