"""Check backups with pg_verifybackup, each file against its manifest, and that its WAL can be read. Blocking.

The archive's files that a backup names are part of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.backup import archived
from app.backup.catalog import Catalog, Note
from app.backup.tools import BackupError, Progress, Tools


def verify_files(tools: Tools, files: Path, progress: Progress | None = None) -> None:
    """Check the files of one backup. Raises BackupError with what is wrong."""
    tools.run("pg_verifybackup", "--progress", files, progress=progress)


def verify(
    catalog: Catalog,
    tools: Tools,
    label: str,
    progress: Progress | None = None,
    seen: dict[str, str | None] | None = None,
    *,
    must_be_noted: bool = True,
) -> list[Note]:
    """Check a backup and all that it needs, and note the outcome; return their notes, the full one first.

    seen: files of the archive that were checked before, and what was wrong with them; they are not read again.
    must_be_noted: False where the outcome alone matters, of backups that can only be read, or on a full disk. Raises
    BackupError with the outcome where it cannot be noted.
    """
    checked = []
    seen = {} if seen is None else seen
    for note in catalog.chain(label):
        damage = None
        try:
            verify_files(tools, catalog.path(note.label), progress)
        except BackupError as why:
            damage = str(why)
        of_archive = archived.damage(catalog, note.archive, seen)
        now = datetime.now(UTC)
        checked.append(msgspec.structs.replace(note, verified_at=now, damage=damage, archive_damage=of_archive))
        try:
            catalog.save(checked[-1])
        except BackupError as why:
            if must_be_noted:
                raise BackupError(f"{note.label} is {damage or of_archive or 'sound'}, but: {why}") from why
    return checked
