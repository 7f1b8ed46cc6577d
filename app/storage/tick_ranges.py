"""Where the ticks of a time are: hot in `ticks`, archived in files, or nowhere (docs/archive.md). Lane side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.errors import ArchiveAway
from app.market.columns import I8, Mask
from app.storage.archive_files import Manifest, loaded

LOCK_TIMEOUT_MS = 300
"""Flushes wait behind who changes a state, who waits for flushes; no longer than that."""

EARLIEST_US = -62_135_596_800_000_000
LATEST_US = 253_402_300_799_999_999

# FOR SHARE locks the table too (ROW SHARE), before the snapshot, whether a row is found or not: whoever changes a state
# takes EXCLUSIVE. Clipped to a second around the rows: a range may have no end, and infinity is no number.
_COLD = """
    SELECT extract(epoch FROM greatest(lower(range), to_timestamp(%(low)s))) * 1000000,
           extract(epoch FROM least(upper(range), to_timestamp(%(high)s))) * 1000000, state
    FROM tick_ranges
    WHERE state <> 'hot' AND range && tstzrange(to_timestamp(%(low)s), to_timestamp(%(high)s)) FOR SHARE
"""
_ARCHIVED = """
    SELECT (extract(epoch FROM lower(range)) * 1000000)::bigint, (extract(epoch FROM upper(range)) * 1000000)::bigint,
        manifest, manifest_sha256
    FROM tick_ranges
    WHERE state = 'archived' AND lower(range) < %(end)s::timestamptz AND upper(range) > %(start)s::timestamptz
    ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Archived:
    """An archived range [start_us, end_us), and its manifest: path from archive_dir, and SHA-256."""

    start_us: int
    end_us: int
    path: str
    sha256: str

    @property
    def folder(self) -> str:
        """Return the directory of the manifest and its files, from archive_dir."""
        return str(Path(self.path).parent)

    def manifest(self, root: Path) -> Manifest:
        """Return what the files are. Raises ArchiveAway."""
        return loaded(root, self.path, self.sha256)


def lock_states(cur: Cursor) -> None:
    """Wait for all flushes that have looked at ranges, and let no other look until the transaction's end.

    Raises psycopg2.errors.LockNotAvailable after LOCK_TIMEOUT_MS: roll back, and try again a little later.
    """
    cur.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; LOCK TABLE tick_ranges IN EXCLUSIVE MODE")


def cold(cur: Cursor, time_us: I8) -> tuple[Mask, Mask]:
    """Tell which times were dropped, and which belong to the archive; keep it so until the transaction's end."""
    low, high = int(time_us.min() // 1_000_000) - 1, int(time_us.max() // 1_000_000) + 2
    cur.execute(_COLD, {"low": low, "high": high})
    dropped, archive = np.zeros(len(time_us), np.bool_), np.zeros(len(time_us), np.bool_)
    for low_us, high_us, state in cur.fetchall():
        inside = (time_us >= int(low_us)) & (time_us < int(high_us))
        if state == "dropped":
            dropped |= inside
        else:
            archive |= inside
    return dropped, archive


def archived_within(cur: Cursor, start: str, end: str) -> list[Archived]:
    """Return the archived ranges that overlap [start, end), texts of timestamptz, in order of time."""
    cur.execute(_ARCHIVED, {"start": start, "end": end})
    return [Archived(*row) for row in cur.fetchall()]


def archive_dir_of(cur: Cursor) -> Path:
    """Return where this machine has the archive's files. Raises ArchiveAway when nobody said."""
    found = getattr(cur, "archive_dir", None)
    if found is None:
        raise ArchiveAway("These ticks are archived, and nobody said where (archive_dir)")
    return Path(found)
