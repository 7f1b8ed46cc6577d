"""Write journalled batches, whatever their dataset, exactly once: one transaction with the ledger. Lane side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from psycopg2.extensions import cursor as Cursor

from app.errors import TickhubError
from app.market.batches import Batch, LedgerEntry, Outcome, Record, Written
from app.market.committed import committed_rows
from app.market.positions import journal_key
from app.storage import ledger
from app.storage.connection import Connection


class DatasetWriter(Protocol):
    """Writes the batches of one dataset."""

    def prepare(self, connection: Connection, journal_no: int, records: Sequence[Record]) -> Any:
        """Decode the records, and make what must be there before, in transactions of its own.

        Returns None when that is not finished and wants another call: so no call takes long.
        """
        ...

    def write(self, cur: Cursor, prepared: Any) -> Outcome:
        """Write what was prepared in the open transaction. Rows that the database refuses are set aside."""
        ...


class DatabaseSink:
    """The pipeline's way into the database: a connection and a writer for each dataset."""

    def __init__(self, connection: Connection, writers: Mapping[str, DatasetWriter]) -> None:
        self.connection = connection
        self._writers = writers

    def ledger(self, journal_id: str) -> LedgerEntry:
        """Return the journal's ledger entry, made if it is not there. Raises DatabaseAway."""
        with self.connection.transaction() as cur:
            return ledger.open_live_entry(cur, journal_id)

    def write(self, journal_id: str, entry: LedgerEntry, batch: Batch) -> Written:
        """Write the batch and move the ledger, in one transaction.

        The entry comes back unmoved when preparing took its share of time: call again. Raises DatabaseAway (also
        when the outcome of the COMMIT is unknown), LedgerMoved, or TickhubError for a dataset without a writer.
        """
        by_dataset: dict[str, list[Record]] = {}
        for record in batch.records:
            by_dataset.setdefault(record.dataset, []).append(record)
        unknown = by_dataset.keys() - self._writers.keys()
        if unknown:
            # The journal's own trouble: as the database's it would hold up every other journal too.
            raise TickhubError(f"records of {', '.join(sorted(unknown))}: written by a newer tickhub")
        prepared = []
        # In one order, whatever came first: two flushes that each wait for the other's rows would not end.
        for dataset, writer in self._writers.items():
            records = by_dataset.get(dataset, [])
            if not records:
                continue
            rows = writer.prepare(self.connection, entry.journal_no, records)
            if rows is None:
                return Written(entry, self.connection.notices())
            prepared.append((writer, rows))
        outcome = Outcome()
        with self.connection.transaction() as cur:
            for writer, rows in prepared:
                outcome += writer.write(cur, rows)
            moved = ledger.advance(cur, journal_id, entry, batch, outcome)
        # After the commit: whoever waits for these rows' locks does not wait for this.
        committed = committed_rows(
            journal_key(journal_id), entry.done_us, moved.done_us, outcome.inserted, outcome.names
        )
        return Written(moved, [*outcome.notes, *self.connection.notices()], committed if batch.records else None)

    def close(self) -> None:
        """Drop the connection."""
        self.connection.close()
