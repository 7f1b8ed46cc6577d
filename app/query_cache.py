"""Answers kept for a while: in Redis (redis_cache.py), or nowhere. Greenlet side.

A key holds the version of what the answer was made from (docs/reads.md), read from the database before the answer was
made. So nothing that is kept is ever out of date, and nothing has to be taken out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Protocol

from app.settings import Settings

Result = Literal["hit", "miss", "error", "skipped"]

log = logging.getLogger("tickhub")


class QueryCache(Protocol):
    """Keeps answers for a while, or does not: every method may do nothing, and none raises or waits long."""

    @property
    def worth_asking(self) -> bool:
        """Tell whether `get` may return something: where not, the key need not be made."""

    def get(self, key: str) -> bytes | None:
        """Return the value that was put under a key, while it may be served."""

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value for `ttl_s` from now."""

    def start(self) -> None:
        """Begin to be of use; idempotent."""

    def stop(self) -> None:
        """Give up what is held; idempotent."""


class NullCache:
    """No cache."""

    worth_asking = False

    def get(self, key: str) -> bytes | None:
        """Return None."""
        return None

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Forget the value."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


def make_cache(settings: Settings, count: Callable[[Result], None] = lambda result: None) -> QueryCache:
    """Return the cache that the settings ask for, not started. Does not connect, and raises nothing."""
    if not settings.redis_url:
        return NullCache()
    try:
        from app.redis_cache import RedisCache  # the driver costs a worker 9 MB

        return RedisCache(settings.redis_url, count=count)
    except Exception as error:  # noqa: BLE001 - a worker that fails at boot ends the server
        log.error("redis_url cannot be used (%s): there is no query cache", type(error).__name__)
        return NullCache()
