"""A command that runs as long as the server does, once a data directory, started again when it ends. Greenlet side.

Unlike a job it is not the elected process's: elections are held in the database, and what is followed here matters most
while that is away. Whichever worker of this host has the lock keeps it; when that worker is gone the command ends by
itself, and the next worker begins.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent.event import Event

from app.settings import ROOT, Settings

LOOK_S = 1.0
FIRST_WAIT_S = 30.0
"""How long the database may take at the server's start before its absence is trouble."""

AGAIN_FIRST_S, AGAIN_MOST_S = 1.0, 60.0
REFUSED = "tickhub: "
"""How a command says that it cannot be done (cli/__init__.py)."""

ELSEWHERE = 75
"""Exit status of a command that another process runs already (cli/backup.py)."""

STOP_S = 5.0
TROUBLE = "TROUBLE: "
"""What a line begins with that somebody should see."""

log = logging.getLogger("tickhub")


class Standing:
    """This worker's part in keeping a command running. The command gets `--parent PID`, and ends when that is gone."""

    def __init__(
        self, arguments: tuple[str, ...], lock: Path, environ: Mapping[str, str], ready: Callable[[], bool]
    ) -> None:
        """Take the arguments of `python -m app`; none: nothing is run. ready: is what it needs there?"""
        self._arguments, self._lock, self._environ, self._ready = arguments, lock, dict(environ), ready
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = Event()

    def run(self) -> None:
        """Keep it running for ever; to be spawned as a greenlet."""
        while self._arguments and not self._stopping.is_set():
            try:
                with self._alone():
                    self._keep()
            except BlockingIOError:
                pass
            except Exception:
                log.exception("keeping `%s` running failed", " ".join(self._arguments))
            self._stopping.wait(LOOK_S)

    def stop(self) -> None:
        """End it, in bounded time. Idempotent."""
        self._stopping.set()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        until = time.monotonic() + STOP_S
        while process.poll() is None and time.monotonic() < until:
            gevent.sleep(0.05)
        if process.poll() is None:
            process.kill()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)

    def _keep(self) -> None:
        until = time.monotonic() + FIRST_WAIT_S
        while not (self._ready() or self._stopping.is_set()) and time.monotonic() < until:
            self._stopping.wait(LOOK_S)
        pause_s = AGAIN_FIRST_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            status = self._run_once()
            if self._stopping.is_set():
                return
            pause_s = AGAIN_FIRST_S if time.monotonic() - began_s > AGAIN_MOST_S else pause_s
            if status == ELSEWHERE:
                # A service of its own follows: well, as long as it does.
                self._stopping.wait(AGAIN_MOST_S)
                continue
            log.error("[BACKUP] `%s` ended with %s; again in %g s", " ".join(self._arguments), status, pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MOST_S)

    def _run_once(self) -> int:
        """Run it to its end, passing its lines on; return its exit status."""
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *self._arguments, "--parent", str(os.getpid())],
            cwd=ROOT,
            env={**os.environ, **self._environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                text = line.decode(errors="replace").strip()
                if text.startswith((TROUBLE, REFUSED)):
                    log.error("[BACKUP] %s", text.removeprefix(TROUBLE))
                elif text:
                    log.info("[BACKUP] %s", text)
        return process.wait()


def make_standing(settings: Settings, run_dir: Path, ready: Callable[[], bool]) -> Standing:
    """Return what keeps WAL and journals coming to the backups, where there is a place for them."""
    wanted = bool(settings.backup_dir) and settings.backup_wal
    arguments = ("backup", "wal") if wanted else ()
    return Standing(arguments, run_dir / "following.lock", settings.to_environ(), ready)
