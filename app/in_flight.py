"""Bytes of request bodies that a worker holds. Greenlet side."""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import BufferFull


@dataclass(slots=True)
class InFlight:
    """Bytes of request bodies that this worker holds, bounded."""

    max_bytes: int
    used_bytes: int = 0

    def take(self, size_bytes: int) -> None:
        """Reserve bytes. Raises BufferFull."""
        if self.used_bytes + size_bytes > self.max_bytes:
            raise BufferFull("too many requests at once: inflight_max_bytes is reached")
        self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Give bytes back."""
        self.used_bytes -= size_bytes
