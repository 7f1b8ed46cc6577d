"""Servers under test as processes: started, asked, measured, ended."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.bench.client import BenchError
from tests.bench.machine import memory_mb, peak_memory_mb, tree_cpu_s

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
COMMIT_STALL_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A gunicorn master with its workers, from entering to leaving; its output goes to `log`."""

    def __init__(
        self, command: Sequence[str], log: Path, environ: Mapping[str, str], port: int, root: Path = ROOT
    ) -> None:
        """root: the checkout that it is run from."""
        self._root = root
        self._command = [sys.executable, "-m", *command]
        self._log = log
        # The settings that are measured are the defaults, whatever the caller's shell has set.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TICKHUB_")}
        self._environ = {**kept, **environ}
        self.address = ("127.0.0.1", port)

    def __enter__(self) -> Server:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._root,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait("ready", READY_WITHIN_S, self._is_ready)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        status = self._stop()
        if kind is None and status != 0:
            raise BenchError(f"the server ended with status {status}\n{self.log_tail()}")

    def _stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            # Its own session: the group holds nothing but this master and what it forked.
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and decoded JSON of a GET; raises OSError or http.client.HTTPException."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def stats(self) -> dict[str, Any]:
        status, stats = self.get("/stats")
        if status != 200:
            raise BenchError(f"/stats answered {status}: {stats}")
        return dict(stats)

    def _is_ready(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _wait(self, what: str, within_s: float, done: Callable[[], bool]) -> None:
        until = time.monotonic() + within_s
        while not done():
            if self._process.poll() is not None:
                raise BenchError(f"the server ended before it was {what}\n{self.log_tail()}")
            if time.monotonic() > until:
                raise BenchError(f"the server was not {what} within {within_s:.0f} s\n{self.log_tail()}")
            time.sleep(0.05)

    def wait_processed(self, ticks: int) -> float:
        """Wait until everything sent is processed; return the time.monotonic() at which that was seen.

        Raises BenchError when nothing moves for a minute.
        """
        processed, moved_s = -1, time.monotonic()
        while True:
            stats, now = self.stats(), time.monotonic()
            if stats["ticks_processed"] >= ticks and stats["buffer_size"] == 0:
                return now
            if stats["ticks_processed"] > processed:
                processed, moved_s = stats["ticks_processed"], now
            if now > moved_s + COMMIT_STALL_S:
                raise BenchError(f"{processed} of {ticks} ticks processed: {stats}\n{self.log_tail()}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._process.pid

    def workers(self) -> list[int]:
        """Return the workers' process ids: the children that gunicorn forked, not their helpers."""
        return [child.pid for child in psutil.Process(self._process.pid).children()]

    def wait_alone(self) -> None:
        """Wait until no worker runs a helper process any more (they migrate the database at the start)."""
        self._wait(
            "idle", READY_WITHIN_S, lambda: not any(psutil.Process(p).children() for p in self.workers())
        )

    def cpu_s(self) -> float:
        """Return the CPU seconds of master and workers so far."""
        return tree_cpu_s(self._process.pid)

    def worker_cpu_s(self) -> dict[int, float]:
        return {pid: tree_cpu_s(pid) for pid in self.workers()}

    def worker_peaks_mb(self) -> list[float]:
        return [peak_memory_mb(pid) for pid in self.workers()]

    def worker_memory_mb(self) -> list[tuple[float, float]]:
        """Return resident and unshared memory of each worker now, in MB."""
        return [memory_mb(pid) for pid in self.workers()]


def tickhub(
    directory: Path, database_url: str, workers: int, *flags: str, root: Path = ROOT
) -> Server:
    """Return tickhub as `scripts/serve` runs it, with an empty data directory and a database of its own.

    flags: of `serve`, beside these. root: the checkout whose code runs.
    """
    port = free_port()
    directory.mkdir()
    command = ["app", "serve", "--port", str(port), "--data-dir", str(directory / "data")]
    command += ["--workers", str(workers), "--database-url", database_url, *flags]
    return Server(command, directory / "server.log", {}, port, root)
