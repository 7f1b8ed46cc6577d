"""The archive's files beside the backups: copied, checked, put back, and removed when no backup needs them. Blocking.

    <backup_dir>/archive/<week>-<random>/    as in archive_dir/ticks, hard links where one file system has both

Files of the archive never change, so a copy is of all moments. Which of them a database needs, its `tick_ranges` says.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg2.extensions import cursor as Cursor

from app.archive.place import Place
from app.backup.catalog import Catalog, Note
from app.backup.tools import BackupError
from app.errors import ArchiveAway
from app.storage.archive_files import UNFINISHED, Manifest, file_sha256, load

MARGIN = timedelta(days=1)
"""A copy is made before the database names it, in a run of the archiver that may take hours."""

_NAMED = "SELECT manifest, manifest_sha256 FROM tick_ranges WHERE state = 'archived' AND manifest IS NOT NULL"


def named(cur: Cursor) -> dict[str, str]:
    """Return the manifests that the database names, as paths from archive_dir, with their SHA-256."""
    cur.execute("SELECT to_regclass('public.tick_ranges')")
    if cur.fetchone() == (None,):
        return {}
    cur.execute(_NAMED)
    return {str(path): str(sha256) for path, sha256 in cur.fetchall()}


def copy_all(catalog: Catalog, archive_dir: Path) -> None:
    """Have all whole directories of the archive beside the backups, durably; idempotent. Raises BackupError."""
    place = Place(archive_dir, catalog.archive)
    for folder in _folders(place.ticks):
        try:
            place.copy(folder)
        except OSError as why:
            # Retention may delete a directory meanwhile; else it is trouble.
            if folder.exists():
                raise BackupError(f"the archive's {folder.name} cannot be copied: {why}") from why


def damage(catalog: Catalog, manifests: Mapping[str, str], seen: dict[str, str | None]) -> str | None:
    """Return what is wrong with the copies that are named, None: nothing. seen: what was looked at already."""
    for path, sha256 in manifests.items():
        if path not in seen:
            seen[path] = _damage(catalog.archive.parent, _in_backups(path), sha256)
        if seen[path] is not None:
            return seen[path]
    return None


def missing(catalog: Catalog, archive_dir: Path, manifests: Mapping[str, str]) -> dict[str, str]:
    """Return the manifests that are whole, with their files, neither in the archive nor beside the backups, and why."""
    wrong = {}
    for path, sha256 in manifests.items():
        here = _damage(archive_dir, path, sha256)
        if here is not None and (there := _damage(catalog.archive.parent, _in_backups(path), sha256)) is not None:
            wrong[path] = f"{here}; beside the backups: {there}"
    return wrong


def put_back(catalog: Catalog, archive_dir: Path, manifests: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Have the named files in the archive, from beside the backups where they are missing. Raises BackupError.

    What is damaged there is set aside first; files that nothing names stay, for the archiver to see to.
    """
    place = Place(archive_dir, catalog.archive)
    for path, sha256 in manifests.items():
        wrong = _damage(archive_dir, path, sha256)
        if wrong is None:
            continue
        folder = (archive_dir / path).parent
        place.ticks.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            # By another name than its own, which is looked for there.
            aside = archive_dir / "unused" / f"{folder.name}.damaged"
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        copies = catalog.archive / folder.name
        place.find(path, [copy.name for copy in copies.iterdir()] if copies.exists() else [])
        wrong = _damage(archive_dir, path, sha256)
        if wrong is not None:
            raise BackupError(f"{wrong}, and what is beside the backups is no better")
        say(f"{folder.name}: brought back into the archive")


def remove_unneeded(catalog: Catalog, archive_dir: Path, kept: Sequence[Note]) -> list[str]:
    """Remove copies that no kept backup names, nor the archive has; return their names.

    Those that are younger than the oldest kept backup stay: a moment behind it may need them.
    """
    if not kept:
        return []
    needed = {Path(path).parent.name for note in kept for path in note.archive}
    needed |= {folder.name for folder in _folders(archive_dir / "ticks")}
    young = min(note.began_at for note in kept) - MARGIN
    gone = []
    for folder in _folders(catalog.archive):
        if folder.name not in needed and _written_at(folder) < young:
            shutil.rmtree(folder)
            gone.append(folder.name)
    return gone


def _folders(top: Path) -> list[Path]:
    found = sorted(top.iterdir()) if top.exists() else []
    return [path for path in found if path.is_dir() and not path.name.startswith((UNFINISHED, "."))]


def _in_backups(path: str) -> str:
    """Return where a manifest is, from the directory of backups."""
    return str(Path("archive", *Path(path).parts[1:]))


def _written_at(folder: Path) -> datetime:
    newest = max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)
    return datetime.fromtimestamp(newest, UTC)


def _damage(root: Path, path: str, sha256: str) -> str | None:
    """Return what is wrong with a manifest or its files, None: nothing."""
    try:
        manifest: Manifest = load(root, path, sha256)
        for file in manifest.files:
            found = (root / path).with_name(file.name)
            if found.stat().st_size != file.bytes or file_sha256(found) != file.sha256:
                return f"{found} is not what was archived"
    except ArchiveAway as why:
        return str(why)
    except OSError as why:
        return f"{why.filename}: {why.strerror}"
    return None
