"""What /metrics says of this host: room on its disks, and its backups. Greenlet side; files are looked at on a lane.

Looked at when somebody asks, at most every few seconds. A file system that hangs costs a bounded wait, and what was
known before is shown with its age.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
from gevent.event import AsyncResult

from app.backup.catalog import Note
from app.backup.following import Following, following
from app.lanes import Lane

LOOK_EVERY_S = 5.0
WAIT_S = 1.0
"""How long a request waits for a look; what hangs longer is told of by its age."""


class Disk(msgspec.Struct, frozen=True):
    """A file system, by what of ours is on it. Bytes; free: for us, not for root."""

    size_bytes: int
    free_bytes: int


class _Note(msgspec.Struct):
    """What of a backup's note (backup/catalog.py) is told."""

    kind: str
    ended_at: float
    bytes: int
    sound: bool
    damaged: bool


class Host(msgspec.Struct):
    """What was found. backups: whole ones, in no order."""

    disks: dict[str, Disk]
    backups: list[_Note]
    backup_notes_unreadable: int = 0
    following: Following | None = None
    """What follows between backups, None: nothing ever did."""


class HostFigures:
    """This host's disks and backups. backup_dir, archive_dir: of which there may be none."""

    def __init__(self, data_dir: Path, backup_dir: Path, archive_dir: Path) -> None:
        self._places = data_dir, backup_dir, archive_dir
        self._lane: Lane | None = None
        self._looking: AsyncResult | None = None
        self._known: Host | None = None
        self._looked_at_s, self._known_at_s = float("-inf"), time.monotonic()

    def look(self) -> tuple[Host | None, float]:
        """Return what is known, None: nothing yet; and how old that is, or for how long nothing is (s)."""
        now_s = time.monotonic()
        if self._looking is None and now_s - self._looked_at_s >= LOOK_EVERY_S:
            if self._lane is None:
                self._lane = Lane("watch")
            self._looked_at_s = now_s
            self._looking = self._lane.submit(look, *self._places)
        if (looking := self._looking) is not None:
            looking.wait(WAIT_S)
            if looking.ready():
                self._looking = None
                if looking.successful():
                    self._known, self._known_at_s = looking.get(block=False), time.monotonic()
        return self._known, time.monotonic() - self._known_at_s

    def stop(self) -> None:
        """Let the lane end; idempotent."""
        if self._lane is not None:
            self._lane.stop()


def look(data_dir: Path, backup_dir: Path, archive_dir: Path) -> Host:
    """Return the disks and backups. To be run on a lane. Raises OSError where the data directory is gone."""
    disks = {"data": _disk(data_dir)}
    for name, path in (("backup", backup_dir), ("archive", archive_dir)):
        if path.is_dir():
            disks[name] = _disk(path)
    found = Host(disks, [], following=following(backup_dir))
    for path in sorted((backup_dir / "base").glob("*.json")):
        note = _note(path)
        if note is None:
            found.backup_notes_unreadable += 1
        elif path.with_suffix("").is_dir():
            found.backups.append(note)
    return found


def _disk(path: Path) -> Disk:
    usage = shutil.disk_usage(path)
    return Disk(usage.total, usage.free)


def _note(path: Path) -> _Note | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError):
        return None
    return _Note(note.kind, note.ended_at.timestamp(), note.bytes, note.sound, not note.whole)
