"""Answers kept in Redis. Greenlet side.

Redis is a convenience: whatever is wrong with it, a request waits CALL_TIMEOUT_S for it at most, and after a failure
nobody asks it again until the watch has found it well.
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import struct
import time
import zlib
from collections.abc import Callable

import gevent
from gevent.event import Event
from redis.exceptions import MaxConnectionsError, ResponseError

from app.query_cache import Result
from app.redis_link import RedisLink

PROBE_LEAST_S, PROBE_MOST_S = 1.0, 3.0
"""Time between looks at a Redis that failed, drawn at random so that workers do not look all at once."""

LINE_EVERY_S = 30.0
"""A Redis that comes and goes, a full one say, is logged so often at most."""

MAX_VALUE_BYTES = 1 << 20
MAX_CONNECTIONS = 16
"""Of one worker. When they are all in use the cache is skipped: waiting for one would cost what it saves."""

_PREFIX = "tickhub:1:"
_MAGIC = b"thq1"
_HEADER = struct.Struct(">4sqI")
"""What this is, the UTC microsecond until which it may be served, the CRC of key, that time and value."""

log = logging.getLogger("tickhub")


class RedisCache:
    """A cache in Redis.

    count: called with the result of every `get`, and with "error" for a `put` that failed. probe_s: least and most
    time between looks at a Redis that failed. Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        count: Callable[[Result], None] = lambda result: None,
        probe_s: tuple[float, float] = (PROBE_LEAST_S, PROBE_MOST_S),
    ) -> None:
        self._link = RedisLink(url, MAX_CONNECTIONS)
        self._pool, self._redis = self._link.pool, self._link.client
        self._count = count
        self._probe_s = probe_s
        self._well = False
        self._lost = Event()
        self._said_lost = False
        self._said_at = float("-inf")
        self._watcher: gevent.Greenlet | None = None

    @property
    def worth_asking(self) -> bool:
        """Tell whether Redis was well when last heard of."""
        return self._well

    def start(self) -> None:
        """Begin to watch Redis; it is asked once it is found well."""
        if self._watcher is None:
            self._watcher = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Ask Redis no more, and close the connections."""
        watcher, self._watcher, self._well = self._watcher, None, False
        if watcher is not None:
            watcher.kill()
            self._pool.disconnect()

    def get(self, key: str) -> bytes | None:
        """Return the value that was put under a key; None for what is damaged, too old, or not to be had."""
        if not self._well:
            self._count("skipped")
            return None
        name = _name_of(key)
        try:
            # A range, not the whole: under our names may lie what somebody else wrote, of any size.
            found = self._link.call(lambda: self._redis.getrange(name, 0, _HEADER.size + MAX_VALUE_BYTES))
        except MaxConnectionsError:
            self._count("skipped")
            return None
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                self._failed(error)
                return None
            found = b""
        except Exception as error:  # noqa: BLE001 - whatever Redis does, the answer is made without it
            self._failed(error)
            return None
        value = _opened(name, found) if isinstance(found, bytes) else None
        self._count("miss" if value is None else "hit")
        return value

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value for `ttl_s` from now; one that is larger than MAX_VALUE_BYTES is not kept."""
        ttl_ms = int(ttl_s * 1000)
        if not self._well or ttl_ms < 1 or len(value) > MAX_VALUE_BYTES:
            return
        name = _name_of(key)
        sealed = _sealed(name, value, time.time_ns() // 1000 + ttl_ms * 1000)
        try:
            self._link.call(lambda: self._redis.set(name, sealed, px=ttl_ms))
        except MaxConnectionsError:
            return
        except Exception as error:  # noqa: BLE001 - the same
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._count("error")
        if not self._well:
            return  # one of several that were waiting when it failed
        self._well = False
        # The idle ones may be as dead, and each would cost its next user the whole timeout.
        self._pool.disconnect(inuse_connections=False)
        if time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._say_lost(error)
        self._lost.set()

    def _say_lost(self, error: Exception) -> None:
        self._said_lost, self._said_at = True, time.monotonic()
        log.warning(
            "the query cache (Redis at %s) is away: %s; answers come from the database",
            self._link.name,
            self._link.reason(error),
        )

    def _watch(self) -> None:
        asked_before = False
        while True:
            try:
                self._link.call(self._probe)
            except Exception as error:  # noqa: BLE001 - the same
                self._pool.disconnect(inuse_connections=False)
                if not asked_before:
                    self._say_lost(error)
            else:
                self._found_well()
                self._lost.wait()
            asked_before = True
            gevent.sleep(random.uniform(*self._probe_s))  # noqa: S311 - jitter

    def _found_well(self) -> None:
        self._lost.clear()
        self._well = True
        if self._said_lost:
            self._said_lost = False
            log.info("the query cache (Redis at %s) is back", self._link.name)

    def _probe(self) -> None:
        # Written and read: one that is full, a replica or saving in vain still answers PING.
        name, token = f"{_PREFIX}probe:{secrets.token_hex(8)}", secrets.token_bytes(16)
        self._redis.set(name, token, px=1000)
        if self._redis.get(name) != token:
            raise ValueError("it does not give back what it was given")


def _name_of(key: str) -> str:
    return _PREFIX + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _sealed(name: str, value: bytes, until_us: int) -> bytes:
    return _HEADER.pack(_MAGIC, until_us, _crc(name, value, until_us)) + value


def _opened(name: str, data: bytes) -> bytes | None:
    if len(data) < _HEADER.size:
        return None
    magic, until_us, crc = _HEADER.unpack_from(data)
    value = data[_HEADER.size :]
    sound = magic == _MAGIC and time.time_ns() // 1000 < until_us and crc == _crc(name, value, until_us)
    return value if sound else None


def _crc(name: str, value: bytes, until_us: int) -> int:
    return zlib.crc32(value, zlib.crc32(b"%s %d " % (name.encode(), until_us)))
