"""Messages between workers: of a host by Unix datagrams, of several hosts by Redis too. Greenlet side.

A message is a kind and bytes. It goes to all workers but its sender, at most once by each way, or not at all: whoever
listens repairs from the database what was lost. Messages of one sender come in their order.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from app.stream.datagrams import Datagrams
from app.stream.frames import MOST_MESSAGE_BYTES, Assembler, BadFrame, ForeignFrame, Sender, sender_of

TICKS = 1
"""Ticks that a worker accepted (fan_out.py)."""
COMMITTED = 2
"""What a flush inserted."""
QUOTES_WANTED = 3
"""A worker has just begun, and would like to know the quotes; the payload is the head of its frames."""
QUOTES = 4
"""Quotes for a worker that has just begun."""
ALERTS = 5
"""Alerts that the elected process stored (alerting.py)."""
DATABASE = 6
"""What the elected process has read of the database itself (watch.py)."""

Way = Literal["datagrams", "redis"]
Count = Callable[[str, str, int], None]
"""Called with the way, what became of messages (sent, received, dropped, garbage, foreign, ...), and how many."""

log = logging.getLogger("tickhub")


class OtherHosts(Protocol):
    """The way to other hosts."""

    @property
    def reaches_somebody(self) -> bool:
        """Tell whether sending is of any use just now."""

    def send(self, kind: int, payload: bytes) -> None:
        """Send a message to the workers of all other hosts; returns at once."""

    def start(self) -> None:
        """Connect, now and whenever it is lost."""

    def stop(self) -> None:
        """Send and receive no more; idempotent."""


class Bus:
    """This worker's place on the bus.

    directory: where the sockets of this host's workers are. slot: this worker's. `others`: makes the way to other
    hosts, from who we are, what is to be called with each frame, and what counts. Nothing is opened before `start`.
    """

    def __init__(
        self,
        directory: Path,
        slot: int,
        count: Count = lambda way, result, messages: None,
        others: Callable[[Sender, Callable[[bytes], None], Count], OtherHosts] | None = None,
    ) -> None:
        self.me = Sender(host_of(directory), secrets.token_bytes(8), slot)
        self._count = count
        self._handlers: dict[int, Callable[[bytes], None]] = {}
        self._failed: set[int] = set()
        self._assemblers = {"datagrams": Assembler(), "redis": Assembler()}
        self._datagrams = Datagrams(
            directory,
            self.me,
            lambda frame: self._received("datagrams", frame),
            lambda result, messages: count("datagrams", result, messages),
        )
        self._others = others(self.me, lambda frame: self._received("redis", frame), count) if others else None

    @property
    def reaches_somebody(self) -> bool:
        """Tell whether there is anybody to send to: where not, messages need not be made."""
        return self._datagrams.reaches_somebody or (self._others is not None and self._others.reaches_somebody)

    def on(self, kind: int, handler: Callable[[bytes], None]) -> None:
        """Have `handler` called with the payload of each message of this kind, one after another; it may switch."""
        self._handlers[kind] = handler

    def send(self, kind: int, payload: bytes, to: Sender | None = None, *, here: bool = False) -> None:
        """Send a message (kind: 0 to 255) to all other workers, or to one or all of this host; returns at once.

        One that is larger than MOST_MESSAGE_BYTES is dropped.
        """
        if len(payload) > MOST_MESSAGE_BYTES:
            self._count("datagrams", "dropped", 1)
            return
        self._datagrams.send(kind, payload, to)
        if self._others is not None and to is None and not here:
            self._others.send(kind, payload)

    def start(self) -> None:
        """Begin to send and receive."""
        self._datagrams.start()
        if self._others is not None:
            self._others.start()

    def stop(self) -> None:
        """Leave; idempotent."""
        self._datagrams.stop()
        if self._others is not None:
            self._others.stop()

    def _received(self, way: Way, frame: bytes) -> None:
        try:
            sender = sender_of(frame)
            if sender.host == self.me.host and way == "redis":
                return  # our host's, which came by datagram, or our own
            if way == "datagrams":
                self._datagrams.met(sender)
            for kind, payload in self._assemblers[way].messages(frame, sender):
                self._count(way, "received", 1)
                self._handle(way, kind, payload)
        except ForeignFrame:
            self._count(way, "foreign", 1)
        except BadFrame:
            self._count(way, "garbage", 1)

    def _handle(self, way: Way, kind: int, payload: bytes) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            return
        try:
            handler(payload)
        except BadFrame:
            self._count(way, "garbage", 1)
        except Exception:
            level = logging.DEBUG if kind in self._failed else logging.ERROR
            self._failed.add(kind)
            log.log(level, "[ERROR] a message of another worker (kind %d) failed", kind, exc_info=True)


def host_of(directory: Path) -> bytes:
    """Return the 8 bytes that all workers of this data directory have in common, and no other server has.

    Made by the first who asks. Without a place for them they are made anew for each worker: then this host's messages
    come back by Redis, and change nothing.
    """
    note = directory / "host"
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = directory / f".host-{secrets.token_hex(8)}"
        fresh.write_bytes(secrets.token_bytes(8))
        try:
            with suppress(FileExistsError):
                os.link(fresh, note)  # whole or not at all, and only the first
        finally:
            fresh.unlink()
        found = note.read_bytes()
        if len(found) == 8:
            return found
    return secrets.token_bytes(8)
