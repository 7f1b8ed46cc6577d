"""PostgreSQL's programs: found, run, watched. Blocking.

They get the database's URL in their environment, never in their command line, which everybody on the machine can read.
The embedded server's programs also back up servers of its version or older.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import parse_dsn

from app.errors import StorageError
from app.storage.embedded_user import ending_with_parent, environment

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are done."""

_DONE = re.compile(r"(\d+)/(\d+) kB")
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "passfile": "PGPASSFILE",
    "options": "PGOPTIONS",
    "channel_binding": "PGCHANNELBINDING",
}


class BackupError(StorageError):
    """A backup or restore cannot be done; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs of one PostgreSQL, and the database they are for. binaries: their directory."""

    binaries: Path
    url: str

    def program(self, name: str) -> Path:
        """Return a program's path. Raises BackupError when it is not there."""
        path = self.binaries / name
        if not path.exists():
            found = shutil.which(name)
            if found is None:
                raise BackupError(f"{name} is not in {self.binaries}: install PostgreSQL's client programs")
            path = Path(found)
        return path

    def environ(self) -> dict[str, str]:
        """Return the environment that leads the programs to the database."""
        given = parse_dsn(self.url)
        unknown = sorted(given.keys() - _VARIABLES.keys() - {"connect_timeout", "application_name"})
        if unknown:
            raise BackupError(f"the database's URL has {', '.join(unknown)}: PostgreSQL's programs cannot be told")
        told = {_VARIABLES[name]: value for name, value in given.items() if name in _VARIABLES}
        return environment() | told | {"PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "tickhub backup"}

    def run(self, name: str, *args: str | Path, progress: Progress | None = None) -> str:
        """Run a program to its end and return what it said. Raises BackupError with its last words."""
        command = [str(self.program(name)), *map(str, args)]
        process = subprocess.Popen(
            command,
            env=self.environ(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=0o077,
            # Nobody reads what it does any more, and what it writes is removed by the next command.
            preexec_fn=ending_with_parent(signal.SIGTERM),
        )
        said: list[str] = []
        assert process.stdout is not None
        try:
            # Universal newlines: a progress line ends in a carriage return.
            for line in process.stdout:
                done = _DONE.search(line)
                if done is None:
                    said = [*said[-50:], line.rstrip()]
                elif progress is not None:
                    progress(int(done[1]) << 10, int(done[2]) << 10)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if status:
            raise BackupError(f"{name} failed: {' | '.join(line for line in said[-4:] if line) or f'status {status}'}")
        return "\n".join(said)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Give an autocommitting connection to the database. Raises BackupError when it cannot be asked."""
        try:
            conn = psycopg2.connect(self.url, connect_timeout=10, application_name="tickhub backup")
        except psycopg2.OperationalError as why:
            raise BackupError(f"the database does not answer: {str(why).strip()}") from why
        try:
            conn.autocommit = True
            yield conn
        except psycopg2.Error as why:
            raise BackupError(str(why).strip()) from why
        finally:
            conn.close()

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        """Return the one row of a statement. Raises BackupError."""
        with self.connection() as conn, conn.cursor() as cur:
            cur.execute(sql, values or None)
            row = cur.fetchone()
        assert row is not None
        return row


def free_bytes(path: Path) -> int:
    """Return the free space on a path's disk."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
