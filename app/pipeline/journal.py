"""A journal on disk: append-only segments in a directory that one process owns. Lane side, pure.

    <root>/<journal id>/lock                          owned by flock
    <root>/<journal id>/00000000000000000000.seg      named by the number of its first row

A write or sync that fails seals the segment: nothing behind the last good record is acknowledged, the row numbers
of the failed write are never used again, and the next append begins a new segment whose head says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.pipeline.records import SEGMENT, Entry, SegmentHead, pack

SUFFIX = ".seg"
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
RESERVE_BYTES, RESERVE_SHARE = 64 << 20, 32
"""What journals leave free of their disk, the smaller of so many bytes and this part of it: filled to the last byte, no
worker could start, and what is in the journals could not be drained."""

_F_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", None)


@dataclass(slots=True, frozen=True, order=True)
class Position:
    """A place in a journal: a segment (by its first row), a byte in it, the next row expected there."""

    segment: int
    offset: int
    row: int


@dataclass(slots=True, frozen=True)
class Written:
    """An appended record: where it lies and what numbers it got."""

    first_row: int
    received_us: int
    position: Position
    size_bytes: int


@dataclass(slots=True, frozen=True)
class Appended:
    """The outcome of an append: one Written an entry, where the journal now ends, all bytes ever written to it."""

    written: list[Written]
    tail: Position
    total_bytes: int


def sync_file(fd: int) -> None:
    """Force the file's data to the disk itself."""
    if _F_FULLFSYNC is not None:  # macOS: fsync only reaches the drive's cache
        fcntl.fcntl(fd, _F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segment_path(directory: Path, first_row: int) -> Path:
    """Return the path of the segment that begins with `first_row`."""
    return directory / f"{first_row:020d}{SUFFIX}"


def segments(directory: Path) -> list[int]:
    """Return the first rows of the segments that are there, ascending."""
    return sorted(int(name[: -len(SUFFIX)]) for name in os.listdir(directory) if name.endswith(SUFFIX))


def tag_of(journal_id: str) -> int:
    """Return the number that marks the journal's records: the first 8 bytes of its id."""
    return int(journal_id[:16], 16)


def acquire(directory: Path) -> int | None:
    """Take the journal's lock; return the descriptor that holds it, or None while another process owns it.

    Raises FileNotFoundError when there is no lock file: the journal is being removed.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    # Between our open and our flock the former owner may have removed the directory.
    if os.fstat(fd).st_nlink == 0:
        os.close(fd)
        return None
    return fd


def disk_bytes(directory: Path) -> int:
    """Return the bytes that the journal's segments take."""
    return sum(segment_path(directory, first).stat().st_size for first in segments(directory))


def shortage_bytes(path: Path, reserves: int = 1) -> int:
    """Return how many bytes the disk lacks of so many times what journals are to leave free; 0 if none."""
    disk = os.statvfs(path)
    reserve = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // RESERVE_SHARE)
    return max(0, reserves * reserve - disk.f_bavail * disk.f_frsize)


class Journal:
    """The journal of this worker's life: a fresh random id, appended to by its lane only."""

    def __init__(self, root: Path, journal_id: str, segment_bytes: int) -> None:
        self.journal_id = journal_id
        self.directory = root / journal_id
        self._segment_bytes = segment_bytes
        self._tag = tag_of(journal_id)
        self._fd: int | None = None
        self._segment = 0
        self._offset = 0
        self._end_row = 0  # behind the last durable row
        self._next_row = 0  # the next number to hand out
        self._last_us = 0
        self.disk_bytes = 0
        self.lock_fd = _make_owned(root, self.directory)

    def append(self, entries: Sequence[Entry]) -> Appended:
        """Write the entries and sync them to disk, all or none.

        Raises OSError when that failed; the rows' numbers are then void. The next call tries a new segment.
        """
        self.prepare()
        assert self._fd is not None
        written, chunks = [], []
        row, offset = self._next_row, self._offset
        received_us = max(time.time_ns() // 1000, self._last_us + 1)
        for entry in entries:
            data = pack(entry, row, received_us, self._tag)
            written.append(Written(row, received_us, Position(self._segment, offset, row), len(data)))
            chunks.append(data)
            row += entry.rows
            offset += len(data)
            received_us += entry.rows
        self._next_row = row
        self._last_us = received_us
        try:
            _write_all(self._fd, b"".join(chunks))
            sync_file(self._fd)
        except OSError:
            self._seal()
            raise
        self._end_row, self._offset = row, offset
        self.disk_bytes += sum(len(chunk) for chunk in chunks)
        return Appended(written, self.tail(), self.disk_bytes)

    def prepare(self) -> None:
        """Make sure that there is room, and a segment to write to. Raises OSError."""
        if shortage_bytes(self.directory):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fd is None or self._offset >= self._segment_bytes:
            self._roll()

    def tail(self) -> Position:
        """Return the place behind the last durable record."""
        return Position(self._segment, self._offset, self._end_row)

    def close(self) -> None:
        """Close the files and give up the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        os.close(self.lock_fd)

    def _roll(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        path = segment_path(self.directory, self._next_row)
        head = SegmentHead(self.journal_id, self._next_row, self._end_row)
        data = pack(Entry(SEGMENT, 1, 0, msgspec.json.encode(head)), self._next_row, time.time_ns() // 1000, self._tag)
        fd = os.open(path, _WRITE, 0o600)
        try:
            _write_all(fd, data)
            sync_file(fd)
            sync_directory(self.directory)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._fd, self._segment, self._offset = fd, self._next_row, len(data)
        self.disk_bytes += len(data)

    def _seal(self) -> None:
        """End the segment behind its last good record; what the failed write left there is void."""
        assert self._fd is not None
        fd, self._fd = self._fd, None
        try:
            os.ftruncate(fd, self._offset)
        except OSError:
            # A disk that refuses even this leaves the torn bytes; readers step over them, and the head
            # of the next segment says that their rows are void.
            return
        finally:
            os.close(fd)


def _make_owned(root: Path, directory: Path) -> int:
    """Make the journal's directory with its lock taken before anybody can see it; return the lock's descriptor."""
    new = root / f".new-{directory.name}"
    new.mkdir(mode=0o700)
    fd = os.open(new / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    new.rename(directory)
    sync_directory(root)
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
