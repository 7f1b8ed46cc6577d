"""Times as they stand in answers: RFC 3339, UTC, six fraction digits. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(us: int) -> str:
    """Return UTC microseconds since 1970 as text: 2026-01-13T17:54:43.000000Z."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{us % 1_000_000:06d}Z"
