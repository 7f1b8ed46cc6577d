"""The directory of the archive, and being the only one who changes it. Blocking."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import StorageError
from app.storage.archive_files import TICKS, UNFINISHED
from app.storage.connection import Connection

_ALONE = "SELECT pg_try_advisory_xact_lock(x'7469636B68756211'::bigint), pg_backend_pid()"


class ArchiveError(StorageError):
    """The archive cannot go on like this."""


class Place:
    """archive_dir: directories of weeks in `ticks/`, and what is not needed any more in `unused/`."""

    def __init__(self, root: Path, copies: Path | None = None) -> None:
        """Take the directory; nothing is made yet. copies: where the backups have the same files; None: nowhere."""
        self.root = root
        self._copies = copies
        self.ticks = root / TICKS

    @contextmanager
    def alone(self, guard: Connection) -> Iterator[int]:
        """Let no other archiver work on the directory or the database; give the process id of the guard's session.

        The session sleeps in a transaction meanwhile, with neither a snapshot nor a lock that matters: that also works
        behind a transaction pooler. Raises ArchiveError when there is another one.
        """
        try:
            self.ticks.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "LOCK").open("w")
        except OSError as error:
            raise ArchiveError(f"{self.root}: {error.strerror}") from error
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ArchiveError(f"another archiver works in {self.root}") from error
            with guard.transaction() as cur:
                cur.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                cur.execute(_ALONE)
                row = cur.fetchone()
                if row is None or not row[0]:
                    raise ArchiveError("another archiver works on this database")
                yield int(row[1])

    def new_folder(self) -> Path:
        """Make a directory that counts for nothing until `keep`."""
        folder = self.ticks / f"{UNFINISHED}{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return folder

    def keep(self, folder: Path, week: str) -> Path:
        """Give a whole, synced directory its name, for good; return it."""
        kept = self.ticks / f"{week}-{uuid.uuid4().hex[:8]}"
        sync(folder)
        folder.rename(kept)
        sync(self.ticks)
        return kept

    def add(self, made: Path, folder: Path) -> None:
        """Move the synced files of a new directory to one that is kept, durably; nothing names them there yet."""
        for path in made.iterdir():
            path.rename(folder / path.name)
        made.rmdir()
        sync(folder)

    def copy(self, folder: Path) -> None:
        """Have the files of a directory beside the backups too, durably; idempotent."""
        if self._copies is not None:
            _fill(folder, self._copies / folder.name)
            sync(self._copies)

    def find(self, manifest: str, names: list[str]) -> bool:
        """Get a range's files back from `unused/` or the backups where they are missing; tell whether any were.

        manifest: its path from archive_dir; names: of the files that it names, as far as it is there. That is so after
        the database was set back in time, or the disk was lost.
        """
        folder = self.root / Path(manifest).parent
        wanted = [folder / name for name in [Path(manifest).name, *names]]
        if all(path.exists() for path in wanted):
            return False
        for source in (self.root / "unused" / folder.name, *([self._copies / folder.name] if self._copies else [])):
            if source.exists():
                _fill(source, folder)
                sync(self.ticks)
        return True

    def put_aside(self, folder: Path) -> None:
        """Move a directory that no range names to `unused/`: nothing whole is deleted here."""
        unused = self.root / "unused"
        unused.mkdir(exist_ok=True)
        target = unused / folder.name
        if target.exists():  # it was found there once, and copied
            shutil.rmtree(target)
        folder.rename(target)

    def remove(self, folder: Path) -> None:
        """Delete a directory of ticks that were dropped; it may be gone."""
        if folder.parent != self.ticks:
            raise ArchiveError(f"{folder} is no directory of the archive")
        if folder.exists():
            # By another name first: half of it must not be taken for all of it.
            doomed = self.ticks / f"{UNFINISHED}{folder.name}"
            folder.rename(doomed)
            shutil.rmtree(doomed)

    def sweep(self) -> None:
        """Remove what was never finished."""
        for folder in self.ticks.glob(f"{UNFINISHED}*"):
            shutil.rmtree(folder)

    def tidy(self, named: set[str]) -> list[str]:
        """Remove what was never finished, and put aside what no range names; return the names of the latter.

        named: the directories that ranges name.
        """
        self.sweep()
        aside = []
        for folder in sorted(self.ticks.iterdir()):
            if folder.is_dir() and folder.name not in named:
                self.put_aside(folder)
                aside.append(folder.name)
        return aside


def _fill(source: Path, target: Path) -> None:
    """Give a directory the files of another one that it lacks: links to them where one file system has both."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        copy = target / path.name
        if copy.exists():
            continue
        try:
            os.link(path, copy)
        except OSError:
            half = target / f".{path.name}"
            shutil.copyfile(path, half)
            sync(half)
            half.rename(copy)
    sync(target)


def sync(path: Path) -> None:
    """Have a file or directory on the disk before going on."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
