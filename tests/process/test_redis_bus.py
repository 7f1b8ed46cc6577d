"""Servers with data directories of their own hear each other by a real Redis, which may go and come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, folder, wait_until
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
