"""Vacuum, statistics, indexes, partitions and bars in order, beside a server that waits for none of it. Lane side.

Every statement here lets rows be read and written meanwhile, and gives up where it would wait: a table that is locked
is skipped and comes with the next run. The connection must be the owner's, and not through a transaction pooler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from app.datasets.registry import DATASETS
from app.errors import Conflict, DatabaseAway, StorageError
from app.storage.connection import Connection, first_line

LOCK_TIMEOUT_S = 2
STATEMENT_TIMEOUT_S = 6 * 3600
WEEKS_AHEAD = 3
MUCH_CHANGED = 0.2
"""Indexes are made anew where so many rows of a table were changed or deleted, as a part of those that live."""

OUT_OF_ORDER = 3
"""A day of a symbol's bars is written anew where it lies on so many times the pages that it needs."""

_LOCK = "SELECT pg_try_advisory_lock(x'7469636B68756210'::bigint)"
_UNLOCK = "SELECT pg_advisory_unlock(x'7469636B68756210'::bigint)"
_TABLES = """
    SELECT c.relname FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = ANY(%s) AND pg_has_role(c.relowner, 'MEMBER')
    ORDER BY c.relname
"""
_INDEXES = """
    SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_stat_user_tables s ON s.relid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT i.indisexclusion AND i.indisvalid
        AND pg_has_role(c.relowner, 'MEMBER') AND pg_relation_size(i.indexrelid) >= %s
        AND s.n_tup_upd + s.n_tup_del > %s * greatest(s.n_live_tup, 1)
    ORDER BY 1
"""
# What a REINDEX CONCURRENTLY that was killed leaves behind.
_INVALID = """
    SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'public'::regnamespace AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
"""
_HEALTH = """
    SELECT pg_database_size(current_database()),
        (SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables),
        (SELECT coalesce(sum(n_live_tup), 0) FROM pg_stat_user_tables),
        (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()),
        (SELECT coalesce(extract(epoch FROM max(now() - xact_start)), 0) FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()),
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        current_setting('max_connections')::integer,
        (SELECT count(*) FROM pg_index WHERE NOT indisvalid),
        (SELECT count(*) FROM pg_inherits WHERE inhdetachpending),
        (SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) FROM pg_replication_slots)
"""
_BAR_DAYS = """
    SELECT symbol_id, time FROM bars WHERE resolution = 86400 AND time >= %s AND time < %s ORDER BY time, symbol_id
"""
_PAGES = """
    SELECT count(*), count(DISTINCT (ctid::text::point)[0]), coalesce(avg(pg_column_size(b.*)), 0)
    FROM bars b WHERE symbol_id = %(id)s AND resolution = 60 AND time >= %(day)s AND time < %(end)s
"""
_LOCK_DAY = """
    SELECT FROM bars WHERE symbol_id = %(id)s AND resolution = 60 AND time >= %(day)s AND time < %(end)s
    ORDER BY symbol_id, resolution, time FOR UPDATE
"""
_WRITE_AGAIN = """
    WITH gone AS (
        DELETE FROM bars WHERE symbol_id = %(id)s AND resolution = 60 AND time >= %(day)s AND time < %(end)s
        RETURNING *)
    INSERT INTO bars SELECT * FROM gone ORDER BY time
"""
_DAY = timedelta(days=1)


class AnotherRun(Conflict):
    """Maintenance is at work already: try again when it is done."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to a table or an index; skipped: why it was not."""

    what: str
    name: str
    skipped: str | None = None


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Keep other runs out for as long as the connection lives. Raises AnotherRun, DatabaseAway."""
    with _session(connection) as cur:
        cur.execute(_LOCK)
        if cur.fetchone() != (True,):
            raise AnotherRun(AnotherRun.__doc__)
    try:
        yield
    finally:
        # A session that is only closed ends on the server some time later, and with it its lock: who comes at once
        # would find it held. With the database away there is no lock any more.
        with suppress(DatabaseAway), _session(connection) as cur:
            cur.execute(_UNLOCK)
        connection.close()


def vacuum(connection: Connection) -> Iterator[Done]:
    """Vacuum every table; yield each."""
    # Giving space at a table's end back takes a lock that a flush could meet.
    yield from _each(connection, "vacuum", "VACUUM (SKIP_LOCKED, TRUNCATE false) {}", ["r"])


def analyze(connection: Connection) -> Iterator[Done]:
    """Count anew what the planner goes by, of tables with partitions too: autovacuum leaves those out; yield each."""
    yield from _each(connection, "analyze", "ANALYZE (SKIP_LOCKED) {}", ["r", "p"])


def reindex(connection: Connection, least_bytes: int = 1 << 20) -> Iterator[Done]:
    """Make indexes of tables that changed much anew, concurrently, and remove what a killed run left; yield each."""
    with _session(connection) as cur:
        cur.execute(_INVALID)
        left = [str(name) for (name,) in cur.fetchall()]
        cur.execute(_INDEXES, (least_bytes, MUCH_CHANGED))
        wanted = [str(name) for (name,) in cur.fetchall()]
    # regclass has quoted the names where they need it.
    for name in left:
        yield _one(connection, "drop", name, sql.SQL("DROP INDEX CONCURRENTLY " + name))
    for name in wanted:
        yield _one(connection, "reindex", name, sql.SQL("REINDEX INDEX CONCURRENTLY " + name))


def partitions(connection: Connection, now: datetime | None = None) -> Iterator[Done]:
    """Make the partitions of the next weeks and of the next month, before a flush has to; yield the new ones."""
    now = now or datetime.now(UTC)
    for week in range(WEEKS_AHEAD + 1):
        with connection.transaction() as cur:
            cur.execute("SELECT ensure_tick_partition(%s)", (now + week * timedelta(days=7),))
            if cur.fetchone() == (True,):
                yield Done("partition", f"ticks, week of {now + week * timedelta(days=7):%Y-%m-%d}")
    month = (now.replace(day=1) + timedelta(days=31)).replace(day=1)
    for dataset in DATASETS.values():
        if dataset.partitions is None:
            continue
        with connection.transaction() as cur:
            cur.execute("SELECT FROM pg_inherits WHERE inhparent = %s::regclass LIMIT 1", (dataset.table,))
            if cur.fetchone() is None:
                continue  # nobody sends it
            cur.execute("SELECT ensure_month_partition(%s, %s)", (dataset.table, month))
            if cur.fetchone() == (True,):
                yield Done("partition", f"{dataset.table}, {month:%Y-%m}")


def order_bars(connection: Connection, days: int, now: datetime | None = None) -> Iterator[Done]:
    """Write the minutes of finished days together that were written minute by minute; yield each symbol and day.

    Bars of all symbols come a minute at a time, so a symbol's day lies on as many pages as it has minutes. Here its
    rows go and come again in one short transaction, which a late tick of that day waits for; readers see the same
    before and after, the version of the answer included. What went is free space after the next vacuum.
    """
    today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    with connection.transaction() as cur:
        cur.execute("SELECT current_setting('block_size')::integer")
        [(page_bytes,)] = cur.fetchall()
        cur.execute(_BAR_DAYS, (today - days * _DAY, today))
        found = cur.fetchall()
    for symbol_id, day in found:
        which, name = {"id": symbol_id, "day": day, "end": day + _DAY}, f"bars of symbol {symbol_id}, {day:%Y-%m-%d}"
        try:
            with connection.transaction() as cur:
                cur.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
                cur.execute(_PAGES, which)
                [(rows, pages, row_bytes)] = cur.fetchall()
                if pages <= OUT_OF_ORDER * (1 + rows * float(row_bytes) / page_bytes):
                    continue
                cur.execute(_LOCK_DAY, which)
                cur.execute(_WRITE_AGAIN, which)
        except DatabaseAway as error:
            if not isinstance(error.__cause__, psycopg2.errors.LockNotAvailable):
                raise
            yield Done("order", name, str(error))
            continue
        yield Done("order", f"{name}: {rows} on {pages} pages")


def health(connection: Connection) -> tuple[list[str], list[str]]:
    """Return figures of the database, a line each, and what somebody should look at."""
    with connection.transaction() as cur:
        cur.execute(_HEALTH)
        size, dead, live, age, oldest_s, used, most, invalid, pending, wal = cur.fetchone() or (0,) * 10
    figures = [
        f"size: {int(size) >> 20:,} MiB",
        f"rows: {live:,} live, {dead:,} dead",
        f"age of the oldest transaction id: {age:,}",
        f"oldest transaction: {max(0.0, float(oldest_s)):.0f} s",
        f"connections: {used} of {most}",
        f"WAL kept for receivers: {int(wal) >> 20:,} MiB",
    ]
    troubles = []
    if age > 1_000_000_000:
        troubles.append("transaction ids are half used up: vacuum, and look for old transactions")
    if oldest_s > 3600:
        troubles.append(f"a transaction is open for {float(oldest_s) / 3600:.1f} hours: vacuum cannot clean behind it")
    if used > 0.8 * most:
        troubles.append(f"{used} of {most} connections are in use")
    if dead > max(live, 1_000_000):
        troubles.append("more rows are dead than live: vacuum")
    if invalid:
        troubles.append(f"{invalid} indexes are not valid: reindex")
    if pending:
        troubles.append("a partition is half detached: retention finishes it")
    if wal > 10 << 30:
        troubles.append("a receiver of WAL has fallen far behind: the disk fills up")
    return figures, troubles


def _each(connection: Connection, what: str, statement: str, kinds: list[str]) -> Iterator[Done]:
    with _session(connection) as cur:
        cur.execute(_TABLES, (kinds,))
        names = [str(name) for (name,) in cur.fetchall()]
    if not names:
        raise StorageError(f"no table is this role's: {what} is for their owner, name him in direct_database_url")
    for name in names:
        yield _one(connection, what, name, sql.SQL(statement).format(sql.Identifier("public", name)))


def _one(connection: Connection, what: str, name: str, statement: sql.Composable) -> Done:
    try:
        with _session(connection) as cur:
            cur.execute(statement)
    except DatabaseAway as error:
        if isinstance(error.__cause__, psycopg2.errors.LockNotAvailable | psycopg2.errors.UndefinedTable):
            return Done(what, name, str(error))
        raise
    return Done(what, name)


@contextmanager
def _session(connection: Connection) -> Iterator[Cursor]:
    """Give a cursor without a transaction. The connection is kept: it holds the lock against other runs."""
    session = connection.open()
    try:
        session.autocommit = True
        with session.cursor() as cur:
            cur.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'; SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
            yield cur
    except psycopg2.Error as error:
        raise DatabaseAway(first_line(error)) from error
