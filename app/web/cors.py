"""CORS: which web pages may read the answers. Without the setting `cors_origins` none may, as browsers have it.

https://fetch.spec.whatwg.org/#http-cors-protocol. No cookie is ever used, so credentials are never allowed; a page
sends its API key as a header.
"""

from __future__ import annotations

from flask import Flask, Response, request

from app.web.answers import NEXT_PAGE_HEADER
from app.web.server import runtime

METHODS = "GET, HEAD"
"""What a browser is told that asks before it sends: JSON, and DELETE, it may not. A POST of plain text it sends without
asking, and with a key whatever is said here; who may do that is looked at in auth.py."""

REQUEST_HEADERS = "Authorization, X-API-Key, If-None-Match, If-Match, If-Range, Range"
ANSWER_HEADERS = (
    f"ETag, Retry-After, Accept-Ranges, Content-Range, Content-Disposition, X-Request-Id, {NEXT_PAGE_HEADER}"
)
MAX_AGE_S = 600
"""How long a browser need not ask again; after that a changed setting holds."""


def register(app: Flask) -> None:
    """Say to browsers, on every answer, whether the page that asks may read it; errors too, and without a key."""
    app.after_request(_allow)


def _allow(response: Response) -> Response:
    allowed = runtime().settings.cors_origins
    if not allowed:
        return response
    if "*" in allowed:
        response.headers["Access-Control-Allow-Origin"] = "*"
    else:
        # On all answers, or a cache between gives one page's answer to another.
        response.vary.add("Origin")
        origin = request.headers.get("Origin", "")
        if origin not in allowed:
            return response
        response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = ANSWER_HEADERS
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return response
