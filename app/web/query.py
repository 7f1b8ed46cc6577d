"""What is at `/`: for programs the index of what there is, for browsers the viewer. Greenlet side."""

from __future__ import annotations

from flask import Blueprint, Response, request
from msgspec import Struct

from app.web.api import ENDPOINTS, Endpoint, endpoint
from app.web.errors import answer
from app.web.openapi import in_order
from app.web.viewer import page

blueprint = Blueprint("query", __name__)


class Listed(Struct):
    """An endpoint."""

    method: str
    path: str
    what: str


class Index(Struct):
    """All endpoints."""

    endpoints: list[Listed]


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/",
        "This list; for browsers a page to watch quotes and bars",
        "documentation",
        scope="",
        answer=Index,
        mimetype="text/html",
    ),
)
def index() -> Response:
    """List the endpoints, or return the page to who would rather have HTML."""
    wants = request.accept_mimetypes.best_match(["application/json", "text/html"], default="application/json")
    if wants == "text/html":
        response = page()
    else:
        response = answer(Index([Listed(one.method, one.path, one.summary) for one in in_order(ENDPOINTS)]))
    response.vary.add("Accept")
    return response
