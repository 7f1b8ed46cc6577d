"""The ledger: for every journal, which rows are done and what became of them. Lane side.

Everything that counts rows across deaths reads this module: flush, recovery, drain, stats.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg2.extensions import cursor as Cursor

from app.errors import LedgerMoved
from app.market.batches import Batch, LedgerEntry, Outcome

_READ = """
    SELECT journal_no, next_row, stored, duplicates, set_aside, skipped, lost
    FROM ingest_log WHERE journal_id = %s
"""
_OPEN = "INSERT INTO ingest_log (journal_id) VALUES (%s) ON CONFLICT DO NOTHING"
_ADVANCE = """
    UPDATE ingest_log
    SET next_row = %(end_row)s, stored = stored + %(stored)s, duplicates = duplicates + %(duplicates)s,
        set_aside = set_aside + %(set_aside)s, skipped = skipped + %(skipped)s, lost = lost + %(lost)s,
        updated_at = now()
    WHERE journal_id = %(journal_id)s AND next_row = %(expected)s
"""


def open_entry(cur: Cursor, journal_id: str) -> LedgerEntry:
    """Return the journal's entry, made if it is not there."""
    cur.execute(_READ, (journal_id,))
    row = cur.fetchone()
    if row is None:
        cur.execute(_OPEN, (journal_id,))
        cur.execute(_READ, (journal_id,))
        row = cur.fetchone()
        assert row is not None
    return LedgerEntry(*row)


def advance(cur: Cursor, journal_id: str, entry: LedgerEntry, batch: Batch, outcome: Outcome) -> LedgerEntry:
    """Move the entry over a batch, in the transaction that wrote it.

    Raises LedgerMoved when the entry is not where it was: then these rows are somebody else's.
    """
    cur.execute(
        _ADVANCE,
        {
            "journal_id": journal_id,
            "expected": entry.next_row,
            "end_row": batch.end_row,
            "stored": outcome.stored,
            "duplicates": outcome.duplicates,
            "set_aside": outcome.set_aside,
            "skipped": batch.skipped,
            "lost": batch.lost,
        },
    )
    if cur.rowcount != 1:
        raise LedgerMoved(f"journal {journal_id} is no longer at row {entry.next_row}")
    return replace(
        entry,
        next_row=batch.end_row,
        stored=entry.stored + outcome.stored,
        duplicates=entry.duplicates + outcome.duplicates,
        set_aside=entry.set_aside + outcome.set_aside,
        skipped=entry.skipped + batch.skipped,
        lost=entry.lost + batch.lost,
    )
