"""Is it alive, can it take ticks, is the database there. No key needed: probes have none."""

from __future__ import annotations

from flask import Blueprint, Response

from app.web.errors import RETRY_AFTER_S, answer, error_answer
from app.web.server import runtime

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("")
def health() -> Response:
    """Tell how the whole is: 503 while the database is away (ticks may be accepted all the same)."""
    run = runtime()
    run.figures.refresh()
    connected = run.keeper.connected
    response = answer(
        {
            "status": "healthy" if connected else "unhealthy",
            "database": "connected" if connected else "disconnected",
            "workers": len(run.figures.workers()),
            "uptime_seconds": int(run.figures.uptime_s()),
            **({} if connected else {"reason": run.keeper.reason}),
        },
        200 if connected else 503,
    )
    if not connected:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


@blueprint.get("/live")
def live() -> Response:
    """Answer while the process serves."""
    return answer({"status": "alive"})


@blueprint.get("/ready")
def ready() -> Response:
    """Tell whether ticks can be accepted durably now; the database is not needed for that."""
    why_not = runtime().ready()
    if why_not is not None:
        return error_answer("not_ready", why_not, 503)
    return answer({"status": "ready"})
