"""Is it alive, can it take ticks, is the database there. No key needed: probes have none."""

from __future__ import annotations

from typing import Annotated, Literal

from flask import Blueprint, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from app.errors import NotReady, RequestError
from app.runtime import Runtime
from app.web.api import Endpoint, endpoint
from app.web.auth import has_key, sent_key
from app.web.errors import RETRY_AFTER_S, answer, error_answer
from app.web.server import runtime

blueprint = Blueprint("health", __name__)

Uptime = Annotated[int, Meta(ge=0, description="since the server's start, s")]


class Health(Struct):
    """How the whole is."""

    status: Literal["healthy", "unhealthy"]
    database: Literal["connected", "disconnected"]
    workers: Annotated[int, Meta(ge=0, description="living worker processes")]
    uptime_seconds: Uptime
    reason: Annotated[str, Meta(description="why it is unhealthy; for whoever may read")] | UnsetType = UNSET


class Alive(Struct, tag_field="status", tag="alive"):
    """The process serves."""


class Ready(Struct, tag_field="status", tag="ready"):
    """Ticks are accepted."""


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/health",
        "Whether server and database are well",
        "health",
        scope="",
        description="503 while the database is away; ticks may be accepted all the same.",
        answer=Health,
        also={503: Health},
    ),
)
def health() -> Response:
    """Tell how the whole is: 503 while the database is away (ticks may be accepted all the same)."""
    run = runtime()
    run.figures.refresh()
    connected = run.keeper.connected
    response = answer(
        Health(
            status="healthy" if connected else "unhealthy",
            database="connected" if connected else "disconnected",
            workers=len(run.figures.workers()),
            uptime_seconds=int(run.figures.uptime_s()),
            reason=run.keeper.reason if not connected and _may_read(run) else UNSET,
        ),
        200 if connected else 503,
    )
    if not connected:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


@endpoint(
    blueprint,
    Endpoint("GET", "/health/live", "Whether the process serves", "health", scope="", answer=Alive),
)
def live() -> Response:
    """Answer while the process serves."""
    return answer(Alive())


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/health/ready",
        "Whether ticks can be accepted durably",
        "health",
        scope="",
        description="The database is not needed for that.",
        answer=Ready,
        errors=(NotReady,),
    ),
)
def ready() -> Response:
    """Tell whether ticks can be accepted durably now; the database is not needed for that."""
    why_not = runtime().ready()
    if why_not is not None:
        return error_answer("not_ready", why_not, 503)
    return answer(Ready())


def _may_read(run: Runtime) -> bool:
    """Tell whether who asks would be answered elsewhere: reasons name hosts, addresses and roles."""
    if not run.keys.required:
        return True
    try:
        return has_key() and bool(run.keys.admit(sent_key(), "read"))
    except RequestError:
        return False
