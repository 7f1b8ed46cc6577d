"""What travels between the pipeline and the storage: journalled batches one way, outcomes the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.market.columns import StoredTicks
from app.market.committed import Committed

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

    @property
    def received(self) -> tuple[int, int] | None:
        """When the first and the last of its rows were received (UTC microseconds); None: it has no rows."""
        if not self.records:
            return None
        last = self.records[-1]
        return self.records[0].received_us, last.received_us + last.rows - 1


@dataclass(slots=True, frozen=True)
class LedgerEntry:
    """A journal's row in the ledger: everything before `next_row` is done, and this is what became of it.

    done_us: when the last row that is done was received (UTC microseconds); 0: none is.
    """

    journal_no: int
    next_row: int
    stored: int = 0
    duplicates: int = 0
    set_aside: int = 0
    skipped: int = 0
    lost: int = 0
    done_us: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of written rows; `notes` are lines worth logging.

    inserted: the rows that were stored, if they are ticks, in parts by (symbol, time); names: their symbols by id.
    """

    stored: int = 0
    duplicates: int = 0
    set_aside: int = 0
    notes: list[str] = field(default_factory=list)
    inserted: list[StoredTicks] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def __iadd__(self, other: Outcome) -> Outcome:
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.set_aside += other.set_aside
        self.notes += other.notes
        self.inserted += other.inserted
        self.names |= other.names
        return self


class Written(NamedTuple):
    """A committed write: the new entry, lines worth logging, and what there is to tell of it.

    committed: None when nothing was written yet, or no rows were.
    """

    entry: LedgerEntry
    notes: Sequence[str]
    committed: Committed | None = None


class Sink(Protocol):
    """Where batches go: exactly once, guarded by the ledger. Lane side.

    Both methods raise DatabaseAway for trouble with the database (nothing is known to be written), and `write`
    raises LedgerMoved when the ledger is not at `entry`.
    """

    def ledger(self, journal_id: str) -> LedgerEntry:
        """Return the journal's entry, made if it is not there."""
        ...

    def write(self, journal_id: str, entry: LedgerEntry, batch: Batch) -> Written:
        """Write the batch in one transaction; return the new entry and what there is to tell."""
        ...
