"""Drop what is older than it is to be kept, beside a running server whose flushes wait for a moment at most. Lane side.

Ticks go by the week, records of datasets that have partitions by the month, their rollups with them. First it is
written down that they are gone, so that nothing that comes late brings any of it back (`tick_ranges`, `kept_from`).
Then their partitions are detached, which waits for transactions that read them and lets nobody wait, and dropped. All
else goes by rows, some thousand in a transaction. Killed anywhere, the next run goes on.

Bars are kept at least as long as the ticks that they are made of: no tick may come for a bar that was dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from app.datasets.rollup import RESOLUTIONS_S, rollup_table
from app.errors import DatabaseAway
from app.storage.connection import Connection, first_line

CLASSES = ("ticks", "bars", "metrics", "options", "alerts", "rejected", "audit")
"""Retention classes, in the order in which they are looked at: bars go by how far ticks are gone."""

STEP_PAGES = 100
"""Pages of a table in a transaction: some thousand rows, some 20 ms."""

GATE_TIMEOUT_MS, GATE_TRIES, GATE_PAUSE_S = 300, 20, 0.5
"""Flushes queue up behind a wait for their table: short waits, again and again."""

DETACH_TIMEOUT_S = 60
"""Nobody waits behind a detaching that waits for readers; what is not done by then is done by the next run."""

_DAY = timedelta(days=1)
_PARTITIONS = """
    SELECT c.relname, i.inhdetachpending,
        (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = %s::regclass ORDER BY i.inhdetachpending DESC, 3
"""
# A table that was a partition and is none: detached by a run that was killed before it could drop it.
_LEFT = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
        AND c.relname ~ ('^' || %(table)s || '_[0-9]{' || %(digits)s || '}$')
        AND c.relname < %(table)s || '_' || %(before)s
        AND (SELECT array_agg(attname ORDER BY attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)
            = (SELECT array_agg(attname ORDER BY attname) FROM pg_attribute
               WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped)
"""
_COVERED = "SELECT range_agg(range) @> tstzrange(NULL, %s) FROM tick_ranges WHERE state = 'dropped'"
_ARCHIVING = "SELECT FROM tick_ranges WHERE state = 'archiving' AND range && tstzrange(NULL, %s)"
# What is archived keeps its row, and with it the name of its files, until they are removed.
_FORGET = """
    DELETE FROM tick_ranges WHERE state IN ('hot', 'dropped') AND manifest IS NULL AND range << tstzrange(%s, NULL)
"""
_DROP_ARCHIVED = """
    UPDATE tick_ranges SET state = 'dropped', changed_at = now()
    WHERE state = 'archived' AND range << tstzrange(%s, NULL)
"""
_DROPPED = """
    INSERT INTO tick_ranges (range, state)
    SELECT gap, 'dropped' FROM unnest(tstzmultirange(tstzrange(NULL, %s))
        - coalesce((SELECT range_agg(range) FROM tick_ranges), '{}'::tstzmultirange)) AS gap
"""
_NO_TICKS_UNTIL = """
    SELECT upper(gone) FROM (SELECT unnest(range_agg(range)) AS gone FROM tick_ranges WHERE state = 'dropped') x
    WHERE lower_inf(gone)
"""
_DELETE = "DELETE FROM {table} t WHERE ctid >= %s::tid AND ctid < %s::tid AND {column} < %s AND {condition}"
_KEPT_FROM = """
    INSERT INTO kept_from (dataset, time) VALUES (%s, %s)
    ON CONFLICT (dataset) DO UPDATE SET time = greatest(kept_from.time, excluded.time), changed_at = now()
"""
_AUDIT = """
    INSERT INTO audit_log (actor, action, range, rows, details)
    VALUES (%s, 'retention', tstzrange(NULL, %s), %s, %s)
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What went of a table: everything before a time (UTC)."""

    table: str
    before: datetime
    rows: int
    partitions: int


class Unfinished(DatabaseAway):
    """Something was in use for too long; the next run goes on."""


def run(
    connection: Connection, keep_days: Mapping[str, int], actor: str, now: datetime | None = None
) -> Iterator[Dropped]:
    """Drop what is older than so many days, by class (0: nothing); yield what went.

    The connection must be the owner's, and not through a transaction pooler. Raises Unfinished and DatabaseAway, after
    which everything is as if it had not been begun, or goes on with the next run.
    """
    now = now or datetime.now(UTC)
    for name in CLASSES:
        days = keep_days.get(name, 0)
        if not days:
            continue
        before = (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
        for found in _of_class(connection, name, before):
            if found.rows or found.partitions:
                with connection.transaction() as cur:
                    cur.execute(
                        _AUDIT,
                        (actor, before, found.rows, Json({"table": found.table, "partitions": found.partitions})),
                    )
                yield found


def _of_class(connection: Connection, name: str, before: datetime) -> Iterator[Dropped]:
    if name == "ticks":
        yield _drop_ticks(connection, before - timedelta(days=before.weekday()))
    elif name == "bars":
        yield _drop_bars(connection, before)
    elif name == "metrics":
        for dataset in DATASETS.values():
            if dataset.retention == "metrics":
                yield from _drop_months(connection, dataset, before.replace(day=1))
    elif name == "options":
        yield from _drop_months(connection, DATASETS["option_quotes"], before.replace(day=1))
    elif name == "alerts":
        untold = "NOT EXISTS (SELECT FROM alert_outbox o WHERE o.alert_id = t.alert_id)"
        yield _delete_rows(connection, "alerts", "time", before, untold)
    elif name == "rejected":
        yield _delete_rows(connection, "rejected_ticks", "set_aside_at", before)
        yield _delete_rows(connection, "rejected_records", "set_aside_at", before)
    elif name == "audit":
        yield _delete_rows(connection, "audit_log", "at", before)


def _drop_ticks(connection: Connection, before: datetime) -> Dropped:
    with connection.transaction() as cur:
        cur.execute(_COVERED, (before,))
        covered = cur.fetchone() == (True,)
    if not covered:
        _gated(connection, "tick_ranges", "EXCLUSIVE", lambda cur: _say_dropped(cur, before))
    rows, partitions = _drop_partitions(connection, "ticks", before, f"{before:%Y%m%d}")
    return Dropped("ticks", before, rows, partitions)


def _say_dropped(cur: Cursor, before: datetime) -> None:
    cur.execute(_ARCHIVING, (before,))
    if cur.fetchone() is not None:
        raise Unfinished("ticks of that time are being archived: they are dropped when that is done")
    cur.execute(_DROP_ARCHIVED, (before,))
    cur.execute(_FORGET, (before,))
    cur.execute(_DROPPED, (before,))
    cur.execute("DELETE FROM late_ticks WHERE time < %s", (before,))
    cur.execute("DELETE FROM resent_ticks WHERE time < %s", (before,))


def _drop_bars(connection: Connection, before: datetime) -> Dropped:
    with connection.transaction() as cur:
        cur.execute(_NO_TICKS_UNTIL)
        found = cur.fetchone()
    if found is None:
        return Dropped("bars", before, 0, 0)
    # Only where no tick can come any more.
    return _delete_rows(connection, "bars", "time", before if found[0] is None else min(before, found[0]))


def _drop_months(connection: Connection, dataset: Dataset, before: datetime) -> Iterator[Dropped]:
    with connection.transaction() as cur:
        cur.execute("SELECT FROM kept_from WHERE dataset = %s AND time >= %s", (dataset.name, before))
        known = cur.fetchone() is not None
    if not known:
        # So that flushes, which only read it, are waited for.
        _gated(
            connection, "kept_from", "ACCESS EXCLUSIVE", lambda cur: cur.execute(_KEPT_FROM, (dataset.name, before))
        )
    rows, partitions = _drop_partitions(connection, dataset.table, before, f"{before:%Y%m}")
    yield Dropped(dataset.table, before, rows, partitions)
    if dataset.rollup:
        for seconds in RESOLUTIONS_S:
            yield _delete_rows(connection, f"{rollup_table(dataset)}_{seconds}", "time", before)


def _gated(connection: Connection, table: str, mode: str, decide: Callable[[Cursor], None]) -> None:
    """Run decide(cursor) in a short transaction that earlier flushes have ended for, and that later ones wait for."""
    for left in reversed(range(GATE_TRIES)):
        try:
            with connection.transaction() as cur:
                cur.execute(f"SET LOCAL lock_timeout = {GATE_TIMEOUT_MS}; LOCK TABLE {table} IN {mode} MODE")
                decide(cur)
            return
        except DatabaseAway as error:
            if not isinstance(error.__cause__, psycopg2.errors.LockNotAvailable):
                raise
            if not left:
                raise Unfinished(f"{table} is in use all the time: the next run tries again") from error
            time.sleep(GATE_PAUSE_S)


def _drop_partitions(connection: Connection, table: str, before: datetime, name: str) -> tuple[int, int]:
    """Detach and drop the partitions that end before a time; return how many rows they had, and how many they were."""
    with connection.transaction() as cur:
        cur.execute(_PARTITIONS, (table,))
        found = [(str(part), bool(pending)) for part, pending, end in cur.fetchall() if pending or end <= before]
        cur.execute(_LEFT, {"table": table, "digits": len(name), "before": name})
        left = [str(part) for (part,) in cur.fetchall()]
    rows = partitions = 0
    for part, pending in [*found, *((part, None) for part in left)]:
        try:
            rows += _drop(connection.open(), table, part, pending)
        except psycopg2.Error as error:
            connection.close()
            if isinstance(error, psycopg2.errors.LockNotAvailable | psycopg2.errors.QueryCanceled):
                raise Unfinished(f"{part} is being read: the next run drops it") from error
            raise DatabaseAway(first_line(error)) from error
        partitions += 1
    connection.close()
    return rows, partitions


def _drop(session: psycopg2.extensions.connection, table: str, part: str, pending: bool | None) -> int:
    """Detach a partition (pending: was begun; None: it is detached), and drop it; return how many rows it had."""
    names = {"table": sql.Identifier("public", table), "part": sql.Identifier("public", part)}
    session.autocommit = True  # CONCURRENTLY runs in no transaction
    with session.cursor() as cur:
        cur.execute(f"SET lock_timeout = '{DETACH_TIMEOUT_S}s'; SET statement_timeout = 0")
        if pending is not None:
            how = "FINALIZE" if pending else "CONCURRENTLY"
            cur.execute(sql.SQL(f"ALTER TABLE {{table}} DETACH PARTITION {{part}} {how}").format(**names))
        cur.execute(sql.SQL("SELECT count(*) FROM {part}").format(**names))
        [(rows,)] = cur.fetchall()
        cur.execute(sql.SQL("DROP TABLE {part}").format(**names))
    return int(rows)


def _delete_rows(
    connection: Connection, table: str, column: str, before: datetime, condition: str = "true"
) -> Dropped:
    """Delete the rows that are older, some pages of the table in a transaction, each page looked at once."""
    with connection.transaction() as cur:
        cur.execute("SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::integer", (table,))
        [(pages,)] = cur.fetchall()
    rows = 0
    statement = _DELETE.format(table=table, column=column, condition=condition)
    for page in range(0, pages, STEP_PAGES):
        with connection.transaction() as cur:
            cur.execute(statement, (f"({page},0)", f"({page + STEP_PAGES},0)", before))
            rows += cur.rowcount
    return Dropped(table, before, rows, 0)
