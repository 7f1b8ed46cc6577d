"""The window on a journal: little memory, and every row once and in order, against a plain list."""

from __future__ import annotations

import errno
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.market.batches import OBJECTS_BYTES, Batch, Record
from app.pipeline import journal as journals
from app.pipeline import window as windows
from app.pipeline.journal import Appended, Journal, segment_path
from app.pipeline.records import Entry
from app.pipeline.window import MemoryBudget, Window

BIG = 1 << 30


def room(*sizes: int) -> int:
    """Return the bytes of memory that records with payloads of these sizes take."""
    return sum(size + OBJECTS_BYTES for size in sizes)


@dataclass
class Sent:
    """A record as the list remembers it."""

    record: Record
    segment: int
    offset: int
    size: int
    damaged: bool = False


class Feed:
    """A journal with its window, and the list of what went in."""

    def __init__(self, root: Path, budget_bytes: int = BIG, segment_bytes: int = BIG) -> None:
        self.journal = Journal(root, uuid.uuid4().hex, segment_bytes)
        self.budget = MemoryBudget(budget_bytes)
        self.during_load: list[Callable[[], object]] = []
        self.loads = 0
        self.window = Window(self.journal.directory, self._call, self.budget)
        self.sent: list[Sent] = []
        self.void: set[int] = set()

    def _call(self, fn: Callable[..., Any], *args: object) -> Any:
        self.loads += 1
        found = fn(*args)
        while self.during_load:
            self.during_load.pop(0)()
        return found

    def append(self, rows: int = 1, size: int = 10) -> None:
        entry = Entry("ticks", 1, rows, bytes((len(self.sent) + i) % 251 for i in range(size)))
        self._admit(entry, self.journal.append([entry]))

    def _admit(self, entry: Entry, appended: Appended) -> None:
        written = appended.written[0]
        record = Record(
            entry.dataset, entry.layout, entry.rows, written.first_row, written.received_us, entry.payload
        )
        self.window.append(record, written.position, appended.tail)
        self.sent.append(Sent(record, written.position.segment, written.position.offset, written.size_bytes))

    def fail(self, rows: int = 1) -> None:
        """Use row numbers for a write that fails."""
        sync = journals.sync_file
        before = self.journal._next_row

        def no_sync(fd: int) -> None:
            if self.journal._next_row > before:
                raise OSError(errno.EIO, "Input/output error")

        journals.sync_file = no_sync
        try:
            with pytest.raises(OSError):
                self.journal.append([Entry("ticks", 1, rows, b"never acknowledged")])
        finally:
            journals.sync_file = sync
        self.void |= set(range(before, before + rows))

    def damage(self, number: int) -> None:
        sent = self.sent[number]
        sent.damaged = True
        with open(segment_path(self.journal.directory, sent.segment), "r+b") as file:
            file.seek(sent.offset)
            file.write(b"\0" * sent.size)

    def drain(self, max_rows: int = BIG) -> list[Batch]:
        """Take and finish batches until nothing is pending."""
        batches = []
        while self.window.pending_rows:
            batch, _ = self.window.take(max_rows)
            check(batch)
            batches.append(batch)
            self.window.done(batch)
        return batches

    def close(self) -> None:
        self.window.close()
        self.journal.close()


def check(batch: Batch) -> None:
    """A batch covers its row numbers without a gap, and moves on."""
    assert batch.end_row - batch.first_row == batch.rows + batch.skipped + batch.lost > 0
    row = batch.first_row
    for record in batch.records:
        row += record.skipped_before + record.lost_before
        assert record.first_row == row
        row = record.end_row
    assert row == batch.end_row or not batch.records


def rows_of(batches: list[Batch]) -> list[int]:
    return [row for b in batches for r in b.records for row in range(r.first_row, r.end_row)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals.os, "fdatasync", lambda fd: None)
    monkeypatch.setattr(journals.os, "fsync", lambda fd: None)


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Callable[..., Feed]]:
    made: list[Feed] = []

    def make(**kwargs: int) -> Feed:
        made.append(Feed(tmp_path, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_rows_in_memory_are_not_read_back(feed: Callable[..., Feed]) -> None:
    f = feed()
    for _ in range(5):
        f.append(2)
    assert rows_of(f.drain(4)) == list(range(10))
    assert f.loads == 0


def test_a_take_is_whole_records_about_as_many_rows_as_asked_for(feed: Callable[..., Feed]) -> None:
    f = feed()
    for rows in (3, 3, 3, 50, 1):
        f.append(rows)
    assert [b.rows for b in f.drain(7)] == [6, 3, 50, 1]


def test_what_was_taken_stays_until_it_is_done(feed: Callable[..., Feed]) -> None:
    f = feed()
    f.append(2)
    first, _ = f.window.take(10)
    f.append(3)
    again, _ = f.window.take(2)
    assert again.records == first.records
    assert f.window.pending_rows == 5
    f.window.done(first)
    assert f.window.pending_rows == 3


def test_memory_stays_within_its_bound_while_nothing_is_flushed_and_all_comes_back_in_order(
    feed: Callable[..., Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "READ_BYTES", 1200)
    f = feed(budget_bytes=4000, segment_bytes=2000)
    for _ in range(100):
        f.append(2, 100)
        assert f.budget.used_bytes <= 4000
    batches = []
    while f.window.pending_rows:
        batch, damage = f.window.take(BIG)
        assert damage == []
        assert f.budget.used_bytes <= 4000, "what is read back replaces what was flushed"
        batches.append(batch)
        f.window.done(batch)
    assert rows_of(batches) == list(range(200))
    assert f.budget.used_bytes == 0


COST = 100 + OBJECTS_BYTES
"""What a record with a payload of 100 bytes counts for."""


def test_two_windows_share_one_bound(feed: Callable[..., Feed]) -> None:
    one, other = feed(budget_bytes=2 * COST + 100), feed()
    other.window._budget = other.budget = one.budget
    for _ in range(2):
        one.append(1, 100)
        other.append(1, 100)
    assert one.budget.used_bytes == 2 * COST
    assert rows_of(one.drain()) == rows_of(other.drain()) == [0, 1]
    assert one.budget.used_bytes == 0


def test_rows_are_in_memory_again_once_the_backlog_is_read(feed: Callable[..., Feed]) -> None:
    f = feed(budget_bytes=100 + OBJECTS_BYTES)
    for _ in range(10):
        f.append(1, 60)
    assert rows_of(f.drain()) == list(range(10))
    loads = f.loads
    f.append(1, 60)
    f.drain()
    assert f.loads == loads


def test_rows_that_come_while_the_backlog_is_read_follow_it(feed: Callable[..., Feed]) -> None:
    f = feed(budget_bytes=50 + OBJECTS_BYTES)
    for _ in range(4):
        f.append(1, 40)
    f.during_load = [f.append, lambda: f.append(2, 40), f.append]
    assert rows_of(f.drain(1)) == list(range(8))


def test_rows_that_come_behind_others_that_are_on_disk_only_do_not_overtake_them(
    feed: Callable[..., Feed],
) -> None:
    """The second record arrives while the first is read back, the third while the flush of the first fails."""
    f = feed(budget_bytes=50 + OBJECTS_BYTES)
    for _ in range(2):
        f.append(1, 40)
    f.window.seek(1)
    f.during_load = [lambda: f.append(1, 5)]
    f.window.take(1)
    f.append(1, 5)
    batch, _ = f.window.take(BIG)
    check(batch)
    f.window.done(batch)
    assert rows_of([batch, *f.drain()]) == [1, 2, 3]


def test_void_numbers_are_skipped_and_never_lost_also_when_memory_is_full(feed: Callable[..., Feed]) -> None:
    for budget_bytes in (BIG, room(10), 1):
        f = feed(budget_bytes=budget_bytes)
        f.append(1, 10)
        f.fail(7)
        f.append(2, 20)
        f.append(1, 10)
        batches = f.drain()
        assert rows_of(batches) == [0, 8, 9, 10]
        assert (sum(b.skipped for b in batches), sum(b.lost for b in batches)) == (7, 0)


def test_going_back_reads_again_what_was_done(feed: Callable[..., Feed]) -> None:
    f = feed(segment_bytes=200)
    for _ in range(12):
        f.append(2, 50)
    f.drain()
    for row in (22, 8, 0):
        f.window.seek(row)
        assert f.window.pending_rows == 24 - row
        assert rows_of(f.drain(5)) == list(range(row, 24))


def test_going_forward_leaves_out_what_others_did(feed: Callable[..., Feed]) -> None:
    for budget_bytes in (BIG, room(50, 50)):
        f = feed(budget_bytes=budget_bytes)
        for _ in range(12):
            f.append(2, 50)
        f.window.seek(4)
        f.window.seek(14)
        assert rows_of(f.drain()) == list(range(14, 24))
        f.append(1)
        f.window.seek(25)
        assert f.window.pending_rows == 0


def test_a_lost_end_of_the_own_journal_is_told_once_though_rows_come_meanwhile(
    feed: Callable[..., Feed],
) -> None:
    """The batch of lost rows is on its way to the database while the next record arrives."""
    f = feed(budget_bytes=30 + OBJECTS_BYTES)
    for _ in range(3):
        f.append(2, 20)
    f.damage(1)
    f.damage(2)
    first, _ = f.window.take(BIG)
    f.window.done(first)
    lost, damage = f.window.take(BIG)
    check(lost)
    assert (lost.records, lost.lost) == ([], 4)
    assert damage
    f.append(2, 20)
    f.window.done(lost)
    assert rows_of(f.drain()) == [6, 7]


def test_lost_rows_that_somebody_else_told_of_are_not_told_again(feed: Callable[..., Feed]) -> None:
    """The COMMIT of the lost rows' batch was taken for failed, and was not."""
    f = feed(budget_bytes=30 + OBJECTS_BYTES)
    for _ in range(3):
        f.append(2, 20)
    f.damage(2)
    f.window.seek(2)
    batch, _ = f.window.take(2)
    assert rows_of([batch]) == [2, 3]
    f.window.seek(4)
    assert [(b.records, b.lost) for b in f.drain()] == [([], 2)]
    f.window.seek(4)
    f.append(1, 5)
    f.window.seek(6)
    batches = f.drain()
    assert rows_of(batches) == [6]
    assert sum(b.lost for b in batches) == 0


def test_rows_lost_at_the_end_are_known_also_after_going_forward(feed: Callable[..., Feed]) -> None:
    f = feed(budget_bytes=10 + OBJECTS_BYTES)
    for _ in range(4):
        f.append(2, 20)
    f.damage(3)
    f.window.take(BIG)
    f.window.seek(4)
    batches = f.drain()
    assert rows_of(batches) == [4, 5]
    assert sum(b.lost for b in batches) == 2


class WindowMachine(RuleBasedStateMachine):
    """Anything may happen between taking a batch and finishing it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="tht-window-"))
        self.read_bytes = windows.READ_BYTES
        self.syncs = journals.os.fdatasync, journals.os.fsync
        journals.os.fdatasync = journals.os.fsync = lambda fd: None
        self.taken: Batch | None = None

    def teardown(self) -> None:
        try:
            if hasattr(self, "feed"):
                self.finish()
        finally:
            if hasattr(self, "feed"):
                self.feed.close()
            windows.READ_BYTES = self.read_bytes
            journals.os.fdatasync, journals.os.fsync = self.syncs
            shutil.rmtree(self.root)

    @initialize(
        budget_bytes=st.sampled_from([1, 320, 1000, BIG]),
        segment_bytes=st.sampled_from([1, 300, BIG]),
        read_bytes=st.sampled_from([1, 700, 5000]),
    )
    def begin(self, budget_bytes: int, segment_bytes: int, read_bytes: int) -> None:
        windows.READ_BYTES = read_bytes
        self.feed = Feed(self.root, budget_bytes, segment_bytes)

    @rule(rows=st.integers(1, 5), size=st.integers(0, 60))
    def append(self, rows: int, size: int) -> None:
        self.feed.append(rows, size)

    @rule(rows=st.integers(1, 5))
    def fail(self, rows: int) -> None:
        self.feed.fail(rows)

    @rule(rows=st.integers(1, 5))
    def append_during_the_next_load(self, rows: int) -> None:
        self.feed.during_load.append(lambda: self.feed.append(rows, 30))

    @rule(max_rows=st.integers(1, 12))
    def take(self, max_rows: int) -> None:
        if self.feed.window.pending_rows:
            self.taken, _ = self.feed.window.take(max_rows)
            check(self.taken)
            self._compare(self.taken)

    @precondition(lambda self: self.taken is not None)
    @rule()
    def done(self) -> None:
        assert self.taken is not None
        self.feed.window.done(self.taken)
        self.taken = None

    @precondition(lambda self: self.taken is not None)
    @rule()
    def done_by_somebody_else(self) -> None:
        """Or by us, with a COMMIT whose outcome was unknown: the ledger tells."""
        assert self.taken is not None
        self.feed.window.seek(self.taken.end_row)
        self.taken = None

    @rule()
    def failed(self) -> None:
        self.feed.window.seek(self.feed.window.row)
        self.taken = None

    @rule(where=st.floats(0, 1))
    def the_ledger_is_elsewhere(self, where: float) -> None:
        ends = [0] + [sent.record.end_row for sent in self.feed.sent]
        self.feed.window.seek(ends[int(where * (len(ends) - 1))])
        self.taken = None

    @precondition(lambda self: hasattr(self, "feed") and self.feed.sent)
    @rule(where=st.floats(0, 1))
    def damage(self, where: float) -> None:
        self.feed.damage(int(where * (len(self.feed.sent) - 1)))

    @invariant()
    def memory_is_bounded_and_counted(self) -> None:
        if hasattr(self, "feed"):
            held = sum(record.memory_bytes for record in self.feed.window._memory)
            assert self.feed.budget.used_bytes == held
            assert held <= self.feed.budget.max_bytes + windows.READ_BYTES + 60 + OBJECTS_BYTES

    def finish(self) -> None:
        """Whatever happened: what is pending comes, once and in order."""
        window, start = self.feed.window, self.feed.window.row
        self.feed.during_load.clear()
        batches = self.feed.drain(3)
        for batch in batches:
            self._compare(batch)
        told = rows_of(batches)
        assert told == sorted(set(told))
        missing = set(range(start, window.end_row)) - set(told)
        assert missing <= self.feed.void | self._damaged()
        assert sum(b.lost for b in batches) <= len(self._damaged() & missing) + self._void_near_damage()
        assert self.feed.budget.used_bytes == 0

    def _damaged(self) -> set[int]:
        return {
            row
            for sent in self.feed.sent
            if sent.damaged
            for row in range(sent.record.first_row, sent.record.end_row)
        }

    def _void_near_damage(self) -> int:
        return len(self.feed.void) if self._damaged() else 0

    def _compare(self, batch: Batch) -> None:
        known = {sent.record.first_row: sent.record for sent in self.feed.sent}
        for record in batch.records:
            expected = known[record.first_row]
            assert (record.rows, record.payload, record.received_us) == (
                expected.rows,
                expected.payload,
                expected.received_us,
            )


WindowMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
test_any_order_of_events_tells_every_row_once_and_in_order = WindowMachine.TestCase
