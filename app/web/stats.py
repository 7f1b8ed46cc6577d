"""GET /stats for people, GET /metrics for Prometheus: the same figures."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response

from app.market.rfc3339 import rfc3339
from app.meters import ahead_warning
from app.runtime import Runtime
from app.slots import STATES
from app.web import metrics
from app.web.auth import needs
from app.web.errors import answer
from app.web.server import runtime

blueprint = Blueprint("stats", __name__)
blueprint.before_request(needs("read"))


@blueprint.get("/stats")
def stats() -> Response:
    """Return what all workers did since the server's start."""
    return answer(figures_of(runtime()))


def figures_of(run: Runtime) -> dict[str, Any]:
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
    return {
        "ticks_received": received,
        "ticks_processed": processed,
        "buffer_size": max(0, received - processed - figures.journal("lost")),
        "duplicates": figures.journal("duplicates"),
        "stored": figures.journal("stored"),
        "set_aside": figures.journal("set_aside"),
        "rejected": rejected,
        "errors": rejected + figures.slot("flush_failures"),
        "last_flush": rfc3339(flushed_us) if (flushed_us := figures.last_flush_us()) else None,
        "ticks_per_second": figures.ticks_per_second(),
        "journal_bytes": figures.journal("disk_bytes"),
        "workers": len(figures.workers()),
        "worker_status": [
            {
                "pid": slot["pid"],
                "uptime_seconds": int((now_us - slot["started_us"]) / 1_000_000),
                "state": STATES[slot["state"]],
                "connections": slot["connections"],
            }
            for slot in figures.workers()
        ],
        "active_connections": sum(slot["connections"] for slot in figures.workers()),
        "requests_per_second": round(sum(slot["requests_per_second_x1000"] for slot in figures.workers()) / 1000, 1),
        "database_status": "connected" if run.keeper.connected else "disconnected",
        "uptime_seconds": int(figures.uptime_s()),
        "warnings": warnings,
    }


@blueprint.after_app_request
def count(response: Response) -> Response:
    """Count every answer, of whatever endpoint."""
    runtime().meters.answered(response.status_code)
    return response


@blueprint.get("/metrics")
def prometheus() -> Response:
    """Return the figures in Prometheus' text format."""
    run = runtime()
    return Response(metrics.render(figures_of(run), run.dirs.metrics), mimetype=metrics.CONTENT_TYPE)
