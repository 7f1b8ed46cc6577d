"""Query lanes on a real database: time limits, cancelling, bounded waits, and a database that fails in every way."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

import gevent
import psutil
import psycopg2
import pytest
from prometheus_client import CollectorRegistry
from psycopg2.extensions import cursor as Cursor

from app import reads as reads_module
from app.errors import ClientGone, DatabaseAway, NotReady, QueryTimeout, UnknownSymbol
from app.meters import ReadMeters
from app.reads import CANCEL_GRACE_S, EXPORT, PAGE, QUOTE, Kind, Reads, shares
from app.settings import Settings
from app.storage.cancelling import Canceller
from app.storage.connection import Connection
from tests.waiting import run_until

WAIT_S = 30.0
"""Far more than anything here takes."""


def backend(cur: Cursor) -> int:
    cur.execute("SELECT pg_backend_pid()")
    return int(cur.fetchone()[0])


def sleep(cur: Cursor, seconds: float) -> int:
    cur.execute("SELECT pg_backend_pid(), pg_sleep(%s)", (seconds,))
    return int(cur.fetchone()[0])


class Someone:
    """A client that leaves when it is told to."""

    def __init__(self) -> None:
        self.left = False

    def gone(self) -> bool:
        return self.left


class World:
    """Reads of one worker, and what a person at psql would see of them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.away: str | None = None
        self.registry = CollectorRegistry()
        self.connections: list[Connection] = []
        self.reads = self.make()

    def make(self, **changes: Any) -> Reads:
        settings = dataclasses.replace(
            Settings(lane_wait_s=0.2),
            **({f"{kind}_timeout_s": WAIT_S + number for number, kind in enumerate(Kind)} | changes),
        )
        self.registry = CollectorRegistry()
        self.reads = Reads(settings, self._connect, lambda: self.away, ReadMeters(self.registry))
        return self.reads

    @contextmanager
    def hurried(self, kind: Kind, timeout_s: float = 0.3) -> Iterator[None]:
        """Let reads of a kind time out soon; those that are to succeed have time, however busy the machine is."""
        readers = self.reads._readers[kind]
        before, readers.timeout_s = readers.timeout_s, timeout_s
        try:
            yield
        finally:
            readers.timeout_s = before

    def _connect(self, name: str) -> Connection:
        self.connections.append(Connection(lambda: self.url, 5, 30, name))
        return self.connections[-1]

    def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.url)) as conn, conn, conn.cursor() as cur:
            cur.execute(query, args)
            return cur.fetchall()

    def busy(self) -> list[int]:
        """The backends that run a query of a read."""
        return [
            pid
            for (pid,) in self.rows(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
                "AND pid <> pg_backend_pid() AND application_name ~ 'tickhub (quote|page|export)'"
            )
        ]

    def outcomes(self, outcome: str, kind: Kind) -> float:
        return self.registry.get_sample_value("tickhub_reads_total", {"kind": kind, "outcome": outcome}) or 0.0


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # A server that is there may be slow to hear of a cancel.
    monkeypatch.setattr(reads_module, "CANCEL_GRACE_S", WAIT_S)
    found = World(database_url)
    with gevent.Timeout(3 * WAIT_S):
        yield found
        found.reads.stop()


@pytest.fixture
def deaf(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which no cancel arrives."""
    monkeypatch.setattr(reads_module, "CANCEL_GRACE_S", CANCEL_GRACE_S)
    return world


until = partial(run_until, every_s=0.02)
"""Most conditions here make a connection, which the loop waits for."""


@contextmanager
def paused(pid: int) -> Iterator[None]:
    process = psutil.Process(pid)
    # Should this process stand still meanwhile, somebody else has to end that.
    rescue = subprocess.Popen(["sh", "-c", f"sleep {WAIT_S:.0f}; kill -CONT {pid}"], start_new_session=True)
    process.suspend()
    try:
        yield
        assert rescue.poll() is None, "the loop stood still until the hanging process went on"
    finally:
        process.resume()
        with suppress(ProcessLookupError):
            os.killpg(rescue.pid, signal.SIGKILL)
        rescue.wait()


def test_a_read_returns_what_its_function_returns(world: World) -> None:
    def sums(cur: Cursor, a: int, b: int) -> int:
        cur.execute("SELECT %s + %s", (a, b))
        return int(cur.fetchone()[0])

    assert world.reads.run(QUOTE, sums, 2, 3) == 5
    assert world.outcomes("ok", QUOTE) == 1


def test_statements_of_a_read_see_one_snapshot_and_may_write_nothing(world: World) -> None:
    def count(cur: Cursor) -> tuple[int, int]:
        found = []
        for _ in range(2):
            cur.execute("SELECT count(*) FROM instruments")
            found.append(cur.fetchone()[0])
            with closing(psycopg2.connect(world.url)) as other, other, other.cursor() as writing:
                writing.execute("INSERT INTO instruments (symbol) VALUES ('NEW' || pg_backend_pid())")
        return found[0], found[1]

    first, second = world.reads.run(EXPORT, count)
    assert first == second
    assert world.rows("SELECT count(*) FROM instruments") == [(first + 2,)]
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        _plain(world, "DELETE FROM instruments")


def _plain(world: World, query: str) -> Any:
    def run(cur: Cursor) -> Any:
        cur.execute(query)
        return cur.fetchall() if cur.description else None

    return world.reads.run(EXPORT, run)


def test_settings_of_a_read_do_not_stay_on_its_connection(world: World) -> None:
    assert _plain(world, "SELECT current_setting('timezone'), current_setting('transaction_read_only')") == [
        ("UTC", "on")
    ]
    (connection,) = world.connections
    own = connection.open()
    with own.cursor() as cur:
        cur.execute("SELECT current_setting('transaction_read_only'), current_setting('statement_timeout')")
        assert cur.fetchone() == ("off", "0")


def test_a_connection_that_reads_can_write_again(world: World) -> None:
    connection = Connection(lambda: world.url, 5, 30, "test")
    for symbol in ("ONE", "TWO"):
        with connection.reading(5) as cur:
            cur.execute("SELECT 1")
        with connection.transaction() as cur:
            cur.execute("INSERT INTO instruments (symbol) VALUES (%s)", (symbol,))
    assert world.rows("SELECT count(*) FROM instruments WHERE symbol IN ('ONE', 'TWO')") == [(2,)]
    connection.close()


@pytest.mark.parametrize(("kind", "trips"), [(QUOTE, 1), (PAGE, 2), (EXPORT, 2)])
def test_a_quote_takes_one_round_trip_and_other_reads_one_more_than_their_own(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: Kind, trips: int
) -> None:
    """Counted where they are made: what psycopg2 sends of its own accord would be a statement too."""
    world.reads.run(kind, backend)
    pid = world.reads.run(kind, backend)
    world.rows("SELECT pg_stat_force_next_flush()")
    sent = []
    (connection,) = world.connections
    real = connection.open()

    class Counting:
        def __init__(self, cur: Any) -> None:
            vars(self)["_cur"] = cur

        def execute(self, *args: Any) -> None:
            sent.append(args[0])
            self._cur.execute(*args)

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            self._cur.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._cur, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self._cur, name, value)

    class Passing:
        autocommit = False

        def cursor(self, **how: Any) -> Counting:
            real.autocommit = self.autocommit
            return Counting(real.cursor(**how))

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    monkeypatch.setattr(connection, "open", lambda: Passing())
    assert world.reads.run(kind, backend) == pid
    assert len(sent) == trips
    assert real.autocommit, "psycopg2 would send a BEGIN of its own"


@pytest.mark.parametrize("kind", list(Kind))
def test_no_read_can_write_and_all_have_their_settings(world: World, kind: Kind) -> None:
    world.rows("CREATE TABLE kept (n int); SELECT 1")

    def write(cur: Cursor) -> None:
        cur.execute("INSERT INTO kept VALUES (1)")

    def told(cur: Cursor) -> list[str]:
        cur.execute("SHOW statement_timeout")
        timeout = cur.fetchone()
        cur.execute("SELECT current_setting('jit'), current_setting('timezone')")
        return [*(timeout or ()), *(cur.fetchone() or ())]

    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        world.reads.run(kind, write)
    assert world.rows("SELECT count(*) FROM kept") == [(0,)]
    timeout, *others = world.reads.run(kind, told)
    assert timeout == f"{WAIT_S + list(Kind).index(kind):.0f}s"
    assert others == ["off", "UTC"]
    assert world.reads.run(kind, backend) == world.reads.run(kind, backend), "the connection was of use still"


@pytest.mark.parametrize("kind", list(Kind))
def test_a_query_that_takes_too_long_ends_and_its_connection_is_used_again(world: World, kind: Kind) -> None:
    before = world.reads.run(kind, backend)
    with world.hurried(kind), pytest.raises(QueryTimeout, match="took too long"):
        world.reads.run(kind, sleep, WAIT_S)
    assert world.busy() == []
    assert world.reads.run(kind, backend) == before
    assert world.outcomes("timeout", kind) == 1


def test_a_read_of_many_short_statements_ends_too(world: World) -> None:
    def many(cur: Cursor) -> None:
        for _ in range(round(WAIT_S / 0.2)):
            sleep(cur, 0.2)

    before = world.reads.run(PAGE, backend)
    # With SERVER_GRACE_S it is over in the middle of a statement: between two of them a cancel hits none.
    with world.hurried(PAGE, 0.4), pytest.raises(QueryTimeout):
        world.reads.run(PAGE, many)
    assert world.reads.run(PAGE, backend) == before


def test_a_client_that_leaves_cancels_its_query_and_the_connection_is_used_again(world: World) -> None:
    reads = world.make(db_pool_size=5, lane_wait_s=WAIT_S)
    before = reads.run(QUOTE, backend)
    client = Someone()
    reading = gevent.spawn(lambda: reads.run(QUOTE, sleep, WAIT_S, client=client))
    until(world.busy)
    client.left = True
    with pytest.raises(ClientGone):
        reading.get()
    assert world.outcomes("cancelled", QUOTE) == 1
    assert [world.reads.run(QUOTE, backend) for _ in range(3)] == [before] * 3, "no late cancel hits another query"


def test_a_killed_greenlet_cancels_its_query(world: World) -> None:
    reads = world.make(db_pool_size=5, lane_wait_s=WAIT_S)
    reading = gevent.spawn(lambda: reads.run(QUOTE, sleep, WAIT_S))
    (pid,) = until(world.busy)
    reading.kill()
    assert reads.run(QUOTE, backend) == pid


def test_a_client_that_leaves_while_it_waits_for_a_lane_costs_no_query(world: World) -> None:
    reads = world.make(lane_wait_s=WAIT_S, db_pool_size=5)
    holding = gevent.spawn(lambda: reads.run(QUOTE, sleep, WAIT_S))
    until(world.busy)
    client = Someone()
    waiting = gevent.spawn(lambda: reads.run(QUOTE, _never, client=client))
    until(lambda: reads.use()[QUOTE][2] == 1)
    client.left = True
    holding.kill()
    with pytest.raises(ClientGone):
        waiting.get()
    reads.run(QUOTE, backend)


@pytest.mark.long
def test_a_cancel_that_comes_late_hits_no_query_of_a_later_connection(
    deaf: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, reads = deaf, deaf.reads
    hold, release = os.pipe()
    real, cancelled = Canceller.cancel, list[bool]()

    def held(canceller: Canceller) -> bool:
        os.read(hold, 1)
        cancelled.append(real(canceller))
        return cancelled[-1]

    def wait_for_lock(cur: Cursor) -> int:
        cur.execute("SELECT pg_backend_pid(), pg_advisory_xact_lock_shared(1)")
        return int(cur.fetchone()[0])

    monkeypatch.setattr(Canceller, "cancel", held)
    jobs = [gevent.spawn(reads.run, PAGE, sleep, WAIT_S) for _ in range(2)]
    until(lambda: len(world.busy()) == 2)
    gevent.killall(jobs)  # the second cancel waits behind the first, longer than is waited for it
    until(lambda: not world.busy())
    with closing(psycopg2.connect(world.url)) as conn, conn, conn.cursor() as cur:
        cur.execute("SELECT pg_advisory_xact_lock(1)")
        innocent = [gevent.spawn(reads.run, PAGE, wait_for_lock) for _ in range(2)]
        until(lambda: len(world.busy()) == 2)
        os.write(release, b"12")
        until(lambda: len(cancelled) == 2)
    assert len({job.get() for job in innocent}) == 2
    os.close(release)
    os.close(hold)


def _never(cur: Cursor) -> None:
    raise AssertionError("nobody waits for this")


def test_lanes_are_bounded_by_kind_and_the_wait_for_one_too(world: World) -> None:
    exports = shares(Settings().db_pool_size)[EXPORT]
    holding = [gevent.spawn(lambda: world.reads.run(EXPORT, sleep, WAIT_S)) for _ in range(exports)]
    until(lambda: len(world.busy()) == exports)
    with pytest.raises(QueryTimeout, match="busy"):
        world.reads.run(EXPORT, backend)
    assert world.reads.run(QUOTE, backend), "the other kinds go on"
    assert world.reads.run(PAGE, backend)
    assert world.registry.get_sample_value("tickhub_read_wait_seconds_count", {"kind": "export"}) == 1
    gevent.killall(holding)
    until(lambda: not world.busy())
    assert len(world.connections) == exports + 2


def test_whoever_waits_for_a_lane_gets_it(world: World) -> None:
    reads = world.make(lane_wait_s=WAIT_S, db_pool_size=5)
    jobs = [gevent.spawn(lambda: reads.run(EXPORT, sleep, 0.02)) for _ in range(20)]
    assert len({job.get() for job in jobs}) == 1
    assert len(world.connections) == 1


@pytest.mark.parametrize("size", range(2, 60))
def test_every_connection_is_shared_out_and_quotes_have_their_own(size: int) -> None:
    found = shares(size)
    assert sum(found.values()) == max(3, size - 3)
    assert min(found.values()) >= 1
    assert found[PAGE] >= found[EXPORT]


def test_last_used_first_so_that_few_connections_are_opened(world: World) -> None:
    for _ in range(10):
        world.reads.run(PAGE, backend)
    assert len(world.connections) == 1


def test_a_database_that_is_known_to_be_away_is_not_asked(world: World) -> None:
    world.away = "it was eaten"
    with pytest.raises(DatabaseAway, match="it was eaten"):
        world.reads.run(QUOTE, _never)
    assert world.connections == []
    world.away = None
    assert world.reads.run(QUOTE, backend)


def test_a_database_that_cannot_be_reached_is_away(world: World) -> None:
    good, world.url = world.url, "postgresql://tickhub@127.0.0.1:1/nowhere"
    with pytest.raises(DatabaseAway):
        world.reads.run(QUOTE, backend)
    assert world.outcomes("away", QUOTE) == 1
    world.url = good
    assert world.reads.run(QUOTE, backend)


def test_a_query_whose_connection_is_terminated_says_so_and_the_next_works(world: World) -> None:
    reading = gevent.spawn(lambda: world.reads.run(QUOTE, sleep, WAIT_S))
    (pid,) = until(world.busy)
    world.rows("SELECT pg_terminate_backend(%s)", pid)
    with pytest.raises(DatabaseAway):
        reading.get()
    assert world.reads.run(QUOTE, backend) != pid


def test_a_connection_that_ended_while_idle_costs_no_answer(world: World) -> None:
    pid = world.reads.run(QUOTE, backend)
    world.rows("SELECT pg_terminate_backend(%s)", pid)
    until(lambda: not world.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid))
    assert world.reads.run(QUOTE, backend) != pid
    assert world.outcomes("ok", QUOTE) == 2


def test_a_mistake_of_ours_is_no_database_that_is_away(world: World) -> None:
    before = world.reads.run(EXPORT, backend)
    for wrong in ("SELECT no_such_column FROM ticks", "SELECT 1 / 0", "SELECT 'x'::integer"):
        with pytest.raises((psycopg2.ProgrammingError, psycopg2.DataError)):
            _plain(world, wrong)
    assert world.reads.run(EXPORT, backend) == before


def test_what_a_read_refuses_passes_and_its_connection_stays(world: World) -> None:
    def refuse(cur: Cursor) -> None:
        backend(cur)
        raise UnknownSymbol("Unknown symbol: FOO")

    before = world.reads.run(PAGE, backend)
    with pytest.raises(UnknownSymbol, match="FOO"):
        world.reads.run(PAGE, refuse)
    assert world.reads.run(PAGE, backend) == before
    assert world.outcomes("ok", PAGE) == 3, "it is an answer like any other"


def test_a_bug_in_a_read_leaves_no_half_read_connection_behind(world: World) -> None:
    def stumble(cur: Cursor) -> None:
        cur.execute("SELECT generate_series(1, 10)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.reads.run(PAGE, stumble)
    assert world.reads.run(PAGE, backend)


@pytest.mark.long
def test_a_backend_that_hangs_costs_only_its_reader(deaf: World) -> None:
    """Stopped, it takes no cancel: its socket is shut down, the read ends, a new connection takes over."""
    world = deaf
    hung = world.reads.run(PAGE, backend)
    with paused(hung):
        with world.hurried(PAGE), pytest.raises(DatabaseAway, match="does not answer"):
            world.reads.run(PAGE, backend)
        assert world.reads.run(PAGE, backend) != hung
        stuck = world.registry.get_sample_value("tickhub_query_lanes_stuck_total", {"kind": "page"})
        assert not stuck, "its lane came back as soon as its socket was shut down"
    until(lambda: not world.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", hung))


@pytest.mark.long
def test_the_loop_goes_on_while_a_whole_server_hangs(deaf: World) -> None:
    """Cancelling asks the postmaster, which hangs too: that must not hold the interpreter's lock."""
    world = deaf
    hung = world.reads.run(PAGE, backend)
    postmaster = psutil.Process(hung).parent()
    assert postmaster is not None
    with (
        paused(hung),
        paused(postmaster.pid),
        world.hurried(PAGE),
        pytest.raises(DatabaseAway, match="does not answer"),
    ):
        world.reads.run(PAGE, backend)
    assert world.reads.run(PAGE, backend) != hung


@pytest.mark.long
def test_a_lane_that_never_comes_back_is_replaced(deaf: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "INTERRUPT_GRACE_S", 0.1)
    native = gevent.monkey.get_original("threading", "Event")()

    def stuck(cur: Cursor) -> None:
        native.wait(WAIT_S)

    world, reads = deaf, deaf.make(db_pool_size=5)
    with world.hurried(PAGE, 0.1), pytest.raises(DatabaseAway):
        reads.run(PAGE, stuck)
    assert reads.run(PAGE, backend)
    assert len(world.connections) == 2
    assert world.registry.get_sample_value("tickhub_query_lanes_stuck_total", {"kind": "page"}) == 1
    native.set()
    until(lambda: world.connections[0]._connection is None)


def test_a_drain_cancels_what_runs_and_begins_nothing_more(world: World) -> None:
    reading = gevent.spawn(lambda: world.reads.run(QUOTE, sleep, WAIT_S))
    until(world.busy)
    world.reads.drain()
    with pytest.raises(QueryTimeout):
        reading.get()
    with pytest.raises(NotReady):
        world.reads.run(QUOTE, _never)
    world.reads.stop()
    world.reads.stop()
    mine = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'tickhub quote'"
    until(lambda: not world.rows(mine))
