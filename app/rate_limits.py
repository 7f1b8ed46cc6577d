"""How many requests a key may make: one token bucket a key, shared by all workers of a host. Greenlet side.

A bucket is one number in a file that every worker maps: the moment at which it will be full again, as the generic cell
rate algorithm has it (ITU-T I.371). So the limit is one for the host, without a round trip for each request; several
hosts have one each. Two workers that write at the same moment may let one request too many through, and nothing worse.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

KINDS = ("ingest", "read")
BURST_S = 2.0
"""A bucket holds what comes in so long: a page that opens asks a dozen things at once."""

PLACES = 8192
"""Keys with a bucket of their own; beyond, some share one. 128 KiB of disk."""

_ROUNDING_S = 1e-6

CONFIGURED_PLACES = 512
"""Of them for keys of the settings; the others are for those of the database, by number."""


class RateLimits:
    """The buckets of all keys."""

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Map the file, made if there is none. now: in seconds, the same in all processes of the host."""
        self._now = now
        size = 8 * PLACES * len(KINDS)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            there = os.fstat(fd).st_size
            if there < size:
                # Written, not truncated to size: a hole that a full disk cannot fill kills who writes to it (SIGBUS).
                os.pwrite(fd, bytes(size - there), there)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._full_at = memoryview(self._map).cast("d")

    def take(self, place: int, kind: str, rate_per_s: float) -> float:
        """Take one from a bucket; return 0.0, or how long to wait (s) when it is empty. Rate 0 is no limit."""
        if rate_per_s <= 0:
            return 0.0
        cell = place % PLACES * len(KINDS) + KINDS.index(kind)
        now, step_s = self._now(), 1 / rate_per_s
        burst_s = max(BURST_S, step_s)
        was_full_at = self._full_at[cell]
        if was_full_at > now + burst_s + _ROUNDING_S:
            was_full_at = now  # no bucket is as empty: the host began to count anew since, or the key's rate is another
        full_at = max(was_full_at, now) + step_s
        wait_s = full_at - now - burst_s
        if wait_s > _ROUNDING_S:
            return wait_s
        self._full_at[cell] = full_at
        return 0.0

    def close(self) -> None:
        """Unmap the file; it stays."""
        self._full_at.release()
        self._map.close()


def place_of(number: int, *, configured: bool) -> int:
    """Return the place of a key: the nth of the settings, or the one with this number in the database."""
    if configured:
        return number % CONFIGURED_PLACES
    return CONFIGURED_PLACES + number % (PLACES - CONFIGURED_PLACES)
