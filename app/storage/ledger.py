"""The ledger: for every journal, which rows are done and what became of them. Lane side.

Everything that counts rows across deaths reads this module: flush, recovery, drain, stats.

A journal that is flushed is live: who watches trades keeps its position (docs/live.md). It enters once, and again when
it had nothing for hours: by then others may have taken it for finished. Imports never enter.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg2.extensions import cursor as Cursor

from app.errors import LedgerMoved
from app.market.batches import Batch, LedgerEntry, Outcome

LIVE_FOR = "6 hours"
"""A journal that has done nothing for so long is left out of positions: every life of a worker leaves one, and each is
some 18 characters of every cursor."""

_ENTER_AGAIN_AFTER = "5 hours"
"""Sooner, so that no journal is written to that others may be leaving out at this moment."""

_READ = f"""
    SELECT journal_no, next_row, stored, duplicates, set_aside, skipped, lost,
        coalesce((extract(epoch FROM done_until) * 1000000)::bigint, 0),
        entered_at IS NOT NULL AND updated_at > now() - interval '{_ENTER_AGAIN_AFTER}'
    FROM ingest_log WHERE journal_id = %s
"""  # noqa: S608 - the constants above
_OPEN = "INSERT INTO ingest_log (journal_id) VALUES (%s) ON CONFLICT DO NOTHING"
# Under a lock, so that who sees a journal has seen all that entered before it.
_ENTER = f"""
    SELECT pg_advisory_xact_lock(x'7469636B68756203'::bigint);
    INSERT INTO ingest_log (journal_id) VALUES (%(journal_id)s) ON CONFLICT DO NOTHING;
    UPDATE ingest_log
    SET entered_at = greatest(clock_timestamp(), (SELECT max(entered_at) FROM ingest_log) + interval '1 microsecond'),
        entered_from = done_until, updated_at = now()
    WHERE journal_id = %(journal_id)s
        AND (entered_at IS NULL OR updated_at <= now() - interval '{_ENTER_AGAIN_AFTER}')
"""  # noqa: S608 - the constants above
_ADVANCE = f"""
    UPDATE ingest_log
    SET next_row = %(end_row)s, stored = stored + %(stored)s, duplicates = duplicates + %(duplicates)s,
        set_aside = set_aside + %(set_aside)s, skipped = skipped + %(skipped)s, lost = lost + %(lost)s,
        done_until = coalesce(timestamptz 'epoch' + %(last_us)s * interval '1 microsecond', done_until),
        entered_from = coalesce(entered_from, timestamptz 'epoch' + (%(first_us)s - 1) * interval '1 microsecond'),
        updated_at = now()
    WHERE journal_id = %(journal_id)s AND next_row = %(expected)s
        AND (entered_at IS NULL OR updated_at > now() - interval '{_ENTER_AGAIN_AFTER}')
"""  # noqa: S608 - the constants above


def open_entry(cur: Cursor, journal_id: str) -> LedgerEntry:
    """Return the journal's entry, made if it is not there; it does not become live."""
    entry, _ = _read(cur, journal_id)
    if entry is None:
        cur.execute(_OPEN, (journal_id,))
        entry, _ = _read(cur, journal_id)
        assert entry is not None
    return entry


def open_live_entry(cur: Cursor, journal_id: str) -> LedgerEntry:
    """Return the entry of a journal that is about to be flushed, made if it is not there."""
    entry, is_live = _read(cur, journal_id)
    if entry is None or not is_live:
        cur.execute(_ENTER, {"journal_id": journal_id})
        entry, _ = _read(cur, journal_id)
        assert entry is not None
    return entry


def _read(cur: Cursor, journal_id: str) -> tuple[LedgerEntry | None, bool]:
    cur.execute(_READ, (journal_id,))
    row = cur.fetchone()
    return (None, False) if row is None else (LedgerEntry(*row[:-1]), bool(row[-1]))


def advance(cur: Cursor, journal_id: str, entry: LedgerEntry, batch: Batch, outcome: Outcome) -> LedgerEntry:
    """Move the entry over a batch, in the transaction that wrote it.

    Raises LedgerMoved when the entry is not where it was: then these rows are somebody else's, or it must enter again.
    """
    received = batch.received
    first_us, last_us = received or (None, None)
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
            "first_us": first_us,
            "last_us": last_us,
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
        done_us=last_us or entry.done_us,
    )
