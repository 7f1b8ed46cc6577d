"""GET /stats for people, GET /metrics for Prometheus: the same figures."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from flask import Blueprint, Response
from msgspec import Meta, Struct

from app.market.rfc3339 import rfc3339
from app.meters import ahead_warning
from app.runtime import Runtime
from app.slots import STATES
from app.storage.job_store import JobRow
from app.web import metrics
from app.web.answers import Timestamp
from app.web.api import Endpoint, endpoint
from app.web.errors import answer
from app.web.server import runtime

FOLLOWING_GRACE_S = 60.0
"""After its start a server has so long until its backups have to follow."""

blueprint = Blueprint("stats", __name__)


def _count(what: str) -> Meta:
    return Meta(ge=0, description=what)


class WorkerStatus(Struct):
    """A worker process."""

    pid: int
    uptime_seconds: Annotated[int, _count("since this process began, s")]
    state: str
    connections: Annotated[int, _count("open HTTP connections")]


class JobStatus(Struct):
    """What runs by schedule; its newest run."""

    name: str
    state: Annotated[str, Meta(description="waiting (never ran), running, ok, failed, or cut_off: it will run again")]
    started_at: Timestamp | None
    ended_at: Annotated[Timestamp | None, Meta(description="null: it runs, or never ran")]
    succeeded_at: Annotated[Timestamp | None, Meta(description="when a run ended well last; null: never")]
    runs: Annotated[int, _count("runs that began")]
    failures: Annotated[int, _count("runs that ended badly")]
    message: Annotated[str | None, Meta(description="the last lines that it printed")]


class FollowingStatus(Struct):
    """What comes to the backups all the time: the database's WAL, and journals."""

    state: Annotated[
        Literal["following", "trouble", "stopped"], Meta(description="stopped: nothing is written down any more")
    ]
    since: Annotated[Timestamp | None, Meta(description="the first moment that backups can be taken to")]
    wal_until: Annotated[Timestamp | None, Meta(description="up to when all WAL is there")]
    journals_until: Annotated[Timestamp | None, Meta(description="up to when journals are there")]
    wal_behind_bytes: Annotated[int, _count("WAL that was written and not received yet")]
    trouble: str | None


class Stats(Struct):
    """What all workers did since the server's start, dead ones included; rows left in journals count as received.

    What the server collects itself (market_data, system_metrics) is not in it.
    """

    ticks_received: Annotated[int, _count("accepted rows, duplicates included")]
    ticks_processed: Annotated[int, _count("stored rows, duplicates, and rows set aside")]
    buffer_size: Annotated[int, _count("accepted rows that are not yet processed, unread journals included")]
    duplicates: Annotated[int, _count("rows that were stored already")]
    stored: Annotated[int, _count("rows written to the database")]
    set_aside: Annotated[int, _count("rows in rejected_ticks")]
    rejected: Annotated[int, _count("rows refused in requests")]
    errors: Annotated[int, _count("refused rows and failed flushes")]
    last_flush: Annotated[Timestamp | None, Meta(description="newest commit of ticks; null before the first")]
    ticks_per_second: Annotated[float, Meta(ge=0, description="accepted rows, of late")]
    journal_bytes: Annotated[int, _count("size of all journals on disk")]
    workers: Annotated[int, _count("living worker processes")]
    worker_status: list[WorkerStatus]
    active_connections: Annotated[int, _count("open HTTP connections")]
    requests_per_second: Annotated[float, Meta(ge=0, description="requests of any kind, of late")]
    database_status: Literal["connected", "disconnected"]
    uptime_seconds: Annotated[int, _count("since the server's start, s")]
    jobs: Annotated[list[JobStatus], Meta(description="what runs by schedule, as the database said last")]
    backup_following: Annotated[
        FollowingStatus | None, Meta(description="null: nothing was ever followed into these backups")
    ]
    warnings: Annotated[list[str], Meta(description="what somebody should look at")]


@endpoint(blueprint, Endpoint("GET", "/stats", "What came in and what became of it", "stats", answer=Stats))
def stats() -> Response:
    """Return what all workers did since the server's start."""
    return answer(figures_of(runtime()))


def figures_of(run: Runtime) -> Stats:
    """Return the figures of /stats."""
    figures = run.figures
    figures.refresh()
    received, processed = figures.received(), figures.processed()
    rejected = figures.slot("rejected")
    now_us = time.time_ns() // 1000
    warnings = []
    if figures.slot("ahead"):
        warnings.append(ahead_warning(figures.most("most_ahead_us"), run.settings.tick_timezone))
    if figures.journal("lost"):
        warnings.append(f"{figures.journal('lost')} acknowledged rows were not in the journals any more: see the log")
    failed = [job.name for job in run.jobs.rows if job.state == "failed" and job.name in run.jobs.names]
    warnings += [f"job {name} failed: see jobs" for name in failed]
    followed = _following(run)
    if followed is not None and followed.state == "trouble":
        warnings.append(f"backups do not follow: {followed.trouble}")
    elif (
        (followed is None or followed.state == "stopped")
        and (run.settings.backup_dir and run.settings.backup_wal)
        and figures.uptime_s() > FOLLOWING_GRACE_S
    ):
        warnings.append("neither WAL nor journals come to the backups")
    return Stats(
        ticks_received=received,
        ticks_processed=processed,
        buffer_size=max(0, received - processed - figures.journal("lost")),
        duplicates=figures.journal("duplicates"),
        stored=figures.stored(),
        set_aside=figures.journal("set_aside"),
        rejected=rejected,
        errors=rejected + figures.slot("flush_failures"),
        last_flush=rfc3339(flushed_us) if (flushed_us := figures.last_flush_us()) else None,
        ticks_per_second=figures.ticks_per_second(),
        journal_bytes=figures.journal("disk_bytes"),
        workers=len(figures.workers()),
        worker_status=[
            WorkerStatus(
                pid=slot["pid"],
                uptime_seconds=int((now_us - slot["started_us"]) / 1_000_000),
                state=STATES[slot["state"]],
                connections=slot["connections"],
            )
            for slot in figures.workers()
        ],
        active_connections=sum(slot["connections"] for slot in figures.workers()),
        requests_per_second=round(sum(slot["requests_per_second_x1000"] for slot in figures.workers()) / 1000, 1),
        database_status="connected" if run.keeper.connected else "disconnected",
        uptime_seconds=int(figures.uptime_s()),
        jobs=[_job(row) for row in run.jobs.rows],
        backup_following=followed,
        warnings=warnings,
    )


def _following(run: Runtime) -> FollowingStatus | None:
    host, _ = run.watching.host.look()
    found = None if host is None else host.following
    if found is None:
        return None
    return FollowingStatus(
        state=found.state(datetime.now(UTC)),
        since=_moment(found.since),
        wal_until=_moment(found.wal_until),
        journals_until=_moment(found.journals_until),
        wal_behind_bytes=found.behind_bytes,
        trouble=found.trouble,
    )


def _job(row: JobRow) -> JobStatus:
    return JobStatus(
        name=row.name,
        state=row.state,
        started_at=_moment(row.started_at),
        ended_at=_moment(row.ended_at),
        succeeded_at=_moment(row.succeeded_at),
        runs=row.runs,
        failures=row.failures,
        message=row.message,
    )


def _moment(time: datetime | None) -> str | None:
    return None if time is None else rfc3339(round(time.timestamp() * 1_000_000))


@endpoint(
    blueprint,
    Endpoint("GET", "/metrics", "The same for Prometheus", "stats", mimetype=metrics.CONTENT_TYPE),
)
def prometheus() -> Response:
    """Return the figures in Prometheus' text format."""
    run = runtime()
    figures = msgspec.structs.asdict(figures_of(run))
    return Response(metrics.render(run, figures, run.dirs.metrics), mimetype=metrics.CONTENT_TYPE)
