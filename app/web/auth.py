"""API keys: who may do what. Without any key configured everybody may do everything (loopback only)."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from flask import request

from app.errors import Forbidden, Unauthorized
from app.settings import Settings
from app.web.server import runtime


def needs(scope: str) -> Callable[[], None]:
    """Return a before-request function that lets only keys of `scope` (ingest, read, admin) pass."""

    def check() -> None:
        settings = runtime().settings
        if settings.has_api_keys:
            scopes = scopes_of(settings, sent_key())
            if scope not in scopes and "admin" not in scopes:
                raise Forbidden(f"this API key does not allow {scope}")

    return check


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


def scopes_of(settings: Settings, key: str) -> set[str]:
    """Return what the key allows. Raises Unauthorized for a key that is not configured."""
    sent = key.encode("utf-8", "replace")
    scopes = {
        scope
        for scope, keys in (
            ("ingest", settings.api_key_ingest),
            ("read", settings.api_key_read),
            ("admin", settings.api_key_admin),
        )
        for known in keys
        if hmac.compare_digest(known.encode(), sent)
    }
    if not scopes:
        raise Unauthorized("this API key is not known")
    return scopes
