"""API keys: who may do what. Without any key configured everybody on this machine may do everything (loopback only),
and web pages of elsewhere may not send data.

For whoever opens such a page the browser, which is on this machine, would post ticks: it asks nobody before it sends
plain text (https://fetch.spec.whatwg.org/#http-cors-protocol), but says from where. Of keys no page knows any.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from flask import g, request

from app.errors import Forbidden, Unauthorized
from app.settings import Settings
from app.web.server import runtime


def needs(scope: str) -> Callable[[], None]:
    """Return a before-request function that lets only keys of `scope` (ingest, read, admin) pass."""

    def check() -> None:
        run = runtime()
        if run.keys.required:
            g.caller = run.keys.admit(sent_key(), scope)
        elif scope != "read":
            refuse_foreign_pages(run.settings)

    return check


def may_go_on() -> Callable[[], bool]:
    """Return what tells, also when the request is over, whether its key still holds."""
    return partial(runtime().keys.may_go_on, g.get("caller"))


def refuse_foreign_pages(settings: Settings, what: str = "send data") -> None:
    """Raise Forbidden for what a web page sends that is neither ours nor of `cors_origins`; programs have no Origin.

    what: which it may not do, for the message.
    """
    origin = request.headers.get("Origin")
    if origin is None or origin in settings.cors_origins or "*" in settings.cors_origins:
        return
    if not _is_own(origin, request.headers.get("Host", ""), any_name=settings.insecure):
        raise Forbidden(
            f"the web page of {origin[:100]} may not {what} here: name its origin in cors_origins, or set API keys"
        )


def _is_own(origin: str, host: str, *, any_name: bool) -> bool:
    """Tell whether a page came from the address that it sends to.

    any_name: also by a name. Whoever owns a name can have it lead here once the page is there (DNS rebinding); of an
    address, and of localhost, nobody can.
    """
    if origin.partition("://")[2].lower() != host.lower():
        return False
    try:
        name = urlsplit(origin).hostname or ""
        if any_name or name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def has_key() -> bool:
    """Tell whether the request carries a key, whatever it is worth."""
    return "X-API-Key" in request.headers or "Authorization" in request.headers


def sent_key() -> str:
    """Return the key that the request carries. Raises Unauthorized when there is none."""
    key = request.headers.get("X-API-Key", "")
    if not key:
        kind, _, key = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            key = ""
    if not key.strip():
        raise Unauthorized
    return key.strip()
