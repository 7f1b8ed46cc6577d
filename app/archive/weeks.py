"""Ranges of ticks: which there are, and how their state changes (docs/archive.md). Blocking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg2
from psycopg2.extensions import cursor as Cursor

from app.archive.place import ArchiveError
from app.storage.connection import Connection
from app.storage.partitions import WEEK_US
from app.storage.tick_ranges import LOCK_TIMEOUT_MS, lock_states
from app.storage.tick_reader import timestamp

PAUSE_S = 0.5
"""Between two tries for a lock: whoever waited behind the first one is through by then."""

LOCK_TRIES = 240
"""Two minutes; a transaction that goes on longer keeps the range as it is until the next run."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTITIONS = """
    SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'public.ticks'::regclass AND relname ~ '^ticks_[0-9]{8}$' ORDER BY relname
"""
_RANGES = """
    SELECT (extract(epoch FROM lower(range)) * 1000000)::bigint, (extract(epoch FROM upper(range)) * 1000000)::bigint,
        state, manifest, manifest_sha256, rows, derived_rows, bytes, changed_at
    FROM tick_ranges WHERE NOT lower_inf(range) AND NOT upper_inf(range)
        AND isfinite(lower(range)) AND isfinite(upper(range)) ORDER BY range
"""
_OVERLAPPING = "SELECT state, range = {range} FROM tick_ranges WHERE range && {range}"
_RANGE = "tstzrange(%(start)s::timestamptz, %(end)s::timestamptz)"
_FREEZE = f"INSERT INTO tick_ranges (range, state) VALUES ({_RANGE}, 'archiving')"  # noqa: S608 - the constant above
_FREEZE_KNOWN = f"UPDATE tick_ranges SET state = 'archiving', changed_at = now() WHERE range = {_RANGE}"  # noqa: S608 - see above
_SWITCH = f"""
    UPDATE tick_ranges SET state = 'archived', manifest = %(manifest)s, manifest_sha256 = %(sha256)s, rows = %(rows)s,
        derived_rows = %(derived_rows)s, bytes = %(bytes)s, changed_at = now()
    WHERE range = {_RANGE} AND state = ANY(%(from)s)
"""  # noqa: S608 - the constant above
_HOLD = f"SELECT manifest FROM tick_ranges WHERE range = {_RANGE} AND state = 'archived' FOR UPDATE"  # noqa: S608 - see above
_STATE = f"SELECT state FROM tick_ranges WHERE range = {_RANGE} FOR SHARE"  # noqa: S608 - the constant above
_FORGET = f"DELETE FROM tick_ranges WHERE range = {_RANGE} AND state = ANY(%(from)s)"  # noqa: S608 - the constant above
_NO_FILES = f"""
    UPDATE tick_ranges SET manifest = NULL, manifest_sha256 = NULL, rows = NULL, derived_rows = NULL, bytes = NULL
    WHERE range = {_RANGE} AND state = 'dropped'
"""  # noqa: S608 - the constant above
# Whoever changes ticks changes the version of their day's bar.
_VERSION = """
    SELECT count(*), coalesce(sum(version), 0)::text FROM bars
    WHERE resolution = 86400 AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz
"""
_RUNNING = """
    SELECT l.virtualxid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock' AND a.datname = current_database()
        AND l.pid <> ALL(%s)
"""


class Busy(ArchiveError):
    """Others hold what is needed; the next run tries again."""


@dataclass(frozen=True, slots=True)
class Week:
    """A partition's range [start_us, end_us), UTC microseconds."""

    start_us: int

    @property
    def end_us(self) -> int:
        """Return where the next one begins."""
        return self.start_us + WEEK_US

    @property
    def name(self) -> str:
        """Return its Monday as YYYYMMDD."""
        return (_EPOCH + timedelta(microseconds=self.start_us)).strftime("%Y%m%d")

    @property
    def partition(self) -> str:
        """Return the name of its table."""
        return f"ticks_{self.name}"

    @property
    def bounds(self) -> dict[str, str]:
        """Return the parameters `start` and `end` of queries."""
        return {"start": timestamp(self.start_us), "end": timestamp(self.end_us)}


@dataclass(frozen=True, slots=True)
class Range:
    """A row of tick_ranges."""

    start_us: int
    end_us: int
    state: str
    manifest: str | None
    sha256: str | None
    rows: int | None
    derived_rows: int | None
    bytes: int | None
    changed_at: datetime

    @property
    def week(self) -> Week:
        """Return the week that it is. Raises ArchiveError when it is none."""
        week = Week(self.start_us)
        if week.end_us != self.end_us:
            raise ArchiveError(f"the range from {timestamp(self.start_us)} is no week: only weeks are archived")
        return week


def partitions(cur: Cursor) -> list[Week]:
    """Return the weeks that have a partition."""
    cur.execute(_PARTITIONS)
    names = [str(name) for (name,) in cur.fetchall()]
    days = (datetime.strptime(name[6:], "%Y%m%d").replace(tzinfo=UTC) for name in names)
    return [Week((day - _EPOCH) // timedelta(microseconds=1)) for day in days]


def ranges(cur: Cursor) -> list[Range]:
    """Return the rows of tick_ranges that have both ends, in order of time."""
    cur.execute(_RANGES)
    return [Range(*row) for row in cur.fetchall()]


@contextmanager
def states_locked(connection: Connection, sleep: Callable[[float], None] = time.sleep) -> Iterator[Cursor]:
    """Run a transaction in which states may change. Raises Busy when the lock cannot be had for two minutes."""
    with _with_lock(connection, lock_states, sleep) as cur:
        yield cur


@contextmanager
def _with_lock(
    connection: Connection, take: Callable[[Cursor], None], sleep: Callable[[float], None]
) -> Iterator[Cursor]:
    for _ in range(LOCK_TRIES):
        with _Trying(), connection.transaction() as cur:
            try:
                take(cur)
            except psycopg2.errors.LockNotAvailable as error:
                raise _NotNow from error
            yield cur
            return
        sleep(PAUSE_S)
    raise Busy("flushes or readers do not let the archiver in: it is tried again at the next run")


class _NotNow(ArchiveError):
    """The lock was not to be had in time."""


class _Trying:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is _NotNow


def freeze(connection: Connection, week: Week) -> None:
    """Have ticks of a week go to `late_ticks` from now on; idempotent. Raises ArchiveError, Busy, DatabaseAway."""
    with states_locked(connection) as cur:
        cur.execute(_OVERLAPPING.format(range=_RANGE), week.bounds)
        found = cur.fetchall()
        if not found:
            cur.execute(_FREEZE, week.bounds)
        elif found == [("hot", True)]:
            cur.execute(_FREEZE_KNOWN, week.bounds)
        elif found != [("archiving", True)]:
            raise ArchiveError(f"the week {week.name} cannot be archived: tick_ranges says {found[0][0]}")


def has_ticks(cur: Cursor, week: Week) -> bool:
    """Tell whether there are rows in the week's partition."""
    cur.execute(f"SELECT EXISTS (SELECT FROM public.{week.partition})")  # noqa: S608 - a name of ours
    return bool(cur.fetchone() == (True,))


def tick_count(cur: Cursor, week: Week) -> int:
    """Return how many rows there are in the week's partition."""
    cur.execute(f"SELECT count(*) FROM public.{week.partition}")  # noqa: S608 - a name of ours
    [(rows,)] = cur.fetchall()
    return int(rows)


def version(cur: Cursor, week: Week) -> tuple[int, str]:
    """Return what changes whenever a tick of the week does."""
    cur.execute(_VERSION, week.bounds)
    row = cur.fetchone()
    assert row is not None
    return int(row[0]), str(row[1])


def set_manifest(cur: Cursor, week: Week, was: str, path: str, sha256: str, sizes: dict[str, int]) -> None:
    """Let a manifest be in force. was: the state until now. Raises ArchiveError when it is another one."""
    cur.execute(_SWITCH, {**week.bounds, **sizes, "manifest": path, "sha256": sha256, "from": [was]})
    if cur.rowcount != 1:
        raise ArchiveError(f"the week {week.name} is not {was} any more")


def hold(cur: Cursor, week: Week, manifest: str) -> None:
    """Keep an archived week as it is until the transaction's end. Raises ArchiveError when it is another one."""
    cur.execute(_HOLD, week.bounds)
    if cur.fetchone() != (manifest,):
        raise ArchiveError(f"the archive of the week {week.name} was changed by somebody else")


def forget(cur: Cursor, week: Week, was: str) -> None:
    """Let a week be hot. Raises ArchiveError when its state is another one than it was."""
    cur.execute(_FORGET, {**week.bounds, "from": [was]})
    if cur.rowcount != 1:
        raise ArchiveError(f"the week {week.name} is not {was} any more")


def no_files(cur: Cursor, week: Week) -> None:
    """Write down that a dropped week has no files any more."""
    cur.execute(_NO_FILES, week.bounds)


def wait_for_readers(
    connection: Connection, but: list[int], timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Wait until every transaction that is running now has ended; tell whether they did.

    but: sessions that do not count.
    """
    pids = list(but)

    def running() -> set[str]:
        with connection.transaction() as cur:
            cur.execute("SELECT pg_backend_pid()")
            row = cur.fetchone()
            assert row is not None
            cur.execute(_RUNNING, ([*pids, row[0]],))
            return {str(xid) for (xid,) in cur.fetchall()}

    until = time.monotonic() + timeout_s
    left = running()
    while left:
        if time.monotonic() >= until:
            return False
        sleep(0.05)
        left &= running()
    return True


def drop_partition(connection: Connection, week: Week, sleep: Callable[[float], None] = time.sleep) -> None:
    """Drop the partition of an archived week if there is one. Raises ArchiveError, Busy, DatabaseAway.

    Nobody may be reading it any more: see `wait_for_readers`.
    """

    def take(cur: Cursor) -> None:
        cur.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        # Held until it is dropped: looked up before, somebody else might have brought it back since.
        cur.execute(_STATE, week.bounds)
        if cur.fetchone() != ("archived",):
            raise ArchiveError(f"the week {week.name} is not archived: its partition stays")
        cur.execute(f"DROP TABLE IF EXISTS public.{week.partition}")  # a name of our own: ticks_ and eight digits

    with _with_lock(connection, take, sleep):
        pass
