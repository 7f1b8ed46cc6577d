"""A real PgBouncer for a test, with the example's settings: before a database, killed, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg2

from app.storage.embedded_user import identity, user_by_id
from tests.process.harness import ROOT, WAIT_S, Database, free_port, wait_until
from tests.waiting import skip_here

EXAMPLE = ROOT / "deploy" / "pgbouncer" / "pgbouncer.ini"
PASSWORD = "a-password-of-the-pooler"


def pgbouncer_binary() -> str:
    """Return the program, or skip the test; in continuous integration it has to be there."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        skip_here("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    return found


class PgBouncer:
    """A pooler on a port of its own; runs as the user of the database's server, whose socket is for nobody else."""

    def __init__(self, home: Path, database: Database) -> None:
        self._binary = pgbouncer_binary()
        self._home = home
        self._database = database
        self._user = user_by_id((database.home / "postgres").stat().st_uid)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str = "tickhub") -> str:
        return f"postgresql://tickhub:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def start(self, *, name: str = "tickhub", of_database: str = "", **settings: object) -> PgBouncer:
        """Start it and wait until it answers. `of_database`: more for the line of the database; the rest: settings."""
        self._write("userlist.txt", [f'"tickhub" "{PASSWORD}"'])
        server = f"host={self._database.socket().parent} port=5432 dbname={name}"
        lines = _changed(
            EXAMPLE.read_text().splitlines(),
            {"listen_port": self.port, "auth_file": self._home / "userlist.txt", **settings},
        )
        at = next(at for at, line in enumerate(lines) if line.startswith("tickhub ="))
        lines[at] = f"{name} = {server} {of_database}"
        self._write("pgbouncer.ini", [*lines, "admin_users = tickhub"])
        with self.log_path().open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, str(self._home / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **identity(self._user),
            )
        wait_until(self._answers, what="PgBouncer to answer")
        return self

    def log_path(self) -> Path:
        return self._home / "pgbouncer.log"

    def log(self) -> str:
        return self.log_path().read_text()

    def console(self, command: str) -> list[tuple[Any, ...]]:
        """Ask PgBouncer itself, such as SHOW POOLS."""
        with closing(psycopg2.connect(self.url("pgbouncer"), connect_timeout=10)) as conn:
            conn.autocommit = True
            with conn.cursor() as cur:
                cur.execute(command)
                return cur.fetchall() if cur.description else []

    def kill9(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait(WAIT_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return bool(self.console("SHOW VERSION"))
        except psycopg2.OperationalError:
            return False

    def _write(self, name: str, lines: Sequence[str]) -> None:
        path = self._home / name
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, self._user.uid, self._user.gid)


def _changed(lines: list[str], settings: dict[str, object]) -> list[str]:
    """Return the lines of a file with some settings changed, all of which it has."""
    for name, value in settings.items():
        at = next(at for at, line in enumerate(lines) if line.startswith(f"{name} ="))
        lines[at] = f"{name} = {value}"
    return lines
