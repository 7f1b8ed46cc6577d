"""A worker's pipeline in the test's own process: real journals and lanes, a sink that fails when told to.

Its "death" closes nothing properly: greenlets end where they are, files and locks go as with a killed process.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pytest

from app.errors import DatabaseAway, LedgerMoved
from app.lanes import Lane
from app.market.batches import Batch, LedgerEntry, Record, Sink, Written
from app.market.columns import Ticks
from app.market.committed import Committed, Trades
from app.market.positions import journal_key
from app.pipeline import flusher as flushers
from app.pipeline import journal as journals
from app.pipeline.flusher import Flusher, FlushLimits
from app.pipeline.ingest import Ingest
from app.pipeline.recovery import Recovery
from app.pipeline.window import MemoryBudget
from tests.batches import Tick, ticks
from tests.waiting import run_until, wait_until

WAIT_S = 30


@contextmanager
def quick() -> Iterator[None]:
    """Let the flusher try again at once, and syncs cost nothing: no machine crashes here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flushers, "BACKOFF_FIRST_S", 0.0005)
        patch.setattr(flushers, "BACKOFF_MOST_S", 0.002)
        patch.setattr(flushers, "START_PATIENCE_S", 0.0)
        patch.setattr(flushers, "GAP_S", 0.0)
        patch.setattr(journals.os, "fdatasync", lambda fd: None)
        patch.setattr(journals.os, "fsync", lambda fd: None)
        yield


Key = tuple[str, int, int]


class MemorySink:
    """A database as the contract describes it, row by row, in dictionaries."""

    def __init__(self) -> None:
        self.entries: dict[str, LedgerEntry] = {}
        self.content: dict[Key, tuple[str, ...]] = {}
        self.aside: set[tuple[int, int]] = set()
        self.batches: list[tuple[str, Batch]] = []

    def ledger(self, journal_id: str) -> LedgerEntry:
        """Return the journal's entry, made if it is not there."""
        return self.entries.setdefault(journal_id, LedgerEntry(len(self.entries) + 1, 0))

    def write(self, journal_id: str, entry: LedgerEntry, batch: Batch) -> Written:
        """Write the batch, all or nothing."""
        there = self.entries.get(journal_id)
        if there is None or there.next_row != entry.next_row:
            raise LedgerMoved(journal_id)
        assert batch.first_row == entry.next_row
        assert batch.end_row - batch.first_row == batch.rows + batch.skipped + batch.lost > 0
        fate = Counter[str]()
        inserted: list[tuple[Record, int]] = []
        for record in batch.records:
            for at, (key, content) in enumerate(rows_in(record.payload)):
                if key not in self.content:
                    self.content[key] = content
                    fate["stored"] += 1
                    inserted.append((record, at))
                elif self.content[key] == content:
                    fate["duplicates"] += 1
                else:
                    self.aside.add((there.journal_no, record.first_row + at))
                    fate["set_aside"] += 1
        self.batches.append((journal_id, batch))
        moved = LedgerEntry(
            there.journal_no,
            batch.end_row,
            there.stored + fate["stored"],
            there.duplicates + fate["duplicates"],
            there.set_aside + fate["set_aside"],
            there.skipped + batch.skipped,
            there.lost + batch.lost,
            batch.received[1] if batch.received else there.done_us,
        )
        self.entries[journal_id] = moved
        return Written(moved, [], committed(journal_id, there, moved, inserted) if batch.records else None)

    def snapshot(self) -> Any:
        """Return the state as of now, for `restore`."""
        return dict(self.entries), dict(self.content), set(self.aside)

    def restore(self, state: Any) -> None:
        """Be the database that it was."""
        self.entries, self.content, self.aside = dict(state[0]), dict(state[1]), set(state[2])


def rows_in(payload: bytes) -> Iterator[tuple[Key, tuple[str, ...]]]:
    """Yield (key, content) of each row of a batch."""
    batch = Ticks.decode(payload)
    for i in range(len(batch)):
        key = batch.names[batch.symbol[i]], int(batch.time_us[i]), int(batch.seq[i])
        yield (
            key,
            tuple(str(float(getattr(batch, name)[i])) for name in ("bid", "ask", "last", "volume", "flags")),
        )


def committed(
    journal_id: str, entry: LedgerEntry, moved: LedgerEntry, inserted: Sequence[tuple[Record, int]]
) -> Committed:
    """Return what there is to tell of stored rows, given as records and places in them; without what was touched."""
    rows = [(record.received_us + at, Ticks.decode(record.payload), at) for record, at in inserted]
    rows = [row for row in rows if row[1].flags[row[2]] & 8]
    trades = Trades(
        [ticks.names[ticks.symbol[at]] for _, ticks, at in rows],
        np.arange(len(rows), dtype=np.int32),
        *(
            np.array([getattr(ticks, name)[at] for _, ticks, at in rows], dtype)
            for name, dtype in (("time_us", np.int64), ("last", float), ("volume", float), ("flags", np.int32))
        ),
        np.full(len(rows), journal_key(journal_id)),
        np.array([us for us, _, _ in rows], np.int64),
    )
    return Committed(journal_key(journal_id), entry.done_us, moved.done_us, trades)


class Unruly:
    """A sink in front of another one that does what the script says, one word a write; then it is away, or not.

    ok; before (fails, nothing written); after (fails, written all the same); late (fails, and the server does it when
    `finish_late` is called); unmoved (wants another call); bug (an error that nobody expected); hang (until
    interrupted).
    """

    def __init__(self, inner: Sink, *, away: bool = False, server: Sink | None = None) -> None:
        self.inner = inner
        self.server = server or inner  # what `finish_late` writes with: a connection has one user at a time
        self.away = away
        self.script: deque[str] = deque()
        self.late: list[tuple[str, LedgerEntry, Batch]] = []
        self.writes = 0
        self._interrupted = False

    def ledger(self, journal_id: str) -> LedgerEntry:
        """Return the journal's entry, unless away."""
        if self.away and not self.script:
            raise DatabaseAway("away")
        return self.inner.ledger(journal_id)

    def write(self, journal_id: str, entry: LedgerEntry, batch: Batch) -> Written:
        """Do what the script says."""
        self.writes += 1
        word = self.script.popleft() if self.script else "before" if self.away else "ok"
        if word == "before":
            raise DatabaseAway("nothing was written")
        if word == "bug":
            raise ZeroDivisionError("nobody expected this")
        if word == "unmoved":
            return Written(entry, [])
        if word == "late":
            self.late.append((journal_id, entry, batch))
            raise DatabaseAway("the server will do it later")
        if word == "hang":
            self._interrupted = False
            wait_until(lambda: self._interrupted, what="the interruption")
            raise DatabaseAway("interrupted")
        found = self.inner.write(journal_id, entry, batch)
        if word == "after":
            raise DatabaseAway("written, but nobody heard of it")
        return found

    def interrupt(self) -> None:
        """End a hanging write."""
        self._interrupted = True

    def finish_late(self) -> None:
        """Let the server finish what it was taken to have failed."""
        while self.late:
            with suppress(LedgerMoved):
                self.server.write(*self.late.pop(0))


class Watched:
    """What the flusher reported."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures: list[str] = []
        self.notes: list[str] = []

    def flushed(self, rows: int, seconds: float) -> None:
        self.rows += rows

    def flush_failed(self, reason: str) -> None:
        self.failures.append(reason)

    def noted(self, line: str) -> None:
        self.notes.append(line)


_idle_lanes: list[Lane] = []


def _lane() -> Lane:
    return _idle_lanes.pop() if _idle_lanes else Lane("test")


class Worker:
    """What a worker process owns of the pipeline."""

    def __init__(
        self,
        root: Path,
        sink: Sink,
        *,
        interrupt: Callable[[], None] = lambda: None,
        limits: FlushLimits | None = None,
        buffer_bytes: int = 1 << 20,
        segment_bytes: int = 1 << 20,
        journal_max_bytes: int = 1 << 30,
        keep_s: float = 3600,
        run: bool = True,
    ) -> None:
        self.journals, self.books = root / "journal", root / "books"
        for directory in (self.journals, self.books):
            directory.mkdir(exist_ok=True)
        self.lanes = [_lane() for _ in range(3)]
        self.watch = Watched()
        self.flusher = Flusher(
            self.lanes[2], sink, interrupt, limits or FlushLimits(1, 0.0, 1000, WAIT_S), self.watch
        )
        self.budget = MemoryBudget(buffer_bytes)
        self.ingest = Ingest(
            self.journals,
            self.books,
            self.flusher,
            self.budget,
            journal_lane=self.lanes[0],
            files_lane=self.lanes[1],
            segment_bytes=segment_bytes,
            journal_max_bytes=journal_max_bytes,
            pid=os.getpid(),
        )
        self.recovery = Recovery(
            self.journals,
            self.books,
            self.ingest,
            self.flusher,
            self.budget,
            files_lane=self.lanes[1],
            keep_s=keep_s,
            journal_max_bytes=journal_max_bytes,
            pid=os.getpid(),
        )
        self.alive = True
        self.greenlets = [gevent.spawn(self.ingest.run)]
        if run:
            self.greenlets.append(gevent.spawn(self.flusher.run))

    @property
    def journal_id(self) -> str:
        """The id of its own journal."""
        return self.ingest.journal.journal_id

    @property
    def pending_rows(self) -> int:
        """Rows of all its journals that are not flushed."""
        return sum(source.window.pending_rows for source in self.flusher.sources)

    def accept(self, rows: Sequence[Tick]) -> None:
        """Take in a request; returns when it is durable."""
        self.ingest.accept("ticks", 1, len(rows), ticks(rows).encode())

    def collect(self, rows: Sequence[Tick]) -> None:
        """Take in rows that nobody sent."""
        self.ingest.accept("ticks", 1, len(rows), ticks(rows).encode(), collected=True)

    def flush(self) -> None:
        """Wait until all its journals are flushed, and known to be."""
        run_until(
            lambda: not self.pending_rows and all(s.entry is not None for s in self.flusher.sources),
            "the flusher",
        )

    def die(self) -> None:
        """End as by SIGKILL; idempotent."""
        if not self.alive:
            return
        self.alive = False
        gevent.killall(self.greenlets)
        for lane in self.lanes:
            lane.call(int)  # whatever it was doing ends with the process
        _idle_lanes.extend(self.lanes)
        journal = self.ingest.journal
        for fd in (journal._fd, journal.lock_fd):
            if fd is not None:
                os.close(fd)
        self.recovery.close()
        for source in self.flusher.sources:
            source.book.close()
            source.close()
        for book in self.ingest._shelf.books():
            book.close()
