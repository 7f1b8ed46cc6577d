"""Get files to the disk portion by portion, while somebody else writes them. Blocking.

Whoever leaves gigabytes to the end, as pg_basebackup does, makes every other fsync of that disk wait for all of them:
the journal's, and with it every acknowledgement.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.archive.place import sync
from app.backup.tools import BackupError

PORTION_BYTES = 8 << 20
"""Other writers wait for no more than this. A multiple of every page size."""

LOOK_S = 0.05


@contextmanager
def synced_meanwhile(root: Path) -> Iterator[None]:
    """Sync what is written under a directory during the block; at its end all of that is on the disk.

    Raises BackupError.
    """
    following = _Following(root)
    following.start()
    try:
        yield
    finally:
        following.stop()
    try:
        following.finish()
    except OSError as error:
        raise BackupError(f"{root} does not get to the disk: {error.strerror}") from error


class _Following(threading.Thread):
    """Looks again and again for what grew under a directory, and syncs it."""

    def __init__(self, root: Path) -> None:
        super().__init__(name="syncing", daemon=True)
        self._failed: OSError | None = None
        self._root, self._over = root, threading.Event()
        self._synced: dict[str, int] = {}

    def run(self) -> None:
        try:
            while not self._over.is_set():
                if not self._look():
                    self._over.wait(LOOK_S)
        except OSError as error:
            self._failed = error

    def stop(self) -> None:
        self._over.set()
        self.join()

    def finish(self) -> None:
        """Sync what is left, and the names of all files. Raises OSError, also that of before the end."""
        if self._failed is not None:
            raise self._failed
        self._look()
        for folder, _, names in os.walk(self._root, followlinks=True):
            # Everything again: what was synced may have been written over since. There is hardly anything left to do.
            for path in [*(Path(folder, name) for name in names), Path(folder)]:
                sync(path)

    def _look(self) -> bool:
        """Sync what was written since the last look; tell whether anything was."""
        anything = False
        for folder, _, names in os.walk(self._root, followlinks=True):  # tablespaces are links
            for name in names:
                anything |= self._sync(os.path.join(folder, name))
        return anything

    def _sync(self, path: str) -> bool:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # it has another name by now
            return False
        try:
            about = os.fstat(fd)
            begin = self._synced.get(path, 0)
            if not stat.S_ISREG(about.st_mode) or about.st_size <= begin:
                return False
            for at in range(begin - begin % PORTION_BYTES, about.st_size, PORTION_BYTES):
                try:
                    portion = mmap.mmap(fd, min(PORTION_BYTES, about.st_size - at), offset=at)
                except OSError:
                    os.fsync(fd)  # all at once: a network's file system may have no mapping
                    break
                with portion:
                    portion.flush()
            self._synced[path] = about.st_size
            return True
        finally:
            os.close(fd)
