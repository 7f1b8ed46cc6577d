"""Check backups with pg_verifybackup, each file against its manifest, and that its WAL can be read. Blocking."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.backup.catalog import Catalog, Note
from app.backup.tools import BackupError, Progress, Tools


def verify_files(tools: Tools, files: Path, progress: Progress | None = None) -> None:
    """Check the files of one backup. Raises BackupError with what is wrong."""
    tools.run("pg_verifybackup", "--progress", files, progress=progress)


def verify(catalog: Catalog, tools: Tools, label: str, progress: Progress | None = None) -> list[Note]:
    """Check a backup and all that it needs, and note the outcome; return their notes, the full one first."""
    checked = []
    for note in catalog.chain(label):
        damage = None
        try:
            verify_files(tools, catalog.path(note.label), progress)
        except BackupError as why:
            damage = str(why)
        checked.append(msgspec.structs.replace(note, verified_at=datetime.now(UTC), damage=damage))
        catalog.save(checked[-1])
    return checked
