"""What the database says of itself, asked of a real one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import connection as Connection

from app.storage.connection import Connection as Line
from app.storage.database_figures import DatabaseFigures, read_figures, shortened
from app.storage.role_names import WRITE
from app.storage.statement_books import SCHEMA, keep_statements
from tests.waiting import wait_until


@pytest.fixture
def line(database_url: str) -> Iterator[Line]:
    found = Line(lambda: database_url, 10, 30, "figures")
    yield found
    found.close()


def figures(line: Line) -> DatabaseFigures:
    with line.reading(10.0) as cur:
        return read_figures(cur)


def test_partitions_count_for_their_table(conn: Connection, line: Line) -> None:
    before = figures(line).tables["ticks"]
    with conn, conn.cursor() as cur:
        cur.execute("SELECT symbol_id FROM instruments ORDER BY 1 LIMIT 1")
        (symbol_id,) = cur.fetchone() or (0,)
        cur.execute("CREATE TABLE ticks_of_a_day (LIKE ticks INCLUDING ALL)")
        cur.execute(
            "ALTER TABLE ticks ATTACH PARTITION ticks_of_a_day FOR VALUES FROM ('2001-01-01') TO ('2001-01-02')"
        )
        cur.execute(
            "INSERT INTO ticks (symbol_id, time, seq, bid, ask, volume, buy_volume, sell_volume, flags, journal_no,"
            " received_at) SELECT %s, '2001-01-01', n, 1, 2, 0, 0, 0, 6, 1, now() FROM generate_series(1, 5000) n",
            (symbol_id,),
        )
        cur.execute("ANALYZE ticks")
    after = figures(line).tables["ticks"]
    assert after.partitions == before.partitions + 1
    assert after.rows == before.rows + 5000
    assert after.bytes > before.bytes + 100_000
    assert after.index_bytes > before.index_bytes
    assert "ticks_of_a_day" not in figures(line).tables


def test_tables_that_are_dropped_meanwhile_are_left_out(conn: Connection, line: Line, database_url: str) -> None:
    before = figures(line).tables
    with closing(psycopg2.connect(database_url)) as other, other, other.cursor() as cur:
        cur.execute("CREATE TABLE to_go AS SELECT n FROM generate_series(1, 5000) n")
        cur.execute("CREATE TABLE ticks_to_go PARTITION OF ticks FOR VALUES FROM ('2001-01-01') TO ('2001-01-02')")
        cur.execute("UPDATE pg_class SET reltuples = 5000 WHERE relname = 'ticks_to_go'")
    conn.set_session(isolation_level="REPEATABLE READ")
    with conn, conn.cursor() as cur:
        cur.execute("SELECT count(*) FROM pg_class WHERE relname LIKE '%to_go'")
        assert cur.fetchone() == (2,), "as of this moment they are there"
        with closing(psycopg2.connect(database_url)) as other, other, other.cursor() as dropping:
            dropping.execute("DROP TABLE to_go, ticks_to_go")
        after = read_figures(cur).tables
    assert after.keys() == before.keys()
    assert (after["ticks"].rows, after["ticks"].partitions) == (before["ticks"].rows, before["ticks"].partitions)


def test_locks_sessions_and_what_runs_longest_are_seen(conn: Connection, line: Line, database_url: str) -> None:
    quiet = figures(line)
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cur:
        cur.execute("LOCK TABLE alert_outbox IN ACCESS EXCLUSIVE MODE")
        cur.execute("SELECT pg_sleep(0.05)")
        with pytest.raises(psycopg2.errors.LockNotAvailable), conn, conn.cursor() as waiting:
            waiting.execute("SET LOCAL lock_timeout = '50ms'; LOCK TABLE alert_outbox IN SHARE MODE")
        cur.execute("COMMIT; BEGIN; LOCK TABLE news IN SHARE UPDATE EXCLUSIVE MODE")
        cur.execute("SELECT pg_sleep(0.05)")
        found = figures(line)
    assert found.locks["ShareUpdateExclusiveLock"] == quiet.locks.get("ShareUpdateExclusiveLock", 0) + 1
    assert found.sessions["idle in transaction"].count >= 1
    assert (found.sessions["idle in transaction"].longest_transaction_s or 0) >= 0.05
    assert found.max_connections >= 20
    assert found.counted["blks_hit"] > 0
    assert found.size_bytes > 1_000_000


def test_whoever_waits_for_a_row_is_seen_waiting(conn: Connection, line: Line, database_url: str) -> None:
    with conn, conn.cursor() as cur:
        cur.execute("INSERT INTO jobs (name, state, due_at) VALUES ('backup', 'waiting', now())")
    assert figures(line).locks_waiting == 0
    with (
        closing(psycopg2.connect(database_url)) as holding,
        holding.cursor() as cur,
        closing(psycopg2.connect(database_url, async_=1)) as waiting,
    ):
        cur.execute("UPDATE jobs SET runs = 1")
        psycopg2.extras.wait_select(waiting)
        waiter = waiting.cursor()
        waiter.execute("UPDATE jobs SET runs = 2")
        wait_until(lambda: figures(line).locks_waiting == 1, what="it to wait")
        holding.rollback()
        psycopg2.extras.wait_select(waiting)
    assert figures(line).locks_waiting == 0


def test_sessions_of_others_are_counted_by_who_may_not_look_at_them(conn: Connection, database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as other, conn, conn.cursor() as cur:
        other.cursor().execute("SELECT 1")
        before = read_figures(cur)
        cur.execute(f"SET LOCAL ROLE {WRITE}")
        found = read_figures(cur)
    assert before.sessions["idle in transaction"].count >= 1
    assert sum(one.count for one in found.sessions.values()) == sum(one.count for one in before.sessions.values())
    assert found.size_bytes > 1_000_000
    assert found.tables["instruments"].rows == before.tables["instruments"].rows


def test_jobs_ranges_rules_and_late_ticks_are_told_of(conn: Connection, line: Line) -> None:
    with conn, conn.cursor() as cur:
        cur.execute(
            "INSERT INTO jobs (name, state, due_at, started_at, ended_at, succeeded_at, runs, failures)"
            " VALUES ('backup', 'failed', now(), now() - interval '9 s', now(), to_timestamp(1000), 7, 2)"
        )
        cur.execute(
            "INSERT INTO tick_ranges (range, state, manifest, manifest_sha256, rows, derived_rows, bytes)"
            " VALUES ('[2001-01-01, 2001-01-08)', 'archived', 'm', 's', 1000, 0, 9000)"
        )
    found = figures(line)
    job = found.jobs["backup"]
    assert (job.state, job.runs, job.failures, job.succeeded_s) == ("failed", 7, 2, 1000.0)
    assert job.ended_s == pytest.approx((job.started_s or 0) + 9, abs=1e-3)
    assert (found.tick_ranges["archived"].rows, found.tick_ranges["archived"].bytes) == (1000, 9000)
    assert found.late_ticks == 0


def test_without_books_of_statements_that_is_said(line: Line) -> None:
    assert figures(line).statements is None


def test_statements_are_told_without_their_values_and_those_with_passwords_not_at_all(
    conn: Connection, line: Line, database_url: str
) -> None:
    assert keep_statements(database_url) == []
    assert keep_statements(database_url) == []
    with conn, conn.cursor() as cur:
        # The books are the cluster's: full of statements of other tests, they would drop any that came once.
        cur.execute(f"SELECT {SCHEMA}.pg_stat_statements_reset()")
        cur.execute("SELECT pg_sleep(0.2), 'very secret' AS a_name_to_find")
        cur.execute("CREATE ROLE t_watched PASSWORD 'very secret'")
        cur.execute("DROP ROLE t_watched")
        cur.copy_expert("COPY (SELECT 'very secret' AS copied) TO STDOUT", io.StringIO())
    found = figures(line).statements
    assert found is not None
    slow = next(one for one in found if "a_name_to_find" in one.query)
    assert slow.calls == 1
    assert slow.total_s >= 0.2
    assert slow.longest_s == pytest.approx(slow.total_s)
    assert not any("secret" in one.query for one in found)


def test_a_statement_is_one_short_line() -> None:
    assert shortened("SELECT a,\n   b -- why\n FROM c") == "SELECT a, b FROM c"
    assert len(shortened("SELECT " + "a, " * 1000)) == 160
