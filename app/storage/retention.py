"""Drop what is older than it is to be kept, beside a running server whose flushes wait for a moment at most. Lane side.

Ticks go by the week, records of datasets that have partitions by the month, their rollups with them. First it is
written down that they are gone, so that nothing that comes late brings any of it back (`tick_ranges`, `kept_from`).
Then their partitions are detached, which waits for transactions that read them and lets nobody wait, and dropped. All
else goes by rows, some thousand in a transaction. Killed anywhere, the next run goes on.

Bars are kept at least as long as the ticks that they are made of: no tick may come for a bar that was dropped. What
goes by which age, and what does not go by itself: retention_cuts.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from app.errors import DatabaseAway
from app.storage.clocks import agreed_now
from app.storage.connection import Connection, first_line
from app.storage.retention_cuts import Cut, Dropped, bars_before, count, cuts_of, old_partitions, refuse_to_empty

STEP_PAGES = 100
"""Pages of a table in a transaction: some thousand rows, some 20 ms."""

GATE_TIMEOUT_MS, GATE_TRIES, GATE_PAUSE_S = 300, 20, 0.5
"""Flushes queue up behind a wait for their table: short waits, again and again."""

DETACH_TIMEOUT_S = 60
"""Nobody waits behind a detaching that waits for readers; what is not done by then is done by the next run."""

_COVERED = "SELECT range_agg(range) @> tstzrange(NULL, %s) FROM tick_ranges WHERE state = 'dropped'"
_ARCHIVING = "SELECT FROM tick_ranges WHERE state = 'archiving' AND range && tstzrange(NULL, %s)"
# What is archived keeps its row, and with it the name of its files, until they are removed.
_FORGET = """
    DELETE FROM tick_ranges WHERE state IN ('hot', 'dropped') AND manifest IS NULL AND range << tstzrange(%s, NULL)
"""
_DROP_ARCHIVED = """
    UPDATE tick_ranges SET state = 'dropped', changed_at = now()
    WHERE state = 'archived' AND range << tstzrange(%s, NULL) RETURNING rows
"""
_DROPPED = """
    INSERT INTO tick_ranges (range, state)
    SELECT gap, 'dropped' FROM unnest(tstzmultirange(tstzrange(NULL, %s))
        - coalesce((SELECT range_agg(range) FROM tick_ranges), '{}'::tstzmultirange)) AS gap
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


class Unfinished(DatabaseAway):
    """Something was in use for too long; the next run goes on."""


def run(
    connection: Connection,
    keep_days: Mapping[str, int],
    actor: str,
    now: datetime | None = None,
    *,
    allow_empty: bool = False,
) -> Iterator[Dropped]:
    """Drop what is older than so many days, by class (0: nothing); yield what went.

    The connection must be the owner's, and not through a transaction pooler. now: this host's clock unless given.
    allow_empty: also where nothing is left of a table. Raises ClocksDiffer and WouldEmpty before anything is dropped;
    Unfinished and DatabaseAway, after which everything is as if it had not been begun, or goes on with the next run.
    """
    now = now or agreed_now(connection)
    cuts = cuts_of(connection, keep_days, now)
    if not allow_empty:
        refuse_to_empty(connection, cuts, now)
    for cut in cuts:
        found = _drop_cut(connection, cut)
        if found.rows or found.partitions or found.archived:
            details: dict[str, object] = {"table": found.table, "partitions": found.partitions}
            if found.archived:
                details["archived"] = found.archived
            with connection.transaction() as cur:
                cur.execute(_AUDIT, (actor, found.before, found.rows, Json(details)))
            yield found


def plan(
    connection: Connection, keep_days: Mapping[str, int], now: datetime | None = None, *, allow_empty: bool = False
) -> Iterator[tuple[str, Dropped]]:
    """Yield what `run` would drop now, each with its class, those of which nothing would go included; drop nothing.

    Raises what keeps `run` from beginning: WouldEmpty after the last one.
    """
    now = now or agreed_now(connection)
    cuts = cuts_of(connection, keep_days, now)
    for cut in cuts:
        yield cut.of, count(connection, cut)
    if not allow_empty:
        refuse_to_empty(connection, cuts, now)


def _drop_cut(connection: Connection, cut: Cut) -> Dropped:
    if cut.table == "ticks":
        return _drop_ticks(connection, cut.before)
    if cut.table == "bars":
        return _drop_bars(connection, cut.before)
    if cut.dataset is not None:
        return _drop_months(connection, cut.table, cut.dataset, cut.before)
    assert cut.column is not None
    return _delete_rows(connection, cut.table, cut.column, cut.before, cut.condition)


def _drop_ticks(connection: Connection, before: datetime) -> Dropped:
    with connection.transaction() as cur:
        cur.execute(_COVERED, (before,))
        covered = cur.fetchone() == (True,)
    archived: list[int] = []
    if not covered:
        _gated(connection, "tick_ranges", "EXCLUSIVE", lambda cur: archived.append(_say_dropped(cur, before)))
    rows, partitions = _drop_partitions(connection, "ticks", before)
    return Dropped("ticks", before, rows, partitions, sum(archived))


def _say_dropped(cur: Cursor, before: datetime) -> int:
    """Write down that ticks are gone; return how many of them are in the archive."""
    cur.execute(_ARCHIVING, (before,))
    if cur.fetchone() is not None:
        raise Unfinished("ticks of that time are being archived: they are dropped when that is done")
    cur.execute(_DROP_ARCHIVED, (before,))
    archived = sum(int(rows) for (rows,) in cur.fetchall())
    cur.execute(_FORGET, (before,))
    cur.execute(_DROPPED, (before,))
    cur.execute("DELETE FROM late_ticks WHERE time < %s", (before,))
    cur.execute("DELETE FROM resent_ticks WHERE time < %s", (before,))
    return archived


def _drop_bars(connection: Connection, before: datetime) -> Dropped:
    # Asked again, now that ticks were dropped.
    bound = bars_before(connection, before)
    return Dropped("bars", before, 0, 0) if bound is None else _delete_rows(connection, "bars", "time", bound)


def _drop_months(connection: Connection, table: str, dataset: str, before: datetime) -> Dropped:
    with connection.transaction() as cur:
        cur.execute("SELECT FROM kept_from WHERE dataset = %s AND time >= %s", (dataset, before))
        known = cur.fetchone() is not None
    if not known:
        # So that flushes, which only read it, are waited for.
        _gated(connection, "kept_from", "ACCESS EXCLUSIVE", lambda cur: cur.execute(_KEPT_FROM, (dataset, before)))
    rows, partitions = _drop_partitions(connection, table, before)
    return Dropped(table, before, rows, partitions)


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


def _drop_partitions(connection: Connection, table: str, before: datetime) -> tuple[int, int]:
    """Detach and drop the partitions that end before a time; return how many rows they had, and how many they were."""
    with connection.transaction() as cur:
        parts = old_partitions(cur, table, before)
    rows = partitions = 0
    for part, pending in parts:
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
