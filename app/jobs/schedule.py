"""Which jobs there are, and which one is due. Pure.

A job is asked for at its moments, once a day. When a server was down at that moment, or another process was elected in
the middle of the job, it runs as soon as it can: once, however many moments passed. A job that is new waits for its
next moment. Late ticks of archived weeks do not wait for a day: until they are merged, no answer has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from app.settings import Settings

State = Literal["waiting", "running", "ok", "failed", "cut_off"]

CUT_OFF_AGAIN = timedelta(seconds=10)
"""So long a job that was ended from outside waits: what it waits for itself should be over."""

WRONG_CLOCK = timedelta(days=1)
"""A moment that lies further ahead was served while the clock was wrong: it must not keep the job from running."""

MERGE_EVERY_S = 600
"""How long late ticks wait to be merged: each time leaves a file, and sixteen of them are written anew as one."""

ARCHIVE = "archive"
_MERGE_ALONE = ("archive", "run", "--hot-days", "0")


@dataclass(frozen=True, slots=True)
class Job:
    """A command of `python -m app`, and its time of day (UTC)."""

    name: str
    arguments: tuple[str, ...]
    hour: int
    minute: int


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the table says of a job. due_at: the moment that asked for the newest run."""

    state: State
    due_at: datetime
    ended_at: datetime | None


def jobs_of(settings: Settings) -> tuple[Job, ...]:
    """Return the jobs that these settings ask for, in the order in which they run when several are due."""
    jobs = []
    if settings.backup_schedule:
        jobs.append(Job("backup", ("backup", "daily"), *_time(settings.backup_at)))
    if any(settings.keep_days.values()):
        jobs.append(Job("retention", ("maintain", "retention"), *_time(settings.retention_at)))
    if settings.hot_days:
        jobs.append(Job(ARCHIVE, ("archive", "run"), *_time(settings.retention_at)))
    if settings.maintain_schedule:
        jobs.append(Job("maintain", ("maintain", "all"), *_time(settings.maintain_at)))
    return tuple(jobs)


def last_moment(job: Job, now: datetime) -> datetime:
    """Return the newest moment of the job that is not after now (UTC)."""
    moment = now.replace(hour=job.hour, minute=job.minute, second=0, microsecond=0)
    return moment if moment <= now else moment - timedelta(days=1)


def next_due(
    jobs: Sequence[Job], known: Mapping[str, LastRun], now: datetime, *, late_ticks: bool = False
) -> tuple[Job, datetime] | None:
    """Return the first job that is to run now, with the moment that asks for it; None: none is.

    A job that is not known is new, and one that runs is not due: whoever took over says first that it was cut off.
    late_ticks: some wait to be merged into the archive. One that failed waits for its day, and is seen until then.
    """
    for job in jobs:
        last, moment = known.get(job.name), last_moment(job, now)
        if last is None or last.state == "running":
            continue
        if last.state == "cut_off" and (last.ended_at is None or abs(now - last.ended_at) >= CUT_OFF_AGAIN):
            return job, moment
        if last.state != "cut_off" and (moment > last.due_at or last.due_at - now > WRONG_CLOCK):
            return job, moment
    merged = known.get(ARCHIVE)
    if late_ticks and merged is not None and merged.state in ("waiting", "ok"):
        moment = datetime.fromtimestamp(now.timestamp() // MERGE_EVERY_S * MERGE_EVERY_S, now.tzinfo)
        for job in jobs:
            if job.name == ARCHIVE and moment > merged.due_at:
                return replace(job, arguments=_MERGE_ALONE), moment
    return None


def _time(text: str) -> tuple[int, int]:
    hour, minute = text.split(":")
    return int(hour), int(minute)
