"""A real PostgreSQL for the tests: one server a session, a fresh migrated database a test."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection

from app.storage import embedded
from app.storage.connection import Connection
from app.storage.schema import migrate
from app.storage.sink import DatabaseSink
from tests.batches import new_sink
from tests.quick_disk import quick_disk

TEMPLATE = "tickhub_template"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Yield the URL of a throw-away server, with {name} for the database's."""
    folder = Path(tempfile.mkdtemp(prefix="tickhub-pg-", dir=quick_disk()))
    folder.chmod(0o711)  # as root the server is another user, and must get through
    config = embedded.EmbeddedConfig(folder / "data", memory_mb=256)
    try:
        embedded.start(config, system_root=folder / "system")
        url = embedded.url(config).replace("///tickhub?", "///{name}?")
        _run(
            url,
            # What these tests ask of the disk is only that it is quick.
            sql.SQL("ALTER SYSTEM SET fsync = off"),
            sql.SQL("SELECT pg_reload_conf()"),
        )
        yield url
    finally:
        assert embedded.stop(config)
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


@pytest.fixture
def own(database_url: str) -> Iterator[Connection]:
    """Yield a connection to this test's database, as a lane has one."""
    made = Connection(lambda: database_url, 5, 60, "test")
    yield made
    made.close()


@pytest.fixture
def sink(database_url: str) -> Iterator[DatabaseSink]:
    """Yield what flushes into this test's database."""
    made = new_sink(database_url)
    yield made
    made.close()
