"""Frames between the workers of several hosts: Redis pub/sub. Greenlet side.

Each worker publishes what it sends, and subscribes for itself: nobody depends on another worker's life. So each gets
its own host's frames back, and drops them. What is sent while Redis is away is lost; the database repairs it.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import gevent
from gevent.event import Event
from redis import Redis
from redis.connection import ConnectionPool

from app.stream.frames import HEAD_BYTES, Sender, pieces_of

CONNECTIONS = 2
"""One publishes, one subscribes."""

MOST_FRAME_BYTES = 256 << 10
"""What a slow line still takes within the time of a call."""

HELD_BYTES = 4 << 20
"""Waits to be published at most; what comes then is dropped."""

PING_EVERY_S, SILENT_S = 2.0, 6.0
"""A subscriber that hears nothing asks whether Redis is there; one that gets no answer either connects anew."""

AGAIN_LEAST_S, AGAIN_MOST_S = 0.5, 10.0
"""How long a lost Redis is left alone: doubled each time, and drawn at random around that."""

LINE_EVERY_S = 30.0
TURN_S, PAUSE_S = 0.002, 0.001
"""How long received frames are handled, and then others have their turn."""

T = TypeVar("T")

log = logging.getLogger("tickhub")


class Link(Protocol):
    """Connections to a Redis (redis_link.py)."""

    name: str
    database: int
    client: Redis
    pool: ConnectionPool

    def call(self, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, or raise, soon."""

    def reason(self, error: Exception) -> str:
        """Return what went wrong, without secrets."""


class RedisBus:
    """This worker's connections to the other hosts. received: called with every frame; may switch."""

    def __init__(
        self,
        link: Link,
        sender: Sender,
        received: Callable[[bytes], None],
        count: Callable[[str, str, int], None],
    ) -> None:
        self._link = link
        # Redis' channels know no databases: servers that share a Redis by database numbers must not hear each other.
        self._channel = f"tickhub:1:bus:{link.database}"
        self._head = sender.head()
        self._received = received
        self._count = count
        self._well = False
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._wake = Event()
        self._lost: set[str] = set()
        """Of publishing and subscribing, what does not work."""
        self._said_lost = False
        self._said_at = float("-inf")
        self._greenlets: list[gevent.Greenlet] = []

    @property
    def reaches_somebody(self) -> bool:
        """Tell whether Redis takes what is published."""
        return self._well

    def start(self) -> None:
        """Connect, now and whenever it is lost."""
        self._greenlets = [
            gevent.spawn(self._keep, "publishing", self._publish),
            gevent.spawn(self._keep, "subscribing", self._subscribe),
        ]

    def stop(self) -> None:
        """Send and receive no more; idempotent."""
        gevent.killall(self._greenlets)
        self._greenlets, self._well = [], False
        self._link.pool.disconnect()

    def send(self, kind: int, payload: bytes) -> None:
        """Send a message to the workers of all other hosts; returns at once."""
        pieces = pieces_of(kind, payload, MOST_FRAME_BYTES - HEAD_BYTES)
        size = sum(map(len, pieces))
        if not self._well or self._held_bytes + size > HELD_BYTES:
            self._count("redis", "dropped", 1)
            return
        self._held.extend(pieces)
        self._held_bytes += size
        self._wake.set()
        self._count("redis", "sent", 1)

    def _keep(self, what: str, do: Callable[[Callable[[], None]], None]) -> None:
        """Do something that ends only by failing, again and again."""
        failures = 0

        def works() -> None:
            nonlocal failures
            failures = 0
            self._works(what)

        while True:
            try:
                do(works)
            except Exception as error:  # noqa: BLE001 - whatever Redis does, it is tried again
                self._fails(what, error)
            delay_s = min(AGAIN_MOST_S, AGAIN_LEAST_S * 2.0**failures)
            failures = min(failures + 1, 10)
            gevent.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _publish(self, works: Callable[[], None]) -> None:
        publish, call = self._link.client.publish, self._link.call
        try:
            call(self._link.client.ping)
            self._well = True
            works()
            while True:
                self._wake.wait()
                self._wake.clear()
                while self._held:
                    frame = self._next_frame()
                    call(lambda frame=frame: publish(self._channel, frame))  # type: ignore[misc]
        finally:
            self._well = False
            if self._held:
                self._count("redis", "dropped", len(self._held))
            self._held.clear()
            self._held_bytes = 0

    def _next_frame(self) -> bytes:
        parts, size = [self._head], HEAD_BYTES
        while self._held and size + len(self._held[0]) <= MOST_FRAME_BYTES:
            parts.append(self._held.popleft())
            size += len(parts[-1])
        self._held_bytes -= size - HEAD_BYTES
        return b"".join(parts)

    def _subscribe(self, works: Callable[[], None]) -> None:
        pool, call = self._link.pool, self._link.call
        connection: Any = call(pool.get_connection)
        try:
            call(lambda: connection.send_command("SUBSCRIBE", self._channel))
            self._listen(connection, works)
        finally:
            connection.disconnect()
            pool.release(connection)

    def _listen(self, connection: Any, works: Callable[[], None]) -> None:
        heard_at = turn_at = time.monotonic()
        while True:
            if not connection.can_read(timeout=PING_EVERY_S):
                if time.monotonic() - heard_at > SILENT_S:
                    raise TimeoutError(f"not a word within {SILENT_S:.0f} s")
                self._link.call(lambda: connection.send_command("PING"))
                turn_at = time.monotonic()
                continue
            said = connection.read_response(disconnect_on_error=False, timeout=SILENT_S)
            heard_at = time.monotonic()
            match said:
                case [b"message", _, bytes(frame)]:
                    self._received(frame)
                case [b"subscribe", *_]:
                    works()
                case [b"pong", *_]:
                    pass
                case _:
                    raise ValueError("it does not talk as Redis does")
            if time.monotonic() - turn_at > TURN_S:
                gevent.sleep(PAUSE_S)
                turn_at = time.monotonic()

    def _works(self, what: str) -> None:
        self._lost.discard(what)
        if not self._lost and self._said_lost:
            self._said_lost = False
            log.info("the other hosts (Redis at %s) are back", self._link.name)

    def _fails(self, what: str, error: Exception) -> None:
        self._lost.add(what)
        if time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_lost, self._said_at = True, time.monotonic()
            log.warning(
                "the other hosts (Redis at %s) are away: %s; their ticks come from the database",
                self._link.name,
                self._link.reason(error),
            )
