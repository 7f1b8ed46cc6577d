"""The role that reads: everything there is, whatever comes later, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from psycopg2.extensions import connection, cursor

from app.storage.schema import HEAD, migrate, revision

_TICK = "INSERT INTO ticks VALUES (1, %s, 0, 1, 2, NULL, NULL, 0, 0, 0, 6, 1, now())"


@pytest.fixture
def reader(conn: connection, database_url: str) -> Iterator[cursor]:
    """Yield the cursor of a session of the role; a session's user is what some functions look at, so no SET ROLE."""
    with conn.cursor() as cur:
        cur.execute("ALTER ROLE tickhub_read LOGIN")
        conn.commit()
        try:
            with (
                closing(psycopg2.connect(database_url.replace("user=tickhub", "user=tickhub_read"))) as own,
                own.cursor() as theirs,
            ):
                own.autocommit = True
                yield theirs
        finally:
            conn.rollback()
            cur.execute("ALTER ROLE tickhub_read NOLOGIN")
            conn.commit()


def test_it_reads_every_table_and_view_unqualified(conn: connection, reader: cursor) -> None:
    reader.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('public', 'history') AND c.relkind IN ('r', 'p', 'v')"
    )
    names = {name for (name,) in reader.fetchall()}
    assert {"ticks", "bars", "current", "ingest_log", "bars_5m", "ticks_view", "tsla_history"} <= names
    for name in names:
        reader.execute(f"SELECT * FROM {name}")


def test_it_reads_what_is_made_later(conn: connection, reader: cursor) -> None:
    with conn.cursor() as cur:
        cur.execute("SELECT ensure_tick_partition('2026-01-05')")
        cur.execute("INSERT INTO instruments (symbol) VALUES ('NEW.1')")
        cur.execute("CREATE TABLE later (mine integer); CREATE VIEW later_view AS SELECT * FROM later")
        cur.execute(_TICK, ("2026-01-05",))
        conn.commit()
    for name, rows in (("new_1_history", 0), ("ticks_20260105", 1), ("later", 0), ("later_view", 0)):
        reader.execute(f"SELECT * FROM {name}")
        assert reader.rowcount == rows


def test_its_sessions_read_only_and_end_in_time(reader: cursor) -> None:
    for name, value in (
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("search_path", '"$user", public, history'),
    ):
        reader.execute(f"SHOW {name}")
        assert reader.fetchone() == (value,), name
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        reader.execute("CREATE TEMPORARY TABLE mine (x integer)")
    reader.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolinherit,"
        " (SELECT count(*) FROM pg_auth_members WHERE member = pg_roles.oid) FROM pg_roles WHERE rolname = current_user"
    )
    assert reader.fetchone() == (False, False, False, False, False, True, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO instruments (symbol) VALUES ('X')",
        "INSERT INTO ticks SELECT * FROM ticks",
        "UPDATE bars SET ticks = 0",
        "UPDATE tsla_history SET bid = 0",
        "DELETE FROM ingest_log",
        "TRUNCATE rejected_ticks",
        "SELECT * FROM current FOR UPDATE",
        "LOCK TABLE ticks IN EXCLUSIVE MODE",
        "LOCK TABLE bars IN SHARE MODE",
        "SELECT ensure_tick_partition('2026-01-05')",
        "CREATE TABLE mine (x integer)",
        "CREATE VIEW history.mine AS SELECT 1",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql RETURN 1",
        "CREATE TRIGGER mine AFTER INSERT ON ticks FOR EACH ROW EXECUTE FUNCTION instruments_history_view()",
        "ALTER TABLE ticks ADD COLUMN mine integer",
        "DROP VIEW tsla_history",
        "COMMENT ON TABLE ticks IS 'mine'",
        "CREATE ROLE mine",
        "ALTER ROLE tickhub_read SUPERUSER",
        "SET ROLE tickhub",
        "SET SESSION AUTHORIZATION tickhub",
        "SELECT setval('instruments_symbol_id_seq', 1)",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY ticks TO '/tmp/mine'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tickhub'",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_it_may_do_nothing_else_even_if_it_asks_to_write(conn: connection, reader: cursor, statement: str) -> None:
    reader.execute("SET default_transaction_read_only = off")
    reader.execute("BEGIN")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        reader.execute(statement)
    reader.execute("ROLLBACK")


# Databases of others


@contextmanager
def owner(url: str, *attributes: str) -> Iterator[str]:
    """Give the database to a plain role with these attributes; yield the URL to come in by it."""
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        conn.autocommit = True
        cur.execute(f"CREATE ROLE plain LOGIN {' '.join(attributes)}")
        cur.execute("SELECT current_database()")
        (name,) = cur.fetchone() or ("",)
        try:
            cur.execute(f"ALTER DATABASE {name} OWNER TO plain")
            yield url.replace("user=tickhub", "user=plain")
        finally:
            cur.execute("REASSIGN OWNED BY plain TO tickhub; DROP OWNED BY plain; DROP ROLE plain")


@contextmanager
def no_such_role(url: str) -> Iterator[None]:
    """Have a server without the role; the one of the other tests' databases is put aside."""
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        conn.autocommit = True
        cur.execute("ALTER ROLE tickhub_read RENAME TO put_aside")
        try:
            yield
        finally:
            cur.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'tickhub_read'")
            if cur.fetchone() == (1,):
                cur.execute("DROP OWNED BY tickhub_read; DROP ROLE tickhub_read")
            cur.execute("ALTER ROLE put_aside RENAME TO tickhub_read")


def _may_read(url: str) -> tuple[bool, ...]:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        assert revision(conn) == HEAD
        cur.execute("INSERT INTO instruments (symbol) VALUES ('LATER')")
        cur.execute(
            "SELECT has_table_privilege('tickhub_read', name::regclass, 'SELECT')"
            " FROM unnest(ARRAY['ticks', 'bars_5m', 'tsla_history', 'later_history']) AS name"
        )
        return tuple(may for (may,) in cur.fetchall())


def test_an_owner_who_may_make_no_role_gets_all_the_rest_and_a_warning(empty_database_url: str, template: str) -> None:
    with owner(empty_database_url) as url, no_such_role(empty_database_url):
        lines = migrate(url)
        assert [line for line in lines if "no role tickhub_read" in line and "docs/sql.md" in line]
        with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
            assert revision(conn) == HEAD
            cur.execute("SELECT * FROM bars_5m")


def test_an_owner_who_may_make_roles_gets_it(empty_database_url: str, template: str) -> None:
    with owner(empty_database_url, "CREATEROLE") as url, no_such_role(empty_database_url):
        assert not [line for line in migrate(url) if "WARNING" in line]
        assert _may_read(url) == (True,) * 4


def test_a_role_that_somebody_else_made_is_let_in(empty_database_url: str, template: str) -> None:
    with owner(empty_database_url) as url:
        assert not [line for line in migrate(url) if "WARNING" in line]
        assert _may_read(url) == (True,) * 4


def test_tables_of_others_are_left_to_them(empty_database_url: str, template: str) -> None:
    with closing(psycopg2.connect(empty_database_url)) as conn, conn.cursor() as cur:
        cur.execute("CREATE TABLE private (x integer)")
        conn.commit()
        with owner(empty_database_url) as url:
            migrate(url)
            cur.execute("SELECT has_table_privilege('tickhub_read', 'private', 'SELECT')")
            assert cur.fetchone() == (False,)
