"""What a PostgreSQL that is killed leaves in memory, and that nobody starts again to clear up.

A system has room for 4,096 segments; then no PostgreSQL starts any more, whoever's it is.
"""

from __future__ import annotations

import ctypes
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SEGMENTS = Path("/proc/sysvipc/shm")
FILES = "/dev/shm/PostgreSQL."
CONTROL = 0x9A503D32
"""How a file begins that lists the others, those too that no process has attached now (PostgreSQL's dsm.c)."""
REMOVE = 0  # IPC_RMID of shmctl(2)


@dataclass(frozen=True)
class SharedMemory:
    """What processes have in common: a segment of System V and files in memory."""

    segments: frozenset[int] = frozenset()
    files: frozenset[str] = frozenset()

    def __or__(self, other: SharedMemory) -> SharedMemory:
        return SharedMemory(self.segments | other.segments, self.files | other.files)

    def remove(self) -> None:
        """Remove it where no process is attached any more, as PostgreSQL does when it ends."""
        for segment in self.segments & set(unattached() if self.segments else ()):
            if ctypes.CDLL(None, use_errno=True).shmctl(segment, REMOVE, None) != 0:
                raise OSError(ctypes.get_errno(), f"segment {segment} cannot be removed")
        for file in self.files:
            Path(file).unlink(missing_ok=True)


def shared_memory(pid: int) -> SharedMemory:
    """Return what a process of PostgreSQL is attached to; nothing when it is gone."""
    segments, files = set(), set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            _, _, _, _, number, *name = line.split(maxsplit=5)
            if name and name[0].startswith("/SYSV"):
                segments.add(int(number))
            elif name and name[0].startswith(FILES) and not name[0].endswith("(deleted)"):
                files |= {name[0], *_listed(Path(name[0]))}
    return SharedMemory(frozenset(segments), frozenset(files))


def _listed(file: Path) -> list[str]:
    """Return the files that a control file lists: magic, number of items, room for items; items of 40 bytes."""
    with file.open("rb") as control:
        magic, count = struct.unpack("<II8x", control.read(16))
        items = control.read(40 * count) if magic == CONTROL else b""
    return [f"{FILES}{handle}" for handle, uses in struct.iter_unpack("<II32x", items) if uses]


def unattached() -> list[int]:
    """Return the segments of the system that no process is attached to."""
    rows = [line.split() for line in SEGMENTS.read_text().splitlines()[1:]]
    return [int(row[1]) for row in rows if int(row[6]) == 0]
