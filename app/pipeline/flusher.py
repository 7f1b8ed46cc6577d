"""From the journals to the database: the greenlet that flushes, and what it flushes from. Greenlet side.

A Source is a journal with its window and its place in the ledger. The ledger is re-read whenever something went
wrong, so an unknown COMMIT, another recoverer or a restored database are the same case: go where the ledger says.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gevent.event import Event

from app.errors import DatabaseAway, LedgerMoved, TickhubError
from app.lanes import Lane, LaneTimeout
from app.market.batches import LedgerEntry, Sink
from app.market.committed import Committed
from app.pipeline.books import Book, journal_mark
from app.pipeline.window import Window

BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 5.0
"""A database that is back is noticed within this; asking a dead one more often only fills its log."""

START_PATIENCE_S = 10.0

GAP_S = 0.15
"""Least time between the starts of two flushes of the own journal that are not large. A transaction costs the same
few milliseconds of both processes for 100 rows as for 1,000: under load this makes flushes large instead of many."""

LARGE_ROWS = 10_000
"""So many rows are flushed at once: a larger transaction is not cheaper a row."""

_COUNTS = ("stored", "duplicates", "set_aside", "skipped", "lost")

log = logging.getLogger("tickhub")


class Watch(Protocol):
    """Who is told about flushes: counters and log, in one place."""

    def flushed(self, rows: int, seconds: float) -> None:
        """`rows` rows were committed in one transaction that took `seconds`."""
        ...

    def flush_failed(self, reason: str) -> None:
        """A flush failed; the rows are kept and tried again."""
        ...

    def noted(self, line: str) -> None:
        """Something happened that a person should read."""
        ...


class Source:
    """A journal that this worker drains: its own, or one that was taken over."""

    def __init__(self, directory: Path, window: Window, book: Book, *, own: bool) -> None:
        self.journal_id = directory.name
        self.directory = directory
        self.window = window
        self.book = book
        self.own = own
        self._mark = journal_mark(directory)
        self.entry: LedgerEntry | None = None
        self.oldest_at = 0.0  # monotonic: since when rows wait
        self.flush_began_at = 0.0  # monotonic
        self.wake_at_rows = 0  # rows waiting at which the flusher wants to know
        self.not_before = 0.0  # monotonic: not visited earlier, after trouble of its own
        self._collected: deque[tuple[int, int]] = deque()  # (end row, rows) of what nobody sent, until it is processed

    def enter(self, entry: LedgerEntry) -> None:
        """Take the ledger's word for what is done."""
        self.entry = entry
        self.window.seek(entry.next_row)
        self.publish()

    def publish(self) -> None:
        """Show in the book what the ledger says of this server's life."""
        entry, book = self.entry, self.book
        if entry is None:
            return
        self._mark["next_row"] = entry.next_row
        if not book["baseline_set"]:
            for name in _COUNTS:
                book[f"base_{name}"] = 0 if self.own else getattr(entry, name)
            book["baseline_set"] = 1
        for name in _COUNTS:
            book[name] = getattr(entry, name) - book[f"base_{name}"]
        processed = book["stored"] + book["duplicates"] + book["set_aside"]
        if not self.own:
            book["received"] = processed + self.window.pending_rows
            if not self.window.pending_rows:
                book["collected_done"] = book["collected"]
        while self._collected and self._collected[0][0] <= entry.next_row:
            book.add("collected_done", self._collected.popleft()[1])

    def collected(self, end_row: int, rows: int) -> None:
        """Note that the newest accepted rows were collected by the server itself: nobody sent them."""
        self._collected.append((end_row, rows))
        self.book.add("collected", rows)

    def open_left_over(self, end_row: int) -> None:
        """Begin with a journal that was taken over, and that ends at `end_row`."""
        seen = min(self._mark["next_row"], end_row)
        self.window.open_at(seen, end_row)
        if not self.book["baseline_set"] and not self.book["received"]:
            self.book["received"] = end_row - seen  # from an earlier run: counts from now on

    def close(self) -> None:
        """Give back memory and files."""
        self.window.close()
        self._mark.close()


@dataclass(slots=True, frozen=True)
class FlushLimits:
    """When to flush: `rows` waiting, or the oldest for `interval_s`; at most about `max_rows` at once."""

    rows: int
    interval_s: float
    max_rows: int
    timeout_s: float


class Flusher:
    """Flushes the sources in turn until stopped; no error ends it."""

    def __init__(
        self, lane: Lane, sink: Sink, interrupt: Callable[[], None], limits: FlushLimits, watch: Watch
    ) -> None:
        self._lane = lane
        self._sink = sink
        self._interrupt = interrupt
        self._limits = limits
        # Halved by each failure: what fails because it is too much for one transaction gets through in the end.
        self._most_rows = limits.max_rows
        self._watch = watch
        self.sources: list[Source] = []
        self._wake = Event()
        self._back = Event()
        self._draining = False
        self.failures = 0
        """Failures of the database in a row."""
        self.idle = Event()
        self.database_ok = False
        self.last_flush_us = 0
        self.on_committed: Callable[[Committed], None] | None = None
        """Told of each commit that is known to have taken place, once; must not block."""

    def poke(self, source: Source) -> None:
        """Tell the flusher that rows came in."""
        if not source.oldest_at:
            source.oldest_at = time.monotonic()
            source.wake_at_rows = self._limits.rows
            self._wake.set()
        elif source.window.pending_rows >= source.wake_at_rows or self._draining:
            # Once for a flush, once more for a large one; not for every request between.
            source.wake_at_rows = LARGE_ROWS if source.wake_at_rows < LARGE_ROWS else sys.maxsize
            self._wake.set()

    def drain(self) -> None:
        """From now on flush whatever is there at once; `idle` is set when nothing is left."""
        self._draining = True
        self._back.set()
        self.failures = 0
        self.idle.clear()
        self._wake.set()

    def try_now(self) -> None:
        """Tell the flusher that the database is back; it may be an older one, so every journal's place is read anew."""
        self._forget_entries()
        self._back.set()
        self._wake.set()

    def run(self) -> None:
        """Flush for ever; to be spawned as a greenlet."""
        # On a fresh machine the database is just being made: no need to fail first.
        self._back.wait(START_PATIENCE_S)
        while True:
            self._wake.clear()  # before looking, so that rows which come meanwhile are seen
            try:
                busy = [self._visit_safely(source) for source in list(self.sources)]
            except (DatabaseAway, LaneTimeout) as error:
                self._database_failed(str(error))
                continue
            if not any(busy):
                self.idle.set()
                self._wake.wait(self._next_due_s())

    def _next_due_s(self) -> float:
        now = time.monotonic()
        due = [max(self._due_at(s), s.not_before) for s in self.sources if s.oldest_at]
        return max(0.001, min(due, default=now + self._limits.interval_s) - now)

    def _visit_safely(self, source: Source) -> bool:
        """Visit a source; trouble that is its own delays only itself."""
        if time.monotonic() < source.not_before:
            return False
        try:
            return self._visit(source)
        except (DatabaseAway, LaneTimeout):
            raise
        except Exception as error:
            # Nothing may end the flusher: the rows are in the journal, and it tries again.
            log.exception("journal %s: flush failed unexpectedly", source.journal_id)
            source.entry = None
            source.not_before = time.monotonic() + BACKOFF_MOST_S
            self._watch.flush_failed(f"{type(error).__name__}: {error}")
            return False

    def _visit(self, source: Source) -> bool:
        """Flush one batch of a source if it is due; return whether there was something to do."""
        if source.entry is None:
            source.enter(self._lane.call_within(*self._within(), self._sink.ledger, source.journal_id))
            self.database_ok = True
        if source.window.pending_rows <= 0:
            source.oldest_at = 0.0
            return False
        if time.monotonic() < self._due_at(source):
            return False
        self.idle.clear()
        entry = source.entry
        assert entry is not None
        source.oldest_at = 0.0
        source.wake_at_rows = self._limits.rows
        batch, damage = source.window.take(self._most_rows)
        for line in damage:
            self._watch.noted(f"journal {source.journal_id}: {line}")
        if not batch.end_row - batch.first_row == batch.rows + batch.skipped + batch.lost > 0:
            raise TickhubError(f"rows from {batch.first_row} on do not add up: {batch.rows} + {batch.skipped}")
        source.flush_began_at = started = time.monotonic()
        try:
            moved, notes, committed = self._lane.call_within(
                *self._within(), self._sink.write, source.journal_id, entry, batch
            )
        except LedgerMoved:
            # Somebody else wrote these rows, or the database is an older one: see where the ledger is, for all.
            self._forget_entries()
            return True
        except BaseException:
            source.entry = None
            source.oldest_at = time.monotonic()
            raise
        for line in notes:
            self._watch.noted(line)
        self.database_ok = True
        self.failures = 0
        if moved is entry:
            source.oldest_at = started
            return True
        source.window.done(batch)
        source.entry = moved
        self._most_rows = min(self._limits.max_rows, self._most_rows * 2)
        if source.window.pending_rows:
            source.oldest_at = started
        source.book.add("flushes")
        done_before = source.book["collected_done"]
        source.publish()
        sent_rows = batch.rows - (source.book["collected_done"] - done_before)
        if sent_rows > 0:
            source.book["last_flush_us"] = self.last_flush_us = time.time_ns() // 1000
        self._watch.flushed(max(0, sent_rows), time.monotonic() - started)
        if committed is not None:
            self._tell(committed)
        return True

    def _tell(self, committed: Committed) -> None:
        try:
            if self.on_committed is not None:
                self.on_committed(committed)
        except Exception:
            # The rows are stored: a failure here is no reason to flush again.
            log.exception("telling of a commit failed")

    def _due_at(self, source: Source) -> float:
        """Return when the rows that wait are to be flushed, on the monotonic clock."""
        pending = source.window.pending_rows
        if self._draining or not source.own or pending >= LARGE_ROWS:
            return 0.0
        if pending >= self._limits.rows:
            return source.flush_began_at + GAP_S
        return source.oldest_at + self._limits.interval_s

    def _within(self) -> tuple[float, Callable[[], None]]:
        return self._limits.timeout_s, self._interrupt

    def _forget_entries(self) -> None:
        for source in self.sources:
            source.entry = None

    def _database_failed(self, reason: str) -> None:
        self.database_ok = False
        self.failures += 1
        self._forget_entries()
        self._most_rows = max(self._limits.rows, self._most_rows // 2)
        self._watch.flush_failed(reason)
        longest = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self.failures, 10))
        self._back.clear()
        self._back.wait(random.uniform(longest / 2, longest))  # noqa: S311 - jitter, not a secret
