"""The greenlets of a worker's live trades on a real database: commits they heard, or not, to a hub's readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from psycopg2.extensions import connection

from app import live_trades
from app.errors import DatabaseAway, QueryTimeout
from app.live_bars import LiveBars
from app.live_trades import LiveTrades
from app.stream.bus import Bus
from app.stream.channels import Channel
from app.stream.hub import Hub
from app.stream.subscriber import Subscriber
from tests.integration.test_stored_trades import Shown, World, snapshot, stored
from tests.outlet import Outlet
from tests.waiting import others_turn, run_until

NAMES = ["NVDA", "TSLA"]


class Reads:
    """Reads at once, of one snapshot each; away when told so."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.left = 1_000_000
        """Reads until the database is away."""

    def run(self, kind: str, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        others_turn()
        if self.left <= 0:
            raise DatabaseAway("it is away")
        self.left -= 1
        with snapshot(self.url) as cur:
            return fn(cur, *args)


class Worker:
    """What a worker has of live trades, and a reader of all of them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.reads = Reads(url)
        self.hub = Hub(lambda symbols: [], lambda: NAMES, 1e9)
        self.bars = LiveBars(self.reads, self.hub, 1.0)  # type: ignore[arg-type]
        self.live = LiveTrades(self.reads, self.hub, Bus(folder / "bus", 0), self.bars)  # type: ignore[arg-type]
        self.outlet = Outlet()
        self.greenlets = [gevent.spawn(self.hub.run)]

    def watch(self, channel: Channel = "trades") -> None:
        reader = Subscriber(self.outlet)
        self.hub.attach(reader, heartbeats=False)
        self.hub.subscribe(reader, None, (channel,), "1s")

    def begin(self) -> None:
        self.greenlets += [gevent.spawn(run) for run in (self.live.run, self.live.pass_on, self.bars.run)]

    def shown(self) -> list[Shown]:
        return [(one["symbol"], one["timestamp"], one["price"]) for one in self.outlet.got]

    def wait_all(self, conn: connection) -> None:
        expected = stored(conn)
        run_until(lambda: len(self.outlet.got) >= expected.total(), what="all trades")
        gevent.sleep(0.05)  # in which nothing more may come
        assert Counter(self.shown()) == expected
        assert not self.outlet.closing


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    yield made
    made.close()


@pytest.fixture
def worker(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(live_trades, "CHECK_S", 0.02)
    made = Worker(database_url, tmp_path)
    yield made
    gevent.killall(made.greenlets)


def test_what_was_committed_before_a_worker_could_ask_the_ledger_reaches_its_readers(
    conn: connection, world: World, worker: Worker
) -> None:
    """The database was away when it began; others flush as soon as it is back."""
    worker.reads.left = 0
    worker.watch()
    worker.begin()
    for journal in (0, 1, 0):
        worker.live.committed(world.commit(journal, 3, heard=False))
        gevent.sleep(0.01)  # in which nothing may come
    assert worker.outlet.got == []
    worker.reads.left = 1_000_000
    worker.wait_all(conn)


@pytest.mark.parametrize("reads", [1, 2, 3, 4, 5])
def test_reading_what_was_missed_goes_on_where_the_database_went_away(
    conn: connection, world: World, worker: Worker, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    monkeypatch.setattr(live_trades, "PAGE_TRADES", 2)
    worker.watch()
    worker.begin()
    run_until(lambda: worker.live._follower.positions is not None)
    for journal in (0, 1):
        world.commit(journal, 4, heard=False)
    worker.reads.left = reads
    run_until(lambda: worker.reads.left <= 0, "the reads that it had")
    worker.live.committed(world.commit(0, 1, heard=False))
    worker.reads.left = 1_000_000
    worker.wait_all(conn)


@pytest.mark.parametrize("most_waiting", [50_000, 3_000])
def test_a_flush_of_more_trades_than_a_queue_takes_reaches_who_reads(
    conn: connection, world: World, worker: Worker, monkeypatch: pytest.MonkeyPatch, most_waiting: int
) -> None:
    """The database was away for a while."""
    monkeypatch.setattr(live_trades, "MAX_WAITING", most_waiting)
    worker.watch()
    worker.begin()
    run_until(lambda: worker.live._follower.positions is not None)
    for journal, trades in ((0, 12_000), (1, 1000), (0, 10)):
        worker.live.committed(world.commit(journal, trades, heard=False))
    worker.wait_all(conn)


@pytest.mark.parametrize("is_too_much", [False, True])
def test_the_bars_of_what_was_not_heard_are_read_though_their_ticks_are_older_than_their_arrival(
    world: World, worker: Worker, monkeypatch: pytest.MonkeyPatch, is_too_much: bool
) -> None:
    worker.watch("bars")
    worker.begin()
    run_until(lambda: worker.live._follower.positions is not None and worker.bars.watched)
    if is_too_much:
        monkeypatch.setattr(live_trades, "read_touched", query_timeout)
        world.feeders[0].received_us -= 10**9
    world.commit(0, 4, heard=False)
    run_until(lambda: len(worker.outlet.got) >= 2, what="the bars of both symbols")
    assert {(bar["symbol"], bar["timestamp"], bar["ticks"]) for bar in worker.outlet.got} == {
        (symbol, "2026-01-13T11:59:59.000000Z", 2) for symbol in NAMES
    }


def query_timeout(*args: Any) -> Any:
    raise QueryTimeout("too much")


def test_what_is_committed_just_after_somebody_began_to_watch_its_bars_counts_whatever_its_time(
    world: World, worker: Worker
) -> None:
    """The ticks' time is not the clock's: they are replayed, or of a broker elsewhere."""
    worker.begin()
    run_until(lambda: worker.live._follower.positions is not None)
    worker.watch("bars")
    worker.bars.look()
    worker.live.committed(world.commit(0, 2, heard=False))
    run_until(lambda: len(worker.outlet.got) >= 2, what="the bars of both symbols")
