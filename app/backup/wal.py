"""The database's WAL beside the backups, as it is written: pg_receivewal with a slot of its own. Blocking.

The slot keeps on the server what was not received yet, up to the server's max_slot_wal_keep_size; beyond that the slot
is lost, and a point in time behind the gap needs a backup that was taken behind it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from app.backup.catalog import Note
from app.backup.tools import BackupError, Tools

SLOT = "tickhub_backup"
FOLLOWING = "following.json"
STATUS_INTERVAL_S = 5
_SEGMENT_NAME = 24
_STOP_WITHIN_S = 10.0


class Following(msgspec.Struct, frozen=True):
    """Between these moments (UTC) everything was followed: the slot kept the WAL, and journals were copied."""

    since: datetime
    until: datetime


def following(directory: Path) -> Following | None:
    """Return what was followed, None when nothing was."""
    try:
        return msgspec.json.decode((directory / FOLLOWING).read_bytes(), type=Following)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def note_following(directory: Path, since: datetime | None, until: datetime) -> None:
    """Note that all until this moment is here; since: when the slot was made, None: it goes on from before."""
    before = following(directory)
    start = since if since is not None else before.since if before is not None else until
    fresh = directory / f"{FOLLOWING}.new"
    fresh.write_bytes(msgspec.json.encode(Following(start, until)))
    fresh.replace(directory / FOLLOWING)


class WalReceiver:
    """pg_receivewal as a child process, from `start` to `stop`."""

    def __init__(self, tools: Tools, directory: Path) -> None:
        self._tools, self._directory = tools, directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start it; return whether the slot was made for it: what was before is not here. Raises BackupError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there, lost = self._tools.row(
            "SELECT count(*), count(*) FILTER (WHERE wal_status = 'lost') FROM pg_replication_slots"
            " WHERE slot_name = %s",
            (SLOT,),
        )
        if lost:
            self._tools.row("SELECT pg_drop_replication_slot(%s)::text", (SLOT,))
        self._tools.run("pg_receivewal", "--slot", SLOT, "--create-slot", "--if-not-exists", "--no-password")
        # It comes back by itself when the server does; quiet, or each restart of the server were a page of it.
        self._process = subprocess.Popen(
            [
                str(self._tools.program("pg_receivewal")),
                f"--directory={self._directory}",
                f"--slot={SLOT}",
                "--synchronous",
                f"--status-interval={STATUS_INTERVAL_S}",
                "--no-password",
            ],
            env=self._tools.environ(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            umask=0o077,
        )
        return bool(lost or not there)

    @property
    def ended(self) -> int | None:
        """Return its exit status, None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """End it; what it holds is synced. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_WITHIN_S)
            return
        self._process.kill()
        self._process.wait()


def received(directory: Path) -> list[str]:
    """Return the names of the WAL segments that are there, the oldest first; of partial ones without the ending."""
    if not directory.exists():
        return []
    names = {path.name.removesuffix(".partial") for path in directory.iterdir()}
    return sorted(name for name in names if _is_segment(name))


def remove_older(directory: Path, kept: Sequence[Note]) -> int:
    """Remove WAL that no kept backup needs; return how many segments went. Without backups all of it stays."""
    if not kept or not directory.exists():
        return 0
    oldest = min(_segment_no(note.start_lsn, note.wal_segment_bytes) for note in kept)
    gone = 0
    for name in received(directory):
        if _number(name, kept[0].wal_segment_bytes) < oldest:
            for path in (directory / name, directory / f"{name}.partial"):
                path.unlink(missing_ok=True)
            gone += 1
    return gone


def needed(directory: Path, note: Note) -> list[Path]:
    """Return the files that a recovery from this backup may ask for: segments, partial ones, timelines' histories."""
    if not directory.exists():
        return []
    oldest = _segment_no(note.start_lsn, note.wal_segment_bytes)
    names = {name for name in received(directory) if _number(name, note.wal_segment_bytes) >= oldest}
    return [
        path
        for path in sorted(directory.iterdir())
        if path.name.removesuffix(".partial") in names or path.suffix == ".history"
    ]


def drop_slot(tools: Tools) -> None:
    """Let the server forget what was not received: for who keeps no WAL any more. Raises BackupError."""
    tools.row(
        "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots"
        " WHERE slot_name = %s AND NOT active",
        (SLOT,),
    )


def restore_command(directory: Path) -> str:
    """Return how a server that recovers gets a segment from here. Raises BackupError for a path that it cannot name."""
    text = str(directory)
    if any(letter in text for letter in "'%\"\\$`\n"):
        raise BackupError(f"{text}: a directory of backups must not have quotes, % or \\ in its name")
    return f'cp "{text}/%f" "%p" 2>/dev/null || cp "{text}/%f.partial" "%p" 2>/dev/null'


def _is_segment(name: str) -> bool:
    return len(name) == _SEGMENT_NAME and all(letter in "0123456789ABCDEF" for letter in name)


def _number(name: str, segment_bytes: int) -> int:
    """Return a segment's place in the WAL, whatever its timeline: a newer one begins where an older one was left."""
    return int(name[8:16], 16) * (0x1_0000_0000 // segment_bytes) + int(name[16:], 16)


def _segment_no(lsn: str, segment_bytes: int) -> int:
    high, low = (int(part, 16) for part in lsn.split("/"))
    return ((high << 32) + low) // segment_bytes
