"""The database's WAL beside the backups, as it is written: pg_receivewal with a slot of its own. Blocking.

The slot keeps on the server what was not received yet, up to the server's max_slot_wal_keep_size; beyond that the slot
is lost, and a point in time behind the gap needs a backup that was taken behind it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from psycopg2.extensions import connection as Connection

from app.backup.catalog import Note
from app.backup.tools import BackupError, Tools
from app.pipeline.journal import sync_directory
from app.storage.embedded_user import ending_with_parent

SLOT = "tickhub_backup"
STATUS_INTERVAL_S = 5
OLDER = "older"
"""Where WAL is set aside that is not of the server's present history any more."""

_SEGMENT_NAME = 24
_PAGE_BYTES = 8192
_STOP_WITHIN_S = 10.0
_SLOT_STATE = """
    SELECT pg_current_wal_flush_lsn()::text, restart_lsn::text, active, coalesce(wal_status = 'lost', false),
        (SELECT timeline_id FROM pg_control_checkpoint())
    FROM pg_replication_slots WHERE slot_name = %s
"""
_SLOT_THERE = """
    SELECT count(*), count(*) FILTER (WHERE wal_status = 'lost'),
        (SELECT system_identifier::text FROM pg_control_system())
    FROM pg_replication_slots WHERE slot_name = %s
"""


class WalReceiver:
    """pg_receivewal as a child process, from `start` to `stop`."""

    def __init__(self, tools: Tools, directory: Path) -> None:
        self._tools, self._directory = tools, directory
        self._process: subprocess.Popen[bytes] | None = None

    def must_begin_anew(self) -> bool:
        """Tell whether the server does not keep what follows what is here. Raises BackupError."""
        there, lost, _ = self._tools.row(_SLOT_THERE, (SLOT,))
        return bool(lost or not there)

    def start(self) -> None:
        """Start it, with a new slot where there is none that goes on. Raises BackupError.

        It ends at its first trouble with the server: whoever started it knows then, and starts it again.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.must_begin_anew():
            set_aside(self._directory)
            self._tools.row(
                "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = %s",
                (SLOT,),
            )
            self._tools.run("pg_receivewal", "--slot", SLOT, "--create-slot", "--if-not-exists", "--no-password")
        else:
            (timeline,) = self._tools.row("SELECT timeline_id FROM pg_control_checkpoint()")
            if any(int(name[:8], 16) > timeline for name in received(self._directory, of_now=True)):
                # Of a restore that was undone: the cluster from before it goes on, where its slot was left.
                set_aside(self._directory)
        self._process = subprocess.Popen(
            [
                str(self._tools.program("pg_receivewal")),
                f"--directory={self._directory}",
                f"--slot={SLOT}",
                "--synchronous",
                "--no-loop",
                f"--status-interval={STATUS_INTERVAL_S}",
                "--no-password",
            ],
            env=self._tools.environ(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            umask=0o077,
            # Else it would outlive a kill of this process, and hold the slot against the next one.
            preexec_fn=ending_with_parent(signal.SIGTERM),
        )

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


def slot_state(conn: Connection) -> tuple[int, int, int] | None:
    """Return up to where the server's WAL is durable, up to where it was received, and its timeline.

    None: not a byte was received yet. Raises BackupError.
    """
    with conn.cursor() as cur:
        cur.execute(_SLOT_STATE, (SLOT,))
        row = cur.fetchone()
    if row is None or row[3]:
        raise BackupError("the replication slot is gone: what was not received yet is lost")
    if row[1] is None:
        return None
    if not row[2]:
        raise BackupError("the server does not send WAL")
    return lsn_number(row[0]), lsn_number(row[1]), int(row[4])


def system_of(tools: Tools) -> str:
    """Return the server's system identifier. Raises BackupError."""
    return str(tools.row(_SLOT_THERE, (SLOT,))[2])


def set_aside(directory: Path) -> int:
    """Put all segments where pg_receivewal does not go on behind them; return how many. Idempotent.

    After a restore to an earlier moment the server's WAL begins before the end of what is here. Histories of timelines
    stay where they are.
    """
    moved = 0
    older = directory / OLDER
    for path in sorted(directory.iterdir()) if directory.exists() else []:
        if _is_segment(path.name.removesuffix(".partial")):
            older.mkdir(mode=0o700, exist_ok=True)
            path.rename(older / path.name)
            moved += 1
    return moved


def keep_histories(cluster: Path, directory: Path) -> None:
    """Have the histories of a cluster's timelines here, durably: no other restore may give a timeline its number."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (cluster / "pg_wal").glob("*.history"):
        kept = directory / path.name
        if not kept.exists():
            fresh = kept.with_suffix(".new")
            shutil.copyfile(path, fresh)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.rename(kept)
    sync_directory(directory)


def lsn_number(lsn: str) -> int:
    """Return a place in the WAL as a number of bytes."""
    high, low = (int(part, 16) for part in lsn.split("/"))
    return (high << 32) + low


def received(directory: Path, *, of_now: bool = False) -> list[str]:
    """Return the names of the WAL segments that are there, the oldest first; of partial ones without the ending.

    of_now: leave out what was set aside.
    """
    files = [path for path in _files(directory) if not of_now or path.parent == directory]
    names = {path.name.removesuffix(".partial") for path in files}
    return sorted(name for name in names if _is_segment(name))


def remove_older(directory: Path, kept: Sequence[Note]) -> int:
    """Remove WAL that no kept backup needs; return how many segments went. Without backups all of it stays."""
    if not kept:
        return 0
    oldest = min(_segment_no(note.start_lsn, note.wal_segment_bytes) for note in kept)
    gone = set()
    for path in _files(directory):
        name = path.name.removesuffix(".partial")
        if _is_segment(name) and _number(name, kept[0].wal_segment_bytes) < oldest:
            path.unlink()
            gone.add(name)
    return len(gone)


def needed(directory: Path, note: Note) -> list[Path]:
    """Return the files that a recovery from this backup may ask for: segments, partial ones, timelines' histories."""
    oldest = _segment_no(note.start_lsn, note.wal_segment_bytes)
    names = {name for name in received(directory) if _number(name, note.wal_segment_bytes) >= oldest}
    return [
        path for path in _files(directory) if path.name.removesuffix(".partial") in names or path.suffix == ".history"
    ]


def broken_off(directory: Path, note: Note, timeline: int) -> tuple[int, str] | None:
    """Return where the way from a backup to a timeline ends: the timeline and place (LSN); None: it leads there.

    A restored server goes on in a timeline of its own. Where the beginning of that one was never received, a server
    that recovers would go on in what the restore undid, for those segments have the same numbers.
    """
    there = set(received(directory))
    switches = _switches(directory, timeline)
    for (parent, lsn), following in zip(switches, [*(of for of, _ in switches), timeline][1:], strict=True):
        number = _segment_no(lsn, note.wal_segment_bytes)
        a_log = 0x1_0000_0000 // note.wal_segment_bytes
        if following > note.timeline and f"{following:08X}{number // a_log:08X}{number % a_log:08X}" not in there:
            return parent, lsn
    return None


def received_until(directory: Path, timeline: int, segment_bytes: int) -> int:
    """Return the place (bytes) behind the last page that is here of a timeline's WAL, 0: there is none."""
    names = [name for name in received(directory) if int(name[:8], 16) == timeline]
    return _written_until(directory, names[-1], segment_bytes) if names else 0


def branched_off(cluster: Path, timeline: int) -> str:
    """Return where a recovered cluster's own timeline begins (LSN), "" for the first of all: its recovery ended there.

    A server that recovers takes a segment that is damaged, or that is missing, for the end of all WAL.
    """
    switches = _switches(cluster / "pg_wal", timeline)
    return switches[-1][1] if switches else ""


def _written_until(directory: Path, name: str, segment_bytes: int) -> int:
    """Return the place behind the last page of a segment that was written; the rest of a partial one is zeros."""
    begins = _number(name, segment_bytes) * segment_bytes
    pages = [0]
    for path in _files(directory):
        if path.name.removesuffix(".partial") == name:
            data = path.read_bytes()
            # A page says its own place in its bytes 8 to 15 (XLogPageHeaderData), in the server's byte order.
            written = (
                at + _PAGE_BYTES
                for at in reversed(range(0, len(data), _PAGE_BYTES))
                if int.from_bytes(data[at + 8 : at + 16], sys.byteorder) == begins + at
            )
            pages.append(next(written, 0))
    return begins + max(pages)


def _switches(directory: Path, timeline: int) -> list[tuple[int, str]]:
    """Return the timelines before this one, and where each was left: PostgreSQL's history file of it."""
    path = directory / f"{timeline:08X}.history"
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        return [(int(line[0]), line[1]) for line in lines if line and not line[0].startswith("#")]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, IndexError) as why:
        raise BackupError(f"{path} is no history of a timeline: {why}") from why


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
    # A segment that is whole is better than one that was left partial, wherever the two are.
    places = [f"{text}/{name}{ending}" for ending in ("", ".partial") for name in ("%f", f"{OLDER}/%f")]
    return " || ".join(f'cp "{place}" "%p" 2>/dev/null' for place in places)


def _files(directory: Path) -> list[Path]:
    return [
        path
        for place in (directory, directory / OLDER)
        if place.exists()
        for path in sorted(place.iterdir())
        if path.is_file()
    ]


def _is_segment(name: str) -> bool:
    return len(name) == _SEGMENT_NAME and all(letter in "0123456789ABCDEF" for letter in name)


def _number(name: str, segment_bytes: int) -> int:
    """Return a segment's place in the WAL, whatever its timeline: a newer one begins where an older one was left."""
    return int(name[8:16], 16) * (0x1_0000_0000 // segment_bytes) + int(name[16:], 16)


def _segment_no(lsn: str, segment_bytes: int) -> int:
    return lsn_number(lsn) // segment_bytes
