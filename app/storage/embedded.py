"""The embedded PostgreSQL: made, started, adopted and stopped, by any process, under one lock.

The server belongs to nobody's process: it survives who started it, and whoever needs it next adopts it: if
its process serves this data directory, and it says so itself over the socket.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from app.storage.embedded_place import (
    PORT,
    RESTORE_AGAIN,
    SYSTEM_ROOT,
    UNFINISHED_RESTORE,
    make_sockets,
    release_sockets,
    settle,
    socket_directory,
)
from app.storage.embedded_postmaster import listens_on, postmaster
from app.storage.embedded_server import create_cluster, start_or_adopt, wait_for
from app.storage.embedded_tuning import this_machine, tuning
from app.storage.embedded_user import EmbeddedError

__all__ = ["EmbeddedConfig", "EmbeddedError", "exclusively", "is_running", "start", "stop", "tcp_port", "url"]


@dataclass(frozen=True)
class EmbeddedConfig:
    """What the embedded server is asked to be."""

    data_dir: Path
    """tickhub's data directory; the cluster lives in its `postgres`, or is linked from there."""
    memory_mb: int = 0
    """Memory that PostgreSQL may use, MiB; 0 = by the machine."""
    cpus: int = 0
    """Cores that it may use; 0 = all."""
    max_connections: int = 60
    tcp_port: int = 0
    """Port on 127.0.0.1 for the role that reads; 0 = no TCP."""
    slow_query_s: float = 0.0
    """Statements that take longer are logged, with their values; 0 = none."""


def url(config: EmbeddedConfig, user: str = "tickhub") -> str:
    """Return the database's libpq URL for a role, the same in every process and whether the server runs or not.

    Depends on the data directory alone. Raises EmbeddedError when a needed note cannot be written there.
    """
    # The port is named because PGPORT would otherwise change it.
    home = config.data_dir.resolve()
    with _in_words(home):
        directory = socket_directory(home)
    return f"postgresql:///tickhub?host={quote(str(directory))}&port={PORT}&user={user}"


def is_running(config: EmbeddedConfig) -> bool:
    """Tell whether a postmaster serves this data directory; no SQL, so it may still be starting up.

    Raises EmbeddedError when this user may not know.
    """
    home = config.data_dir.resolve()
    with _in_words(home):
        return postmaster(home / "postgres") is not None


def tcp_port(config: EmbeddedConfig) -> int:
    """Return on which TCP port the running server listens, whatever is configured now; 0 = none, or it is down.

    Raises EmbeddedError when this user may not know.
    """
    home = config.data_dir.resolve()
    with _in_words(home):
        return listens_on(home / "postgres") if postmaster(home / "postgres") is not None else 0


def start(config: EmbeddedConfig, timeout_s: float = 60.0, *, system_root: Path = SYSTEM_ROOT) -> list[str]:
    """Make the cluster if there is none, start or adopt its server, and return lines worth logging.

    Idempotent; of several callers one starts and the others adopt. Waits for crash recovery, and for what is
    left of a killed server. Changed settings count from the next real start. `system_root`: where root puts
    what the server's user cannot reach. Raises EmbeddedError.
    """
    deadline = time.monotonic() + timeout_s
    home = config.data_dir.resolve()
    with _in_words(home):
        home.mkdir(parents=True, exist_ok=True)
        if (home / UNFINISHED_RESTORE).exists():
            raise EmbeddedError(f"{home}: {RESTORE_AGAIN}")
        with _locked(home, deadline):
            place = settle(home, system_root)
            lines = list(place.lines)
            if not (place.cluster / "PG_VERSION").exists():
                lines.append(create_cluster(place, deadline))
            if place.cluster.parent != home and not (home / "postgres").is_symlink():
                (home / "postgres").symlink_to(place.cluster)
            make_sockets(home, place)
            settings = tuning(
                this_machine(place.cluster), config.memory_mb, config.cpus, config.max_connections
            )
            if config.slow_query_s:
                settings["log_min_duration_statement"] = str(max(1, round(config.slow_query_s * 1000)))
            return lines + start_or_adopt(place, settings, config.tcp_port, home / "postgres.log", deadline)


def stop(config: EmbeddedConfig, timeout_s: float = 30.0) -> bool:
    """Shut the server down, whoever started it, ending its sessions; return whether it is down.

    Raises EmbeddedError when the server belongs to another user.
    """
    deadline = time.monotonic() + timeout_s
    home = config.data_dir.resolve()
    if not os.path.lexists(home / "postgres"):
        return True
    with _in_words(home):
        try:
            with _locked(home, deadline):
                process = postmaster(home / "postgres")
                if process is not None:
                    with suppress(psutil.NoSuchProcess):  # it went by itself
                        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
                down = wait_for(lambda: postmaster(home / "postgres") is None, deadline)
                if down:
                    release_sockets(home)
                return down
        except _Locked:
            return False


@contextmanager
def exclusively(config: EmbeddedConfig, timeout_s: float = 30.0) -> Iterator[None]:
    """Hold the lock of the data directory's server, so that nobody starts or stops it. Raises EmbeddedError."""
    home = config.data_dir.resolve()
    with _in_words(home), _locked(home, time.monotonic() + timeout_s):
        yield


class _Locked(EmbeddedError):
    """Another process is starting or stopping the embedded server and takes long: try again later."""


@contextmanager
def _locked(home: Path, deadline: float) -> Iterator[None]:
    """Hold the data directory's lock for starting and stopping. Raises _Locked at the deadline."""
    # Python opens it close-on-exec: a server that inherited it would hold the lock for its whole life.
    fd = os.open(home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise _Locked(" ".join((_Locked.__doc__ or "").split())) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


@contextmanager
def _in_words(home: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an EmbeddedError that says what to do."""
    try:
        yield
    except (PermissionError, psutil.AccessDenied) as why:
        what = getattr(why, "filename", None) or home
        raise EmbeddedError(
            f"no access to {what}: run as the user who owns {home} or as root, or use another data directory"
        ) from why
    except subprocess.TimeoutExpired as why:
        raise EmbeddedError(f"{why.cmd[0]} did not end in {why.timeout:.0f} s: is the disk stuck?") from why
    except OSError as why:
        what = why.filename or home
        raise EmbeddedError(f"cannot use {what} for the database: {why.strerror or why}") from why
