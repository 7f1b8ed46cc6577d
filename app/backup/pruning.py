"""Remove what is older than has to be kept: backups, their WAL, journals and archived weeks, dumps. Blocking."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from app.backup import archived, journals, wal
from app.backup.catalog import Catalog, removable

JOURNAL_MARGIN = timedelta(days=1)
"""Copies of journals stay so much longer than the oldest backup: rows may have waited for the database."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went. labels: of backups. archive: weeks of the archive."""

    labels: list[str]
    wal_segments: int
    journal_segments: int
    dumps: int
    archive: int


def prune(catalog: Catalog, archive_dir: Path, now: datetime, keep_days: int, keep_count: int) -> Pruned:
    """Remove what may go by age and by number (catalog.removable). The caller is alone in the catalog.

    Of dumps the newest stays, however old it is: it may be all that there is.
    """
    for left in catalog.unfinished():
        shutil.rmtree(left)
    labels = []
    for note in removable(catalog.notes(), now, keep_days, keep_count):
        catalog.remove(note)
        labels.append(note.label)
    kept = catalog.notes()
    oldest = min((note.began_at for note in kept), default=None)
    segments = wal.remove_older(catalog.wal, kept)
    copies = 0
    if oldest is not None:
        copies = journals.remove_older(catalog.journal, round((oldest - JOURNAL_MARGIN).timestamp() * 1e6))
    too_old = _too_old(catalog.dumps, now, keep_days) if keep_days else []
    for path in too_old:
        path.unlink()
    weeks = archived.remove_unneeded(catalog, archive_dir, kept)
    return Pruned(labels, segments, copies, len(too_old), len(weeks))


def _too_old(dumps: Path, now: datetime, keep_days: int) -> list[Path]:
    """Return the dumps that are older than that, but for the newest."""
    oldest_s = (now - timedelta(days=keep_days)).timestamp()
    by_age = sorted(dumps.glob("*.dump"), key=lambda path: (path.stat().st_mtime, path.name))
    return [path for path in by_age[:-1] if path.stat().st_mtime < oldest_s]
