"""Live trades: over all time exactly those in `ticks`, once each; replays joined with what is live."""

from __future__ import annotations

import struct
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from psycopg2.extensions import connection, cursor

from app.errors import BadParameter, LedgerMoved
from app.market.batches import Batch
from app.market.committed import Committed, Trades
from app.market.positions import Positions, TradeKey
from app.market.timestamps import MAX_US, MIN_US
from app.storage import schema, trade_reader
from app.storage.trade_reader import Place, Plan, TradePage, plan_behind, read_behind, read_later, start_later
from app.stream.following import Follower
from app.stream.messages import TradeUpdate
from app.stream.replay import Replay
from app.stream.trades import Bounds, Since, cursor_of, later_updates, live_updates, parse_since, replayed_updates
from tests.batches import NOON_US, Feeder, Tick, execute, new_sink, rows_of
from tests.integration import test_pipeline_machine as machine

STORED = """
    SELECT symbol, to_char(time, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), last
    FROM ticks JOIN instruments USING (symbol_id) WHERE flags & 8 <> 0
"""
Shown = tuple[str, str, float | None]


@contextmanager
def snapshot(url: str) -> Iterator[cursor]:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        cur.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL timezone = 'UTC'")
        yield cur


def stored(conn: connection) -> Counter[Shown]:
    with conn.cursor() as cur:
        cur.execute("SET timezone = 'UTC'")
    conn.commit()
    return Counter(rows_of(conn, STORED))


def shown(updates: list[TradeUpdate]) -> list[Shown]:
    return [(update.symbol, update.timestamp, update.price) for update in updates]


def bounds(plan: Plan) -> list[Bounds]:
    return [Bounds(j.number, j.key, j.low_us, j.high_us) for j in plan.journals]


class Desk:
    """A worker's view of what all workers commit: without the bus, only what it hears; and its readers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.updates: list[TradeUpdate] = []
        self.watchers: list[Callable[[list[TradeUpdate]], None]] = []
        self.follower = Follower(self._took)
        self.lose = 0
        with snapshot(url) as cur:
            self.follower.begin(plan_behind(cur, Positions(), keep_unknown=True).until)

    def hear(self, committed: Committed) -> None:
        if self.lose:
            self.lose -= 1
            return
        for piece in committed.pieces(2):
            self.follower.hear(Committed.decode(piece.encode()))

    def catch_up(self, rows: int = 3) -> None:
        """Read what is missing, as once a second, by pages."""
        before = self.follower.begin_reading()
        with snapshot(self.url) as cur:
            plan = plan_behind(cur, before, keep_unknown=True)
            for page in pages(cur, plan, rows):
                self._send(replayed_updates(page.trades, bounds(plan), plan.until))
        self.follower.end_reading(plan.until, whole=True)

    def look(self) -> None:
        """Learn from the ledger what there is, reading nothing."""
        positions = self.follower.positions
        assert positions is not None
        before = positions.copy()
        with snapshot(self.url) as cur:
            plan = plan_behind(cur, before, keep_unknown=True)
        self.follower.update(before, plan.until, {j.key: j.low_us for j in plan.journals})

    def _took(self, trades: Trades, positions: Positions) -> None:
        self._send(live_updates(trades, positions))

    def _send(self, updates: list[TradeUpdate]) -> None:
        self.updates += updates
        for watcher in self.watchers:
            watcher(updates)


def pages(cur: cursor, plan: Plan, rows: int, symbols: list[str] | None = None) -> Iterator[TradePage]:
    place = None
    while True:
        page = read_behind(cur, plan, symbols, place, rows)
        yield page
        place = page.place
        if place is None:
            return


# ---- whatever happens to the pipeline


def trades_of(numbers: list[int], seq_given: bool, conflicting: bool) -> list[Tick]:
    """As the machine's requests, of trades; every third number is a quote."""
    rows = machine_request(numbers, seq_given, conflicting)
    return [
        row if number % 3 == 2 else Tick(**{**_fields(row), "last": row.bid, "flags": 24})
        for number, row in zip(numbers, rows, strict=True)
    ]


def _fields(row: Tick) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("symbol", "time_us", "seq", "bid", "ask", "spread", "volume")}


machine_request = machine.request_of


class Announced(machine.PipelineToPostgres):
    """The machine with two desks: one that hears everything, and one that loses messages."""

    def __init__(self) -> None:
        super().__init__()
        self.desks = [Desk(machine.Postgres.url), Desk(machine.Postgres.url)]
        self.undone: Counter[Shown] = Counter()
        """What restores took back. Those who had seen it see it again if it comes by another journal."""

    @precondition(lambda self: len(self.workers) < 2)
    @rule()
    def start_worker(self) -> None:
        super().start_worker()
        self.workers[-1][0].flusher.on_committed = self._tell

    def _tell(self, committed: Committed) -> None:
        for desk in self.desks:
            desk.hear(committed)

    @rule(count=st.integers(1, 3))
    def lose_messages(self, count: int) -> None:
        self.desks[1].lose = count

    @rule()
    def look_at_the_ledger(self) -> None:
        self.desks[1].look()

    @rule()
    def read_what_is_missing(self) -> None:
        self.desks[1].catch_up()

    @precondition(lambda self: self.settings.get("keep_s") and self.snapshots)
    @rule(which=st.integers(0, 100))
    def restore_the_database(self, which: int) -> None:
        before = self._there()
        super().restore_the_database(which)
        self.undone += before - self._there()

    def _there(self) -> Counter[Shown]:
        with closing(psycopg2.connect(machine.Postgres.url)) as conn:
            return stored(conn)

    def _compare(self) -> None:
        super()._compare()
        there = self._there()
        for desk in self.desks:
            desk.catch_up()
            seen = Counter(shown(desk.updates))
            # Of two that contradict each other the first one is stored; after a restore that may be the other one.
            undone = {(symbol, at) for symbol, at, _ in self.undone}
            assert {trade for trade in there - seen if trade[:2] not in undone} == set()
            assert seen - there <= self.undone


@pytest.mark.parametrize(("examples", "steps"), [(12, 25), pytest.param(50, 50, marks=pytest.mark.long)])
def test_what_is_announced_is_what_is_stored_once_each_whatever_happens(
    database_url: str, monkeypatch: pytest.MonkeyPatch, examples: int, steps: int
) -> None:
    machine.Postgres.url = database_url
    monkeypatch.setattr(machine, "request_of", trades_of)
    run_state_machine_as_test(Announced, settings=machine._settings(examples, steps))


# ---- replays


class World:
    """Journals that are flushed in turn, a desk that hears of it or not, and a reader of that desk."""

    def __init__(self, url: str) -> None:
        self.sink = new_sink(url)
        self.url = url
        self.feeders = [Feeder(NOON_US + 7 * i) for i in range(3)]
        self.desk = Desk(url)
        self.number = 0

    def commit(self, journal: int, trades: int, heard: bool) -> Committed:
        """Flush some trades, and a resend of the first of them, into a journal."""
        feeder = self.feeders[journal]
        rows = []
        for _ in range(trades):
            self.number += 1
            # Not in the order of arrival, and many at one time.
            time_us = NOON_US - (self.number * 7919 % 97) * 1000
            rows.append(
                Tick(("TSLA", "NVDA")[self.number % 2], time_us, self.number, last=float(self.number), flags=24)
            )
        committed = self.flush(journal, feeder.batch(rows, rows[:1]))
        if heard:
            self.desk.hear(committed)
        return committed

    def flush(self, journal: int, batch: Batch) -> Committed:
        journal_id = self.feeders[journal].journal_id
        written = self.sink.write(journal_id, self.sink.ledger(journal_id), batch)
        while written.committed is None:
            written = self.sink.write(journal_id, written.entry, batch)
        return written.committed

    def id_of(self, journal: int) -> str:
        return self.feeders[journal].journal_id

    def close(self) -> None:
        self.sink.close()


STEP = st.tuples(st.sampled_from(["commit", "unheard", "catch up", "look"]), st.integers(0, 2), st.integers(1, 3))
STEPS = st.lists(STEP, max_size=5)


def happen(world: World, steps: list[tuple[str, int, int]]) -> None:
    for word, journal, trades in steps:
        if word == "catch up":
            world.desk.catch_up()
        elif word == "look":
            world.desk.look()
        else:
            world.commit(journal, trades, heard=word == "commit")


class Reader:
    """Somebody who asks with `since`; between any two reads something happens."""

    def __init__(self, world: World) -> None:
        self.world, self.replay = world, Replay()
        self.got: list[TradeUpdate] = []
        world.desk.watchers.append(self._live)

    def _live(self, updates: list[TradeUpdate]) -> None:
        self.got += self.replay.live(updates)

    def read(self, since: Since, between: Callable[[], None], rows: int) -> None:
        positions = since.positions
        if since.later_us is not None:
            if positions is None:
                with snapshot(self.world.url) as cur:
                    positions = plan_behind(cur, Positions()).until
            with snapshot(self.world.url) as cur:
                plan = Plan(positions, [], plan_behind(cur, positions).numbers, positions.top_us)
            place = start_later(since.later_us, since.place)
            while place is not None:
                between()
                with snapshot(self.world.url) as cur:
                    page = read_later(cur, plan, None, place, rows)
                self.got += later_updates(page.trades, page.keys, positions)
                place = page.place
        assert positions is not None
        while True:
            self.replay.hold()
            between()
            with snapshot(self.world.url) as cur:
                plan = plan_behind(cur, positions)
                place = None
            while True:
                between()
                with snapshot(self.world.url) as cur:
                    page = read_behind(cur, plan, None, place, rows)
                self.got += replayed_updates(page.trades, bounds(plan), plan.until)
                place = page.place
                if place is None:
                    break
            positions = plan.until
            if self.replay.reached(positions):
                break
        between()
        self.got += self.replay.release()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=STEPS, during=st.lists(STEPS, max_size=6), after=STEPS, rows=st.integers(1, 4), data=st.data())
def replays_are_whole(
    url: str, before: list[Any], during: list[Any], after: list[Any], rows: int, data: st.DataObject
) -> None:
    with closing(psycopg2.connect(url)) as conn:
        execute(conn, *(f"DELETE FROM {table}" for table in machine.TABLES))
        world = World(url)
        try:
            happen(world, before)
            what_happens = iter(during)
            reader = Reader(world)
            reader.read(
                parse_since(str(NOON_US - 10**9)), lambda: happen(world, next(what_happens, [])), rows
            )
            happen(world, after)
            world.desk.catch_up()
            everything = stored(conn)
            assert Counter(shown(reader.got)) == everything
            if not reader.got:
                return
            # Broken off anywhere, and begun again with the cursor of the last trade: the rest, once each.
            at = data.draw(st.integers(0, len(reader.got) - 1))
            again = Reader(world)
            again.read(
                parse_since(reader.got[at].cursor),
                lambda: happen(world, next(what_happens, [])),
                data.draw(st.integers(1, 4)),
            )
            world.desk.catch_up()
            everything = stored(conn)
            assert Counter(shown(reader.got[: at + 1])) + Counter(shown(again.got)) == everything
        finally:
            world.close()


@pytest.mark.long
def test_a_replay_and_what_is_live_are_the_table_once_each(database_url: str) -> None:
    replays_are_whole(database_url)


# ---- journals that come and go


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    yield made
    made.close()


def age(conn: connection, interval: str) -> None:
    execute(conn, f"UPDATE ingest_log SET updated_at = now() - interval '{interval}'")


def test_a_journal_that_idled_for_hours_enters_anew_before_it_is_flushed(conn: connection, world: World) -> None:
    world.commit(0, 2, heard=True)
    age(conn, "6 hours 1 minute")
    world.desk.look()
    assert world.desk.follower.positions is not None
    assert world.desk.follower.positions.done_us == {}  # finished, as far as anybody can see
    old = cursor_of(world.desk.follower.positions)
    world.commit(1, 1, heard=True)
    world.commit(0, 2, heard=True)
    world.desk.catch_up()
    assert Counter(shown(world.desk.updates)) == stored(conn)
    again = Reader(world)
    again.read(parse_since(old), lambda: None, 10)
    assert len(again.got) == 3
    for update in world.desk.updates[:2]:
        reader = Reader(world)
        reader.read(parse_since(update.cursor), lambda: None, 10)
        assert len(reader.got) == len(stored(conn)) - 1 - world.desk.updates.index(update)


def test_a_flush_of_a_journal_that_others_may_have_left_out_is_refused(conn: connection, world: World) -> None:
    feeder = world.feeders[0]
    world.commit(0, 1, heard=True)
    entry = world.sink.ledger(feeder.journal_id)
    before = rows_of(conn, "SELECT entered_at, entered_from FROM ingest_log")
    age(conn, "5 hours 1 minute")
    batch = feeder.batch([Tick(time_us=NOON_US + 5)])
    with pytest.raises(LedgerMoved):
        world.sink.write(feeder.journal_id, entry, batch)
    assert world.sink.ledger(feeder.journal_id) == entry
    ((entered_at, entered_from),) = rows_of(conn, "SELECT entered_at, entered_from FROM ingest_log")
    assert entered_at > before[0][0]
    assert rows_of(conn, "SELECT done_until FROM ingest_log") == [(entered_from,)]
    assert world.sink.write(feeder.journal_id, entry, batch)[0].stored == entry.stored + 1


def test_what_is_imported_is_not_announced(conn: connection, world: World) -> None:
    """Imports have a journal that never enters."""
    world.commit(0, 3, heard=False)
    execute(conn, "UPDATE ingest_log SET entered_at = NULL, entered_from = NULL")
    world.commit(1, 1, heard=False)
    world.desk.catch_up()
    assert len(world.desk.updates) == 1
    reader = Reader(world)
    reader.read(parse_since("1990-01-01"), lambda: None, 10)
    assert len(reader.got) == 4  # who asks for what is stored gets it


def test_a_replay_gives_the_trades_of_the_asked_symbols(world: World) -> None:
    world.commit(0, 6, heard=True)
    with snapshot(world.url) as cur:
        plan = plan_behind(cur, Positions())
        (page,) = pages(cur, plan, 10, ["NVDA"])
        assert {page.trades.names[i] for i in page.trades.symbol} == {"NVDA"}
        assert len(page.trades) == 3
        page = read_later(cur, plan, ["TSLA"], start_later(0), 10)
        while page.place and not len(page.trades):
            page = read_later(cur, plan, ["TSLA"], page.place, 10)
        assert {page.trades.names[i] for i in page.trades.symbol} == {"TSLA"}


def test_numbers_that_a_restored_database_gives_anew_confuse_nobody(conn: connection, world: World) -> None:
    world.commit(0, 2, heard=True)
    world.commit(1, 2, heard=True)
    execute(conn, *(f"DELETE FROM {table}" for table in machine.TABLES))
    execute(conn, "ALTER TABLE ingest_log ALTER COLUMN journal_no RESTART")
    world.desk.look()
    first = Counter(shown(world.desk.updates))
    world.commit(2, 2, heard=False)
    world.desk.catch_up()
    assert Counter(shown(world.desk.updates)) == first + stored(conn)


# ---- how much is looked at


def pages_later(url: str, since_us: int, rows: int, symbols: list[str] | None = None) -> list[TradePage]:
    found = []
    with snapshot(url) as cur:
        plan = plan_behind(cur, Positions())
        plan = Plan(plan.until, [], plan.numbers, plan.until.top_us)
        place: Place | None = start_later(since_us)
        while place is not None:
            found.append(read_later(cur, plan, symbols, place, rows))
            place = found[-1].place
    return found


def test_years_without_ticks_are_skipped_and_do_not_widen_what_is_looked_at(world: World) -> None:
    feeder = world.feeders[0]
    times_us = [NOON_US - 20 * 365 * 86_400_000_000 + 1000 * i for i in range(10)]
    rows = [Tick("TSLA", us, 1, last=1.0, flags=24) for us in [*times_us, *(NOON_US + 1000 * i for i in range(10))]]
    world.flush(0, feeder.batch(rows))
    found = pages_later(world.url, 0, 4)
    assert sum(len(page.trades) for page in found) == 20
    assert len(found) < 20
    assert max(page.place.window_us for page in found if page.place) <= 240_000_000
    assert len(pages_later(world.url, 0, 4, ["NVDA"])) == 1
    assert len(pages_later(world.url, NOON_US + 10**9, 4)) == 1


def test_a_page_that_is_full_is_followed_by_one_that_looks_at_little_more() -> None:
    now_s = time.perf_counter()
    assert trade_reader._next_window_us(60_000_000, now_s, 1_000_000) == 4_000_000
    assert trade_reader._next_window_us(60_000_000, now_s, 0) == 1000
    assert trade_reader._next_window_us(60_000_000, now_s) == 120_000_000
    assert trade_reader._next_window_us(60_000_000, now_s - 0.1) == 60_000_000
    assert trade_reader._next_window_us(60_000_000, now_s - 1) == 30_000_000
    assert trade_reader._next_window_us(60_000_000, now_s - 1, 1_000_000) == 2_000_000


@pytest.mark.parametrize(
    "since",
    [
        Since(later_us=MIN_US),
        Since(later_us=MAX_US),
        Since(Positions(0, {1: 5}), -1, TradeKey(MIN_US, -(1 << 31), -(1 << 63), 0, -(1 << 31))),
        Since(Positions(1 << 55, {(1 << 48) - 1: 1 << 55}), 1, TradeKey(1 << 55, (1 << 31) - 1, (1 << 63) - 1, 9, 9)),
        Since(Positions(1 << 55, {(1 << 48) - 1: 1 << 55})),
        Since(Positions()),
    ],
)
def test_whatever_a_client_makes_of_a_cursor_is_read(world: World, since: Since) -> None:
    world.commit(0, 5, heard=True)
    reader = Reader(world)
    reader.read(since, lambda: None, 3)
    if since.later_us is not None and since.later_us != 1:
        assert len(reader.got) in (0, 5)


def test_a_cursor_of_no_possible_time_is_refused() -> None:
    """PostgreSQL takes no time before the year 1 as it is written here."""
    head = f"t{'A' * 14}."
    for time_us, received_us in ((MIN_US - 1, 0), (0, -1), (1 << 57, 0), (0, 1 << 57)):
        place = urlsafe_b64encode(struct.pack(">qiqqi", time_us, 1, 1, received_us, 1)).decode().rstrip("=")
        with pytest.raises(BadParameter):
            parse_since(head + place)
    assert parse_since(head + urlsafe_b64encode(struct.pack(">qiqqi", 0, 1, 1, 0, 1)).decode().rstrip("="))


# ---- a database from before


def test_a_database_of_before_is_upgraded_in_place_and_its_trades_are_shown_as_history(
    conn: connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = time.time_ns() // 1000
    for journal, trades, age_s in ((0, 3, 60), (1, 2, 6 * 86_400)):
        world.feeders[journal].received_us = now_us - age_s * 1_000_000
        world.commit(journal, trades, heard=False)
    execute(conn, f"UPDATE ingest_log SET updated_at = now() - interval '5 days' WHERE journal_id = '{world.id_of(1)}'")
    execute(
        conn,
        "INSERT INTO ingest_log (journal_id) VALUES ('f0')",
        "DROP INDEX ticks_received_at",
        "ALTER TABLE ingest_log DROP COLUMN done_until, DROP COLUMN entered_at, DROP COLUMN entered_from",
        "UPDATE alembic_version SET version_num = '0006'",
    )
    with monkeypatch.context() as patch:
        # The step alone: what later ones make is there.
        patch.setattr(schema, "HEAD", "0007")
        (line,) = schema.migrate(world.url)
    assert line.startswith("migrated to 0007")
    execute(conn, f"UPDATE alembic_version SET version_num = '{schema.HEAD}'")
    positions = dict(rows_of(conn, "SELECT journal_id, done_until FROM ingest_log WHERE entered_at IS NULL"))
    ((last,),) = rows_of(conn, f"SELECT max(received_at) FROM ticks JOIN ingest_log USING (journal_no) "
                               f"WHERE journal_id = '{world.id_of(0)}'")  # fmt: skip
    assert positions[world.id_of(0)] == last
    assert positions[world.id_of(1)] > last - timedelta(days=6)
    assert positions["f0"] is None
    ((partitions, indexes),) = rows_of(conn, """
        SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'ticks'::regclass),
            (SELECT count(*) FROM pg_inherits WHERE inhparent = 'ticks_received_at'::regclass)
    """)  # fmt: skip
    assert partitions == indexes > 0

    desk = Desk(world.url)
    for journal in (0, 1, 2):
        world.feeders[journal].received_us = now_us
        desk.hear(world.commit(journal, 2, heard=False))
        desk.catch_up()
    assert len(desk.updates) == 6
    reader = Reader(world)
    reader.read(parse_since("1990-01-01"), lambda: None, 2)
    assert Counter(shown(reader.got)) == stored(conn)
    again = Reader(world)
    again.read(parse_since(desk.updates[2].cursor), lambda: None, 2)
    assert Counter(shown(again.got)) == Counter(shown(desk.updates[3:]))
