"""What /metrics says of the database itself. Lane side.

Statements that PostgreSQL answers from its own books: views of statistics, locks and sessions, sizes of files. What
this role may not see (sessions of others, say, without pg_monitor) is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

MOST_TABLES = 100
MOST_STATEMENTS = 10
STATEMENT_LETTERS = 160
"""Of a statement so much is shown: enough to find it by."""

LOCK_WAIT_MS = 500
"""For sizes: a table that is just being altered is not waited for."""

_COUNTED = (
    "xact_commit", "xact_rollback", "blks_read", "blks_hit", "tup_returned", "tup_fetched", "tup_inserted",
    "tup_updated", "tup_deleted", "conflicts", "temp_bytes", "deadlocks",
)  # fmt: skip

_DATABASE = f"""
    SELECT current_setting('server_version_num')::integer, pg_database_size(oid),
        current_setting('max_connections')::integer, age(datfrozenxid), pg_is_in_recovery(),
        extract(epoch FROM pg_postmaster_start_time())::float8, {", ".join(f"s.{name}" for name in _COUNTED)}
    FROM pg_database d JOIN pg_stat_database s ON s.datid = d.oid WHERE d.datname = current_database()
"""  # noqa: S608 - names from above
# The server's connections are what it has a limit for; longest are of this database. Vacuum's and backups' processes
# are no clients; whoever may not see the sessions of others sees of theirs only that they are there.
_SESSIONS = """
    SELECT coalesce(state, 'unknown'), count(*),
        max(extract(epoch FROM clock_timestamp() - query_start))
            FILTER (WHERE state = 'active' AND datname = current_database())::float8,
        max(extract(epoch FROM clock_timestamp() - xact_start)) FILTER (WHERE datname = current_database())::float8
    FROM pg_stat_activity
    WHERE coalesce(backend_type, 'client backend') = 'client backend' AND datid IS NOT NULL AND usesysid IS NOT NULL
        AND pid <> pg_backend_pid()
    GROUP BY 1
"""
# Whoever waits for a row waits for a transaction, which is of no database.
_LOCKS = """
    SELECT mode, granted, count(*) FROM pg_locks
    WHERE pid <> pg_backend_pid() AND (
        database = (SELECT oid FROM pg_database WHERE datname = current_database())
        OR NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())
    )
    GROUP BY 1, 2
"""
_SLOTS = """
    SELECT slot_name, active, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
    FROM pg_replication_slots ORDER BY 1 LIMIT 20
"""
# Partitions count for the table that they are of. Rows: what vacuum found, and what came since; after a crash the
# second begins at 0. What is dropped while this runs is still in pg_class as it is read, and has NULL for a size and
# for what it is a partition of: it is left out.
_TABLES = """
    SELECT r.relname, t.bytes, t.index_bytes, t.rows, t.dead, t.parts
    FROM (
        SELECT s.root, sum((c.relkind = 'r')::integer) AS parts,
            sum(s.bytes)::bigint AS bytes, coalesce(sum(s.index_bytes), 0)::bigint AS index_bytes,
            sum(CASE WHEN c.relkind = 'r' THEN greatest(c.reltuples, pg_stat_get_live_tuples(c.oid)) ELSE 0 END)::bigint
                AS rows,
            sum(pg_stat_get_dead_tuples(c.oid))::bigint AS dead
        FROM pg_class c CROSS JOIN LATERAL (
            SELECT pg_table_size(c.oid) AS bytes, pg_indexes_size(c.oid) AS index_bytes,
                CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END AS root
            OFFSET 0
        ) s
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
            AND s.bytes IS NOT NULL AND s.root IS NOT NULL
        GROUP BY 1
    ) t JOIN pg_class r ON r.oid = t.root
    ORDER BY t.bytes + t.index_bytes DESC LIMIT %s
"""
_OURS = """
    SELECT (SELECT count(*) FROM alert_rules), (SELECT count(*) FROM alert_outbox),
        (SELECT count(*) FROM (SELECT FROM late_ticks LIMIT 1000000) l)
"""
_RANGES = "SELECT state, count(*), coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0)::bigint"
_RANGES += " FROM tick_ranges GROUP BY 1"
_JOBS = """
    SELECT name, state, runs, failures, extract(epoch FROM started_at)::float8, extract(epoch FROM ended_at)::float8,
        extract(epoch FROM succeeded_at)::float8
    FROM jobs ORDER BY 1 LIMIT 50
"""
# The parameter is there for everybody to see when the library is loaded, and only then.
_CAN_TELL = """
    SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements' AND has_schema_privilege(n.oid, 'USAGE')
        AND EXISTS (SELECT FROM pg_settings WHERE name = 'pg_stat_statements.max')
"""
# By what they took in all: that is what a server is slow by. Statements of other kinds may hold passwords.
_STATEMENTS = sql.SQL("""
    SELECT queryid::text, min(query), sum(calls)::bigint, sum(total_exec_time) / 1000, max(max_exec_time) / 1000,
        sum(rows)::bigint, sum(shared_blks_hit)::bigint, sum(shared_blks_read)::bigint
    FROM {}.pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND queryid IS NOT NULL
        AND query ~* '^[[:space:](]*(--[^\n]*\n[[:space:]]*)*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE)[[:space:](]'
    GROUP BY queryid ORDER BY sum(total_exec_time) DESC LIMIT %s
""")


class Session(Struct):
    """Connections in a state. longest_*_s: None where nothing runs."""

    count: int
    longest_query_s: float | None
    longest_transaction_s: float | None


class Slot(Struct):
    """A replication slot. kept_bytes: of WAL that is kept for it."""

    active: bool
    kept_bytes: int


class TableSize(Struct):
    """A table with its partitions. rows, dead_rows: as PostgreSQL estimates them."""

    bytes: int
    index_bytes: int
    rows: int
    dead_rows: int
    partitions: int


class Ranges(Struct):
    """Ranges of ticks in a state. rows, bytes: of their files."""

    ranges: int
    rows: int
    bytes: int


class Job(Struct):
    """A job. Times: UTC seconds."""

    state: str
    runs: int
    failures: int
    started_s: float | None
    ended_s: float | None
    succeeded_s: float | None


class Statement(Struct):
    """What statements of a kind took since the books were begun. query: shortened, without values."""

    query_id: str
    query: str
    calls: int
    total_s: float
    longest_s: float
    rows: int
    blocks_hit: int
    blocks_read: int


class DatabaseFigures(Struct):
    """What the database says of itself. counted: of pg_stat_database, by its names; statements None: not kept."""

    server_version: int
    size_bytes: int
    max_connections: int
    oldest_transaction_age: int
    started_s: float
    counted: dict[str, int]
    sessions: dict[str, Session]
    locks: dict[str, int]
    locks_waiting: int
    slots: dict[str, Slot]
    tables: dict[str, TableSize]
    alert_rules: int
    alerts_to_post: int
    late_ticks: int
    tick_ranges: dict[str, Ranges]
    jobs: dict[str, Job]
    statements: list[Statement] | None


def read_figures(cur: Cursor) -> DatabaseFigures:
    """Ask the database for its figures, in a read-only transaction."""
    cur.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
    cur.execute(_DATABASE)
    row = cur.fetchone()
    assert row is not None
    version, size, most, age, in_recovery, started_s, *counted = row
    sessions = {state: Session(*rest) for state, *rest in _all(cur, _SESSIONS)}
    locks: dict[str, int] = {}
    waiting = 0
    for mode, granted, count in _all(cur, _LOCKS):
        if granted:
            locks[mode] = count
        else:
            waiting += count
    (rules, to_post, late) = _all(cur, _OURS)[0]
    return DatabaseFigures(
        server_version=version,
        size_bytes=size,
        max_connections=most,
        oldest_transaction_age=age,
        started_s=started_s,
        counted={name: int(value or 0) for name, value in zip(_COUNTED, counted, strict=True)},
        sessions=sessions,
        locks=locks,
        locks_waiting=waiting,
        slots={} if in_recovery else {name: Slot(*rest) for name, *rest in _all(cur, _SLOTS)},
        tables={name: TableSize(*rest) for name, *rest in _all(cur, _TABLES, (MOST_TABLES,))},
        alert_rules=rules,
        alerts_to_post=to_post,
        late_ticks=late,
        tick_ranges={state: Ranges(*rest) for state, *rest in _all(cur, _RANGES)},
        jobs={name: Job(*rest) for name, *rest in _all(cur, _JOBS)},
        statements=_statements(cur),
    )


def _statements(cur: Cursor) -> list[Statement] | None:
    """Return the statements that took most, None where no books of them are kept."""
    found = _all(cur, _CAN_TELL)
    if not found:
        return None
    query = _STATEMENTS.format(sql.Identifier(found[0][0]))
    return [
        Statement(query_id, shortened(text or ""), *rest)
        for query_id, text, *rest in _all(cur, query, (MOST_STATEMENTS,))
    ]


def shortened(query: str) -> str:
    """Return the beginning of a statement in one line, without comments."""
    text = re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", query)).strip()
    return text if len(text) <= STATEMENT_LETTERS else f"{text[: STATEMENT_LETTERS - 3]}..."


def _all(cur: Cursor, query: Any, parameters: tuple[Any, ...] | Mapping[str, Any] | None = None) -> list[Any]:
    cur.execute(query, parameters)
    return cur.fetchall()
