"""gunicorn's hooks: what its master does around the workers.

Runs unpatched, in the master; post_fork runs in the worker.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from app.errors import SettingsError, TickhubError
from app.settings import Settings, load
from app.web.log import never_wait

QUICK_DEATH_S = 10.0
"""A worker that lived shorter died of something that will kill the next one too."""

DELAY_MOST_S = 30.0

LEAST_STOP_S = 2.0
"""Workers are gone this long before the end of the grace period; an idle PostgreSQL stops within it."""

ENDPOINTS_LINE = "POST /tick/batch, GET /api/quotes, GET /api/bars/SYMBOL; everything else: {url}/docs"
"""All of them are declared in modules that the master must not load."""


class _Worker(Protocol):
    slot: int
    boot_delay_s: float
    forked_at: float


class _State:
    """What the master remembers between hooks."""

    def __init__(self) -> None:
        self.lock_fd: int | None = None
        self.settings: Settings | None = None
        self.deaths: deque[float] = deque(maxlen=16)
        self.stop_by: float | None = None


_state = _State()


def on_starting(server: Any) -> None:
    """Take the data directory, tidy what the last run left, say where everything is."""
    settings = _state.settings = load()
    never_wait(server.log)
    try:
        _state.lock_fd = _lock(settings.data_dir)
    except SettingsError as why:
        server.log.error("%s", why)
        sys.exit(2)  # as every command ends for settings that cannot be; gunicorn would print a traceback
    run = settings.data_dir / "run"
    shutil.rmtree(run, ignore_errors=True)
    for path in (run / "books", run / "slots", run / "metrics", settings.data_dir / "journal"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    (run / "started").touch()
    for unfinished in (settings.data_dir / "journal").glob(".new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(run / "metrics")
    if settings.insecure and not settings.asks_for_keys:
        server.log.warning("[WARNING] --insecure: everybody who reaches this address may write and read")


def when_ready(server: Any) -> None:
    """Say where the server is, and let Ctrl-C drain like SIGTERM; a second one is quick."""
    settings = _state.settings
    assert settings is not None
    database = "the one of --database-url" if settings.database_url else "embedded PostgreSQL"
    for line in (
        f"tickhub listens on {settings.listen_url}  ({settings.workers or os.cpu_count()} workers)",
        f"  {ENDPOINTS_LINE.format(url=settings.listen_url)}",
        f"  data in {settings.data_dir}, database: {database}, broker's clock: {settings.tick_timezone}",
    ):
        server.log.info(line)

    if not settings.database_url:
        for line in _about_sql(settings):
            server.log.info(line)

    master_pid = os.getpid()

    def end(number: int, frame: Any) -> None:
        if os.getpid() != master_pid:
            # A worker that has just been forked, before it has handlers of its own: it has accepted nothing, and
            # a signal that it only queued would make the master wait out the grace period.
            os._exit(0)
        quick = number == signal.SIGINT and _state.stop_by is not None
        server.SIG_QUEUE.put_nowait(signal.SIGINT if quick else signal.SIGTERM)
        _state.stop_by = _state.stop_by or time.monotonic() + settings.shutdown_grace_s

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def pre_fork(server: Any, worker: _Worker) -> None:
    """Give the worker a slot, and a delay when workers keep dying."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    worker.forked_at = time.monotonic()
    recent = [at for at in _state.deaths if worker.forked_at - at < 2 * DELAY_MOST_S]
    # The first of each worker is free: whoever is killed once is back at once.
    excess = len(recent) - server.num_workers
    worker.boot_delay_s = min(DELAY_MOST_S, 0.5 * 2**excess) if excess >= 0 else 0.0


def post_fork(server: Any, worker: Any) -> None:
    """Leave the data directory's lock to the master."""
    if _state.lock_fd is not None:
        os.close(_state.lock_fd)
        _state.lock_fd = None


def child_exit(server: Any, worker: _Worker) -> None:
    """Remember a worker's early death, and show it as stopped."""
    lived_s = time.monotonic() - worker.forked_at - worker.boot_delay_s
    if lived_s < QUICK_DEATH_S:
        _state.deaths.append(time.monotonic())
    _mark_stopped(worker.slot)


def on_exit(server: Any) -> None:
    """Stop the embedded server, whoever started it, and a simulation that a killed worker left."""
    settings = _state.settings
    if settings is None:
        return
    if settings.demo:
        from app.demo import end_left_over

        end_left_over(settings.data_dir)
    if settings.database_url:
        return
    from app.runtime_config import embedded_config
    from app.storage import embedded

    left_s = settings.shutdown_grace_s if _state.stop_by is None else _state.stop_by - time.monotonic()
    try:
        if not embedded.stop(embedded_config(settings), max(LEAST_STOP_S, left_s)):
            server.log.warning("the embedded PostgreSQL did not stop in time")
    except TickhubError as error:
        server.log.error("the embedded PostgreSQL could not be stopped: %s", error)


def _about_sql(settings: Settings) -> list[str]:
    """Say where people who read by SQL come in; a server that was left running may listen elsewhere."""
    # Not all of `embedded`: the workers, forked from here, are to load their database driver themselves.
    import psutil

    from app.storage.embedded_postmaster import listens_on, postmaster

    cluster = settings.data_dir / "postgres"
    try:
        found = listens_on(cluster) if postmaster(cluster) is not None else settings.pg_port
    except (PermissionError, psutil.AccessDenied):
        return []  # whoever brings the database up says what is wrong
    lines = []
    if found:
        lines.append(f"  SQL for reading on 127.0.0.1:{found}; its URL: python -m app url --read-only")
    if found != settings.pg_port:
        wanted = f"for --pg-port {settings.pg_port}" if settings.pg_port else "to close that port"
        lines.append(f"  PostgreSQL was running already, on {'that' if found else 'no'} TCP port: {wanted} start anew")
    return lines


def _lock(data_dir: Path) -> int:
    """Take the data directory for this server. Raises SettingsError: another server has it, or half a restore."""
    from app.storage.embedded_place import RESTORE_AGAIN, UNFINISHED_RESTORE

    fd = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise SettingsError(f"{data_dir} is in use by another tickhub server (process {pid})") from None
    if (data_dir / UNFINISHED_RESTORE).exists():
        os.close(fd)
        raise SettingsError(f"{data_dir}: {RESTORE_AGAIN}")
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def _mark_stopped(slot: int) -> None:
    from app.pipeline.books import SUFFIX, Book
    from app.slots import SLOT_FIELDS, STATES

    assert _state.settings is not None
    path = _state.settings.data_dir / "run" / "slots" / f"{slot}{SUFFIX}"
    if path.exists():
        book = Book(path, SLOT_FIELDS, create=True)
        book["state"] = STATES.index("stopped")
        book.close()
