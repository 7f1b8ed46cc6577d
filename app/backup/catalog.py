"""What backups there are: a note beside each, and what may go. Files only, no database.

<backup_dir>/base/<label>/        as pg_basebackup left it
<backup_dir>/base/<label>.json    its note; a backup without one was never finished
<backup_dir>/wal, journal         what came in between (following.py)
<backup_dir>/archive              copies of the archive's files (archived.py)
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from app.backup.tools import BackupError

Kind = Literal["full", "incremental"]

LOOK_S = 0.2
"""Between two looks whether another command has ended."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A backup in words. Times are UTC; lsn: places in the WAL, as PostgreSQL writes them."""

    label: str
    kind: Kind
    parent: str | None
    began_at: datetime
    ended_at: datetime
    start_lsn: str
    end_lsn: str
    timeline: int
    wal_segment_bytes: int
    bytes: int
    server_version: str
    system_identifier: str
    schema_revision: str | None
    verified_at: datetime | None = None
    damage: str | None = None
    """What verifying found, None: nothing."""
    archive: dict[str, str] = {}
    """The archive's manifests that the database named then, with their SHA-256."""
    archive_damage: str | None = None
    """What is wrong with the copies of the archive's files; the database itself can be restored."""

    @property
    def sound(self) -> bool:
        """Tell whether it was verified, and nothing was found."""
        return self.verified_at is not None and self.damage is None

    @property
    def whole(self) -> bool:
        """Tell whether nothing was found wrong, neither with it nor with the archive's files that it names."""
        return self.damage is None and self.archive_damage is None


class Catalog:
    """The backups in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "base"
        self.wal = root / "wal"
        self.journal = root / "journal"
        self.dumps = root / "dumps"
        self.archive = root / "archive"

    def path(self, label: str) -> Path:
        """Return where a backup's files are."""
        return self.base / label

    def _open_lock(self, name: str) -> tuple[int, int]:
        """Return the descriptor of a file to lock, in directories that are there then, and how. Raises BackupError.

        In a file system that can only be read the lock is shared: who holds it changes nothing. Where there is no such
        file it is the directory's.
        """
        try:
            self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX
        except OSError as why:
            if why.errno != errno.EROFS or not self.base.is_dir():
                raise BackupError(f"backups cannot be kept in {self.root}: {why.strerror}") from why
        path = self.root / name
        try:
            return os.open(path if path.exists() else self.root, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH
        except OSError as why:
            raise BackupError(f"backups cannot be read in {self.root}: {why.strerror}") from why

    @contextmanager
    def locked(self, name: str, wait_s: float, refusal: BackupError) -> Iterator[None]:
        """Hold a lock of these backups. Raises the refusal when another one still holds it after so long."""
        fd, how = self._open_lock(name)
        until = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(fd, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise refusal from None
                    time.sleep(LOOK_S)
            yield
        finally:
            os.close(fd)

    def alone(self, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Be the only one who makes, checks or removes backups here. Raises BackupError while another one does.

        wait_s: how long its end is waited for.
        """
        refusal = BackupError(f"another backup command is at work in {self.root}: wait for its end")
        return self.locked("lock", wait_s, refusal)

    def notes(self) -> list[Note]:
        """Return all whole backups, the oldest first. Raises BackupError for a note that cannot be read."""
        found = []
        for path in sorted(self.base.glob("*.json")) if self.base.exists() else []:
            try:
                note = msgspec.json.decode(path.read_bytes(), type=Note)
            except (OSError, msgspec.DecodeError, msgspec.ValidationError) as why:
                # Not passed over: what it was the note of would be taken for unfinished, and removed.
                raise BackupError(
                    f"{path} is no backup's note ({why}): move it and {path.with_suffix('')} away, and the other"
                    " backups can be used"
                ) from why
            if self.path(note.label).is_dir():
                found.append(note)
        return sorted(found, key=lambda note: (note.began_at, note.label))

    def sound(self) -> list[Note]:
        """Return the backups that are sound with all that they need, the oldest first. Raises BackupError."""
        notes = self.notes()
        sound = {note.label for note in notes if note.sound}
        while lacking := {note.label for note in notes if note.label in sound and note.parent not in (None, *sound)}:
            sound -= lacking
        return [note for note in notes if note.label in sound]

    def note(self, label: str) -> Note:
        """Return one backup's note. Raises BackupError when there is none of that label."""
        found = [note for note in self.notes() if note.label == label]
        if not found:
            raise BackupError(f"there is no backup {label} in {self.root}: python -m app backup list")
        return found[0]

    def chain(self, label: str) -> list[Note]:
        """Return a backup with all that it needs, the full one first. Raises BackupError when one is missing."""
        by_label = {note.label: note for note in self.notes()}
        found = [self.note(label)]
        while found[0].parent is not None:
            if found[0].parent not in by_label:
                raise BackupError(f"backup {found[0].label} needs {found[0].parent}, which is gone")
            found.insert(0, by_label[found[0].parent])
        return found

    def save(self, note: Note) -> None:
        """Keep a note, durably. Raises BackupError; then the one of before is still there."""
        path = self.base / f"{note.label}.json"
        fresh = path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(note), indent=1))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            self.sync()
        except OSError as why:
            raise BackupError(f"{path} cannot be written: {why.strerror}") from why

    def sync(self) -> None:
        """Make the names in the directory of backups durable."""
        fd = os.open(self.base, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, note: Note) -> None:
        """Remove a backup: its note first, so that what is half gone is no backup."""
        (self.base / f"{note.label}.json").unlink(missing_ok=True)
        self.sync()
        shutil.rmtree(self.path(note.label))

    def unfinished(self) -> list[Path]:
        """Return what killed commands left: directories without a note."""
        known = {note.label for note in self.notes()}
        return [path for path in sorted(self.base.iterdir()) if path.is_dir() and path.name not in known]


def removable(notes: Sequence[Note], now: datetime, keep_days: int, keep_count: int) -> list[Note]:
    """Return what may go, children before their parents.

    A chain goes as a whole or from its end: never what something kept needs, never the newest sound full backup with
    what hangs on it. keep_days: younger ones stay, 0 = whatever their age; keep_count: so many newest full backups stay
    with their chains, 0 = any number may go.
    """
    if not keep_days and not keep_count:
        return []
    by_label = {note.label: note for note in notes}
    fulls = [note for note in notes if note.kind == "full"]
    sound = [note.label for note in fulls if note.sound]
    kept = {note.label for note in fulls[-keep_count:]} if keep_count else set()
    kept |= {sound[-1]} if sound else {note.label for note in fulls[-1:]}
    kept = {note.label for note in notes if _root(note, by_label) in kept}
    if keep_days:
        kept |= {note.label for note in notes if note.ended_at > now - timedelta(days=keep_days)}
    for note in reversed(notes):
        if note.label in kept and note.parent is not None:
            kept.add(note.parent)
    return [note for note in reversed(notes) if note.label not in kept]


def full_is_due(notes: Sequence[Note], now: datetime, weekday: int) -> bool:
    """Tell whether there is no sound full backup since the newest of those weekdays began (0: Monday; UTC).

    Also behind a weekend on which nothing ran: else a chain would grow for ever.
    """
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=(now.weekday() - weekday) % 7)
    return not any(note.kind == "full" and note.sound and note.began_at >= day for note in notes)


def _root(note: Note, by_label: dict[str, Note]) -> str:
    while note.parent is not None and note.parent in by_label:
        note = by_label[note.parent]
    return note.label
