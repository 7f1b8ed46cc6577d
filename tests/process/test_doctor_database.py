"""The doctor on the database, journals, backups and archive: each fault is made for real, and found."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from app.backup.catalog import Catalog, Note
from app.backup.following import FILE, Following
from app.doctor.findings import Finding
from app.storage.schema import HEAD
from tests.backup_notes import a_note
from tests.process.conftest import MakeServer
from tests.process.examined import FAIL, OK, WARN, look
from tests.process.harness import (
    Database,
    running_database,
)
from tests.process.wire import AWAY, batch, post, tick


@pytest.fixture(scope="module")
def kept(data_template: Path) -> Iterator[Database]:
    """A running database, of whose settings nothing is wrong; each test puts back what it changes."""
    with running_database(data_template) as found:
        alter(found, "fsync", None)
        with found.connect() as conn, conn.cursor() as cur:
            cur.execute("CREATE SCHEMA IF NOT EXISTS watching")
            cur.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA watching")
        yield found


def execute(database: Database, *statements: str) -> None:
    with closing(database.connect()) as conn:
        conn.autocommit = True
        with conn.cursor() as cur:
            for statement in statements:
                cur.execute(statement)


def alter(database: Database, name: str, value: str | None) -> None:
    """Change a setting of the server, and wait until new sessions have it. value: None as it comes."""
    change = f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = {value}"
    before = database.rows("SELECT pg_conf_load_time()")
    execute(database, change, "SELECT pg_reload_conf()")
    while database.rows("SELECT pg_conf_load_time()") == before:
        pass


@contextmanager
def altered(database: Database, name: str, value: str) -> Iterator[None]:
    alter(database, name, value)
    try:
        yield
    finally:
        alter(database, name, None)


@contextmanager
def done(database: Database, statement: str, undo: str) -> Iterator[None]:
    execute(database, statement)
    try:
        yield
    finally:
        execute(database, undo)


def test_all_is_well_with_a_database_as_it_is_made(kept: Database) -> None:
    found = look(kept.home)
    wrong = {name for name, finding in found.items() if finding.outcome is not OK}
    assert wrong <= {"permissions", "clock", "backups"}, found
    names = {"database", "durability", "connections", "wal", "extensions", "migrations", "roles", "jobs"}
    assert names | {"database clock", "tick times", "journals"} <= found.keys()
    assert "PostgreSQL 18" in found["database"].found
    assert found["migrations"].found == f"schema {HEAD}"
    # By its URL it is the same.
    by_url = look(kept.home, database_url=kept.url())
    assert {name: by_url[name].outcome for name in names - {"roles"}} == dict.fromkeys(names - {"roles"}, OK)
    assert by_url["roles"].outcome is WARN, "the server would be a superuser there"
    writer = kept.url().replace("user=tickhub", "user=tickhub_write")
    execute(kept, "ALTER ROLE tickhub_write LOGIN")
    by_role = look(kept.home, database_url=writer, direct_database_url=kept.url())
    assert by_role["roles"].outcome is OK
    assert by_role["database url"].outcome is OK
    reader = kept.url().replace("user=tickhub", "user=tickhub_read")
    by_role = look(kept.home, database_url=reader, direct_database_url=kept.url())
    assert (by_role["roles"].outcome, "comes in as tickhub_read" in by_role["roles"].found) == (FAIL, True)
    assert look(kept.home, database_url=AWAY, direct_database_url=kept.url())["database url"].outcome is FAIL
    found = look(kept.home, database_url=writer)
    assert {name: found[name].outcome for name in names} == dict.fromkeys(names, OK), found


@dataclass
class Fault:
    """What is done to the database, how it is undone, and what the doctor says then."""

    do: str
    undo: str
    name: str
    outcome: object
    words: str


FAULTS = [
    Fault(
        "UPDATE alembic_version SET version_num = '0001'",
        f"UPDATE alembic_version SET version_num = '{HEAD}'",
        *("migrations", FAIL, f"has schema 0001, this tickhub needs {HEAD}"),
    ),
    Fault(
        "UPDATE alembic_version SET version_num = '9999'",
        f"UPDATE alembic_version SET version_num = '{HEAD}'",
        *("migrations", FAIL, "has schema 9999"),
    ),
    Fault(
        "ALTER TABLE alembic_version RENAME TO elsewhere",
        "ALTER TABLE elsewhere RENAME TO alembic_version",
        *("migrations", WARN, "no schema yet"),
    ),
    Fault(
        "REVOKE INSERT ON ticks FROM tickhub_write",
        "GRANT INSERT ON ticks TO tickhub_write",
        *("roles", FAIL, "may not do all that it has to with ticks"),
    ),
    Fault(
        "ALTER ROLE tickhub_backup RENAME TO elsewhere",
        "ALTER ROLE elsewhere RENAME TO tickhub_backup",
        *("roles", WARN, "no tickhub_backup"),
    ),
    Fault(
        "DROP EXTENSION pg_stat_statements",
        "CREATE EXTENSION pg_stat_statements SCHEMA watching",
        *("extensions", WARN, "half there: no extension"),
    ),
    # What stands before pg_catalog on the path is taken first: an hour later than it is.
    Fault(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
        " 'SELECT pg_catalog.clock_timestamp() + interval ''1 hour''';"
        " ALTER DATABASE tickhub SET search_path = public, pg_catalog",
        'DROP FUNCTION public.clock_timestamp(); ALTER DATABASE tickhub SET search_path = "$user", public, history',
        *("database clock", FAIL, "3600.0 s from this host's"),
    ),
    Fault(
        "CREATE FUNCTION public.version() RETURNS text LANGUAGE sql AS"
        " $$ SELECT 'PostgreSQL 14.23 on x86_64-pc-linux-gnu' $$;"
        " ALTER DATABASE tickhub SET search_path = public, pg_catalog",
        'DROP FUNCTION public.version(); ALTER DATABASE tickhub SET search_path = "$user", public, history',
        *("database", FAIL, "as tickhub: 15 is needed"),
    ),
    Fault(
        "INSERT INTO tick_ranges (range, state, manifest, manifest_sha256, rows, derived_rows, bytes) VALUES"
        " ('[2020-01-06 00:00+00,2020-01-13 00:00+00)', 'archived', 'ticks/20200106-0a/manifest-1.json', '', 1, 0, 1)",
        "DELETE FROM tick_ranges",
        *("archive", FAIL, "1 of 1 weeks are not in"),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.words)
def test_what_is_wrong_in_the_database_is_found(kept: Database, fault: Fault) -> None:
    with done(kept, fault.do, fault.undo):
        found = look(kept.home)[fault.name]
        assert (found.outcome, fault.words in found.found) == (fault.outcome, True), found
    after = look(kept.home).get(fault.name)
    assert after is None or after.outcome is OK


def test_a_job_that_failed_is_found_while_the_settings_ask_for_it(kept: Database) -> None:
    failed = (
        "INSERT INTO jobs (name, state, due_at, started_at, ended_at, exit_status, message)"
        " VALUES ('maintain', 'failed', now(), now(), now(), 1, 'the disk is full')"
    )
    with done(kept, failed, "DELETE FROM jobs"):
        found = look(kept.home, maintain_schedule=True)["jobs"]
        assert (found.outcome, "the disk is full" in found.found) == (WARN, True), found
        assert look(kept.home)["jobs"].outcome is OK


@pytest.mark.parametrize(
    ("setting", "name", "outcome", "words"),
    [
        ("fsync", "durability", FAIL, "fsync is off"),
        ("full_page_writes", "durability", FAIL, "full_page_writes is off"),
        ("synchronous_commit", "durability", WARN, "synchronous_commit is off"),
        ("autovacuum", "durability", FAIL, "autovacuum is off"),
        ("summarize_wal", "wal", WARN, "each backup is a full one"),
    ],
)
def test_a_setting_that_is_off_is_found(kept: Database, setting: str, name: str, outcome: object, words: str) -> None:
    with altered(kept, setting, "off"):
        found = look(kept.home)[name]
        assert (found.outcome, words in found.found) == (outcome, True), found
        assert setting in found.remedy
    assert look(kept.home)[name].outcome is OK


def test_workers_that_may_open_more_connections_than_there_are_is_found(kept: Database) -> None:
    found = look(kept.home, database_url=kept.url(), workers=6)["connections"]
    assert found.outcome is FAIL
    assert "60 allowed; 6 workers open up to 60" in found.found
    assert "max_connections to 70" in found.remedy


def test_prices_from_the_future_are_found(kept: Database) -> None:
    insert = "INSERT INTO current (symbol, last_updated) VALUES ('AAPL', now() + interval '3 hours')"
    with done(kept, insert, "DELETE FROM current"):
        found = look(kept.home)["tick times"]
        assert (found.outcome, "AAPL is 3.0 hours ahead" in found.found) == (WARN, True), found


def test_a_database_without_wal_for_backups_or_statements_is_found(database: Database) -> None:
    for name, value in (("wal_level", "minimal"), ("max_wal_senders", "0"), ("summarize_wal", "off")):
        alter(database, name, value)
    alter(database, "shared_preload_libraries", "plpgsql")
    database.down()
    database.up()
    found = look(database.home)
    assert (found["wal"].outcome, "no physical backup" in found["wal"].found) == (WARN, True)
    assert found["extensions"].outcome is WARN


def test_a_database_that_is_down_is_not_started(database: Database) -> None:
    database.down()
    before = sorted(path.name for path in database.home.iterdir())
    found = look(database.home)
    assert (found["database"].outcome, "is down" in found["database"].found) == (WARN, True)
    assert not found.keys() & {"durability", "migrations", "roles"}
    assert database.postmaster_pid() is None
    assert sorted(path.name for path in database.home.iterdir()) == before
    (database.home / "postgres" / "PG_VERSION").write_text("16\n")
    found = look(database.home)
    assert (found["database"].outcome, "are of PostgreSQL 16" in found["database"].found) == (FAIL, True)


@pytest.mark.long
def test_a_database_that_hangs_costs_a_bounded_wait(database: Database) -> None:
    database.pause()
    try:
        found = look(database.home, db_connect_timeout_s=2)
    finally:
        database.resume()
    assert (found["database"].outcome, "timeout expired" in found["database"].found) == (FAIL, True), found["database"]
    assert look(database.home)["database"].outcome is OK


@pytest.mark.long
def test_a_database_that_is_gone_under_its_server_is_found(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    # Whoever would start it again waits for this lock.
    with (server.home / "postgres.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.database.remove()
        found = look(server.home, port=server.port)["database"]
    assert (found.outcome, "its PostgreSQL does not" in found.found) == (FAIL, True), found
    server.wait_ready()


@pytest.mark.long
def test_rows_that_a_dead_server_left_are_counted(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    assert post(server, batch(*(tick() for _ in range(7)))).status == 200
    server.kill9()
    found = look(server.home)["journals left over"]
    assert (found.outcome, "7 rows in 1 that nobody owns wait to be stored, by" in found.found) == (WARN, True), found
    server.database.up()
    found = look(server.home)["journals left over"]
    assert (found.outcome, "7 rows in 1 that nobody owns" in found.found) == (WARN, True), found
    assert found.remedy == "start the server: it stores them"
    server.flags = server.flags[:4]
    server.start().wait_ready()
    server.wait_drained()
    found = look(server.home, port=server.port)["journals left over"]
    assert found.outcome is OK, "a worker owns them now"
    assert server.stop() == 0
    found = look(server.home)["journals left over"]
    assert (found.outcome, "stored, by their own marks" in found.found) == (OK, True), found
    server.database.up()
    found = look(server.home)["journals left over"]
    assert found.outcome is OK
    assert "all of whose rows are stored" in found.found


def test_a_journal_that_fills_up_or_cannot_be_read_is_found(tmp_path: Path) -> None:
    directory = tmp_path / "journal" / ("0" * 32)
    directory.mkdir(parents=True)
    (directory / "lock").touch()
    (tmp_path / "journal" / "lost+found").mkdir()
    segment = directory / f"{0:020d}.seg"
    for size, outcome in ((100_000, OK), (700_000, WARN), (1_000_000, FAIL)):
        segment.write_bytes(bytes(size))
        found = look(tmp_path, journal_max_bytes=1 << 20, journal_segment_bytes=1 << 16)
        assert found["journal room"].outcome is outcome
        assert "1 with" in found["journal room"].found
    (directory / "nonsense.seg").touch()
    assert look(tmp_path)["journals"].outcome is FAIL


def note(catalog: Catalog, ended_at: datetime, damage: str | None = None) -> Note:
    made = a_note(ended_at, damage=damage)
    catalog.path(made.label).mkdir(parents=True)
    catalog.save(made)
    return made


def test_backups_that_are_missing_old_damaged_or_unreadable_are_found(tmp_path: Path) -> None:
    catalog, now = Catalog(tmp_path / "backups"), datetime.now(UTC)

    def found(**values: object) -> Finding:
        return look(tmp_path, **values)["backups"]

    assert found().outcome is WARN
    assert found(backup_schedule="true").outcome is FAIL
    note(catalog, now - timedelta(days=3))
    assert (found().outcome, "72 hours old" in found().found) == (WARN, True)
    assert found(backup_schedule="true").outcome is FAIL
    note(catalog, now - timedelta(hours=20))
    assert found().outcome is OK
    assert found(backup_dir=tmp_path / "elsewhere").outcome is WARN
    damaged = note(catalog, now - timedelta(hours=10), damage="a file differs")
    assert (found().outcome, damaged.label in found().found) == (FAIL, True)
    (catalog.base / f"{damaged.label}.json").write_text("{")
    assert (found().outcome, "is no backup's note" in found().found) == (FAIL, True)


def test_backups_of_another_database_are_none_of_this_one(kept: Database, tmp_path: Path) -> None:
    note(Catalog(tmp_path), datetime.now(UTC))
    found = look(kept.home, backup_dir=tmp_path)["backups"]
    assert (found.outcome, "none of this database" in found.found) == (WARN, True), found
    (system,) = kept.rows("SELECT system_identifier::text FROM pg_control_system()")[0]
    catalog = Catalog(tmp_path)
    catalog.save(msgspec.structs.replace(catalog.notes()[0], system_identifier=system))
    assert look(kept.home, backup_dir=tmp_path)["backups"].outcome is OK
    # A restore begins a timeline, and no incremental backup goes across that.
    assert "incremental backups" not in look(kept.home, backup_dir=tmp_path)
    old = datetime.now(UTC) - timedelta(days=3)
    catalog.save(msgspec.structs.replace(catalog.notes()[0], timeline=2, ended_at=old))
    every = look(kept.home, backup_dir=tmp_path, backup_schedule="true")
    found = every["incremental backups"]
    assert (found.outcome, "before the database was restored" in found.found) == (WARN, True), found
    assert every["backups"].outcome is FAIL, "too old all the same"


@pytest.mark.parametrize(
    ("age", "trouble", "outcome"),
    [(timedelta(0), None, OK), (timedelta(0), "the disk is full", FAIL), (timedelta(hours=1), None, WARN)],
)
def test_wal_that_is_not_followed_any_more_is_found(
    tmp_path: Path, age: timedelta, trouble: str | None, outcome: object
) -> None:
    assert "point in time" not in look(tmp_path), "nobody has asked for it"
    at = datetime.now(UTC) - age
    known = Following(since=at, wal_until=at, journals_until=at, trouble=trouble, written_at=at)
    file = tmp_path / "backups" / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(msgspec.json.encode(known))
    assert look(tmp_path)["point in time"].outcome is outcome


def test_dumps_are_the_backups_of_a_database_of_ones_own(tmp_path: Path) -> None:
    dump = tmp_path / "backups" / "dumps" / "20260113T020000Z.dump"
    dump.parent.mkdir(parents=True)
    dump.touch()
    assert look(tmp_path, database_url=AWAY)["backups"].outcome is OK
    old = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    os.utime(dump, (old, old))
    assert look(tmp_path, database_url=AWAY)["backups"].outcome is WARN
