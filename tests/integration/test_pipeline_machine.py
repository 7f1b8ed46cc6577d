"""The whole pipeline against a plain list of what was acknowledged: any order of failures, deaths and returns.

Real journals, windows, flushers, recoveries; a database of dictionaries for many examples, PostgreSQL for fewer.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import gevent
import numpy as np
import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg2.extensions import connection

from app.errors import BufferFull
from app.market.batches import Sink
from app.market.identity import derive_seq
from app.pipeline import journal as journals
from app.pipeline import window as windows
from app.pipeline.flusher import FlushLimits
from tests.batches import (
    NOON_US,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    new_sink,
    rows_of,
    stored_keys,
    ticks,
)
from tests.pipelines import WAIT_S, Key, MemorySink, Unruly, Worker, quick, rows_in
from tests.waiting import others_turn, run_until

OUTCOMES = st.sampled_from(["ok", "ok", "ok", "before", "after", "late", "unmoved", "bug"])
REQUEST = st.lists(st.integers(0, 30), min_size=1, max_size=8)


def request_of(numbers: list[int], seq_given: bool, conflicting: bool) -> list[Tick]:
    """Return a request's ticks; the same number is the same tick, whoever sends it."""
    rows = [
        Tick(time_us=NOON_US + number // 3, seq=number % 3, bid=1.0 + number + 100 * conflicting)
        for number in numbers
    ]
    if seq_given:
        return rows
    made = ticks([Tick(time_us=row.time_us, bid=row.bid) for row in rows])
    seq = derive_seq(
        made.names, made.symbol, made.time_us, made.bid, made.ask, made.last, made.volume, made.flags
    )
    return [Tick(time_us=row.time_us, seq=int(s), bid=row.bid) for row, s in zip(rows, seq, strict=True)]


class Database:
    """What the machine needs of a database: sinks to it, and a look at it."""

    def sink(self) -> Sink:
        raise NotImplementedError

    def snapshot(self) -> Any:
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        raise NotImplementedError

    def keys(self) -> list[Key]:
        raise NotImplementedError

    def ledger(self) -> dict[str, tuple[int, ...]]:
        """Return (next_row, stored, duplicates, set_aside, skipped, lost) by journal."""
        raise NotImplementedError

    def aside(self) -> int:
        raise NotImplementedError

    def check(self) -> None:
        """Check what only this kind of database has."""

    def close(self) -> None:
        """Leave nothing behind."""


class InMemory(Database):
    def __init__(self) -> None:
        self._inner = MemorySink()

    def sink(self) -> Sink:
        return self._inner

    def snapshot(self) -> Any:
        return self._inner.snapshot()

    def restore(self, state: Any) -> None:
        self._inner.restore(state)

    def keys(self) -> list[Key]:
        return sorted(self._inner.content)

    def ledger(self) -> dict[str, tuple[int, ...]]:
        return {
            name: (e.next_row, e.stored, e.duplicates, e.set_aside, e.skipped, e.lost)
            for name, e in self._inner.entries.items()
        }

    def aside(self) -> int:
        return len(self._inner.aside)


TABLES = ("ticks", "bars", "current", "ingest_log", "rejected_ticks")


class Postgres(Database):
    url: ClassVar[str]

    def __init__(self) -> None:
        self._conn: connection = psycopg2.connect(self.url)
        execute(self._conn, *(f"DELETE FROM {table}" for table in TABLES))
        self._made: list[Any] = []
        self._snapshots = 0

    def sink(self) -> Sink:
        self._made.append(new_sink(self.url))
        return self._made[-1]

    def snapshot(self) -> Any:
        self._snapshots += 1
        name = f"snap{self._snapshots}"
        execute(
            self._conn, *(f"CREATE TEMP TABLE {name}_{table} AS SELECT * FROM {table}" for table in TABLES)
        )
        return name

    def restore(self, state: Any) -> None:
        execute(
            self._conn,
            *(f"DELETE FROM {table}" for table in TABLES),
            *(
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {state}_{table}"
                for table in TABLES
            ),
        )

    def keys(self) -> list[Key]:
        return stored_keys(self._conn)

    def ledger(self) -> dict[str, tuple[int, ...]]:
        query = "SELECT journal_id, next_row, stored, duplicates, set_aside, skipped, lost FROM ingest_log"
        return {name: tuple(rest) for name, *rest in rows_of(self._conn, query)}

    def aside(self) -> int:
        return int(rows_of(self._conn, "SELECT count(*) FROM rejected_ticks")[0][0])

    def check(self) -> None:
        assert_bars_and_current_are_those_of_a_clean_load(self._conn)

    def close(self) -> None:
        for sink in self._made:
            sink.close()
        self._conn.close()


class Pipeline(RuleBasedStateMachine):
    """Up to two workers on one data directory. Between the rules the database is away."""

    database_kind: ClassVar[Callable[[], Database]] = InMemory

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="tht-pipeline-"))
        self.stack = ExitStack()
        self.stack.enter_context(quick())
        self.read_bytes = windows.READ_BYTES
        self.sync = journals.sync_file
        journals.sync_file = self._sync
        self.disk_fails = False
        self.database = self.database_kind()
        self.workers: list[tuple[Worker, Unruly]] = []
        self.late: list[Unruly] = []
        self.acknowledged: list[Key] = []
        self.unknown: list[Key] = []  # sent, and nobody knows what became of it
        self.refused: list[Key] = []
        self.snapshots: list[Any] = []
        self.settings: dict[str, Any] = {}

    def _sync(self, fd: int) -> None:
        if self.disk_fails:
            raise OSError(errno.EIO, "Input/output error")

    @initialize(
        buffer_bytes=st.sampled_from([1, 700, 1 << 20]),
        segment_bytes=st.sampled_from([1, 700, 1 << 20]),
        read_bytes=st.sampled_from([1, 1000]),
        max_rows=st.sampled_from([1, 7, 1000]),
        keep_s=st.sampled_from([0.0, 1e9]),
    )
    def begin(
        self, buffer_bytes: int, segment_bytes: int, read_bytes: int, max_rows: int, keep_s: float
    ) -> None:
        windows.READ_BYTES = read_bytes
        self.settings = {
            "limits": FlushLimits(1, 0.0, max_rows, WAIT_S),
            "buffer_bytes": buffer_bytes,
            "segment_bytes": segment_bytes,
            "keep_s": keep_s,
        }
        self.start_worker()

    # ---- what happens

    @precondition(lambda self: len(self.workers) < 2)
    @rule()
    def start_worker(self) -> None:
        sink = Unruly(self.database.sink(), away=True, server=self.database.sink())
        self.workers.append((Worker(self.root, sink, **self.settings), sink))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        worker, sink = self.workers.pop(which % len(self.workers))
        worker.die()
        self.late.append(sink)

    @precondition(lambda self: self.workers)
    @rule(
        which=st.integers(0, 1),
        requests=st.lists(REQUEST, min_size=1, max_size=3),
        seq_given=st.booleans(),
        conflicting=st.booleans(),
    )
    def accept(self, which: int, requests: list[list[int]], seq_given: bool, conflicting: bool) -> None:
        worker, _ = self.workers[which % len(self.workers)]
        sent = [request_of(numbers, seq_given, conflicting) for numbers in requests]
        callers = [gevent.spawn(attempt, worker, rows) for rows in sent]
        gevent.joinall(callers, timeout=WAIT_S)
        for rows, caller in zip(sent, callers, strict=True):
            assert caller.value == "acknowledged"
            self.acknowledged += keys_of(rows)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1), numbers=REQUEST)
    def accept_while_the_disk_fails(self, which: int, numbers: list[int]) -> None:
        worker, _ = self.workers[which % len(self.workers)]
        rows = request_of(numbers, True, False)
        self.disk_fails = True
        said = attempt(worker, rows)
        self.disk_fails = False
        assert said == "refused"
        # What a failed sync left on the disk is void to this worker; after its death it may be found.
        self.refused += keys_of(rows)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1), numbers=REQUEST, yields=st.integers(0, 3))
    def kill_while_a_request_is_on_its_way(self, which: int, numbers: list[int], yields: int) -> None:
        worker, sink = self.workers.pop(which % len(self.workers))
        rows = request_of(numbers, True, False)
        caller = gevent.spawn(attempt, worker, rows)
        for _ in range(yields):
            others_turn()
        caller.kill()
        worker.die()
        self.late.append(sink)
        if caller.value == "acknowledged":
            self.acknowledged += keys_of(rows)
        else:
            self.unknown += keys_of(rows)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1), outcomes=st.lists(OUTCOMES, min_size=1, max_size=4))
    def flush(self, which: int, outcomes: list[str]) -> None:
        worker, sink = self.workers[which % len(self.workers)]
        sink.script.extend(outcomes)
        run_until(lambda: not sink.script or not known_pending(worker), "the script")
        sink.script.clear()

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1))
    def look_for_journals(self, which: int) -> None:
        worker, _ = self.workers[which % len(self.workers)]
        worker.recovery.scan()

    @rule()
    def the_server_finishes_what_it_was_doing(self) -> None:
        for sink in [*self.late, *(sink for _, sink in self.workers)]:
            sink.finish_late()

    @rule()
    def back_the_database_up(self) -> None:
        self.snapshots.append(self.database.snapshot())

    @precondition(lambda self: self.settings.get("keep_s") and self.snapshots)
    @rule(which=st.integers(0, 100))
    def restore_the_database(self, which: int) -> None:
        """Its sessions end with it, so nothing of them arrives late."""
        for sink in [*self.late, *(sink for _, sink in self.workers)]:
            sink.late.clear()
        self.database.restore(self.snapshots[which % len(self.snapshots)])

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self._settle()

    # ---- what must hold

    def _settle(self) -> None:
        """Bring everything up, let it drain, and compare with what was acknowledged."""
        if not self.workers:
            self.start_worker()
        self.the_server_finishes_what_it_was_doing()
        for worker, sink in self.workers:
            sink.away = False
            for source in worker.flusher.sources:
                source.entry = None  # as after the connections that were lost
        for worker, _ in self.workers:
            worker.recovery.scan()
            worker.flusher.try_now()
        for worker, _ in self.workers:
            wake(worker)
            worker.flush()
        self._compare()
        for _, sink in self.workers:
            sink.away = True

    def _compare(self) -> None:
        stored, acknowledged = self.database.keys(), set(self.acknowledged)
        assert acknowledged <= set(stored)
        assert set(stored) <= acknowledged | set(self.unknown) | set(self.refused)
        ledger = self.database.ledger()
        for next_row, *fates in ledger.values():
            assert next_row == sum(fates)
        stored_rows, duplicates, aside, _, lost = (
            sum(column) for column in list(zip(*ledger.values(), strict=True))[1:]
        )
        assert lost == 0
        assert stored_rows == len(stored) == len(set(stored))
        assert aside == self.database.aside()
        processed = stored_rows + duplicates + aside
        assert len(self.acknowledged) <= processed
        assert processed <= len(self.acknowledged) + len(self.unknown) + len(self.refused)
        for worker, _ in self.workers:
            for source in worker.flusher.sources:
                assert ledger[source.journal_id][0] == source.window.row == source.window.end_row
            assert worker.budget.used_bytes == 0
        self.database.check()

    def teardown(self) -> None:
        try:
            if self.settings:
                self._settle()
                if not self.settings["keep_s"]:
                    self._nothing_is_left_over()
        finally:
            for worker, _ in self.workers:
                worker.die()
            self.database.close()
            windows.READ_BYTES = self.read_bytes
            journals.sync_file = self.sync
            self.stack.close()
            shutil.rmtree(self.root)

    def _nothing_is_left_over(self) -> None:
        own = {worker.journal_id for worker, _ in self.workers}
        for path in (self.root / "journal").rglob("*.seg"):
            os.utime(path, (0, 0))
        for worker, _ in self.workers:
            worker.recovery.scan()
        assert {path.name for path in (self.root / "journal").iterdir()} == own


def keys_of(rows: list[Tick]) -> list[Key]:
    return [key for key, _ in rows_in(ticks(rows).encode())]


def attempt(worker: Worker, rows: list[Tick]) -> str:
    try:
        worker.accept(rows)
    except BufferFull:
        return "refused"
    return "acknowledged"


def known_pending(worker: Worker) -> bool:
    return any(s.entry is None or s.window.pending_rows for s in worker.flusher.sources)


def wake(worker: Worker) -> None:
    for source in worker.flusher.sources:
        worker.flusher.poke(source)


def _settings(max_examples: int, steps: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )


def test_every_acknowledged_row_is_there_once_whatever_happens() -> None:
    run_state_machine_as_test(Pipeline, settings=_settings(15, 30))


@pytest.mark.long
def test_every_acknowledged_row_is_there_once_whatever_happens_for_long() -> None:
    run_state_machine_as_test(Pipeline, settings=_settings(130, 50))


class PipelineToPostgres(Pipeline):
    database_kind = Postgres


def test_every_acknowledged_row_is_in_postgresql_once_whatever_happens(database_url: str) -> None:
    Postgres.url = database_url
    run_state_machine_as_test(PipelineToPostgres, settings=_settings(6, 25))


@pytest.mark.long
def test_every_acknowledged_row_is_in_postgresql_once_whatever_happens_for_long(database_url: str) -> None:
    Postgres.url = database_url
    run_state_machine_as_test(PipelineToPostgres, settings=_settings(40, 40))


def test_equal_ticks_without_seq_are_told_apart_within_a_request() -> None:
    """What the machine sends without seq must be able to hold the same tick twice."""
    rows = request_of([4, 4, 5], seq_given=False, conflicting=False)
    assert len({row.seq for row in rows}) == 3
    assert np.all(np.array([row.seq for row in rows]) < 0)
