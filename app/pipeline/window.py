"""The buffer: a bounded window of records in memory on a journal on disk. Greenlet side.

Records behind the window's bound stay on disk only and are read back when their turn comes, so memory does not
grow while the database is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.market.batches import Batch, Record
from app.pipeline import reader
from app.pipeline.journal import Position

READ_BYTES = 8 << 20
"""How much is read back from disk at a time: about a large flush."""


class MemoryBudget:
    """Bytes of records that all windows of a worker may keep in memory together."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Reserve bytes if there is room."""
        if self.used_bytes + size_bytes > self.max_bytes:
            return False
        self.used_bytes += size_bytes
        return True


class Window:
    """The records of one journal that are not yet flushed, oldest first.

    `call` runs a function on the lane that reads files. `row` is the next row to flush, `end_row` the journal's.
    """

    def __init__(self, directory: Path, call: Callable[..., reader.Chunk], budget: MemoryBudget) -> None:
        self._directory = directory
        self._call = call
        self._budget = budget
        self._memory: deque[Record] = deque()
        self._on_disk_from: Position | None = None
        self._tail: Position | None = None
        self._trailing_skipped = 0
        self._trailing_lost = 0
        self._damage: list[str] = []
        self.row = 0
        self.end_row = 0

    @property
    def pending_rows(self) -> int:
        """Rows not yet flushed."""
        return self.end_row - self.row

    @property
    def oldest_us(self) -> int | None:
        """When the first row not yet flushed was received, UTC microseconds; None: there is none, or only on disk."""
        return self._memory[0].received_us if self._memory else None

    def append(self, record: Record, position: Position, tail: Position) -> None:
        """Take in a record that was just journalled at `position`; the journal now ends at `tail`."""
        if self._on_disk_from is None:
            if self._budget.take(record.memory_bytes):
                # A gap to the row before: numbers of a write that failed.
                void = record.first_row - self.end_row
                self._memory.append(self._behind_trailing(replace(record, skipped_before=void)))
            else:
                self._on_disk_from = replace(position, row=self.end_row)
        self._tail = tail
        self.end_row = record.end_row

    def seek(self, row: int) -> None:
        """Go to `row`: the rows before it are done. Rows that are not at hand will be read from disk."""
        if row != self.row:
            while self._memory and self._memory[0].end_row <= row:
                self._pop()
            self.end_row = max(self.end_row, row)
            if row < self.row or not self._goes_on_at(row):
                self._forget()
                self._on_disk_from = reader.start_at(self._directory, row) if row < self.end_row else None
        self.row = row

    def open_at(self, row: int, end_row: int) -> None:
        """Begin with a journal that was taken over: rows from `row` to `end_row` wait on disk."""
        self._forget()
        self._on_disk_from = reader.start_at(self._directory, row) if end_row > row else None
        self.row, self.end_row = row, end_row

    def take(self, max_rows: int) -> tuple[Batch, list[str]]:
        """Return the next records, at most about `max_rows` rows, and the damage met. They stay until `done`.

        A record is never split; the first one is returned whatever its size.
        """
        while not self._memory and self._on_disk_from is not None:
            self._load()
        batch = Batch(first_row=self.row, end_row=self.row)
        for record in self._memory:
            if batch.records and batch.rows + record.rows > max_rows:
                break
            batch.records.append(record)
            batch.rows += record.rows
            batch.skipped += record.skipped_before
            batch.lost += record.lost_before
            batch.end_row = record.end_row
        if not self._memory and self._on_disk_from is None:
            batch.skipped, batch.lost = self._trailing_skipped, self._trailing_lost
            batch.end_row += batch.skipped + batch.lost
        damage, self._damage = self._damage, []
        return batch, damage

    def done(self, batch: Batch) -> None:
        """Forget a batch that is committed."""
        self.seek(batch.end_row)

    def close(self) -> None:
        """Give the memory back."""
        self._forget()

    def _pop(self) -> None:
        self._budget.used_bytes -= self._memory.popleft().memory_bytes

    def _forget(self) -> None:
        while self._memory:
            self._pop()
        self._trailing_skipped = self._trailing_lost = 0

    def _goes_on_at(self, row: int) -> bool:
        """Tell whether what is at hand begins exactly there, with what is known of rows that are not there."""
        if self._memory:
            first = self._memory[0]
            return first.first_row - first.skipped_before - first.lost_before == row
        next_row = self.end_row if self._on_disk_from is None else self._on_disk_from.row
        return next_row - self._trailing_skipped - self._trailing_lost == row

    def _behind_trailing(self, record: Record) -> Record:
        """Put the void and lost rows that were waiting for a next record before this one."""
        skipped, lost = self._trailing_skipped, self._trailing_lost
        self._trailing_skipped = self._trailing_lost = 0
        if not skipped and not lost:
            return record
        return replace(record, skipped_before=record.skipped_before + skipped, lost_before=record.lost_before + lost)

    def _load(self) -> None:
        start = self._on_disk_from
        assert start is not None
        chunk = self._call(reader.read, self._directory, start, READ_BYTES, self._tail)
        if chunk.records:
            self._memory.append(self._behind_trailing(chunk.records[0]))
            self._memory.extend(chunk.records[1:])
        self._trailing_skipped += chunk.skipped
        self._trailing_lost += chunk.lost
        # What was read back is needed now, whatever the bound says: READ_BYTES and one record at most.
        self._budget.used_bytes += sum(record.memory_bytes for record in chunk.records)
        self._damage += chunk.damage
        if chunk.at_end and self._tail is None and chunk.next.row < self.end_row:
            # A dead owner's last rows were acknowledged, and cannot be read.
            self._trailing_lost += self.end_row - chunk.next.row
        caught_up = chunk.at_end and (self._tail is None or chunk.next >= self._tail)
        self._on_disk_from = None if caught_up else chunk.next
