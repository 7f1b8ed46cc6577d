"""What a server leaves in its cluster and its socket directory, and whether it lives.

A number in postmaster.pid proves nothing: after a crash or a restart of the machine it may be anybody's.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import psutil

from app.storage.embedded_place import SOCKET_FILE, Place
from app.storage.embedded_user import EmbeddedError, run_as, user_by_id, write_as

_NO_PID = 2_147_483_647  # beyond every system's largest process id
_CONNECT_S = 3


def postmaster(cluster: Path) -> psutil.Process | None:
    """Return the process that serves this cluster, from its postmaster.pid; no SQL.

    A process id that now belongs to something else, another cluster's server included, counts for nothing.
    Raises PermissionError when this user may not know.
    """
    try:
        process = psutil.Process(int(_pid_lines(cluster)[0]))
        if process.status() == psutil.STATUS_ZOMBIE or process.name() != "postgres":
            return None
        if "".join(process.cmdline()[:1]).startswith("postgres:"):
            return None  # a backend that got the number
        where = _working_directory(process, cluster)
        return process if where and os.path.samefile(where, cluster) else None
    except (psutil.NoSuchProcess, FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return None  # half written, or of a backend without postmaster


def listens_on(cluster: Path) -> int:
    """Return the TCP port of the server that serves this cluster; 0 when it listens on none, or is not up yet.

    Raises PermissionError when this user may not know.
    """
    try:
        lines = _pid_lines(cluster)
    except FileNotFoundError:
        return 0
    # Port, socket directory and first TCP address: https://www.postgresql.org/docs/18/storage-file-layout.html
    return int(lines[3]) if len(lines) > 5 and lines[5].strip() and lines[3].strip().isdecimal() else 0


def is_lost(place: Place) -> bool:
    """Tell whether the running server cannot be reached where clients look: its directories moved or went."""
    try:
        lines = _pid_lines(place.cluster)
    except FileNotFoundError:
        return False  # it is going down
    if len(lines) < 8 or lines[7].strip() != "ready":
        return False
    moved = Path(lines[1]) != place.cluster or Path(lines[4]) != place.sockets
    return moved or not (place.sockets / SOCKET_FILE).exists()


def clear_sockets(place: Place) -> None:
    """Remove a dead server's socket and its lock file, whose process id may be somebody else's by now."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(_CONNECT_S)
        try:
            client.connect(str(place.sockets / SOCKET_FILE))
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        else:
            raise EmbeddedError(
                f"another server answers in {place.sockets}, not that of {place.cluster}: stop it"
            )
    for left in place.sockets.glob(".s.PGSQL.*"):
        left.unlink()


def disarm_stale_pid(place: Place) -> None:
    """Take a number that now belongs to another process out of postmaster.pid, or PostgreSQL would not start.

    The file stays: its shared memory key is how PostgreSQL sees a dead server's backends that still run.
    """
    try:
        lines = _pid_lines(place.cluster)
    except FileNotFoundError:
        return
    if lines[0].isdecimal() and psutil.pid_exists(int(lines[0])):
        write_as(place.user, place.cluster / "postmaster.pid", "\n".join([str(_NO_PID), *lines[1:], ""]))


def _pid_lines(cluster: Path) -> list[str]:
    return (cluster / "postmaster.pid").read_text().splitlines() or [""]


def _working_directory(process: psutil.Process, cluster: Path) -> str | None:
    try:
        return process.cwd()
    except psutil.AccessDenied:
        # Root in a container may not look into other users' processes, but may become that user.
        owner = cluster.stat().st_uid
        if os.geteuid() != 0 or process.uids().real != owner:
            return None
        return run_as(user_by_id(owner), ["readlink", f"/proc/{process.pid}/cwd"]).stdout.strip() or None
