"""The OpenAPI document, and a page that shows it and tries it out: Swagger UI, from its package, without the net."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Response, request, send_from_directory

from app.errors import NotFound
from app.settings import ROOT
from app.web.api import ENDPOINTS, Endpoint, endpoint
from app.web.openapi import document
from app.web.server import runtime

blueprint = Blueprint("docs", __name__)

FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
"""What the page needs of the package. It has more: a logo of its own, and a page that fetches foreign documents."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tickhub</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

START = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  // A validator elsewhere would be sent the document.
  validatorUrl: null,
});
"""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles on elements
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/openapi.json",
        "This document",
        "documentation",
        scope="",
        description="OpenAPI 3.1, made of the types that validate the requests.",
        answer=dict[str, Any],
        etag=True,
    ),
)
def openapi() -> Response:
    """Return the OpenAPI document."""
    body, tag = _document(runtime().keys.required)
    response = Response(body, mimetype="application/json", headers={"Cache-Control": "no-cache"})
    response.set_etag(tag, weak=True)
    response.make_conditional(request)
    return response


@endpoint(
    blueprint,
    Endpoint("GET", "/docs", "A page to read and try all this", "documentation", scope="", mimetype="text/html"),
)
def page() -> Response:
    """Return the page."""
    return Response(PAGE, mimetype="text/html", headers=HEADERS)


@blueprint.get("/docs/<file>")
def asset(file: str) -> Response:
    """Return a file of the page. Raises NotFound."""
    if file == "start.js":
        return Response(START, mimetype="text/javascript", headers=HEADERS)
    if file not in FILES:
        raise NotFound(f"nothing is at {request.path}")
    response = send_from_directory(_dist(), file, mimetype=FILES[file])
    response.headers.update(HEADERS)
    return response


@cache
def _document(with_keys: bool) -> tuple[bytes, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    body = msgspec.json.encode(document(ENDPOINTS, version=project["version"], with_keys=with_keys))
    return body, hashlib.sha256(body).hexdigest()[:32]


@cache
def _dist() -> Path:
    return Path(str(files("flask_swagger_ui"))) / "dist"
