"""Notes of backups, as they lie beside them, of backups that need not be there."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.backup.catalog import Note
from app.storage.schema import HEAD


def a_note(at: datetime, **other: Any) -> Note:
    """Return the note of a sound full backup that was taken at a moment; `other`: what is different about it."""
    usual: dict[str, Any] = {
        "label": f"{at:%Y%m%dT%H%M%SZ}-{other.get('kind', 'full')}",
        "kind": "full",
        "parent": None,
        "began_at": at,
        "ended_at": at,
        "start_lsn": "0/1",
        "end_lsn": "0/2",
        "timeline": 1,
        "wal_segment_bytes": 1 << 24,
        "bytes": 1,
        "server_version": "18.6",
        "system_identifier": "7",
        "schema_revision": HEAD,
        "verified_at": at,
    }
    return Note(**(usual | other))
