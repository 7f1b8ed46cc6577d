"""Backups of a database that somebody else keeps, as the role that is made for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from app.storage.embedded_place import installed_binaries
from app.storage.role_names import BACKUP, WRITE
from tests.batches import execute, rows_of
from tests.process.backups import backups_of, everything, receiving, send, stored, ticks
from tests.process.commands import app, command
from tests.process.conftest import MakeServer
from tests.process.harness import (
    ROOT,
    Database,
    Server,
    running_database,
)
from tests.waiting import WAIT_S

PASSWORD = "not-for-command-lines"


@pytest.fixture
def theirs(data_template: Path) -> Iterator[Database]:
    with running_database(data_template) as found:
        found.rows(f"ALTER ROLE {BACKUP} LOGIN PASSWORD '{PASSWORD}'")
        yield found


@pytest.fixture
def server(theirs: Database, make_server: MakeServer) -> Server:
    """A server that comes in as the role that writes, and takes backups as the role for them."""
    environ = {
        "TICKHUB_DATABASE_URL": theirs.url().replace("user=tickhub", f"user={WRITE}"),
        "TICKHUB_BACKUP_DATABASE_URL": theirs.url().replace("user=tickhub", f"user={BACKUP}&password={PASSWORD}"),
    }
    return make_server(environ=environ)


def command_lines() -> set[str]:
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.long
def test_a_chain_is_taken_and_verified_as_the_role_for_backups(server: Server, theirs: Database) -> None:
    server.start().wait_ready()
    with receiving(server):
        process = command(server, "backup", "full")
        seen = set[str]()
        while process.poll() is None:
            seen |= command_lines()
        said, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, said
        assert "sound" in said
        assert any("pg_basebackup" in line for line in seen)
        assert not [line for line in seen | command_lines() if PASSWORD in line]
        assert any("pg_receivewal" in line for line in command_lines())
        send(server, 0, 30)
        assert "incremental" in app(server, "backup", "incremental")
    assert app(server, "backup", "verify").count("sound") == 2
    assert "is restored physically by whoever keeps it" in app(server, "restore", expect=1)
    # By PostgreSQL's own programs alone, as its keeper would.
    [full, incremental] = sorted((backups_of(server) / "base").glob("*/"))
    combined = server.home / "combined"
    binaries = installed_binaries()
    subprocess.run(
        [binaries / "pg_combinebackup", "-o", combined, full, incremental], check=True, cwd=ROOT, timeout=WAIT_S
    )
    subprocess.run([binaries / "pg_verifybackup", combined], check=True, cwd=ROOT, timeout=WAIT_S)
    assert theirs.rows("SELECT count(*) FROM ticks") == [(30,)]


def test_who_may_not_replicate_is_told_so(server: Server, theirs: Database) -> None:
    theirs.rows(f"ALTER ROLE {BACKUP} NOREPLICATION")
    said = app(server, "backup", "full", expect=1)
    assert "REPLICATION" in said
    assert PASSWORD not in said


@pytest.mark.long
def test_a_dump_is_taken_as_that_role_and_restored_as_the_owner(server: Server, theirs: Database) -> None:
    server.start().wait_ready()
    send(server, 0, 20)
    app(server, "backup", "dump")
    before = everything(theirs)
    assert server.post(ticks(100, 5))[0] == 200
    server.wait_drained()
    assert server.stop() == 0
    [dump] = (backups_of(server) / "dumps").glob("*.dump")
    server.environ["TICKHUB_DIRECT_DATABASE_URL"] = theirs.url()
    assert "say --drop-existing" in app(server, "restore", str(dump), expect=1)
    assert "20 ticks" in app(server, "restore", str(dump), "--drop-existing")
    after = everything(theirs)
    for name in after.keys() - {"leases"}:
        assert after[name] == before[name], name
    server.start().wait_ready()
    send(server, 100, 5)
    assert stored(theirs) == [*range(20), *range(100, 105)]


@pytest.mark.long
def test_a_dump_goes_to_a_server_whose_owner_has_another_name_and_is_nobody_special(
    server: Server, theirs: Database
) -> None:
    server.start().wait_ready()
    send(server, 0, 20)
    app(server, "backup", "dump")
    before = everything(theirs)
    assert server.stop() == 0
    [dump] = (backups_of(server) / "dumps").glob("*.dump")
    with closing(psycopg2.connect(theirs.url())) as conn:
        conn.autocommit = True
        execute(conn, "CREATE ROLE plain LOGIN CREATEDB")
        execute(conn, "CREATE DATABASE moved OWNER plain")
    moved = theirs.url().replace("/tickhub?", "/moved?").replace("user=tickhub", "user=plain")
    server.environ["TICKHUB_DATABASE_URL"] = server.environ["TICKHUB_DIRECT_DATABASE_URL"] = moved
    assert "20 ticks" in app(server, "restore", str(dump))
    owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname IN ('public', 'history', 'secret')"
    rights = """
        SELECT has_table_privilege('tickhub_read', 'ticks', 'SELECT'),
            has_table_privilege('tickhub_write', 'ticks', 'INSERT'),
            has_schema_privilege('tickhub_read', 'secret', 'USAGE'),
            (SELECT count(*) FROM pg_default_acl WHERE defaclacl::text LIKE '%%tickhub_read%%') > 0
    """
    with closing(psycopg2.connect(moved)) as conn:
        assert rows_of(conn, owners) == [("plain",)]
        assert rows_of(conn, rights) == [(True, True, False, True)]
        assert rows_of(conn, "SELECT count(*) FROM ticks") == [(len(before["ticks"]),)]
