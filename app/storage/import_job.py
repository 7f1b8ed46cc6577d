"""A file's rows into the database, once: each block in one transaction with its ledger row. Lane side.

A file is a journal of its own: its lines of data are the rows, and lines that are left out are `skipped`. So
an import that was cut off anywhere goes on where the ledger stands, and a second import of the same file
finds nothing to do. One that is wanted all the same is another journal: what is stored already is a duplicate. Of
a file's journals the newest tells what is done: it began last, and with the first row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.errors import StorageError
from app.market.batches import Batch, LedgerEntry, Outcome
from app.market.columns import I8, StoredTicks
from app.storage import ledger
from app.storage.connection import Connection
from app.storage.instruments import Known, find, find_or_add
from app.storage.partitions import Partitions
from app.storage.tick_reader import timestamp
from app.storage.ticks_writer import TickStore, with_spread

_CREATED = """
    SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM ingest_log WHERE journal_id = %s
"""
_NEWEST = """
    SELECT journal_id, next_row FROM ingest_log WHERE journal_id = %(first)s OR journal_id LIKE %(first)s || ':%%'
    ORDER BY journal_no DESC LIMIT 1
"""
_WITHIN = "time >= %(start)s::timestamptz AND time <= %(end)s::timestamptz"
# Of an archived range it is only known that there are some, of whichever symbol.
_DERIVED = f"""
    SELECT time FROM ticks WHERE symbol_id = %(symbol_id)s AND seq < 0 AND {_WITHIN}
    UNION ALL
    SELECT time FROM late_ticks WHERE symbol_id = %(symbol_id)s AND seq < 0 AND {_WITHIN}
    UNION ALL
    SELECT greatest(lower(range), %(start)s::timestamptz) FROM tick_ranges
    WHERE state = 'archived' AND derived_rows > 0 AND range && tstzrange(%(start)s, %(end)s, '[]')
    LIMIT 1
"""  # noqa: S608 - the constant above


class UnknownSymbol(StorageError):
    """No instrument has this name or alias."""


class DerivedTicksThere(StorageError):
    """The range holds ticks whose identity was derived, so the same ticks would be stored twice."""


class StoreTicks(Protocol):
    """Writes ticks, bars and `current` in the open transaction; partitions are there already."""

    def __call__(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str], /) -> Outcome:
        """Return what became of the ticks. Raises psycopg2.Error for trouble with the database."""
        ...


def find_instruments(connection: Connection, names: Sequence[str], add: bool) -> list[Known]:
    """Return the instruments of these names or aliases, in any case, in order.

    add: insert the unknown ones. Raises UnknownSymbol, DatabaseAway.
    """
    found: list[Known] = []
    with connection.transaction() as cur:
        for name in names:
            known = find_or_add(cur, name) if add else find(cur, name)
            if known is None:
                raise UnknownSymbol(f"unknown symbol: {name} (--add-symbol adds it to the instruments)")
            found.append(known)
    return found


def journal_of(connection: Connection, file_id: str, again: bool) -> str:
    """Return the id of the journal with which an import of a file goes on: the newest of the file's.

    again: of one that no row is done of yet, which becomes the newest. Raises DatabaseAway.
    """
    with connection.transaction() as cur:
        cur.execute(_NEWEST, {"first": file_id})
        found = cur.fetchone()
    if found is None:
        return file_id
    newest, next_row = found
    if not again or not next_row:
        return str(newest)
    repeats = int(newest.removeprefix(file_id).removeprefix(":") or 0)
    return f"{file_id}:{repeats + 1}"


class ImportJob:
    """One file's journal in the ledger."""

    def __init__(
        self, connection: Connection, journal_id: str, merge: bool, store: StoreTicks | None = None
    ) -> None:
        self._connection = connection
        self._journal_id = journal_id
        self._merge = merge
        self._store: StoreTicks = store or TickStore().write
        self._partitions = Partitions()

    def open(self) -> tuple[LedgerEntry, int]:
        """Return the journal's ledger entry, made if it is not there, and when it was made (UTC us).

        Raises DatabaseAway.
        """
        with self._connection.transaction() as cur:
            entry = ledger.open_entry(cur, self._journal_id)
            cur.execute(_CREATED, (self._journal_id,))
            row = cur.fetchone()
            assert row is not None
            return entry, int(row[0])

    def write(
        self, entry: LedgerEntry, ticks: StoredTicks, end_row: int, instruments: Sequence[Known]
    ) -> LedgerEntry:
        """Write a block in one transaction and return the new entry.

        ticks: those from entry.next_row up to end_row; the rows in between that are not among them are
        skipped. instruments: those of the ticks. Raises DatabaseAway, LedgerMoved, DerivedTicksThere.
        """
        known = {instrument.symbol_id: instrument for instrument in instruments}
        names = {number: instrument.symbol for number, instrument in known.items()}
        ticks.spread = with_spread(ticks, {number: instrument.digits for number, instrument in known.items()})
        while not self._partitions.ensure(self._connection, ticks.time_us):
            pass
        rows = end_row - entry.next_row
        batch = Batch([], rows, entry.next_row, end_row, skipped=rows - len(ticks))
        with self._connection.transaction() as cur:
            if not self._merge:
                _refuse_derived(cur, ticks, names)
            outcome = self._store(cur, ticks, names)
            return ledger.advance(cur, self._journal_id, entry, batch, outcome)


def _refuse_derived(cur: Cursor, ticks: StoredTicks, names: dict[int, str]) -> None:
    for symbol_id in np.unique(ticks.symbol_id):
        times: I8 = ticks.time_us[ticks.symbol_id == symbol_id]
        bounds = {"start": timestamp(int(times.min())), "end": timestamp(int(times.max()))}
        cur.execute(_DERIVED, {"symbol_id": int(symbol_id), **bounds})
        found = cur.fetchone()
        if found is not None:
            raise DerivedTicksThere(
                f"{names[int(symbol_id)]} already has, or may have, ticks that were sent without seq, as at "
                f"{found[0].isoformat()}: the same ticks would be stored twice. "
                "Import another range, or give --merge to store both"
            )
