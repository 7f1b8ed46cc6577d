"""The embedded server itself: its cluster made, the server launched and asked who it is.

All of it is called under the lock of the data directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import psycopg2

from app.storage.embedded_place import PORT, SOCKET_FILE, Place
from app.storage.embedded_postmaster import clear_sockets, disarm_stale_pid, is_lost, listens_on, postmaster
from app.storage.embedded_tuning import conf_text, hba_text
from app.storage.embedded_user import EmbeddedError, environment, identity, run_as, write_as

LOG_BYTES = 10_000_000
"""The log is put aside at a start when it has grown beyond this; one older one is kept."""

_CONF, _HBA = "tickhub.conf", "tickhub_hba.conf"

_STATEMENTS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "1000",
    # Their texts keep their values, passwords among them.
    "pg_stat_statements.track_utility": "off",
}
_INITDB_PREFIX = ".postgres-initdb-"
_PROBE_S = 3
# A killed server's backends hold its memory until they notice; another data directory may lead here too.
_PASSING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
_NO_PORT = "could not create any TCP/IP sockets"


def create_cluster(place: Place, deadline: float) -> str:
    """Make the cluster aside and rename it into place, so that there is none or a whole one; return a line.

    Raises EmbeddedError, OSError.
    """
    base = place.cluster.parent
    for left in base.glob(f"{_INITDB_PREFIX}*"):
        # A start was killed here. If its initdb still runs, what it goes on writing goes at the next start.
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=_INITDB_PREFIX, dir=base))
    os.chown(fresh, place.user.uid, place.user.gid)
    options = (
        "--username=tickhub --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
    )
    more = "--data-checksums --auth-local=trust --auth-host=scram-sha-256 --no-instructions"
    command: list[str | Path] = [place.binaries / "initdb", "-D", fresh, *options.split(), *more.split()]
    try:
        done = run_as(place.user, command, timeout_s=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise EmbeddedError("initdb did not end in time: the disk is slow, or give it longer") from None
    if done.returncode:
        raise EmbeddedError(f"cannot make a cluster in {base}: {_tail(done.stderr or done.stdout)}")
    conf = fresh / "postgresql.conf"
    append: list[str | Path] = [
        "/bin/sh",
        "-c",
        'printf "%s\\n" "$2" >>"$1"',
        "sh",
        conf,
        f"include_if_exists = '{_CONF}'",
    ]
    if run_as(place.user, append).returncode:
        raise EmbeddedError(f"cannot write {conf}")
    fresh.rename(place.cluster)
    directory = os.open(base, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    return f"made a new cluster in {place.cluster}"


def start_or_adopt(
    place: Place, settings: Mapping[str, str], tcp_port: int, log: Path, deadline: float
) -> list[str]:
    """Return when the server answers for this cluster and holds the database; lines say how it came.

    Raises EmbeddedError.
    """
    lines: list[str] = []
    verb, complaint, pause = "adopted", "", 0.1
    while True:
        process = postmaster(place.cluster)
        if process is not None and is_lost(place):
            lines.append(f"PostgreSQL (pid {process.pid}) had lost its socket or moved: restarting it")
            process.send_signal(signal.SIGINT)
            if not wait_for(lambda: postmaster(place.cluster) is None, deadline):
                raise EmbeddedError(f"PostgreSQL (pid {process.pid}) does not stop; look into {log}")
            process = None
        if process is None:
            verb, complaint = "started", _launch(place, settings, tcp_port, log, deadline)
        if _answers(place, deadline):
            break
        process = postmaster(place.cluster)
        if process is not None:
            raise EmbeddedError(
                f"PostgreSQL (pid {process.pid}) does not answer, it may be recovering: start again later;"
                f" {_tail(_text(log, -2000))}"
            )
        if _NO_PORT in complaint:
            raise EmbeddedError(
                f"PostgreSQL does not start: another program has port {tcp_port} on 127.0.0.1; set another --pg-port"
            )
        if time.monotonic() >= deadline or not any(text in complaint for text in _PASSING):
            raise EmbeddedError(f"PostgreSQL does not start, see {log}: {_tail(complaint)}")
        time.sleep(pause)
        pause = min(2.0, pause * 2)
    process = postmaster(place.cluster)
    _ensure_database(place)
    pid = process.pid if process else "?"
    found = listens_on(place.cluster)
    if tcp_port and found != tcp_port:
        # Ending it for that would cut off everybody who is at work on it, imports and the tickhub server included.
        lines.append(
            f"PostgreSQL was running already, on {f'TCP port {found}' if found else 'no TCP port'}: for port"
            f" {tcp_port} end it first (stop the server, or python -m app database down)"
        )
    return [*lines, f"{verb} PostgreSQL (pid {pid}) in {place.cluster}"]


def wait_for(condition: Callable[[], bool], deadline: float) -> bool:
    """Poll until the condition holds (True) or the deadline of the monotonic clock has passed (False)."""
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _launch(place: Place, settings: Mapping[str, str], tcp_port: int, log: Path, deadline: float) -> str:
    """Run pg_ctl start; return what the server logged meanwhile."""
    clear_sockets(place)
    disarm_stale_pid(place)
    own = {
        "listen_addresses": "127.0.0.1" if tcp_port else "",
        "port": str(tcp_port or PORT),
        "unix_socket_directories": str(place.sockets),
        "unix_socket_permissions": "0700",
        "hba_file": str(place.cluster / _HBA),
    }
    if _supports(place, "wal_compression", "lz4"):
        own["wal_compression"] = "lz4"
    if any((place.binaries.parent / "lib").glob("pg_stat_statements.*")):
        own |= _STATEMENTS
    write_as(place.user, place.cluster / _HBA, hba_text(tcp_port))
    write_as(place.user, place.cluster / _CONF, conf_text({**settings, **own}))
    if tcp_port not in (0, PORT):
        # The URL must not depend on a setting: the socket has its usual name beside the one it gets here.
        (place.sockets / SOCKET_FILE).symlink_to(f".s.PGSQL.{tcp_port}")
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.geteuid() == 0:
            os.fchown(fd, place.user.uid, place.user.gid)
        before = os.fstat(fd).st_size
        seconds = max(1, int(deadline - time.monotonic()))
        # PGDATA instead of -D, which pg_ctl would put into a shell's command line. A session of its own, or a
        # Ctrl-C meant for us would make pg_ctl end the server that it is starting.
        subprocess.run(
            [place.binaries / "pg_ctl", "start", "-s", "-w", "-t", str(seconds)],
            env=environment() | {"PGDATA": str(place.cluster)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            start_new_session=True,
            umask=0o077,
            check=False,  # the server is asked itself, whatever pg_ctl thinks of it
            **identity(place.user),
        )
    finally:
        os.close(fd)
    return _text(log, before)


def _answers(place: Place, deadline: float) -> bool:
    """Wait for the server to answer that it serves this cluster; False when it has died or time is up."""
    while True:
        found = _ask(place)
        if found is not None:
            if Path(found).resolve() != place.cluster.resolve():
                raise EmbeddedError(f"another server answers in {place.sockets}, it serves {found}: stop it")
            return True
        if time.monotonic() >= deadline or postmaster(place.cluster) is None:
            return False
        time.sleep(0.1)


def _ask(place: Place) -> str | None:
    """Return the data directory of the server at our socket, None while nobody answers."""
    try:
        with closing(_connect(place)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW data_directory")
            row = cursor.fetchone()
    except psycopg2.OperationalError:
        return None  # not there, still starting, or going
    return str(row[0]) if row else None


def _connect(place: Place) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(
        host=str(place.sockets),
        port=PORT,
        user="tickhub",
        dbname="postgres",
        connect_timeout=_PROBE_S,
        application_name="tickhub embedded",
    )
    connection.autocommit = True
    return connection


def _ensure_database(place: Place) -> None:
    """Make the database `tickhub` when it is not there: a start may have been killed before."""
    try:
        with closing(_connect(place)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'tickhub'")
            if cursor.fetchone() is None:
                cursor.execute("CREATE DATABASE tickhub")
    except psycopg2.Error as why:
        raise EmbeddedError(f"cannot make the database tickhub: {str(why).strip()}") from why


def _supports(place: Place, name: str, value: str) -> bool:
    command: list[str | Path] = [
        place.binaries / "postgres",
        "-D",
        place.cluster,
        "-C",
        name,
        "-c",
        f"{name}={value}",
    ]
    return run_as(place.user, command).returncode == 0


def _text(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size + offset) if offset < 0 else min(offset, size))
        return file.read(100_000).decode(errors="replace")


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-6:]) or "no word from it"
