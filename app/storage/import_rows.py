"""Records of a dataset into the database from a source that can be read again, once. Lane side.

Such a source (a file, a symbol's days at a vendor) is a journal of its own in the ledger, like a tick file's: its row
numbers rise, those that were left out are `skipped`, and each block of rows is one transaction with the ledger. So
an import that was cut off anywhere goes on where the ledger stands.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from app.datasets.declare import Dataset, Policy
from app.datasets.records import LAYOUT, Records
from app.market.batches import Batch, LedgerEntry, Record
from app.storage import ledger
from app.storage.connection import Connection
from app.storage.instruments import InstrumentIds
from app.storage.rows_writer import RowsWriter


class RowsImport:
    """One source's journal in the ledger, and the writer of its dataset."""

    def __init__(self, connection: Connection, journal_id: str, dataset: Dataset, policy: Policy) -> None:
        self._connection = connection
        self._journal_id = journal_id
        self._dataset = dataset
        self._policy = policy
        self._writer = RowsWriter(dataset, InstrumentIds())

    def open(self) -> LedgerEntry:
        """Return the journal's ledger entry, made if it is not there. Raises DatabaseAway."""
        with self._connection.transaction() as cur:
            return ledger.open_entry(cur, self._journal_id)

    def write(self, entry: LedgerEntry, rows: Sequence[dict[str, Any]], end_row: int) -> LedgerEntry:
        """Write a block in one transaction and return the new entry.

        rows: records by field, symbols by their canonical names, times as UTC microseconds; those from entry.next_row
        up to end_row; whatever is missing in between counts as skipped. Raises DatabaseAway, LedgerMoved.
        """
        assert len(rows) <= end_row - entry.next_row
        records = self._records(entry, rows)
        while (prepared := self._writer.prepare(self._connection, entry.journal_no, records)) is None:
            pass
        count = end_row - entry.next_row
        batch = Batch([], count, entry.next_row, end_row, skipped=count - len(rows))
        with self._connection.transaction() as cur:
            outcome = self._writer.write(cur, prepared)
            return ledger.advance(cur, self._journal_id, entry, batch, outcome)

    def _records(self, entry: LedgerEntry, rows: Sequence[dict[str, Any]]) -> list[Record]:
        if not rows:
            return []
        # The last row's number in time is now: what is imported later counts as newer.
        received_us = time.time_ns() // 1000 - len(rows) + 1
        columns = {column.name: [row[column.name] for row in rows] for column in self._dataset.columns}
        payload = Records(self._policy, len(rows), columns).encode()
        return [Record(self._dataset.name, LAYOUT, len(rows), entry.next_row, received_us, payload)]
