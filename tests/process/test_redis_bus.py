"""Servers with data directories of their own hear each other by a real Redis, which may go and come back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, folder, wait_until
from tests.process.live import client, trade
from tests.process.redis_server import RedisServer
from tests.process.wire import AWAY, tick
from tests.process.workers import Workers

PASSWORD = "hunter2-and-more"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with folder() as home:
        server = RedisServer(home)
        try:
            yield server
        finally:
            server.resume()
            server.kill9()


class Host:
    def __init__(self, server: Server, workers: int) -> None:
        self.server = server
        self.workers = Workers(server)
        self._count = workers
        self.pids: list[int] = []

    def begin(self) -> None:
        self.server.wait_accepting()
        self.pids = self.workers.reach(self._count)

    def post(self, bid: float) -> None:
        row: dict[str, Any] = tick(symbol="AAPL", bid=bid, ask=bid + 1, flags=6)
        self.workers.post(self.pids[0], row)

    def bids(self) -> set[float | None]:
        return {self.workers.bid(pid, "AAPL") for pid in self.pids}


@pytest.fixture
def make_hosts(make_server: MakeServer) -> Iterator[Any]:
    """Yield a function that starts servers, with two workers the first, that share a Redis; no database is there."""
    with ExitStack() as stack:

        def make(*urls: str) -> list[Host]:
            hosts = []
            for at, url in enumerate(urls):
                workers = 2 if at == 0 else 1
                server = make_server("--database-url", AWAY, "--redis-url", url, workers=workers)
                hosts.append(Host(server, workers))
                stack.enter_context(closing(hosts[-1].workers))
                server.start()
            for host in hosts:
                host.begin()
            return hosts

        yield make


def sends(source: Host, target: Host, bids: Iterator[int]) -> bool:
    """Tell whether a tick sent to one server just now is in every worker of the other one."""
    bid = float(next(bids))
    source.post(bid)
    return any(target.bids() == {bid} for _ in range(20))


def wait_sends(source: Host, target: Host, bids: Iterator[int]) -> None:
    wait_until(lambda: sends(source, target, bids), what="ticks to go from one server to the other")


@pytest.mark.long
def test_servers_know_each_others_ticks_through_redis_and_go_on_without_and_with_it_again(
    redis: RedisServer, make_hosts: Any
) -> None:
    redis.start("--requirepass", PASSWORD)
    url = redis.url.replace("redis://", f"redis://:{PASSWORD}@")
    bids = iter(range(100, 100_000))
    one, other = make_hosts(url, url)
    wait_sends(one, other, bids)
    wait_sends(other, one, bids)
    received = [host.server.stats()["ticks_received"] for host in (one, other)]
    one.post(50.0)
    assert [host.server.stats()["ticks_received"] for host in (one, other)] == [received[0] + 1, received[1]]

    redis.pause()
    own = float(next(bids))
    one.post(own)
    wait_until(lambda: one.bids() == {own}, what="the workers of one host to agree without Redis")
    redis.resume()
    wait_sends(one, other, bids)

    redis.kill9()
    own = float(next(bids))
    other.post(own)
    assert other.bids() == {own}
    wait_until(lambda: "the other hosts (Redis at 127.0.0.1" in one.server.log(), what="a line about it")
    redis.start("--requirepass", PASSWORD)
    wait_sends(other, one, bids)
    wait_sends(one, other, bids)
    for host in (one, other):
        assert PASSWORD not in host.server.log()
        assert "Traceback" not in host.server.log()
        assert host.server.stop() == 0


@pytest.mark.long
def test_servers_that_share_a_redis_by_database_numbers_do_not_hear_each_other(
    redis: RedisServer, make_hosts: Any
) -> None:
    redis.start()
    bids = iter(range(100, 100_000))
    one, other, foreign = make_hosts(redis.url, redis.url, redis.url.replace("/0", "/1"))
    wait_sends(one, other, bids)
    assert foreign.bids() == {None}


@pytest.mark.long
def test_trades_and_bars_of_another_host_come_once_with_redis_and_without(
    redis: RedisServer, make_server: MakeServer, database: Database
) -> None:
    redis.start()
    one, other = (make_server("--database-url", database.url(), "--redis-url", redis.url) for _ in range(2))
    for server in (one, other):
        server.start().wait_ready()
    numbers = itertools.count(1)
    sent: list[float] = []

    def post(count: int) -> None:
        rows = [next(numbers) for _ in range(count)]
        one.post([trade(number, "TSLA", bid=float(number), flags=26) for number in rows])
        sent.extend(map(float, rows))

    with client(other) as reader:
        reader.subscribe("TSLA", channels=["trades"])
        reader.subscribe("TSLA", channels=["bars"], interval="1d")
        said: list[dict[str, Any]] = []

        def hear_all() -> None:
            """Hear until the trades are there, and the bar that has them all."""
            while len([one for one in said if one["type"] == "trade"]) < len(sent) or not any(
                one.get("ticks") == len(sent) for one in said
            ):
                said.append(reader.hear())

        for happens in (lambda: None, redis.pause, redis.resume, redis.kill9, redis.start):
            happens()
            for count in (1, 100):
                post(count)
                hear_all()
        said += reader.sync()
        assert [one["price"] for one in said if one["type"] == "trade"] == sent
        since = next(one["cursor"] for one in said if one["type"] == "trade")
    with client(one) as again:  # what one host said, the other one understands
        again.subscribe("TSLA", channels=["trades"], since=since)
        rest = again.until(lambda said: said["type"] == "replay_complete")[:-1]
        assert [one["price"] for one in rest] == sent[1:]
