"""How a worker talks to Redis, for the cache and for the bus. Greenlet side.

Redis is a convenience: nothing waits long for it, nothing is tried twice, and what it is called in the log holds no
secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

CONNECT_TIMEOUT_S = 0.3
SOCKET_TIMEOUT_S = 0.1
CALL_TIMEOUT_S = 0.4
"""Connecting and one wait for Redis; one wait; and all of a call, since the first two begin anew with every byte. A
healthy Redis answers within a millisecond, and the database, which is asked instead, within ten."""

T = TypeVar("T")


class RedisLink:
    """Connections to the Redis of a URL. Raises ValueError for a URL that is none.

    name: where it is. database: its number. client: what asks it; pool: its connections.
    """

    def __init__(self, url: str, max_connections: int) -> None:
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # untyped library
        self._password = str(options.get("password") or "")
        self.name = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
        self.database = int(options.get("db") or 0)
        # Ours win over those of the URL's query: some would make a request wait, others make text of bytes.
        options |= {
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
            "decode_responses": False,
            "max_connections": max_connections,
            # RESP 3 would let the server stretch the timeouts, by its maintenance notifications.
            "protocol": 2,
            "driver_info": None,  # two round trips a connection
        }
        self.pool = ConnectionPool(**options)
        self.client: Redis = Redis(connection_pool=self.pool)

    def call(self, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, within CALL_TIMEOUT_S. Raises TimeoutError, and what it raises."""
        # A Timeout is no Exception, so nothing in the driver takes it for one of its own and goes on.
        timer = gevent.Timeout(CALL_TIMEOUT_S)
        try:
            with timer:
                return ask()
        except gevent.Timeout as timeout:
            if timeout is not timer:
                raise
            raise TimeoutError(f"no answer within {CALL_TIMEOUT_S} s") from None

    def reason(self, error: Exception) -> str:
        """Return what went wrong, in a line without the password."""
        text = " ".join(str(error).split()) or type(error).__name__
        return text.replace(self._password, "***") if self._password else text
