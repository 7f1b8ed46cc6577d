"""Which jobs there are, and which one is due. Pure.

A job is asked for at its moments, once a day. When a server was down at that moment, or another process was elected in
the middle of the job, it runs as soon as it can: once, however many moments passed. A job that is new waits for its
next moment. Late ticks of archived weeks do not wait for a day: until they are merged, no answer has them. Whatever
became of the day's jobs, and whether ticks are moved at all, merging is a job of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from app.settings import Settings

State = Literal["waiting", "running", "ok", "failed", "cut_off"]

CUT_OFF_AGAIN = timedelta(seconds=10)
"""So long a job that was ended from outside waits: what it waits for itself should be over."""

WRONG_CLOCK = timedelta(days=1)
"""A moment that lies further ahead was served while the clock was wrong: it must not keep the job from running."""

TRIES, SELDOM = 3, timedelta(hours=1)
"""What has failed so often in a row needs somebody to look: it is tried no more than every hour."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command of `python -m app`, and its time of day (UTC).

    every: so often it runs as long as it is asked for, at no time of day; None: once a day.
    """

    name: str
    arguments: tuple[str, ...]
    hour: int
    minute: int
    every: timedelta | None = None


MERGE = Job("merge", ("archive", "run", "--hot-days", "0"), 0, 0, timedelta(minutes=10))
"""Of all servers, but asked for only while late ticks wait, or when it did not end well. Each time leaves a file."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the table says of a job. due_at: the moment that asked for the newest run.

    failed_in_a_row: as far as this process knows.
    """

    state: State
    due_at: datetime
    ended_at: datetime | None
    failed_in_a_row: int = 0


def jobs_of(settings: Settings) -> tuple[Job, ...]:
    """Return the jobs that these settings ask for, in the order in which they run when several are due."""
    jobs = []
    if settings.backup_schedule:
        jobs.append(Job("backup", ("backup", "daily"), *_time(settings.backup_at)))
    if any(settings.keep_days.values()):
        jobs.append(Job("retention", ("maintain", "retention"), *_time(settings.retention_at)))
    if settings.hot_days:
        jobs.append(Job("archive", ("archive", "run"), *_time(settings.retention_at)))
    if settings.maintain_schedule:
        jobs.append(Job("maintain", ("maintain", "all"), *_time(settings.maintain_at)))
    return (*jobs, MERGE)


def last_moment(job: Job, now: datetime) -> datetime:
    """Return the newest moment of the job that is not after now (UTC)."""
    if job.every is not None:
        return now
    moment = now.replace(hour=job.hour, minute=job.minute, second=0, microsecond=0)
    return moment if moment <= now else moment - timedelta(days=1)


def next_due(jobs: Sequence[Job], known: Mapping[str, LastRun], now: datetime) -> tuple[Job, datetime] | None:
    """Return the first of the jobs that are asked for that is to run now, with its moment; None: none is.

    A job that is not known is new, and one that runs is not due: whoever took over says first that it was cut off. One
    of a time of day that failed waits for its day, and is seen until then.
    """
    for job in jobs:
        last, moment = known.get(job.name), last_moment(job, now)
        if last is None or last.state == "running":
            continue
        if last.state == "cut_off":
            is_due = last.ended_at is None or abs(now - last.ended_at) >= CUT_OFF_AGAIN
        elif job.every is not None:
            is_due = abs(now - last.due_at) >= (job.every if last.failed_in_a_row < TRIES else SELDOM)
        else:
            is_due = moment > last.due_at or last.due_at - now > WRONG_CLOCK
        if is_due:
            return job, moment
    return None


def _time(text: str) -> tuple[int, int]:
    hour, minute = text.split(":")
    return int(hour), int(minute)
