"""Page tokens: where the next page begins, opaque to clients. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

import msgspec

from app.errors import BadParameter

_MARK_BYTES = 6
"""Enough to tell a token of another request; it guards against mix-ups, not against malice."""


def make_token(of: Sequence[object], place: bytes) -> str:
    """Return a token for the place behind which the next page of this kind of request begins; safe in a URL."""
    return base64.urlsafe_b64encode(_mark(of) + place).decode().rstrip("=")


def read_token(of: Sequence[object], token: str) -> bytes:
    """Return the place in a token that `make_token` made for the same kind of request. Raises BadParameter."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if data[:_MARK_BYTES] != _mark(of):
        raise foreign_token()
    return data[_MARK_BYTES:]


def foreign_token() -> BadParameter:
    """Return the error for a token that does not belong to the request."""
    return BadParameter("page_token: is not from an answer to this request (same symbol, order and kind of rows)")


def _mark(of: Sequence[object]) -> bytes:
    return hashlib.sha256(msgspec.json.encode(list(of))).digest()[:_MARK_BYTES]
