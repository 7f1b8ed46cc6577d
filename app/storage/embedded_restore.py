"""A cluster that comes out of a backup: tried on a server of its own, then put in the place of the present one.

Blocking. The present cluster is moved aside, never removed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import psycopg2

from app.storage.embedded import EmbeddedConfig, exclusively
from app.storage.embedded_place import PORT, SHORT_ROOT, SYSTEM_ROOT, Place, settle
from app.storage.embedded_postmaster import postmaster
from app.storage.embedded_server import wait_for
from app.storage.embedded_user import EmbeddedError, ending_with_parent, environment, identity, run_as

_CONF = "tickhub.conf"
_STOP_S = 60
_LIMITS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
"""Of pg_controldata and of the settings."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where a restored cluster is made: beside the present one, on the same disk, by the same user."""

    place: Place
    fresh: Path
    wal: Path


def workshop(config: EmbeddedConfig, *, system_root: Path = SYSTEM_ROOT) -> Workshop:
    """Return an empty place for a restored cluster; what a killed restore left there is removed. Raises EmbeddedError.

    The data directory may be new.
    """
    home = config.data_dir.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with exclusively(config):
        place = settle(home, system_root)
        fresh, wal = (place.cluster.parent / f"postgres.restoring{what}" for what in ("", ".wal"))
        # That of a restore that was killed is just ending.
        if not wait_for(lambda: postmaster(fresh) is None, time.monotonic() + _STOP_S):
            raise EmbeddedError(f"another restore is at work in {fresh}")
    shop = Workshop(place, fresh, wal)
    clear(shop)
    return shop


def clear(shop: Workshop) -> None:
    """Remove what was made of a restored cluster. Idempotent."""
    for path in (shop.fresh, shop.wal):
        shutil.rmtree(path, ignore_errors=True)


def system_of(shop: Workshop) -> str | None:
    """Return the system identifier of the present cluster, None where there is none that can be read."""
    said = run_as(shop.place.user, [shop.place.binaries / "pg_controldata", "-D", shop.place.cluster]).stdout
    found = re.search(r"^Database system identifier: +(\d+)$", said, re.MULTILINE)
    return None if found is None else found[1]


def own(shop: Workshop, top: Path) -> None:
    """Give a directory to the server's user, and nobody else."""
    top.chmod(0o700)
    if os.geteuid() == shop.place.user.uid:
        return
    for directory, names, files in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in (*names, *files))]:
            os.chown(path, shop.place.user.uid, shop.place.user.gid, follow_symlinks=False)


@contextmanager
def trial(shop: Workshop, settings: Mapping[str, str], log: Path, timeout_s: float) -> Iterator[str]:
    """Start a server on the fresh cluster that only this process reaches; give its URL once it takes writes.

    settings: count for this start alone. Recovery may take long: timeout_s without any progress of it is too long.
    Raises EmbeddedError with what the server said.
    """
    sockets = Path(tempfile.mkdtemp(prefix="tickhub-restore-", dir=SHORT_ROOT))
    if os.geteuid() == 0:
        os.chown(sockets, shop.place.user.uid, shop.place.user.gid)
    hba = sockets / "hba.conf"
    hba.write_text("local all all trust\n")
    hba.chmod(0o644)
    own_settings = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "hba_file": str(hba),
        "archive_mode": "off",
        "logging_collector": "off",
        **_as_many_as_before(shop),
        **settings,
    }
    command = [str(shop.place.binaries / "postgres"), "-D", str(shop.fresh)]
    for name, value in own_settings.items():
        command += ["-c", f"{name}={value}"]
    url = f"postgresql:///tickhub?host={quote(str(sockets))}&port={PORT}&user=tickhub"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            umask=0o077,
            # What is left of it is thrown away: no need to end well.
            preexec_fn=ending_with_parent(signal.SIGQUIT),
            **identity(shop.place.user),
        )
    try:
        _await_writes(process, url, log, timeout_s)
        yield url
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: a checkpoint, and all is on the disk
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(sockets, ignore_errors=True)


def _as_many_as_before(shop: Workshop) -> dict[str, str]:
    """Return what a recovery must allow no less of than the server did whose WAL it reads; with less it ends."""
    said = run_as(shop.place.user, [shop.place.binaries / "pg_controldata", "-D", shop.fresh]).stdout
    values = dict(re.findall(r"^(\w+) setting: +(\d+)$", said, re.MULTILINE))
    return {_LIMITS[name]: value for name, value in values.items() if name in _LIMITS}


def _await_writes(process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float) -> None:
    replayed, moved_s = "", time.monotonic()
    while True:
        if process.poll() is not None:
            raise EmbeddedError(f"the restored server ended: {_said(log)}")
        try:
            with closing(psycopg2.connect(url, connect_timeout=3)) as conn, conn.cursor() as cur:
                cur.execute("SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, '')")
                row = cur.fetchone()
            if row is not None and not row[0]:
                return
            place = str(row and row[1])
        except psycopg2.OperationalError:
            place = _said(log)  # not yet consistent: its log tells of redo in progress
        if place != replayed:
            replayed, moved_s = place, time.monotonic()
        if time.monotonic() - moved_s > timeout_s:
            raise EmbeddedError(f"the restored server gets no further: {_said(log)}")
        time.sleep(0.2)


def put_in_place(config: EmbeddedConfig, shop: Workshop, now: datetime) -> Path | None:
    """Move the present cluster aside and the fresh one into its place; return where the present one is now.

    Its server has to be down. Raises EmbeddedError when it is not. Killed between the two moves, the data directory
    has no cluster: what was there is at the returned name, and restoring again goes on.
    """
    with exclusively(config):
        cluster = shop.place.cluster
        if postmaster(cluster) is not None:
            raise EmbeddedError("PostgreSQL is running: stop the server first (python -m app database down)")
        aside = free_name(cluster, now)
        had_one = cluster.exists()
        if had_one:
            cluster.rename(aside)
        try:
            shop.fresh.rename(cluster)
        except OSError:
            if had_one:
                aside.rename(cluster)
            raise
        fd = os.open(cluster.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return aside if had_one else None


def free_name(path: Path, now: datetime) -> Path:
    """Return how what was there before is called from now on; two restores in a second leave two."""
    name = path.with_name(f"{path.name}.before-{now:%Y%m%dT%H%M%SZ}")
    number = 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.before-{now:%Y%m%dT%H%M%SZ}-{number}")
    return name


def clean_settings(shop: Workshop) -> None:
    """Take out of the fresh cluster what was only of the server that it was taken of, its recovery included.

    The next start writes its own settings; those of ALTER SYSTEM stay.
    """
    paths = [shop.fresh / name for name in ("recovery.signal", "standby.signal", _CONF)]
    if shop.fresh.stat().st_uid != os.geteuid():  # it was given away: not as root into what is somebody else's
        run_as(shop.place.user, ["rm", "-f", *paths])
        return
    for path in paths:
        path.unlink(missing_ok=True)


def _said(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    fatal = [line for line in lines[-200:] if any(word in line for word in ("FATAL:", "PANIC:", "HINT:"))]
    return " | ".join(line.strip() for line in (fatal or lines)[-3:]) or "no word from it"
