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

_ALONE = "SELECT pg_try_advisory_xact_lock(x'7469636B68756204'::bigint), pg_backend_pid()"


class ArchiveError(StorageError):
    """The archive cannot go on like this."""


class Place:
    """archive_dir: directories of weeks in `ticks/`, and what is not needed any more in `unused/`."""

    def __init__(self, root: Path) -> None:
        """Take the directory; nothing is made yet."""
        self.root = root
        self.ticks = root / TICKS

    @contextmanager
    def alone(self, guard: Connection) -> Iterator[int]:
        """Let no other archiver work on the directory or the database; give the process id of the guard's session.

        The session sleeps in a transaction meanwhile, with neither a snapshot nor a lock that matters: that also works
        behind a transaction pooler. Raises ArchiveError when there is another one.
        """
        self.ticks.mkdir(parents=True, exist_ok=True)
        with (self.root / "LOCK").open("w") as file:
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

    def put_aside(self, folder: Path) -> None:
        """Move a directory that no range names to `unused/`: nothing whole is deleted here."""
        unused = self.root / "unused"
        unused.mkdir(exist_ok=True)
        folder.rename(unused / folder.name)

    def remove(self, folder: Path) -> None:
        """Delete a directory of ticks that were dropped; it may be gone."""
        if folder.parent != self.ticks:
            raise ArchiveError(f"{folder} is no directory of the archive")
        if folder.exists():
            # By another name first: half of it must not be taken for all of it.
            doomed = self.ticks / f"{UNFINISHED}{folder.name}"
            folder.rename(doomed)
            shutil.rmtree(doomed)

    def tidy(self, named: set[str]) -> list[str]:
        """Remove what was never finished, and put aside what no range names; return the names of the latter.

        named: the directories that ranges name.
        """
        aside = []
        for folder in sorted(self.ticks.iterdir()):
            if folder.name.startswith(UNFINISHED):
                shutil.rmtree(folder)
            elif folder.is_dir() and folder.name not in named:
                self.put_aside(folder)
                aside.append(folder.name)
        return aside


def sync(path: Path) -> None:
    """Have a file or directory on the disk before going on."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
