"""What retention is to cut, how much that is, and whether it may be cut without a person's word. Lane side.

A cut that would leave nothing of a table is not made by itself: either a clock is wrong, or its feed ended long ago, or
these are old data that somebody imported to keep. Of all but ticks and bars nothing may be left as long as ticks come:
those tell that the clock is right; a feed that was given up, or a month without an alert, keeps no ticks. Ticks come
when the newest of a symbol is as old as a holiday at most by that clock, none of what is cut, and not from the future.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from app.datasets.rollup import RESOLUTIONS_S, rollup_table
from app.errors import StorageError
from app.storage.connection import Connection

CLASSES = ("ticks", "bars", "metrics", "options", "alerts", "rejected", "audit")
"""Retention classes, in the order in which they are looked at: bars go by how far ticks are gone."""

MARKET = ("ticks", "bars")

SILENCE = timedelta(days=14)
"""So long no tick may come, over holidays, and the clock be right all the same."""

AHEAD = timedelta(days=1)
"""Ticks read in a wrong time zone are so far ahead of a right clock; those that are further tell of no clock."""

_UNTOLD = "NOT EXISTS (SELECT FROM alert_outbox o WHERE o.alert_id = t.alert_id)"
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
_NO_TICKS_UNTIL = """
    SELECT upper(gone) FROM (SELECT unnest(range_agg(range)) AS gone FROM tick_ranges WHERE state = 'dropped') x
    WHERE lower_inf(gone)
"""
_ARCHIVED_ROWS = """
    SELECT coalesce(sum(rows), 0) FROM tick_ranges WHERE state = 'archived' AND range << tstzrange(%s, NULL)
"""
_TICKS_BETWEEN = "SELECT EXISTS (SELECT FROM current WHERE last_updated BETWEEN %s AND %s)"
_ARCHIVED_ENDS = "SELECT upper(range) FROM tick_ranges WHERE state = 'archived' AND rows > 0"
_NOT_ONLY_OLD = """
    SELECT EXISTS (SELECT FROM {table} t WHERE {column} < %(before)s AND {condition}),
        EXISTS (SELECT FROM {table} t WHERE {column} >= %(before)s)
"""
# By the key: a table of bars is large, and those of one time lie anywhere in it.
_BARS_NOT_ONLY_OLD = """
    SELECT EXISTS (SELECT FROM instruments i CROSS JOIN LATERAL (SELECT FROM bars b WHERE b.symbol_id = i.symbol_id
            AND b.resolution = 60 AND b.time < %(before)s LIMIT 1) x),
        EXISTS (SELECT FROM instruments i CROSS JOIN LATERAL (SELECT FROM bars b WHERE b.symbol_id = i.symbol_id
            AND b.resolution = 60 AND b.time >= %(before)s LIMIT 1) x)
"""


class WouldEmpty(StorageError):
    """Retention would leave nothing of a table."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What is to go of a table of a class: everything before a moment (UTC).

    column: its time, where rows are deleted; None: partitions are dropped. condition: of the rows that may go at all.
    dataset: whose partitions they are. follows: it goes as the one before it does.
    """

    of: str
    table: str
    before: datetime
    column: str | None = None
    condition: str = "true"
    dataset: str | None = None
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """What went of a table, or would go: everything before a moment (UTC). archived: ticks that are in the archive."""

    table: str
    before: datetime
    rows: int
    partitions: int
    archived: int = 0


def cuts_of(connection: Connection, keep_days: Mapping[str, int], now: datetime) -> list[Cut]:
    """Return what is to be cut when each class is kept for so many days (0: for ever), in order. Raises DatabaseAway.

    Bars have none while all their ticks are there.
    """
    found: list[Cut] = []
    for name in CLASSES:
        if days := keep_days.get(name, 0):
            before = (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
            if name == "bars":
                bound = bars_before(connection, before, next((cut.before for cut in found if cut.of == "ticks"), None))
                found += [] if bound is None else [Cut(name, "bars", bound, "time")]
            else:
                found += _of_class(name, before)
    return found


def bars_before(connection: Connection, before: datetime, ticks_before: datetime | None = None) -> datetime | None:
    """Return before which moment bars may go: only where no tick can come any more; None: nowhere.

    ticks_before: where ticks are about to go.
    """
    with connection.transaction() as cur:
        is_any, until = _no_ticks_until(cur)
    if is_any and until is None:
        return before
    bounds = [bound for bound in (until, ticks_before) if bound is not None]
    return min(before, max(bounds)) if bounds else None


def old_partitions(cur: Cursor, table: str, before: datetime) -> list[tuple[str, bool | None]]:
    """Return the partitions that end by a moment (True: detaching was begun; None: it was done, dropping was not)."""
    name = f"{before:%Y%m%d}" if table == "ticks" else f"{before:%Y%m}"
    found: list[tuple[str, bool | None]] = [
        (part, pending) for part, pending, end in _partitions(cur, table) if pending or end <= before
    ]
    cur.execute(_LEFT, {"table": table, "digits": len(name), "before": name})
    return [*found, *((str(part), None) for (part,) in cur.fetchall())]


def count(connection: Connection, cut: Cut) -> Dropped:
    """Tell what a cut would drop. Raises DatabaseAway."""
    with connection.transaction() as cur:
        if cut.column is not None:
            statement = f"SELECT count(*) FROM {cut.table} t WHERE {cut.column} < %s AND {cut.condition}"  # noqa: S608 - constants
            cur.execute(statement, (cut.before,))
            return Dropped(cut.table, cut.before, _number(cur), 0)
        parts = old_partitions(cur, cut.table, cut.before)
        rows = archived = 0
        for part, _ in parts:
            cur.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("public", part)))
            rows += _number(cur)
        if cut.of == "ticks":
            cur.execute(_ARCHIVED_ROWS, (cut.before,))
            archived = _number(cur)
    return Dropped(cut.table, cut.before, rows, len(parts), archived)


def refuse_to_empty(connection: Connection, cuts: list[Cut], now: datetime) -> None:
    """Raise WouldEmpty when a cut would leave nothing of a table that has something; DatabaseAway."""
    with connection.transaction() as cur:
        emptied = [cut for cut in cuts if not cut.follows and _would_empty(cur, cut, now)]
    if emptied:
        tables = ", ".join(f"{cut.table} (before {cut.before:%Y-%m-%d})" for cut in emptied)
        raise WouldEmpty(
            f"nothing would be left of {tables}, so nothing was dropped at all. Is the clock right? It says"
            f" {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC. If it is, and all of this is to go:"
            " python -m app maintain retention --allow-empty"
        )


def _of_class(name: str, before: datetime) -> Iterator[Cut]:
    if name == "ticks":
        yield Cut(name, "ticks", before - timedelta(days=before.weekday()))
    elif name == "metrics":
        for dataset in DATASETS.values():
            if dataset.retention == "metrics":
                yield from _months(name, dataset, before.replace(day=1))
    elif name == "options":
        yield from _months(name, DATASETS["option_quotes"], before.replace(day=1))
    elif name == "alerts":
        yield Cut(name, "alerts", before, "time", _UNTOLD)
    elif name == "rejected":
        yield Cut(name, "rejected_ticks", before, "set_aside_at")
        yield Cut(name, "rejected_records", before, "set_aside_at")
    elif name == "audit":
        yield Cut(name, "audit_log", before, "at")


def _months(name: str, dataset: Dataset, before: datetime) -> Iterator[Cut]:
    yield Cut(name, dataset.table, before, dataset=dataset.name)
    if dataset.rollup:
        for seconds in RESOLUTIONS_S:
            yield Cut(name, f"{rollup_table(dataset)}_{seconds}", before, "time", follows=True)


def _would_empty(cur: Cursor, cut: Cut, now: datetime) -> bool:
    if cut.of not in MARKET and _ticks_come(cur, cut.before, now):
        return False
    if cut.column is None:
        return _would_empty_partitions(cur, cut)
    statement = _NOT_ONLY_OLD.format(table=cut.table, column=cut.column, condition=cut.condition)
    cur.execute(_BARS_NOT_ONLY_OLD if cut.table == "bars" else statement, {"before": cut.before})
    return cur.fetchone() == (True, False)


def _ticks_come(cur: Cursor, before: datetime, now: datetime) -> bool:
    # Of a clock that is ahead by as much as is kept, they are older than the cut.
    cur.execute(_TICKS_BETWEEN, (max(before, now - SILENCE), now + AHEAD))
    return cur.fetchone() == (True,)


def _would_empty_partitions(cur: Cursor, cut: Cut) -> bool:
    if cut.dataset is None:
        _, decided = _no_ticks_until(cur)
        cur.execute(_ARCHIVED_ENDS)
        ends = [end for (end,) in cur.fetchall()]
    else:
        cur.execute("SELECT time FROM kept_from WHERE dataset = %s", (cut.dataset,))
        decided = next((time for (time,) in cur.fetchall()), None)
        ends = []
    if any(end > cut.before for end in ends):
        return False
    would_go = bool(ends)
    for part, pending, end in reversed(_partitions(cur, cut.table)):
        # What was written down as gone is gone, though the run that did so was killed.
        if pending or (end <= cut.before and (would_go or (decided is not None and end <= decided))):
            continue
        cur.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier("public", part)))
        if cur.fetchone() == (True,):
            if end > cut.before:
                return False
            would_go = True
    return would_go


def _partitions(cur: Cursor, table: str) -> list[tuple[str, bool, datetime]]:
    cur.execute(_PARTITIONS, (table,))
    return [(str(part), bool(pending), end) for part, pending, end in cur.fetchall()]


def _no_ticks_until(cur: Cursor) -> tuple[bool, datetime | None]:
    """Return whether ticks are gone for good from the first one on, and until when; None: all, or none."""
    cur.execute(_NO_TICKS_UNTIL)
    found = cur.fetchone()
    return (False, None) if found is None else (True, found[0])


def _number(cur: Cursor) -> int:
    [(number,)] = cur.fetchall()
    return int(number)
