"""The page at `/`: a watch list and a chart, from files as they are in app/viewer. Greenlet side.

Anybody may have the page; what it shows it asks for with a key, where there are any.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from flask import Blueprint, Response, request, send_from_directory
from werkzeug.security import safe_join

from app.errors import NotFound
from app.settings import ROOT

blueprint = Blueprint("viewer", __name__)

FOLDER = ROOT / "app" / "viewer"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""What a browser may have of the folder, by the end of its name; the licences beside, as text."""
TEXTS = ("LICENSE", "NOTICE")

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",  # of the same host, so /ws too
        "require-trusted-types-for 'script'",
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
    "Cache-Control": "no-cache",  # asked for again each time, by ETag: an upgrade's modules never meet old ones
}


def page() -> Response:
    """Return the page itself; its address is in query.py, which programs have another answer of."""
    return Response((FOLDER / "index.html").read_bytes(), mimetype="text/html", headers=HEADERS)


@blueprint.get("/viewer/<path:file>")
def asset(file: str) -> Response:
    """Return a file of the page. Raises NotFound."""
    name = PurePosixPath(file)
    mimetype = "text/plain" if name.name in TEXTS else TYPES.get(name.suffix)
    path = safe_join(str(FOLDER), file)
    if mimetype is None or path is None or not Path(path).is_file():
        raise NotFound(f"nothing is at {request.path}")
    # Of the content: builds that can be repeated give every release's files one time, and some have one size.
    etag = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32]
    response = send_from_directory(FOLDER, file, mimetype=mimetype, etag=etag)
    response.headers.update(HEADERS)
    return response
