"""Whole answers as files, for clients that read them in pieces: a directory that all workers share. Lane side, pure.

    <root>/<address>.<identity>.part                               being made; whoever makes it holds its flock
    <root>/<address>.<identity>.<made>.<kind>.<token>.<tag>.whole  made; `touch` says when it was last read
    <root>/lock                                                    held for what makes room and uses it up

A file appears under its name when it is whole. One that nobody makes any more has no lock: it is removed, or made anew.
All that is known of a file is in its name, so appearing and disappearing are one step.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.errors import TickhubError
from app.pipeline.journal import shortage_bytes

IN_USE_S = 10.0
"""A file that was read within this time makes no room for others."""

KEEP_S = 600.0
"""A file that was not read for so long is removed, room or not."""

MOST_FILES = 2000
"""Looking for one takes milliseconds up to here."""

WRITE_BYTES = 256 << 10
"""What is written between two looks at the disk: no more than the reserve of one of 8 MiB."""

DISK_RESERVES = 2
"""What is left of a disk, in reserves of the journal: it refuses ticks when one is left."""

WHOLE, PART = ".whole", ".part"


class NoRoom(TickhubError):
    """The file does not fit."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that is there, as its name says.

    lasting: it stays true while its identity does, whatever the clock says. tag: of its bytes.
    """

    path: Path
    identity: str
    made_ns: int
    lasting: bool
    next_token: str | None
    tag: str


@dataclass(slots=True)
class Opened:
    """A file that can be read, also when its name is gone. Who has it closes it."""

    whole: Whole
    fd: int
    size_bytes: int


class SpoolFiles:
    """The directory. Every call may raise OSError."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Take the directory, which `make` makes. max_bytes: of all files together; 0: there are none."""
        self.root = root
        self._max_bytes = max_bytes

    def make(self) -> None:
        """Make the directory; idempotent."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def claim(self, address: str, identity: str, since_ns: int) -> Opened | Part | None:
        """Return the file of that identity, or the part to make it; None while somebody else makes it.

        since_ns: when the answer was asked for, in ns since 1970; one that is not lasting is good from then on.
        """
        found = self._find(address, identity, since_ns)
        if found is not None:
            return found
        fd = _lock_part(self.root / f"{address}.{identity}{PART}")
        if fd is None:
            return None
        part = Part(self, address, identity, fd)
        found = self._find(address, identity, since_ns)  # made between the look and the lock
        if found is not None:
            part.drop()
            return found
        return part

    def named(self, address: str, tags: Collection[str]) -> Opened | None:
        """Return a file of the address with one of these tags."""
        for whole in self._wholes(address):
            if whole.tag in tags and (opened := open_whole(whole)):
                return opened
        return None

    def sweep(self) -> None:
        """Remove what nobody reads and nobody makes."""
        with self._locked():
            self._remove_abandoned()
            now = time.time()
            for read_at, _, path in self._sizes()[1]:
                age_s = now - read_at
                if age_s >= KEEP_S or (age_s >= IN_USE_S and shortage_bytes(self.root, DISK_RESERVES)):
                    path.unlink(missing_ok=True)

    def grow(self, part: Part, data: bytes) -> None:
        """Write to a part where there is room, or where there is some to be made. Raises NoRoom."""
        if part.size_bytes + len(data) > self._max_bytes:
            raise NoRoom("it is larger than spool_max_bytes")
        with self._locked():
            self._make_room(len(data))
            left = memoryview(data)
            while left:
                if shortage_bytes(self.root, DISK_RESERVES):
                    self._make_room(len(left))
                left = left[os.write(part.fd, left[:WRITE_BYTES]) :]

    def _find(self, address: str, identity: str, since_ns: int) -> Opened | None:
        for whole in self._wholes(address):
            good = whole.lasting or whole.made_ns >= since_ns
            if whole.identity == identity and good and (opened := open_whole(whole)):
                os.utime(opened.fd)
                return opened
        return None

    def _wholes(self, address: str) -> Iterator[Whole]:
        for name in os.listdir(self.root):
            if name.startswith(f"{address}.") and name.endswith(WHOLE):
                yield whole_of(self.root / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _sizes(self) -> tuple[int, list[tuple[float, int, Path]]]:
        """Return the bytes of all files, and the whole ones in the order in which they were last read."""
        total, whole = 0, []
        with os.scandir(self.root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if not entry.name.endswith((WHOLE, PART)):
                        continue
                    total += found.st_size
                    if entry.name.endswith(WHOLE):
                        whole.append((found.st_mtime, found.st_size, Path(entry.path)))
        return total, sorted(whole)

    def _make_room(self, size_bytes: int) -> None:
        total, whole = self._sizes()
        if total + size_bytes > self._max_bytes:
            self._remove_abandoned()
            total, whole = self._sizes()
        for left, (read_at, freed, path) in zip(range(len(whole), 0, -1), whole, strict=True):
            short = shortage_bytes(self.root, DISK_RESERVES)
            fits = total + size_bytes <= self._max_bytes and not short and left < MOST_FILES
            if fits or time.time() - read_at < IN_USE_S:
                break
            path.unlink(missing_ok=True)
            total -= freed
        if total + size_bytes > self._max_bytes:
            raise NoRoom("files that are being read fill spool_max_bytes")
        if shortage_bytes(self.root, DISK_RESERVES):
            raise NoRoom("the disk is full but for what the journal needs")

    def _remove_abandoned(self) -> None:
        for name in os.listdir(self.root):
            if name.endswith(PART):
                fd = _lock_part(self.root / name, create=False)
                if fd is not None:
                    (self.root / name).unlink(missing_ok=True)
                    os.close(fd)


class Part:
    """A file that is being made."""

    def __init__(self, files: SpoolFiles, address: str, identity: str, fd: int) -> None:
        self.fd = fd
        self.size_bytes = 0
        self._files = files
        self._names = address, identity
        self._path = files.root / f"{address}.{identity}{PART}"
        self._hash = hashlib.blake2b(digest_size=16)
        self._ended = False

    def write(self, data: bytes) -> None:
        """Append bytes. Raises NoRoom and OSError; then the part can only be dropped."""
        self._hash.update(data)
        self._files.grow(self, data)
        self.size_bytes += len(data)

    def publish(self, *, lasting: bool, next_token: str | None) -> Opened:
        """Give the file its name: from now on it is served."""
        made_ns, tag = time.time_ns(), self._hash.hexdigest()
        kind = "lasting" if lasting else "passing"
        address, identity = self._names
        name = f"{address}.{identity}.{made_ns}.{kind}.{next_token or ''}.{tag}{WHOLE}"
        path = self._path.rename(self._path.with_name(name))
        self._ended = True
        return Opened(Whole(path, identity, made_ns, lasting, next_token, tag), self.fd, self.size_bytes)

    def drop(self) -> None:
        """Remove what is there, unless it was published."""
        if not self._ended:
            self._ended = True
            self._path.unlink(missing_ok=True)
            os.close(self.fd)


def read_piece(opened: Opened, start: int, size_bytes: int) -> bytes:
    """Return bytes of a file, and note that it is being read. Raises OSError for a file that ends before."""
    data = os.pread(opened.fd, size_bytes, start)
    if len(data) < size_bytes:
        raise OSError(errno.EIO, f"{opened.whole.path.name} ends early")
    os.utime(opened.fd)
    return data


def open_whole(whole: Whole) -> Opened | None:
    """Open a file; None when it is gone."""
    try:
        fd = os.open(whole.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    return Opened(whole, fd, os.fstat(fd).st_size)


def whole_of(path: Path) -> Whole:
    """Return what the name of a file says."""
    _, identity, made_ns, kind, token, tag = path.name.removesuffix(WHOLE).split(".")
    return Whole(path, identity, int(made_ns), kind == "lasting", token or None, tag)


def _lock_part(path: Path, *, create: bool = True) -> int | None:
    """Return the locked descriptor of an empty part, None while somebody else has it (or, not created, it is gone)."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our open and our flock it may have been published or dropped.
            if path.stat().st_ino == os.fstat(fd).st_ino:
                os.ftruncate(fd, 0)
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)
