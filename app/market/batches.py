"""What travels between the pipeline and the storage: journalled batches one way, outcomes the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

OBJECTS_BYTES = 256
"""The objects of a record beside its payload's bytes, measured on 64-bit CPython 3.11."""


@dataclass(slots=True, frozen=True)
class Record:
    """A journalled batch. Its rows are numbered first_row, first_row + 1, ...; row i was received at
    received_us + i (UTC microseconds).

    Between it and the record before lie `skipped_before` void numbers (of failed writes) and `lost_before`
    rows that damage destroyed.
    """

    dataset: str
    layout: int
    rows: int
    first_row: int
    received_us: int
    payload: bytes
    skipped_before: int = 0
    lost_before: int = 0

    @property
    def end_row(self) -> int:
        """The number behind the last row."""
        return self.first_row + self.rows

    @property
    def memory_bytes(self) -> int:
        """What the record takes in memory: a single tick's payload is a third of its objects."""
        return len(self.payload) + OBJECTS_BYTES


@dataclass(slots=True)
class Batch:
    """Consecutive records to be written in one transaction.

    Covers the row numbers first_row to end_row (exclusive): the records' rows, and `skipped` and `lost` ones.
    """

    records: list[Record] = field(default_factory=list)
    rows: int = 0
    first_row: int = 0
    end_row: int = 0
    skipped: int = 0
    lost: int = 0


@dataclass(slots=True, frozen=True)
class LedgerEntry:
    """A journal's row in the ledger: everything before `next_row` is done, and this is what became of it."""

    journal_no: int
    next_row: int
    stored: int = 0
    duplicates: int = 0
    set_aside: int = 0
    skipped: int = 0
    lost: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of written rows; `notes` are lines worth logging."""

    stored: int = 0
    duplicates: int = 0
    set_aside: int = 0
    notes: list[str] = field(default_factory=list)

    def __iadd__(self, other: Outcome) -> Outcome:
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.set_aside += other.set_aside
        self.notes += other.notes
        return self


class Sink(Protocol):
    """Where batches go: exactly once, guarded by the ledger. Lane side.

    Both methods raise DatabaseAway for trouble with the database (nothing is known to be written), and `write`
    raises LedgerMoved when the ledger is not at `entry`.
    """

    def ledger(self, journal_id: str) -> LedgerEntry:
        """Return the journal's entry, made if it is not there."""
        ...

    def write(self, journal_id: str, entry: LedgerEntry, batch: Batch) -> tuple[LedgerEntry, Sequence[str]]:
        """Write the batch in one transaction; return the new entry and lines worth logging."""
        ...
