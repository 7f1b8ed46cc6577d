"""What is done with every request, whatever it asks for: an id, and counting. Greenlet side."""

from __future__ import annotations

import time

from flask import Flask, Response, g, request

from app import request_ids
from app.web.server import runtime

HEADER = "X-Request-Id"

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})

NO_ROUTE = "none"
"""Of a request that leads nowhere: whoever makes paths up must not make time series up."""


def register(app: Flask) -> None:
    """See every request begin and end. To be called before anything else looks at requests."""
    app.before_request(_begin)
    app.after_request(_end)


def route() -> str:
    """Return the request's place among the routes, as the API page writes it: /api/bars/{symbol}."""
    rule = request.url_rule
    return NO_ROUTE if rule is None else rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")


def _begin() -> None:
    g.began = time.perf_counter()
    target = request.environ.get("RAW_URI") or request.full_path
    g.asked = request_ids.begin(request.headers.get(HEADER, ""), request.method, target)


def _end(response: Response) -> Response:
    method = request.method if request.method in METHODS else "other"
    was_websocket = g.get("was_websocket", False)
    seconds = None if was_websocket or "began" not in g else time.perf_counter() - g.began
    runtime().meters.answered(route(), method, 101 if was_websocket else response.status_code, seconds)
    if "asked" in g:
        response.headers[HEADER] = g.asked.id
    return response
