"""What the roles of the server and of backups may do: what they need, and not what they should not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection, cursor

from app.storage.embedded_place import installed_binaries
from app.storage.role_names import BACKUP, READ, WRITE
from app.storage.roles import grant, writers_rights
from app.storage.schema import migrate
from tests.integration.test_read_role import owner

ROOT = Path(__file__).resolve().parents[2]
Session = Callable[[str], cursor]


@contextmanager
def logged_in(conn: connection, url: str, role: str) -> Iterator[cursor]:
    """A session of the role: what a session's user is counts, so no SET ROLE."""
    with conn, conn.cursor() as cur:
        cur.execute(f"ALTER ROLE {role} LOGIN")
    try:
        with closing(psycopg2.connect(url.replace("user=tickhub", f"user={role}"))) as own, own.cursor() as theirs:
            own.autocommit = True
            yield theirs
    finally:
        conn.rollback()
        with conn, conn.cursor() as cur:
            cur.execute(f"ALTER ROLE {role} NOLOGIN")


@pytest.fixture
def session(conn: connection, database_url: str) -> Iterator[Session]:
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(logged_in(conn, database_url, role))


def tables(cur: cursor) -> set[str]:
    cur.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition"
    )
    return {name for (name,) in cur.fetchall()}


def test_every_table_was_decided_on(conn: connection) -> None:
    with conn.cursor() as cur:
        assert tables(cur) == set(writers_rights()), "give it a line in app/storage/roles.py"


def test_the_roles_are_nothing_by_themselves(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolcanlogin, rolreplication,"
            " (SELECT count(*) FROM pg_auth_members WHERE member = pg_roles.oid) FROM pg_roles"
            " WHERE rolname = ANY(%s) ORDER BY 1",
            ([WRITE, BACKUP, READ],),
        )
        assert cur.fetchall() == [(BACKUP, False, True, 0), (READ, False, False, 0), (WRITE, False, False, 0)]


NOT_FOR_THE_WRITER = [
    "DELETE FROM ticks",
    "UPDATE ticks SET bid = 0",
    "TRUNCATE ticks",
    "DELETE FROM bars",
    "DELETE FROM current",
    "DELETE FROM instruments",
    "DELETE FROM ingest_log",
    "DELETE FROM rejected_ticks",
    "DELETE FROM alerts",
    "INSERT INTO audit_log (actor, action, rows) VALUES ('me', 'delete', 1)",
    "UPDATE audit_log SET actor = 'other'",
    "DELETE FROM audit_log",
    "INSERT INTO tick_ranges VALUES ('[2020-01-01,2021-01-01)', 'dropped')",
    "UPDATE tick_ranges SET state = 'dropped'",
    "DELETE FROM tick_ranges",
    "DELETE FROM kept_from",
    "DELETE FROM late_ticks",
    "DELETE FROM jobs",
    "UPDATE alembic_version SET version_num = '0001'",
    "INSERT INTO secret.api_keys (prefix, name, hash, scopes) VALUES ('aaaaaaaa', 'me', sha256('x'), '{admin}')",
    "SELECT hash FROM secret.api_keys",
    "UPDATE secret.api_keys SET scopes = '{admin}'",
    "UPDATE secret.keys_in_force SET scopes = '{admin}'",
    "DELETE FROM secret.keys_in_force",
    "DELETE FROM secret.api_keys",
    "CREATE TABLE mine (x integer)",
    "CREATE TABLE secret.mine (x integer)",
    "CREATE SCHEMA mine",
    "CREATE VIEW history.mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql RETURN 1",
    "CREATE TRIGGER mine AFTER INSERT ON ticks FOR EACH ROW EXECUTE FUNCTION instruments_history_view()",
    "ALTER TABLE ticks DISABLE TRIGGER ALL",
    "ALTER TABLE ticks ADD COLUMN mine integer",
    "DROP TABLE bars",
    "DROP VIEW tsla_history",
    "DO 'BEGIN LOCK TABLE ticks IN ACCESS EXCLUSIVE MODE; END'",
    "SELECT setval('instruments_symbol_id_seq', 1)",
    "SELECT ensure_month_partition('alembic_version', now())",
    "CREATE ROLE mine",
    f"ALTER ROLE {WRITE} SUPERUSER",
    f"GRANT tickhub TO {WRITE}",
    "SET ROLE tickhub",
    "SET SESSION AUTHORIZATION tickhub",
    "ALTER DATABASE CURRENT_DATABASE SET search_path = mine",
    "ALTER SYSTEM SET archive_command = 'true'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY ticks TO '/tmp/mine'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tickhub'",
    "SELECT pg_create_physical_replication_slot('mine')",
    "CREATE EXTENSION file_fdw",
]


def test_the_writer_may_not_do_what_a_server_has_no_use_for(
    conn: connection, database_url: str, session: Session
) -> None:
    name = psycopg2.extensions.parse_dsn(database_url)["dbname"]
    writer = session(WRITE)
    for statement in NOT_FOR_THE_WRITER:
        try:
            writer.execute(statement.replace("CURRENT_DATABASE", name))
        except (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.WrongObjectType):
            continue
        pytest.fail(f"it may: {statement}")


def test_the_writer_reads_all_and_stores_in_every_table_that_is_the_servers(session: Session) -> None:
    writer = session(WRITE)
    for name, rights in writers_rights().items():
        writer.execute(f"SELECT * FROM {name} LIMIT 0")
        if "INSERT" in rights:
            override = "OVERRIDING SYSTEM VALUE" if name in _WITH_IDENTITY else ""
            writer.execute(f"INSERT INTO {name} {override} SELECT * FROM {name} LIMIT 0 ON CONFLICT DO NOTHING")
    writer.execute("SELECT * FROM tsla_history; SELECT * FROM secret.keys_in_force; SELECT * FROM secret.keys_made")


_WITH_IDENTITY = {"alerts", "alert_rules", "ingest_log", "instruments"}


def test_the_functions_of_the_owner_do_not_lend_more_than_they_say(conn: connection, session: Session) -> None:
    with conn.cursor() as cur:
        cur.execute(
            "SELECT p.oid::regprocedure::text, p.proconfig FROM pg_proc p"
            " WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
        )
        found = dict(cur.fetchall())
    assert len(found) >= 3
    for name, settings in found.items():
        assert "search_path=pg_catalog, pg_temp" in settings, name
    writer = session(WRITE)
    # Objects of the caller's own, under names that a function could take for others.
    writer.execute("CREATE TEMP TABLE pg_class (relname text, relnamespace oid, relispartition boolean)")
    writer.execute("CREATE TEMP TABLE ticks_20260105 (x integer)")
    writer.execute("SET search_path = pg_temp, pg_catalog, public")
    writer.execute("SELECT public.ensure_tick_partition('2026-01-05')")
    assert writer.fetchone() == (True,)
    reader = session(READ)
    reader.execute("SET default_transaction_read_only = off")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        reader.execute("SELECT ensure_tick_partition('2026-02-02')")
    backup = session(BACKUP)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        backup.execute("SELECT ensure_tick_partition('2026-02-02')")


@pytest.mark.parametrize("role", [WRITE, READ, BACKUP])
def test_no_table_of_the_callers_own_has_the_owners_trigger(session: Session, role: str) -> None:
    caller = session(role)
    caller.execute("SET default_transaction_read_only = off")
    # What such a table holds would be said to the database by its owner.
    caller.execute("CREATE TEMP TABLE mine (symbol text, symbol_id text)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        caller.execute(
            "CREATE TRIGGER mine AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION instruments_history_view()"
        )


def test_the_trigger_of_instruments_serves_no_other_table(conn: connection) -> None:
    with conn, conn.cursor() as cur:
        cur.execute("CREATE TABLE mine (symbol text, symbol_id text)")
        cur.execute("CREATE TRIGGER mine AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION instruments_history_view()")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="instruments"):
            cur.execute("INSERT INTO mine VALUES ('mine', '1; CREATE TABLE public.taken ()')")
        conn.rollback()


def test_partitions_and_views_that_the_writer_causes_are_the_owners(conn: connection, session: Session) -> None:
    writer = session(WRITE)
    writer.execute("SELECT ensure_tick_partition('2026-01-05'), ensure_month_partition('option_quotes', '2026-01-05')")
    writer.execute("INSERT INTO instruments (symbol) VALUES ('NEW.1')")
    with conn.cursor() as cur:
        cur.execute(
            "SELECT relowner::regrole::text FROM pg_class"
            " WHERE relname IN ('ticks_20260105', 'option_quotes_202601', 'new_1_history')"
        )
        assert cur.fetchall() == [("tickhub",)] * 3
    writer.execute("SELECT * FROM new_1_history")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        writer.execute("DELETE FROM ticks_20260105")


def test_the_backup_reads_all_and_writes_nothing(conn: connection, session: Session) -> None:
    backup = session(BACKUP)
    for name in writers_rights():
        backup.execute(f"SELECT * FROM {name} LIMIT 0")
        for statement in (f"DELETE FROM {name}", f"INSERT INTO {name} DEFAULT VALUES", f"TRUNCATE {name}"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                backup.execute(statement)
    for statement in ("UPDATE bars SET ticks = 0", "DELETE FROM secret.api_keys", "CREATE TABLE mine (x integer)"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            backup.execute(statement)


def test_a_dump_and_a_base_backup_can_be_taken_as_the_backup_role(
    conn: connection, database_url: str, session: Session, tmp_path: Path
) -> None:
    session(BACKUP)
    url = database_url.replace("user=tickhub", f"user={BACKUP}")
    with conn, conn.cursor() as cur:
        cur.execute("SELECT ensure_tick_partition('2026-01-05')")
    for program, *arguments in (
        ("pg_dump", "-Fc", f"--file={tmp_path / 'dump'}"),
        ("pg_basebackup", f"--pgdata={tmp_path / 'base'}", "-c", "fast"),
    ):
        command = [str(installed_binaries() / program), *arguments, f"--dbname={url}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [installed_binaries() / "pg_restore", "--list", tmp_path / "dump"], capture_output=True, text=True, check=True
    )
    for part in ("TABLE DATA public ticks_20260105", "TABLE DATA secret api_keys", "TABLE DATA public instruments"):
        assert part in listed.stdout


def test_who_migrates_as_a_plain_owner_lets_the_writer_in_as_well(empty_database_url: str, template: str) -> None:
    with owner(empty_database_url) as url:
        migrate(url)
        with closing(psycopg2.connect(empty_database_url)) as conn, logged_in(conn, empty_database_url, WRITE) as cur:
            cur.execute("SELECT ensure_tick_partition('2026-01-05')")
            cur.execute("INSERT INTO instruments (symbol) VALUES ('NEW.1')")
            cur.execute("CREATE TEMP TABLE staged (x integer)")
            cur.execute("SELECT * FROM new_1_history")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cur.execute("DROP VIEW new_1_history")


@contextmanager
def without_roles(url: str) -> Iterator[None]:
    """Have a server without the two roles; those of the other tests' databases are put aside."""
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        conn.autocommit = True
        for role in (WRITE, BACKUP):
            cur.execute(f"ALTER ROLE {role} RENAME TO aside_{role}")
        try:
            yield
        finally:
            for role in (WRITE, BACKUP):
                cur.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
                if cur.rowcount:
                    cur.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
                cur.execute(f"ALTER ROLE aside_{role} RENAME TO {role}")


@pytest.mark.parametrize(
    ("attribute", "warnings", "made"),
    [
        ("", [f"no role {WRITE}", f"no role {BACKUP}"], []),
        ("CREATEROLE", [f"role {BACKUP} is made without REPLICATION"], [(BACKUP, False), (WRITE, False)]),
        ("CREATEROLE REPLICATION", [], [(BACKUP, True), (WRITE, False)]),
    ],
)
def test_what_roles_an_owner_may_not_make_is_said_and_the_rest_is_there(
    empty_database_url: str, template: str, attribute: str, warnings: list[str], made: list[tuple[str, bool]]
) -> None:
    with owner(empty_database_url, attribute) as url, without_roles(empty_database_url):
        lines = [line for line in migrate(url) if line.startswith("WARNING")]
        assert len(lines) == len(warnings)
        for line, warning in zip(lines, warnings, strict=True):
            assert warning in line
            assert "docs/roles.md" in line
        with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
            cur.execute(
                "SELECT rolname, rolreplication FROM pg_roles WHERE rolname = ANY(%s) ORDER BY 1", ([WRITE, BACKUP],)
            )
            assert cur.fetchall() == made
            cur.execute("SELECT * FROM bars_5m; SELECT * FROM secret.api_keys")


def test_granting_again_takes_back_what_was_given_by_hand(conn: connection, session: Session) -> None:
    with conn, conn.cursor() as cur:
        cur.execute(f"GRANT ALL ON ticks, secret.api_keys TO {WRITE}")
        grant(cur)
        cur.execute(
            "SELECT has_table_privilege(%(r)s, 'ticks', 'DELETE'), has_table_privilege(%(r)s, 'ticks', 'INSERT'),"
            " has_table_privilege(%(r)s, 'secret.api_keys', 'INSERT')",
            {"r": WRITE},
        )
        assert cur.fetchone() == (False, True, False)


def command(url: str, *arguments: str, status: int = 0, name: str = "roles") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app", name, *arguments, "--database-url", url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.mark.long
def test_the_command_lets_a_role_in_with_a_password_that_is_kept_hashed(conn: connection, database_url: str) -> None:
    try:
        password = command(database_url, "let-in", "write").strip()
        assert len(password) >= 32
        with conn, conn.cursor() as cur:
            cur.execute("SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = %s", (WRITE,))
            may, kept = cur.fetchone() or (False, "")
        assert may
        assert kept.startswith("SCRAM-SHA-256$")
        assert password not in kept
        with closing(psycopg2.connect(database_url.replace("user=tickhub", f"user={WRITE}"))) as own:
            command(database_url, "shut-out", "write")
            with own.cursor() as theirs, pytest.raises(psycopg2.OperationalError):
                theirs.execute("SELECT 1")
        with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
            psycopg2.connect(database_url.replace("user=tickhub", f"user={WRITE}"))
    finally:
        command(database_url, "shut-out", "write")


@pytest.mark.long
def test_an_owner_who_is_no_superuser_shuts_out_whom_it_let_in(empty_database_url: str, template: str) -> None:
    with owner(empty_database_url, "CREATEROLE REPLICATION") as url, without_roles(empty_database_url):
        migrate(url)
        command(url, "let-in", "write")
        with closing(psycopg2.connect(empty_database_url.replace("user=tickhub", f"user={WRITE}"))) as theirs:
            command(url, "shut-out", "write")
            with theirs.cursor() as cur, pytest.raises(psycopg2.OperationalError):
                cur.execute("SELECT 1")


def test_who_is_not_the_owner_changes_nothing_and_is_told_who_may(database_url: str, session: Session) -> None:
    session(WRITE)
    url = database_url.replace("user=tickhub", f"user={WRITE}")
    for name, *arguments in (
        ("roles", "let-in", "backup"),
        ("keys", "add", "mine", "--scopes", "admin"),
        ("delete", "AAPL", "--start", "2020-01-01", "--end", "2020-01-02", "--yes"),
        ("rebuild", "bars"),
        ("maintain", "vacuum"),
        ("maintain", "retention", "--keep-days-ticks", "1"),
    ):
        said = command(url, *arguments, status=1, name=name)
        assert "direct_database_url" in said.lower(), said
