"""The table of jobs: what ran by schedule and how that ended, written in a term of office. Lane side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor

from app.errors import TickhubError
from app.storage.lease import Term, is_held

_NOW = "SELECT clock_timestamp()"
_READ = """
    SELECT name, state, due_at, started_at, ended_at, succeeded_at, exit_status, message, runs, failures
    FROM jobs ORDER BY name
"""
_LATE = "SELECT EXISTS (SELECT FROM late_ticks)"
_ADD = "INSERT INTO jobs (name, state, due_at) VALUES (%s, 'waiting', %s) ON CONFLICT DO NOTHING"
# Whoever ran it is not elected any more, and its processes end with it; or it was never started.
_CUT_OFF = """
    UPDATE jobs SET state = 'cut_off', ended_at = clock_timestamp(), exit_status = NULL,
        message = 'the process that ran it is gone'
    WHERE state = 'running'
"""
_BEGIN = """
    UPDATE jobs SET state = 'running', due_at = %(due_at)s, started_at = clock_timestamp(), ended_at = NULL,
        exit_status = NULL, message = NULL, runs = runs + 1, holder = %(holder)s, term = %(term)s
    WHERE name = %(name)s AND state <> 'running'
"""
_END = """
    UPDATE jobs SET state = %(state)s, ended_at = statement_timestamp(), exit_status = %(exit_status)s,
        message = %(message)s, failures = failures + (%(state)s = 'failed')::integer,
        succeeded_at = CASE WHEN %(state)s = 'ok' THEN statement_timestamp() ELSE succeeded_at END
    WHERE name = %(name)s AND state = 'running' AND holder = %(holder)s AND term = %(term)s
"""


class NotElected(TickhubError):
    """Another process was elected meanwhile."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job and its newest run; times are UTC."""

    name: str
    state: str
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    succeeded_at: datetime | None
    exit_status: int | None
    message: str | None
    runs: int
    failures: int


def read_jobs(cur: Cursor) -> tuple[datetime, list[JobRow]]:
    """Return the database's time, and all jobs by name."""
    cur.execute(_NOW)
    [(now,)] = cur.fetchall()
    cur.execute(_READ)
    return now, [JobRow(*row) for row in cur.fetchall()]


def late_ticks_wait(cur: Cursor) -> bool:
    """Tell whether there are late ticks that are not merged into the archive yet."""
    cur.execute(_LATE)
    return bool(cur.fetchone() == (True,))


def take_over(cur: Cursor, term: Term, new: Sequence[tuple[str, datetime]]) -> None:
    """Add jobs that are new, with their last moments, and say of what runs in the table that it was cut off.

    The caller is elected and runs none. Raises NotElected.
    """
    for name, due_at in new:
        cur.execute(_ADD, (name, due_at))
    cur.execute(_CUT_OFF)
    _check(cur, term)


def begin(cur: Cursor, term: Term, name: str, due_at: datetime) -> bool:
    """Say that a job runs now; False: it does already. Raises NotElected."""
    cur.execute(_BEGIN, {"name": name, "due_at": due_at, "holder": term.holder, "term": term.number})
    begun = cur.rowcount == 1
    _check(cur, term)
    return begun


def end(cur: Cursor, term: Term, name: str, state: str, exit_status: int | None, message: str | None) -> None:
    """Say how it ended: ok, failed or cut_off. What another process has said since stays."""
    parameters = {"name": name, "state": state, "exit_status": exit_status, "message": message}
    cur.execute(_END, {**parameters, "holder": term.holder, "term": term.number})


def _check(cur: Cursor, term: Term) -> None:
    if not is_held(cur, term):
        raise NotElected(f"{term.holder} is not elected any more")
