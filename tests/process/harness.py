"""Real servers for the process tests: started, asked, killed, and removed with all that they started."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from app.storage import embedded
from app.storage.embedded_postmaster import postmaster
from app.storage.embedded_writer import admit
from app.storage.schema import migrate
from tests.ports import free_port
from tests.process.shared_memory import SharedMemory, shared_memory
from tests.quick_disk import quick_disk
from tests.waiting import WAIT_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
CLEAN = "clean"
"""A second, migrated and empty database beside `tickhub`: for a clean load of the same ticks."""


def far_from_now() -> str:
    """Return a time of day (UTC) that is half a day away: what was due then is not due again while tests run."""
    return f"{datetime.now(UTC) - timedelta(hours=12):%H:%M}"


def end(processes: Sequence[psutil.Process]) -> None:
    """Kill processes, and wait until nothing but perhaps a zombie has their number."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(map(runs, processes)), what="killed processes to be gone")


def words_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing of one that has ended."""
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def runs(process: psutil.Process) -> bool:
    """Tell whether a process is there, and not only its number."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def folder() -> Iterator[Path]:
    """A directory with a short path, for sockets, which PostgreSQL's user can pass through."""
    path = Path(tempfile.mkdtemp(prefix="thp-", dir=quick_disk()))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def make_template(home: Path) -> Path:
    """Make a data directory whose database is there, migrated and stopped: copying it is quick."""
    home.mkdir(mode=0o711)
    database = Database(home)
    try:
        database.up()
        migrate(database.url())
        admit(database.url())
        with closing(database.connect("postgres")) as conn, conn.cursor() as cur:
            conn.autocommit = True
            cur.execute(sql.SQL("CREATE DATABASE {} TEMPLATE tickhub").format(sql.Identifier(CLEAN)))
            # What is killed here are processes; what they wrote stays in the kernel.
            cur.execute("ALTER SYSTEM SET fsync = off")
        assert embedded.stop(database.config)
    finally:
        database.remove()
    return home


def copy_template(template: Path, home: Path) -> Path:
    subprocess.run(["cp", "-a", "--reflink=auto", template, home], check=True, timeout=WAIT_S)
    return home


class Database:
    """The PostgreSQL of a data directory, whoever started it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = embedded.EmbeddedConfig(home, memory_mb=128)
        self._paused: list[psutil.Process] = []
        self._memory = SharedMemory()

    def url(self, name: str = "tickhub") -> str:
        return embedded.url(self.config).replace("///tickhub?", f"///{name}?")

    def socket(self) -> Path:
        return self.home / "postgres.run" / ".s.PGSQL.5432"

    def up(self) -> None:
        embedded.start(self.config)

    def down(self) -> None:
        assert embedded.stop(self.config)

    def connect(self, name: str = "tickhub") -> Connection:
        return psycopg2.connect(self.url(name), connect_timeout=10)

    def rows(self, query: str, *arguments: object, name: str = "tickhub") -> list[tuple[Any, ...]]:
        """Run a query in a transaction of its own."""
        with closing(self.connect(name)) as conn, conn, conn.cursor() as cur:
            cur.execute(query, arguments or None)
            return cur.fetchall() if cur.description else []

    def postmaster_pid(self) -> int | None:
        found = postmaster(self.home / "postgres")
        return found.pid if found else None

    def kill9(self) -> None:
        """Kill the postmaster; its backends live on until they notice."""
        pid = self.postmaster_pid()
        if pid is not None:
            self._memory |= shared_memory(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pause(self) -> None:
        """Make the server one that accepts connections and never answers."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # backends come and go
                process.suspend()
                self._paused.append(process)

    def resume(self) -> None:
        while self._paused:
            with suppress(psutil.NoSuchProcess):
                self._paused.pop().resume()

    def remove(self) -> None:
        """Kill what is left of the server, at once, and clear up after it."""
        processes = [*self._processes(), *self._paused]
        for process in processes:
            self._memory |= shared_memory(process.pid)
        end(processes)
        self._paused.clear()
        self._memory.remove()

    def _processes(self) -> list[psutil.Process]:
        """All processes of the server, backends that outlived their postmaster too."""
        cluster, found = str((self.home / "postgres").resolve()), []
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error):
                if process.info["name"] == "postgres" and process.cwd() == cluster:
                    found.append(process)
        return found


@contextmanager
def running_database(template: Path) -> Iterator[Database]:
    """A running, migrated database that no server looks after; it is removed at the end."""
    with folder() as parent:
        found = Database(copy_template(template, parent / "data"))
        try:
            found.up()
            yield found
        finally:
            found.remove()


class Server:
    """`python -m app serve` with one data directory; it may be started again and again."""

    module = "app"

    def __init__(
        self, home: Path, *flags: str, workers: int = 1, environ: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.database = Database(home)
        self.workers = workers
        self.port = free_port()
        self.flags = ["--port", str(self.port), "--workers", str(workers), *flags]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("TICKHUB_")}
        # The data directory is in the environment so that whatever is started can be found by it.
        own = {
            "TICKHUB_DATA_DIR": str(home),
            "TICKHUB_PG_MEMORY_MB": "128",
            "TICKHUB_FLUSH_INTERVAL_S": "0.1",
            # What the server collects by itself would be among the rows that tests count.
            "TICKHUB_METRICS_INTERVAL_S": "0",
            # Requests that are written by hand are for nobody in particular.
            "TICKHUB_ALLOWED_HOSTS": "x",
        }
        self.environ = {**kept, **own, **(environ or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._logs = 0

    def start(self) -> Server:
        """Start the master and return at once."""
        assert self.process is None or self.process.poll() is not None
        self._logs += 1
        with self.log_path().open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "serve", *self.flags],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait_accepting(self) -> Server:
        """Wait until ticks are taken, with or without a database."""
        self._wait(lambda: self.status("/health/ready") == 200, "ready")
        return self

    def wait_ready(self) -> Server:
        """Wait until ticks are taken and the database is connected."""
        self._wait(lambda: self.status("/health") == 200, "connected")
        return self

    def stop(self, number: int = signal.SIGTERM, within_s: float = WAIT_S) -> int:
        """Ask the master to end, and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def kill_master(self) -> None:
        """Kill the master alone; its workers live on until they notice."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(WAIT_S)

    def kill9(self) -> None:
        """Kill the master and everything that it started, at once; the database stays."""
        end(self._processes())
        if self.process is not None:
            self.process.wait(WAIT_S)

    def worker_pids(self) -> list[int]:
        assert self.process is not None
        try:
            return [child.pid for child in psutil.Process(self.process.pid).children()]
        except psutil.NoSuchProcess:
            return []

    def log_path(self) -> Path:
        return self.home.with_name(f"{self.home.name}.{self._logs}.log")

    def log(self) -> str:
        """What the server logged since its last start."""
        return self.log_path().read_text(errors="replace")

    def request(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float = 30.0
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, decoded JSON and headers. Raises OSError or HTTPException."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)) as client:
            client.request(method, path, body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data else None, dict(answer.getheaders())

    def status(self, path: str) -> int:
        """Return the status of a GET, 0 when there was no answer."""
        try:
            return self.request("GET", path)[0]
        except (OSError, http.client.HTTPException, ValueError):
            return 0

    def post_raw(self, path: str, body: bytes) -> tuple[int, Any, Mapping[str, str]]:
        return self.request("POST", path, body)

    def post(self, ticks: Sequence[Mapping[str, Any]]) -> tuple[int, Any]:
        """Send a batch; return status and answer."""
        return self.post_raw("/tick/batch", json.dumps({"ticks": list(ticks)}).encode())[:2]

    def stats(self) -> dict[str, Any]:
        status, stats, _ = self.request("GET", "/stats")
        assert status == 200, stats
        return dict(stats)

    def wait_drained(self, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait until nothing accepted is left to flush; return /stats."""

        def drained() -> dict[str, Any] | None:
            stats = self.stats()
            return stats if stats["buffer_size"] == 0 and not self._unread_journals() else None

        return dict(wait_until(drained, timeout_s, "the buffer to drain"))

    def _unread_journals(self) -> bool:
        """Tell whether a journal holds records but has no book yet: nobody has taken it over."""
        books = {path.stem for path in (self.home / "run" / "books").glob("*.book")}
        return any(path.parent.name not in books for path in (self.home / "journal").glob("[!.]*/*.seg"))

    def close(self) -> None:
        """Kill everything that is left; the directory stays."""
        self.kill9()
        self.database.remove()

    def _processes(self) -> list[psutil.Process]:
        """The master, workers, those that outlived it, and what they run: all that has this data directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("TICKHUB_DATA_DIR") == str(self.home):
                    found.append(process)
        return found

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        process = self.process
        assert process is not None

        def look() -> bool:
            assert process.poll() is None, f"the server ended with {process.returncode}:\n{self.log()}"
            return done()

        try:
            wait_until(look, WAIT_S, f"the server to be {what}")
        except AssertionError as why:
            raise AssertionError(f"{why}\n{self.log()[-8000:]}") from None
