"""The index of what there is."""

from __future__ import annotations

from flask import Blueprint, Response
from msgspec import Struct

from app.web.api import ENDPOINTS, Endpoint, endpoint
from app.web.errors import answer
from app.web.openapi import in_order

blueprint = Blueprint("query", __name__)


class Listed(Struct):
    """An endpoint."""

    method: str
    path: str
    what: str


class Index(Struct):
    """All endpoints."""

    endpoints: list[Listed]


@endpoint(blueprint, Endpoint("GET", "/", "This list", "documentation", scope="", answer=Index))
def index() -> Response:
    """List the endpoints."""
    return answer(Index([Listed(one.method, one.path, one.summary) for one in in_order(ENDPOINTS)]))
