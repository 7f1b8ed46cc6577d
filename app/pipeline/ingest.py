"""The way in: accept a batch, make it durable, hand it to the flusher. Greenlet side.

Requests that arrive while a sync is under way share the next one (group commit).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import gevent
from gevent.event import AsyncResult, Event

from app.errors import BufferFull, NotReady
from app.lanes import Lane
from app.market.batches import Record
from app.pipeline.books import JOURNAL_FIELDS, Shelf, journal_book
from app.pipeline.flusher import Flusher, Source
from app.pipeline.journal import Appended, Journal
from app.pipeline.records import HEAD_BYTES, Entry
from app.pipeline.window import MemoryBudget, Window

GROUP_BYTES = 8 << 20
"""Most bytes of one write and sync: what a disk takes in well under a tenth of a second."""

PROBE_INTERVAL_S = 1.0
"""How soon a disk that has room again is noticed, if nobody sends anything because of /health/ready."""

log = logging.getLogger("tickhub")


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    collected: bool
    done: AsyncResult = field(default_factory=AsyncResult)


class Ingest:
    """This worker's journal, and the group commit before it."""

    def __init__(
        self,
        root: Path,
        books: Path,
        flusher: Flusher,
        budget: MemoryBudget,
        *,
        journal_lane: Lane,
        files_lane: Lane,
        segment_bytes: int,
        journal_max_bytes: int,
        pid: int,
    ) -> None:
        self._lane = journal_lane
        self._flusher = flusher
        self._max_bytes = journal_max_bytes
        self._shelf = Shelf(books, JOURNAL_FIELDS)
        self._shelf_at, self._shelf_changed_ns = 0.0, 0
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._wake = Event()
        self._failing = False
        self._written_bytes = 0
        self.journal = journal_lane.call(Journal, root, uuid.uuid4().hex, segment_bytes)
        self.book = journal_book(books, self.journal.journal_id)
        self.book["owner_pid"] = pid
        window = Window(self.journal.directory, files_lane.call, budget)
        self.source = Source(self.journal.directory, window, self.book, own=True)
        flusher.sources.insert(0, self.source)

    def disk_bytes(self) -> int:
        """Return what all journals of the data directory take on disk, by their books."""
        # A new worker's book must count at once. The clock of files is coarse: two that come together may look
        # like one, so from time to time everything is looked at.
        now, changed_ns = time.monotonic(), self._shelf.changed_ns()
        if changed_ns != self._shelf_changed_ns or now - self._shelf_at > 0.5:
            self._shelf.refresh()
            self._shelf_at, self._shelf_changed_ns = now, changed_ns
        return self._shelf.total("disk_bytes")

    def accept(self, dataset: str, layout: int, rows: int, payload: bytes, *, collected: bool = False) -> int:
        """Make a batch durable; return when it is, with the time at which its first row counts as received.

        UTC microseconds; row i was received i later. collected: the server made it, and /stats, which says what was
        sent, leaves it out. Raises BufferFull when the journal directory is at its bound or
        the disk refuses the write.
        """
        size = len(payload) + HEAD_BYTES + len(dataset)
        if self.disk_bytes() + self._waiting_bytes + size > self._max_bytes:
            raise BufferFull("the journal is full: the database has been away too long")
        waiting = _Waiting(Entry(dataset, layout, rows, payload), collected)
        self._waiting.append(waiting)
        self._waiting_bytes += size
        self._wake.set()
        try:
            return int(waiting.done.get())
        finally:
            self._waiting_bytes -= size

    def run(self) -> None:
        """Write what waits, group by group, for ever; to be spawned as a greenlet."""
        while True:
            if not self._wake.wait(PROBE_INTERVAL_S if self._failing else None):
                self._probe()
                continue
            self._wake.clear()
            while self._waiting:
                group = self._next_group()
                try:
                    self._commit(group)
                except Exception as error:
                    # Nothing may end this loop: every request would wait for ever.
                    log.exception("the journal failed unexpectedly")
                    self._refuse(group, NotReady(f"the journal failed: {type(error).__name__}"))

    def writable(self) -> bool:
        """Tell whether the last write to the journal succeeded."""
        return not self._failing

    def full(self) -> bool:
        """Tell whether the journal directory is at its bound."""
        return self.disk_bytes() >= self._max_bytes

    def _next_group(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        size = len(group[0].entry.payload)
        while self._waiting and size + len(self._waiting[0].entry.payload) <= GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1].entry.payload)
        return group

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            appended = self._lane.call(self.journal.append, [waiting.entry for waiting in group])
        except OSError as error:
            self._refuse(group, BufferFull(f"the journal cannot be written: {error.strerror or error}"))
            if not self._failing:
                log.error("[ERROR] the journal cannot be written: %s", error)
            self._failing = True
            gevent.sleep(0.05)  # a full disk is not asked thousands of times a second
            return
        self._write_worked()
        self._admit(group, appended)

    def _probe(self) -> None:
        try:
            self._lane.call(self.journal.prepare)
        except OSError:
            return  # it was logged when it began
        self._write_worked()

    def _write_worked(self) -> None:
        if self._failing:
            log.info("the journal can be written again")
        self._failing = False

    def _admit(self, group: list[_Waiting], appended: Appended) -> None:
        self.book.add("disk_bytes", appended.total_bytes - self._written_bytes)
        self._written_bytes = appended.total_bytes
        for waiting, written in zip(group, appended.written, strict=True):
            entry = waiting.entry
            record = Record(
                entry.dataset, entry.layout, entry.rows, written.first_row, written.received_us, entry.payload
            )
            self.source.window.append(record, written.position, appended.tail)
            self.book["end_row"] = record.end_row
            if waiting.collected:
                self.source.collected(record.end_row, entry.rows)
            self.book.add("received", entry.rows)
            waiting.done.set(record.received_us)
        self._flusher.poke(self.source)

    def _refuse(self, group: list[_Waiting], error: Exception) -> None:
        for waiting in group:
            waiting.done.set_exception(error)
