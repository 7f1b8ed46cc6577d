"""Journals of dead workers are taken over by one, drained once and then removed; nothing that is needed goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from psycopg2.extensions import connection

from app.market.batches import Sink
from app.pipeline import journal as journals
from app.pipeline import recovery as recoveries
from app.pipeline.books import JOURNAL_FIELDS, Shelf
from app.pipeline.flusher import FlushLimits
from app.pipeline.journal import Journal, acquire, segment_path, segments
from tests.batches import (
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    many,
    new_sink,
    rows_of,
    stored_keys,
)
from tests.pipelines import WAIT_S, MemorySink, Unruly, Worker, quick
from tests.waiting import others_turn


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick(), gevent.Timeout(WAIT_S * 2):
        yield


@pytest.fixture
def database() -> MemorySink:
    return MemorySink()


@pytest.fixture
def worker(tmp_path: Path, database: MemorySink) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(sink: Sink = database, **kwargs: Any) -> Worker:
        made.append(Worker(tmp_path, sink, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.die()


def dead_worker(worker: Callable[..., Worker], *requests: list[Tick], **kwargs: Any) -> Worker:
    """Return one that died before it flushed what it had accepted."""
    dead = worker(run=False, **kwargs)
    for rows in requests:
        dead.accept(rows)
    dead.die()
    return dead


def fate(database: MemorySink, journal_id: str) -> tuple[int, ...]:
    e = database.entries[journal_id]
    return e.next_row, e.stored, e.duplicates, e.set_aside, e.skipped, e.lost


# ---- taking over


def test_what_a_dead_worker_accepted_is_flushed_by_another(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    dead = dead_worker(worker, many(5), many(2), segment_bytes=100)
    w = worker()
    w.recovery.scan()
    w.flush()
    assert fate(database, dead.journal_id) == (7, 5, 2, 0, 0, 0)
    assert w.watch.rows == 7


def test_a_living_workers_journal_is_left_to_it(worker: Callable[..., Worker], database: MemorySink) -> None:
    living, other = worker(run=False), worker()
    living.accept(many(3))
    other.recovery.scan()
    assert [source.journal_id for source in other.flusher.sources] == [other.journal_id]


def test_of_two_that_look_at_once_one_takes_a_journal(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    dead = [dead_worker(worker, many(3, seq=number)) for number in range(6)]
    both = [worker(), worker()]
    gevent.joinall([gevent.spawn(w.recovery.scan) for w in both], raise_error=True)
    held = [source.journal_id for w in both for source in w.flusher.sources if not source.own]
    assert sorted(held) == sorted(w.journal_id for w in dead)
    for w in both:
        w.flush()
    assert len(database.content) == 18
    assert sum(batch.rows for _, batch in database.batches) == 18


def test_a_journal_that_changes_hands_again_and_again_is_stored_once(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    """Each taker dies somewhere on the way, with and without its last COMMIT."""
    first = dead_worker(worker, *(many(4, seq=number) for number in range(10)), segment_bytes=300)
    for word in ("before", "after", "late", "ok", "bug"):
        unruly = Unruly(database, away=True)
        w = worker(unruly, buffer_bytes=500)
        w.recovery.scan()
        unruly.script.extend(["ok", word])
        gevent.sleep(0.01)  # wherever it is by then
        w.die()
        unruly.finish_late()
    w = worker()
    w.recovery.scan()
    w.flush()
    assert fate(database, first.journal_id) == (40, 40, 0, 0, 0, 0)


def test_an_unfinished_write_at_the_end_is_neither_stored_nor_lost(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    dead = dead_worker(worker, many(5), many(2))
    with open(segment_path(dead.ingest.journal.directory, 0), "ab") as file:
        file.write(b"TKJ1 and then the power went")
    w = worker()
    w.recovery.scan()
    w.flush()
    assert fate(database, dead.journal_id) == (7, 5, 2, 0, 0, 0)
    assert any("unfinished write" in line for line in w.watch.notes)


@pytest.mark.parametrize("books", ["kept", "wiped"])
def test_a_destroyed_end_is_lost_as_far_as_anybody_knows(
    worker: Callable[..., Worker], database: MemorySink, books: str
) -> None:
    """The books of this server's life say that the rows were acknowledged; after a restart nobody knows."""
    dead = dead_worker(worker, many(5), many(2, seq=1))
    path = segment_path(dead.ingest.journal.directory, 0)
    os.truncate(path, path.stat().st_size - 10)
    if books == "wiped":
        for book in dead.books.iterdir():
            book.unlink()
    w = worker()
    w.recovery.scan()
    w.flush()
    lost = 2 if books == "kept" else 0
    assert fate(database, dead.journal_id) == (5 + lost, 5, 0, 0, 0, lost)


def test_void_rows_of_a_death_in_a_full_disk_are_not_lost(
    worker: Callable[..., Worker], database: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = worker(run=False)
    dead.accept(many(3))

    def full(fd: int) -> None:
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(journals, "sync_file", full)
        with pytest.raises(Exception, match="full"):
            dead.accept(many(4, seq=1))
    dead.die()
    segment_path(dead.ingest.journal.directory, 7).touch()  # killed right behind open()
    w = worker()
    w.recovery.scan()
    w.flush()
    assert fate(database, dead.journal_id) == (3, 3, 0, 0, 0, 0)


def test_a_journal_that_cannot_be_read_keeps_nobody_from_the_others(
    worker: Callable[..., Worker], database: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = dead_worker(worker, many(2)), dead_worker(worker, many(3))
    path = segment_path(broken.ingest.journal.directory, 0)
    kept = path.with_suffix(".kept")
    path.rename(kept)
    path.mkdir()
    w = worker()
    for _ in range(3):
        w.recovery.scan()
    w.flush()
    assert fate(database, sound.journal_id)[1] == 3
    assert len([line for line in caplog.messages if broken.journal_id in line]) == 1, "told once"
    fd = acquire(broken.ingest.journal.directory)
    assert fd is not None, "who cannot read it does not keep it"
    os.close(fd)
    path.rmdir()
    kept.rename(path)
    w.recovery.scan()
    w.flush()
    assert fate(database, broken.journal_id) == (2, 0, 2, 0, 0, 0)


def test_a_journal_that_cannot_be_taken_over_now_is_taken_over_later(
    worker: Callable[..., Worker], database: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [dead_worker(worker, many(2, seq=number)) for number in range(3)]
    w = worker()
    real = recoveries.journal_book

    def no_room(directory: Path, journal_id: str) -> Any:
        if journal_id != dead[1].journal_id:
            raise OSError("No space left on device")
        return real(directory, journal_id)

    with monkeypatch.context() as patch:
        patch.setattr(recoveries, "journal_book", no_room)
        w.recovery.scan()
        w.flush()
    assert {s.journal_id for s in w.flusher.sources} == {w.journal_id, dead[1].journal_id}
    w.recovery.scan()
    w.flush()
    assert len(database.content) == 6


def test_what_is_no_journal_is_left_alone(worker: Callable[..., Worker]) -> None:
    w = worker()
    (w.journals / "lost+found").mkdir()
    (w.journals / ".new-abc").mkdir()
    (w.journals / "notes").write_text("mine")
    w.recovery.scan()
    assert {path.name for path in w.journals.iterdir()} == {w.journal_id, "lost+found", ".new-abc", "notes"}


def test_a_half_removed_journal_is_removed(worker: Callable[..., Worker], database: MemorySink) -> None:
    w = worker()
    empty = Journal(w.journals, "ab" * 16, 1000)
    empty.close()
    (empty.directory / "lock").unlink()
    w.recovery.scan()
    assert not empty.directory.exists()


def test_left_over_rows_are_shown_before_the_database_is_there(
    worker: Callable[..., Worker], database: MemorySink, tmp_path: Path
) -> None:
    first = worker()
    first.accept(many(5))
    first.flush()
    first.die()
    again = worker(Unruly(database, away=True))
    again.recovery.scan()
    again.die()
    dead_worker(worker, many(4, seq=1))
    for book in (tmp_path / "books").iterdir():
        book.unlink()  # as a server's start does
    w = worker(Unruly(database, away=True))
    w.recovery.scan()
    shelf = Shelf(tmp_path / "books", JOURNAL_FIELDS)
    shelf.refresh()
    assert shelf.total("received") == 4, "what was flushed by an earlier run does not count"
    assert w.pending_rows == 4


# ---- removing


def age(worker: Worker, seconds: float) -> None:
    """Make its segments look as if last written so long ago."""
    at = time.time() - seconds
    for first in segments(worker.ingest.journal.directory):
        os.utime(segment_path(worker.ingest.journal.directory, first), (at, at))


def test_committed_segments_are_kept_for_their_time_and_then_removed(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    w = worker(keep_s=100, segment_bytes=200)
    for number in range(5):
        w.accept(many(2, seq=number))
    w.flush()
    directory = w.ingest.journal.directory
    before = w.ingest.book["disk_bytes"]
    w.recovery.scan()
    assert len(segments(directory)) == 5
    age(w, 200)
    w.recovery.scan()
    assert segments(directory) == [8], "the one that is written to stays"
    assert w.ingest.book["disk_bytes"] == journals.disk_bytes(directory) < before
    w.accept(many(2, seq=9))
    w.flush()
    assert fate(database, w.journal_id) == (12, 12, 0, 0, 0, 0)


@pytest.mark.parametrize("own", [True, False], ids=["own", "taken over"])
def test_what_is_not_committed_is_never_removed(
    worker: Callable[..., Worker], database: MemorySink, own: bool
) -> None:
    """Its place in the ledger is known, and the disk is at its bound."""
    slow = FlushLimits(rows=10, interval_s=1e6, max_rows=10, timeout_s=WAIT_S)
    w = worker(keep_s=0, segment_bytes=1, limits=slow)
    for number in range(5):
        w.accept(many(2, seq=number))
    w.flush()
    for number in range(5, 9):
        w.accept(many(2, seq=number))
    if not own:
        w.die()
        database.restore(({w.journal_id: database.entries[w.journal_id]}, database.content, set()))
        w = worker(keep_s=0, limits=FlushLimits(1, 0.0, 2, WAIT_S), run=False)
        w.recovery.scan()
        w.flusher.sources[-1].enter(database.ledger(w.flusher.sources[-1].journal_id))
    directory = w.flusher.sources[-1].directory
    for path in directory.glob("*.seg"):
        os.utime(path, (0, 0))
    w.recovery.scan()
    assert segments(directory) == [10, 12, 14, 16]


def test_younger_segments_go_when_space_is_needed_and_no_more_than_that(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    w = worker(keep_s=1e9, segment_bytes=500, journal_max_bytes=10_000)
    number = 0
    while w.ingest.disk_bytes() < 7_500:
        w.accept(many(2, seq=number))
        number += 1
    w.flush()
    w.recovery.scan()
    assert 4_000 < w.ingest.disk_bytes() <= 5_000


def test_a_drained_journal_of_a_dead_worker_is_removed_with_its_directory(
    worker: Callable[..., Worker], database: MemorySink
) -> None:
    dead, empty = dead_worker(worker, many(5)), dead_worker(worker)
    age(dead, 10)
    w = worker(keep_s=0)
    w.recovery.scan()
    w.flush()
    w.recovery.scan()
    assert {path.name for path in w.journals.iterdir()} == {w.journal_id}
    assert [source.journal_id for source in w.flusher.sources] == [w.journal_id]
    assert not empty.ingest.journal.directory.exists()
    assert w.ingest.disk_bytes() == journals.disk_bytes(w.ingest.journal.directory)
    w.accept(many(1, symbol="NVDA"))
    w.flush()


# ---- a database that is behind (real PostgreSQL)


@pytest.fixture
def postgres(database_url: str) -> Iterator[Callable[[], Sink]]:
    made = []

    def make() -> Sink:
        made.append(new_sink(database_url))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def totals(conn: connection) -> tuple[int, ...]:
    """Return (next_row, stored, duplicates, set_aside, skipped, lost) over all journals."""
    return tuple(
        int(value)
        for value in rows_of(
            conn,
            "SELECT sum(next_row), sum(stored), sum(duplicates), sum(set_aside), sum(skipped), sum(lost)"
            " FROM ingest_log",
        )[0]
    )


@pytest.mark.parametrize(
    "reset",
    [
        ["DELETE FROM ingest_log", "TRUNCATE ticks, bars, current, rejected_ticks"],
        [
            "UPDATE ingest_log SET next_row = 0, stored = 0, duplicates = 0, set_aside = 0",
            "TRUNCATE ticks, bars, current, rejected_ticks",
        ],
    ],
    ids=["forgot the journals", "is as it was before them"],
)
def test_a_database_that_is_behind_gets_the_kept_rows_again(
    conn: connection, worker: Callable[..., Worker], postgres: Callable[[], Sink], reset: list[str]
) -> None:
    conflict = Tick(bid=77.0)
    dead = dead_worker(worker, many(50, seq=0), many(10, seq=1), [conflict], sink=postgres())
    w = worker(postgres(), buffer_bytes=3000, segment_bytes=2000)
    w.recovery.scan()
    w.flush()  # the dead one's first: then it is known what is stored and what is set aside
    for number in range(2, 8):
        w.accept(many(30, seq=number))
    w.flush()
    assert totals(conn) == (241, 240, 0, 1, 0, 0)
    before = stored_keys(conn)
    execute(conn, *reset)
    w.accept(many(3, symbol="NVDA"))
    others_turn()
    w.flush()
    assert totals(conn) == (244, 243, 0, 1, 0, 0)
    assert stored_keys(conn) == sorted(before + [("NVDA", Tick().time_us + i * 1000, 0) for i in range(3)])
    assert rows_of(conn, "SELECT count(*) FROM rejected_ticks") == [(1,)]
    assert_bars_and_current_are_those_of_a_clean_load(conn)
    assert dead.journal_id in {source.journal_id for source in w.flusher.sources}


def test_rows_that_were_removed_before_the_database_fell_behind_are_counted_as_lost(
    conn: connection, worker: Callable[..., Worker], postgres: Callable[[], Sink]
) -> None:
    w = worker(postgres(), keep_s=100, segment_bytes=500)
    for number in range(6):
        w.accept(many(10, seq=number))
    w.flush()
    age(w, 200)
    w.recovery.scan()
    for number in range(6, 9):
        w.accept(many(10, seq=number))
    w.flush()
    execute(conn, "DELETE FROM ingest_log", "TRUNCATE ticks, bars, current")
    w.accept(many(10, seq=9))
    w.flush()
    next_row, stored, duplicates, set_aside, skipped, lost = totals(conn)
    assert (next_row, duplicates, set_aside, skipped) == (100, 0, 0, 0)
    assert stored + lost == 100
    assert 0 < lost <= 60
    assert len(stored_keys(conn)) == stored
    assert any("missing" in line for line in w.watch.notes)
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_two_that_drain_copies_of_one_journal_store_it_once(
    conn: connection, tmp_path: Path, worker: Callable[..., Worker], postgres: Callable[[], Sink]
) -> None:
    """A data directory that was copied, locks and all that, does no harm."""
    dead = dead_worker(worker, *(many(20, seq=number) for number in range(20)), sink=postgres())
    copy = tmp_path / "copy"
    (copy / "journal").mkdir(parents=True)
    twin = copy / "journal" / dead.journal_id
    twin.mkdir()
    for path in dead.ingest.journal.directory.iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    both = [worker(postgres()), Worker(copy, postgres())]
    try:
        for w in both:
            w.recovery.scan()
        for w in both:
            w.flush()
        assert totals(conn) == (400, 400, 0, 0, 0, 0)
        assert len(stored_keys(conn)) == 400
        assert_bars_and_current_are_those_of_a_clean_load(conn)
    finally:
        both[1].die()
