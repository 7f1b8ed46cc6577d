"""What holds for every request and every answer: by which name it came, and what a browser may do with the answer.

A web page whose owner has its name lead to this machine (DNS rebinding) is, for a browser, a page of this server: it
may read everything, and no Origin tells. But the name stays in the header Host. So a server that asks for no keys
answers only to names of which nobody else can do that: addresses, localhost, its own and those of `allowed_hosts`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from flask import Flask, Response, request

from app.errors import Forbidden
from app.web.server import runtime

_OPEN = "/health"
"""Says nothing worth reading, and is asked for by whatever name a load balancer knows."""


def register(app: Flask) -> None:
    """Look at the name before anything else; complete the headers of every answer."""
    app.before_request(_check_host)
    app.after_request(_complete)


def _check_host() -> None:
    run = runtime()
    settings = run.settings
    if run.keys.required or settings.insecure:
        return
    host = request.environ.get("HTTP_HOST", "")
    if _is_known(host, settings.host, settings.allowed_hosts) or request.path.startswith(_OPEN):
        return
    raise Forbidden(
        f"this server does not go by the name {host[:100]!r}: ask it as localhost or by its address, name it in"
        " allowed_hosts, or set API keys"
    )


@lru_cache(maxsize=256)
def _is_known(host: str, own: str, allowed: tuple[str, ...]) -> bool:
    """Tell whether a header Host is of a name that only leads elsewhere if somebody here wants it to.

    None at all is: every browser sends one.
    """
    if not host or "*" in allowed:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        if name == "localhost" or name.endswith(".localhost") or name == own.lower() or name in allowed:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _complete(response: Response) -> Response:
    headers = response.headers
    # What is sent as data is never run as a script, nor put into somebody else's page as an image or a script. Pages
    # that cors_origins names ask by CORS, which this does not concern.
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if response.mimetype == "text/html":
        headers["X-Frame-Options"] = "DENY"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    return response
