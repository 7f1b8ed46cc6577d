"""The schema and its migrations, by what they promise to programs and to whoever speaks SQL."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.extensions import connection

from app.errors import DatabaseAway, StorageError
from app.market.symbols import SEED
from app.storage.schema import HEAD, SCRIPTS, migrate, revision
from tests.integration.write_schema import HOW, SNAPSHOT, dump

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def role_of(url: str, name: str, *grants: str) -> Iterator[str]:
    """A role with these grants and nothing else, and the URL to come in by it."""
    with closing(psycopg2.connect(url)) as owner, owner.cursor() as cur:
        cur.execute(f"CREATE ROLE {name} LOGIN")
        for grant in grants:
            cur.execute(f"GRANT {grant} TO {name}")
        owner.commit()
        try:
            yield url.replace("user=tickhub", f"user={name}")
        finally:
            cur.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
            owner.commit()


# migrations


def test_head_is_the_newest_of_one_line_of_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    ids = sorted(script.revision for script in scripts.walk_revisions())
    assert scripts.get_heads() == [HEAD]
    assert ids == [f"{number:04}" for number in range(1, len(ids) + 1)]


def test_migrating_twice_does_nothing_the_second_time(empty_database_url: str) -> None:
    lines = migrate(empty_database_url)
    assert lines[-1].startswith(f"migrated to {HEAD}")
    assert migrate(empty_database_url) == []
    assert migrate(empty_database_url.replace("postgresql://", "postgres://")) == []


def test_of_two_that_migrate_at_once_one_does_it_and_both_succeed(empty_database_url: str) -> None:
    code = "import sys; from app.storage.schema import migrate; print(len(migrate(sys.argv[1])))"
    command = [sys.executable, "-c", code, empty_database_url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    said = sorted(int(process.communicate(timeout=60)[0]) for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == [0, int(HEAD)]


def test_the_revision_can_be_read_in_any_state(empty_database_url: str) -> None:
    with closing(psycopg2.connect(empty_database_url)) as conn, conn.cursor() as cur:
        assert revision(conn) is None
        cur.execute("SELECT 1")  # the transaction is still usable
        conn.rollback()
        migrate(empty_database_url)
        assert revision(conn) == HEAD


def test_a_failed_migration_leaves_nothing_behind(empty_database_url: str) -> None:
    with closing(psycopg2.connect(empty_database_url)) as conn, conn.cursor() as cur:
        cur.execute("CREATE TABLE bars (mine integer)")
        conn.commit()
        with pytest.raises(StorageError, match='cannot migrate: relation "bars" already exists'):
            migrate(empty_database_url)
        cur.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        assert cur.fetchall() == [("bars",)]


def test_a_newer_database_is_left_alone(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as conn, conn.cursor() as cur:
        cur.execute("UPDATE alembic_version SET version_num = '9999'")
        conn.commit()
    with pytest.raises(StorageError, match="the database has schema 9999, this tickhub knows"):
        migrate(database_url)


def test_who_may_not_migrate_is_told_so(empty_database_url: str) -> None:
    with (
        role_of(empty_database_url, "visitor") as url,
        pytest.raises(StorageError, match=r"this role may not.*Migrate as the owner"),
    ):
        migrate(url)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/x", DatabaseAway),
        ("postgresql:///x?host=/nowhere/at/all", DatabaseAway),
        ("postgresql://me:p@ss:s3cret@127.0.0.1/x", StorageError),
        ("postgresql://me:s3cret@[/x", StorageError),
        ("mysql://me:s3cret@127.0.0.1/x", StorageError),
    ],
)
def test_a_database_that_cannot_be_reached_is_said_without_its_password(
    url: str, error: type[StorageError]
) -> None:
    with pytest.raises(error) as caught:
        migrate(url)
    assert type(caught.value) is error
    assert "s3cret" not in str(caught.value)


def test_the_snapshot_is_what_the_migrations_make(database_url: str) -> None:
    assert dump(database_url) == SNAPSHOT.read_text(), f"if that is meant, rewrite the snapshot: {HOW}"


def test_every_table_view_and_column_says_what_it_holds(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute(
            "SELECT c.oid::regclass::text, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace IN ('public'::regnamespace, 'history'::regnamespace)"
            " AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition AND a.attnum >= 0 AND NOT a.attisdropped"
            " AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)"
        )
        assert cur.fetchall() == []


def test_a_fresh_database_knows_the_seeded_symbols(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute(
            "SELECT symbol, coalesce(array_agg(alias) FILTER (WHERE alias IS NOT NULL), '{}')"
            " FROM instruments LEFT JOIN symbol_aliases USING (symbol_id) GROUP BY symbol_id ORDER BY symbol_id"
        )
        assert cur.fetchall() == [(known.symbol, list(known.aliases)) for known in SEED]
        assert cur.rowcount == 17


# constraints


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO instruments (symbol) VALUES ('tsla')",
        "INSERT INTO instruments (symbol) VALUES ('')",
        "INSERT INTO instruments (symbol) VALUES (repeat('x', 65))",
        "INSERT INTO instruments (symbol) VALUES (E'A\\nB')",
        "INSERT INTO instruments (symbol) VALUES (E'A\\u0085B')",
        "INSERT INTO instruments (symbol, digits) VALUES ('NEW', 16)",
        "INSERT INTO symbol_aliases VALUES ('tsla.us', 2)",
        "INSERT INTO symbol_aliases VALUES ('NEW', 999)",
        "INSERT INTO ingest_log (journal_id, next_row) VALUES ('j', 1)",
        "INSERT INTO tick_ranges VALUES ('[2020-01-01, 2020-01-08)', 'cold')",
        "INSERT INTO tick_ranges VALUES ('[2020-01-01, 2020-01-08)', 'hot'), ('[2020-01-07, 2020-01-09)', 'hot')",
    ],
)
def test_what_makes_no_sense_is_refused(conn: connection, statement: str) -> None:
    with conn.cursor() as cur, pytest.raises(psycopg2.IntegrityError):
        cur.execute(statement)


def test_journal_numbers_begin_at_one_because_zero_stands_for_a_given_seq(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute("INSERT INTO ingest_log (journal_id) VALUES ('a'), ('b') RETURNING journal_no, next_row")
        assert cur.fetchall() == [(1, 0), (2, 0)]


# partitions


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("1970-01-01T00:00:00Z", "ticks_19691229"),
        ("2026-11-22T23:59:59.999999Z", "ticks_20261116"),
        ("2026-11-23T00:00:00Z", "ticks_20261123"),
        ("2024-03-03T23:30:00-05:00", "ticks_20240304"),
        ("2100-12-31T00:00:00Z", "ticks_21001227"),
    ],
)
def test_a_week_begins_on_monday_midnight_utc(conn: connection, moment: str, name: str) -> None:
    with conn.cursor() as cur:
        cur.execute("SET timezone = 'Pacific/Auckland'; SET datestyle = 'SQL, DMY'")
        cur.execute("SELECT ensure_tick_partition(%s)", (moment,))
        assert cur.fetchone() == (True,)
        cur.execute(_TICK + " RETURNING tableoid::regclass::text", (moment,))
        assert cur.fetchone() == (name,)
        cur.execute("SELECT ensure_tick_partition(%s)", (moment,))
        assert cur.fetchone() == (False,)


_TICK = "INSERT INTO ticks VALUES (1, %s, 0, 1, 2, NULL, NULL, 0, 0, 0, 6, 1, now())"


def test_a_caller_with_an_old_snapshot_finds_the_partition_too(conn: connection, database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as theirs, conn.cursor() as cur:
        cur.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        theirs.execute("SELECT ensure_tick_partition('2026-01-05')")
        other.commit()
        cur.execute("SELECT ensure_tick_partition('2026-01-05')")
        assert cur.fetchone() == (False,)


@pytest.mark.parametrize("moment", [None, "infinity", "0044-03-15 BC"])
def test_a_time_that_has_no_week_is_refused(conn: connection, moment: str | None) -> None:
    with conn.cursor() as cur, pytest.raises(psycopg2.errors.DatetimeFieldOverflow):
        cur.execute("SELECT ensure_tick_partition(%s)", (moment,))


def test_a_partition_waits_for_no_reader_and_no_reader_waits_for_it(
    conn: connection, database_url: str
) -> None:
    with (
        closing(psycopg2.connect(database_url)) as reader,
        closing(psycopg2.connect(database_url)) as late_reader,
        conn.cursor() as cur,
        reader.cursor() as reading,
        late_reader.cursor() as late,
    ):
        cur.execute("SELECT ensure_tick_partition('2026-01-05')")
        cur.execute(_TICK, ("2026-01-05",))
        conn.commit()
        reading.execute("SELECT count(*) FROM ticks")  # and its transaction stays open
        cur.execute("SELECT ensure_tick_partition('2026-01-12')")
        assert cur.fetchone() == (True,)
        late.execute("SET LOCAL lock_timeout = '1s'")  # while the new partition is not committed
        late.execute("SELECT count(*) FROM ticks")
        assert late.fetchone() == (1,)
        conn.commit()
        cur.execute(_TICK, ("2026-01-12",))
        conn.commit()
        reading.execute("SELECT count(*) FROM ticks")
        assert reading.fetchone() == (2,)


def test_of_racing_callers_one_makes_the_partition_and_all_succeed(database_url: str) -> None:
    def make(_: int) -> bool:
        with closing(psycopg2.connect(database_url)) as own, own.cursor() as cur:
            cur.execute("SELECT ensure_tick_partition('2026-01-05')")
            row = cur.fetchone()
            time.sleep(0.05)  # holds the transaction open, so that the others meet it
            own.commit()
            return bool(row and row[0])

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(make, range(6))) == [False] * 5 + [True]


def test_a_role_that_only_stores_ticks_gets_its_partitions(database_url: str) -> None:
    with (
        role_of(database_url, "feeder", "INSERT ON ticks") as url,
        closing(psycopg2.connect(url)) as conn,
        conn.cursor() as cur,
    ):
        cur.execute("SELECT ensure_tick_partition('2026-01-05')")
        cur.execute(_TICK, ("2026-01-05",))
        conn.commit()


def test_a_role_that_only_reads_makes_no_partitions(database_url: str) -> None:
    with (
        role_of(database_url, "reader", "SELECT ON ticks") as url,
        closing(psycopg2.connect(url)) as conn,
        conn.cursor() as cur,
        pytest.raises(psycopg2.errors.InsufficientPrivilege),
    ):
        cur.execute("SELECT ensure_tick_partition('2026-01-05')")


def test_a_table_of_a_partitions_name_is_not_taken_for_one(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute("CREATE TABLE ticks_20260105 (mine integer)")
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="in the way"):
            cur.execute("SELECT ensure_tick_partition('2026-01-07')")


# views for SQL users


def _views(conn: connection) -> set[str]:
    with conn.cursor() as cur:
        cur.execute("SELECT viewname FROM pg_views WHERE schemaname = 'history'")
        return {name for (name,) in cur.fetchall()}


def test_every_role_finds_every_table_and_view_unqualified(database_url: str) -> None:
    with (
        role_of(database_url, "analyst", "SELECT ON history.tsla_history, current") as url,
        closing(psycopg2.connect(database_url)) as owner,
        owner.cursor() as filling,
        closing(psycopg2.connect(url)) as conn,
        conn.cursor() as cur,
    ):
        filling.execute("SELECT ensure_tick_partition('2026-01-05')")
        filling.execute(_TICK, ("2026-01-05",))
        owner.commit()
        cur.execute("SELECT * FROM tsla_history")
        assert [column.name for column in cur.description or ()] == (
            ["time", "bid", "ask", "spread", "volume", "buy_volume", "sell_volume", "flags"]
        )
        assert len(cur.fetchall()) == 1
        cur.execute("SELECT count(*) FROM current")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cur.execute("SELECT count(*) FROM nvda_history")


def test_a_symbol_has_a_view_as_long_as_it_has_its_name(conn: connection) -> None:
    before = _views(conn)
    with conn.cursor() as cur:
        cur.execute("INSERT INTO instruments (symbol) VALUES ('BRK.B'), ('6E Z5/x'), (%s)", ("Ü" * 64,))
        long_name = "_" * 55 + "_history"
        assert _views(conn) - before == {"brk_b_history", "6e_z5_x_history", long_name}
        cur.execute("UPDATE instruments SET symbol = 'BRK' WHERE symbol = 'BRK.B'")
        assert _views(conn) - before == {"brk_history", "6e_z5_x_history", long_name}
        cur.execute("DELETE FROM instruments WHERE symbol_id > 17")
        assert _views(conn) == before


@pytest.mark.parametrize(
    "taken",
    [
        "INSERT INTO instruments (symbol) VALUES ('A.B')",
        "CREATE TABLE a_b_history (mine integer)",
        "CREATE SCHEMA tickhub CREATE TABLE a_b_history (mine integer)",
    ],
)
def test_a_taken_name_gets_no_view_and_a_warning(conn: connection, taken: str) -> None:
    with conn.cursor() as cur:
        cur.execute(taken)
        before = _views(conn)
        cur.execute("INSERT INTO instruments (symbol) VALUES ('A_B')")
        assert cur.rowcount == 1
        assert _views(conn) == before
        assert conn.notices[-1] == "WARNING:  no history view for A_B: the name a_b_history is taken\n"
        cur.execute("DELETE FROM instruments WHERE symbol = 'A_B'")
        assert _views(conn) == before
