"""The flusher: whatever the database does, every acknowledged row gets there once, and no error ends it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from app.errors import BufferFull, DatabaseAway, LedgerMoved
from app.market.batches import Batch, LedgerEntry
from app.pipeline import journal as journals
from app.pipeline.books import JOURNAL_FIELDS, Shelf
from app.pipeline.flusher import FlushLimits
from tests.batches import Tick, many
from tests.pipelines import WAIT_S, MemorySink, Unruly, Worker, quick
from tests.waiting import others_turn, run_until

LIMITS = FlushLimits(rows=1, interval_s=0.0, max_rows=1000, timeout_s=WAIT_S)


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick(), gevent.Timeout(WAIT_S * 2):
        yield


@pytest.fixture
def database() -> MemorySink:
    return MemorySink()


@pytest.fixture
def sink(database: MemorySink) -> Unruly:
    return Unruly(database)


@pytest.fixture
def worker(tmp_path: Path, sink: Unruly) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**kwargs: object) -> Worker:
        made.append(Worker(tmp_path, sink, interrupt=sink.interrupt, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.die()


def entry_of(database: MemorySink, worker: Worker) -> tuple[int, ...]:
    e = database.entries[worker.journal_id]
    return e.next_row, e.stored, e.duplicates, e.set_aside, e.skipped, e.lost


def test_what_was_accepted_is_flushed(worker: Callable[..., Worker], database: MemorySink) -> None:
    w = worker()
    w.accept(many(5))
    w.accept(many(3))
    w.flush()
    assert entry_of(database, w) == (8, 5, 3, 0, 0, 0)
    assert w.watch.rows == 8
    assert w.ingest.book["received"] == 8
    assert (w.ingest.book["stored"], w.ingest.book["duplicates"]) == (5, 3)


def test_nothing_is_flushed_before_enough_rows_wait_and_then_everything(
    worker: Callable[..., Worker], sink: Unruly
) -> None:
    w = worker(limits=FlushLimits(rows=10, interval_s=1e6, max_rows=1000, timeout_s=WAIT_S))
    for flushes in (1, 2):
        for rows in (1, 3, 5):
            w.accept(many(rows, seq=rows, symbol=f"S{flushes}"))
            for _ in range(10):  # turns in which it may not flush
                gevent.sleep(0.001)
        assert sink.writes == flushes - 1
        w.accept(many(1, symbol=f"S{flushes}"))
        w.flush()
        assert sink.writes == flushes


def test_a_lonely_row_is_flushed_after_the_interval(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    w = worker(limits=FlushLimits(rows=100, interval_s=0.01, max_rows=1000, timeout_s=WAIT_S))
    w.accept([Tick()])
    w.flush()
    assert entry_of(database, w)[0] == 1


@pytest.mark.parametrize("word", ["before", "after", "late", "unmoved", "bug", "hang"])
def test_whatever_a_write_does_the_rows_are_stored_once(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly, word: str
) -> None:
    timeout_s = 0.05 if word == "hang" else WAIT_S
    w = worker(limits=FlushLimits(1, 0.0, 1000, timeout_s))
    sink.script.extend([word, "ok", word])
    for number in range(4):
        w.accept(many(3, seq=number))
    w.flush()
    w.accept(many(2, seq=9))
    sink.finish_late()
    w.flush()
    assert entry_of(database, w) == (14, 14, 0, 0, 0, 0)
    assert w.flusher.database_ok
    expected = {"after": 2, "before": 2, "late": 2, "hang": 2, "bug": 2, "unmoved": 0}[word]
    assert len(w.watch.failures) >= min(expected, 1)


def test_rows_are_accepted_while_the_database_is_away_and_drain_when_it_is_back(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    sink.away = True
    w = worker(buffer_bytes=4000, segment_bytes=4000)
    for number in range(40):
        w.accept(many(2, seq=number))
        assert w.budget.used_bytes <= 4000
    run_until(lambda: w.flusher.failures > 2)
    assert not w.flusher.database_ok
    assert database.content == {}
    sink.away = False
    w.flush()
    assert entry_of(database, w) == (80, 80, 0, 0, 0, 0)
    assert w.flusher.failures == 0


def test_one_journals_trouble_does_not_hold_up_the_others(
    tmp_path: Path, worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    sink.away = True
    dead = worker()
    dead.accept(many(4))
    dead.die()
    sink.away = False
    write = sink.write

    def choosy(journal_id: str, entry: LedgerEntry, batch: Batch) -> object:
        if journal_id == dead.journal_id:
            raise ZeroDivisionError("this journal's own trouble")
        return write(journal_id, entry, batch)

    sink.write = choosy  # type: ignore[method-assign, assignment]  # a fault for one journal only
    w = worker()
    w.recovery.scan()
    for number in range(3):
        w.accept(many(1, seq=number))
        # Its entry is made with its first flush.
        run_until(lambda: w.journal_id in database.entries and entry_of(database, w)[0] == number + 1)  # noqa: B023 - now
    sink.write = write  # type: ignore[method-assign]  # the trouble is over
    w.flush()
    assert database.entries[dead.journal_id].next_row == 4


def test_an_interrupt_ends_a_write_that_hangs(worker: Callable[..., Worker], sink: Unruly) -> None:
    w = worker(limits=FlushLimits(1, 0.0, 1000, 0.02))
    sink.script.append("hang")
    w.accept(many(2))
    w.flush()
    assert any("no answer" in line for line in w.watch.failures)


def test_a_ledger_that_others_moved_is_followed(worker: Callable[..., Worker], database: MemorySink) -> None:
    """Another one had this journal before, and its last flush arrived late."""
    w = worker(run=False)
    w.accept(many(4))
    w.accept(many(4, seq=1))
    database.ledger(w.journal_id)
    first, _ = w.ingest.source.window.take(4)
    database.write(w.journal_id, database.ledger(w.journal_id), first)
    w.greenlets.append(gevent.spawn(w.flusher.run))
    w.flush()
    assert entry_of(database, w) == (8, 8, 0, 0, 0, 0)


def test_an_older_database_gets_the_rows_of_every_journal_again(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    """It was replaced without a broken connection, and only the own journal has something to write."""
    dead = worker()
    dead.accept(many(4))
    dead.flush()
    dead.die()
    w = worker()
    w.recovery.scan()
    w.accept(many(3, seq=1))
    w.flush()
    database.restore(({}, {}, set()))
    w.accept(many(2, seq=2))
    run_until(lambda: len(database.content) == 9)
    w.flush()
    assert entry_of(database, w) == (5, 5, 0, 0, 0, 0)
    assert database.entries[dead.journal_id].next_row == 4


def test_an_older_database_gets_the_rows_again_also_when_nothing_new_comes(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    """It came back from a backup at the weekend: on Monday the kept segments would be gone."""
    dead = worker()
    dead.accept(many(4))
    dead.flush()
    dead.die()
    w = worker()
    w.recovery.scan()
    w.accept(many(3, seq=1))
    w.flush()
    database.restore(({}, {}, set()))
    w.flusher.try_now()
    run_until(lambda: len(database.content) == 7)
    w.flush()
    assert entry_of(database, w) == (3, 3, 0, 0, 0, 0)


def test_a_transaction_that_is_too_much_for_the_database_gets_smaller(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    """Out of locks, or slower than a statement may be: the same batch again would fail for ever."""
    write = database.write

    def small_only(journal_id: str, entry: LedgerEntry, batch: Batch) -> object:
        if batch.rows > 10:
            raise DatabaseAway("out of shared memory")
        return write(journal_id, entry, batch)

    database.write = small_only  # type: ignore[method-assign, assignment]  # a database with little memory
    sink.away = True
    w = worker()
    for number in range(50):
        w.accept(many(2, seq=number))
    sink.away = False
    w.flush()
    assert entry_of(database, w)[0] == 100
    database.write = write  # type: ignore[method-assign]  # it has enough again
    largest = [0]
    for number in range(200, 240):
        w.accept(many(50, seq=number))
        w.flush()
        largest.append(max(batch.rows for _, batch in database.batches))
    assert largest[-1] == 50


def test_a_drain_flushes_at_once_and_says_when_nothing_is_left(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    w = worker(limits=FlushLimits(rows=100, interval_s=1e6, max_rows=7, timeout_s=WAIT_S))
    for number in range(9):
        w.accept(many(3, seq=number))
    w.flusher.drain()
    assert w.flusher.idle.wait(WAIT_S)
    assert w.pending_rows == 0
    assert entry_of(database, w)[0] == 27


def test_no_row_is_read_back_or_written_twice_while_nothing_is_wrong(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    w = worker()
    callers = [gevent.spawn(w.accept, many(2, seq=number)) for number in range(200)]
    gevent.joinall(callers, raise_error=True)
    w.flush()
    assert entry_of(database, w) == (400, 400, 0, 0, 0, 0)
    assert sum(batch.rows for _, batch in database.batches) == 400


def test_damage_is_told_and_counted_once(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    sink.away = True
    w = worker(buffer_bytes=10)
    for number in range(4):
        w.accept(many(3, seq=number))
    path = journals.segment_path(w.ingest.journal.directory, 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    sink.away = False
    w.flush()
    w.accept(many(3, seq=8))
    w.flush()
    next_row, stored, *_, lost = entry_of(database, w)
    assert next_row == 15
    assert stored + lost == 15
    assert lost in (3, 6)
    assert w.watch.notes


# ---- the way in


def test_requests_that_come_together_share_a_sync(
    worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    w = worker()
    syncs: list[int] = []
    monkeypatch.setattr(journals, "sync_file", syncs.append)
    callers = [gevent.spawn(w.accept, many(1, seq=number)) for number in range(50)]
    gevent.joinall(callers, raise_error=True)
    assert len(syncs) <= 4  # two begin a segment, or come before the others are there


def full(worker: Worker) -> bool:
    """Tell whether a request like the others is refused."""
    try:
        worker.accept(many(2, symbol="NVDA"))
    except BufferFull:
        return True
    return False


def test_a_full_journal_directory_refuses_and_takes_again_when_there_is_room(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    sink.away = True
    w = worker(journal_max_bytes=6000, segment_bytes=1000, keep_s=0)
    accepted = 0
    while not full(w):
        w.accept(many(2, seq=accepted))
        accepted += 2
        assert accepted < 1000
    assert accepted > 0
    assert w.ingest.disk_bytes() <= 6000
    sink.away = False
    w.flush()
    w.recovery.scan()
    w.accept(many(2, seq=5000))
    w.flush()
    next_row, stored, duplicates, *_ = entry_of(database, w)
    assert (next_row, stored, duplicates) == (2 * accepted + 2, accepted + 4, accepted - 2)


def test_a_write_that_fails_refuses_all_its_requests_and_stores_none_of_their_rows(
    worker: Callable[..., Worker], database: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = worker()
    w.accept(many(2))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journals, "sync_file", full)
        callers = [gevent.spawn(w.accept, many(3, seq=number)) for number in range(1, 4)]
        gevent.joinall(callers)
    assert all(isinstance(caller.exception, BufferFull) for caller in callers)
    assert "No space left" in str(callers[0].exception)
    assert not w.ingest.writable()
    w.accept(many(5, seq=9))
    assert w.ingest.writable()
    w.flush()
    next_row, stored, _, _, skipped, lost = entry_of(database, w)
    assert (stored, lost) == (7, 0)
    assert next_row == 7 + skipped
    assert skipped > 0


def test_a_client_that_goes_away_does_not_take_its_rows_with_it(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    """What was on its way to the disk is there and is flushed; the bytes that waited are given back."""
    w = worker()
    caller = gevent.spawn(w.accept, many(2))
    others_turn()
    caller.kill()
    w.accept(many(2, seq=1))
    w.flush()
    assert w.ingest._waiting_bytes == 0
    assert entry_of(database, w)[1] == 4


def test_the_books_say_what_the_ledger_says(
    tmp_path: Path, worker: Callable[..., Worker], sink: Unruly
) -> None:
    sink.away = True
    dead = worker()
    dead.accept(many(4))
    dead.die()
    sink.away = False
    w = worker()
    w.recovery.scan()
    w.accept([*many(4), *many(2, seq=1), Tick(bid=1.0)])
    w.flush()
    shelf = Shelf(tmp_path / "books", JOURNAL_FIELDS)
    shelf.refresh()
    totals = {name: shelf.total(name) for name in ("received", "stored", "duplicates", "set_aside")}
    assert totals["received"] == 11
    assert totals["stored"] + totals["duplicates"] + totals["set_aside"] == 11
    assert totals["set_aside"] == 1


def test_what_the_server_collected_itself_is_told_apart_also_after_its_worker_died(
    tmp_path: Path, worker: Callable[..., Worker], sink: Unruly
) -> None:
    def told_apart() -> tuple[int, int]:
        shelf = Shelf(tmp_path / "books", JOURNAL_FIELDS)
        shelf.refresh()
        return shelf.total("collected"), shelf.total("collected_done")

    dead = worker()
    dead.collect(many(2, seq=1))
    dead.flush()
    assert told_apart() == (2, 2)
    assert (dead.watch.rows, dead.ingest.book["last_flush_us"]) == (0, 0), "nobody sent anything"
    dead.accept(many(3, seq=2))
    dead.flush()
    assert (dead.watch.rows, dead.ingest.book["last_flush_us"] > 0) == (3, True)
    sink.away = True
    dead.accept(many(1, seq=3))
    dead.collect(many(4, seq=4))
    assert told_apart() == (6, 2)
    dead.die()
    sink.away = False
    w = worker()
    w.recovery.scan()
    w.flush()
    assert told_apart() == (6, 6)


def test_ledger_moved_is_no_failure(
    worker: Callable[..., Worker], database: MemorySink, sink: Unruly
) -> None:
    w = worker()
    moved = [1, 1]
    write = database.write

    def elsewhere(journal_id: str, entry: LedgerEntry, batch: Batch) -> object:
        if moved:
            moved.pop()
            raise LedgerMoved(journal_id)
        return write(journal_id, entry, batch)

    database.write = elsewhere  # type: ignore[method-assign, assignment]  # as if others were faster
    w.accept(many(3))
    w.flush()
    assert entry_of(database, w)[0] == 3
    assert w.watch.failures == []
