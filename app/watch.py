"""The database's figures: asked for by the elected process, shown by all. Greenlet side.

    elected, every EVERY_S:  a page's lane asks the database (storage/database_figures.py) -> kept here, sent by the bus
    all others:              keep what came; when nothing does, they ask themselves: the elected one may be out of reach

With the database away the last figures stay, with their age. A worker that has just begun has none for EVERY_S.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
import msgspec
from psycopg2 import Error as DriverError

from app.errors import RequestError, TickhubError
from app.reads import PAGE, Reads
from app.storage.database_figures import DatabaseFigures, read_figures
from app.stream.bus import DATABASE
from app.stream.frames import BadFrame

EVERY_S = 15.0
IDLE_S = 1.0
"""How often one that is not elected looks whether it is."""

UNTOLD_S = (60.0, 90.0)
"""So long one that is not elected waits for figures, by chance within, so that one asks and tells the others."""

SHARE = 0.05
"""Share of the time that asking may take: thousands of partitions have a second's worth of files to look at."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DatabaseFigures)

log = logging.getLogger("tickhub")


class Wire(Protocol):
    """What is needed of the bus."""

    def on(self, kind: int, handler: Callable[[bytes], None]) -> None:
        """Have a kind of messages handled."""

    def send(self, kind: int, payload: bytes) -> None:
        """Send to all other workers."""


class Watch:
    """What this worker knows of the database."""

    def __init__(self, elected: Callable[[], Any], reads: Reads, bus: Wire) -> None:
        """Take what it needs. elected: returns something true while this worker is to ask."""
        self._elected, self._reads, self._bus = elected, reads, bus
        self._figures: DatabaseFigures | None = None
        self._at_s = float("-inf")
        self._asked_s = float("-inf")
        self._began_s = time.monotonic()
        self._wait_s = 0.0
        self._patience_s = random.uniform(*UNTOLD_S)  # noqa: S311 - nothing to guess
        self._complaint = ""
        bus.on(DATABASE, self._came)

    @property
    def figures(self) -> DatabaseFigures | None:
        """Return the newest figures, None: there are none yet."""
        return self._figures

    @property
    def age_s(self) -> float:
        """Return how old they are; where there are none, for how long there have been none."""
        return time.monotonic() - max(self._at_s, self._began_s)

    def run(self) -> None:
        """Ask for ever, when it is time to; to be spawned as a greenlet."""
        while True:
            if self._is_due(time.monotonic()):
                self.ask()
            gevent.sleep(IDLE_S)

    def _is_due(self, now_s: float) -> bool:
        if now_s - self._asked_s < self._wait_s:
            return False
        return bool(self._elected()) or now_s - max(self._at_s, self._began_s) > self._patience_s

    def ask(self) -> None:
        """Ask the database now, and tell the others."""
        self._asked_s = time.monotonic()
        try:
            found = self._reads.run(PAGE, read_figures)
        except (TickhubError, RequestError, DriverError) as error:
            # A statement that is wrong here, or not allowed, is so every time: said once.
            again = not isinstance(error, DriverError) or str(error) == self._complaint
            self._complaint = str(error)
            log.log(logging.DEBUG if again else logging.WARNING, "the database's figures were not read: %s", error)
            self._wait_s = EVERY_S
            return
        except Exception:
            log.exception("reading the database's figures failed")
            self._wait_s = EVERY_S
            return
        took_s = time.monotonic() - self._asked_s
        self._wait_s = max(EVERY_S, took_s / SHARE)
        self._know(found)
        self._bus.send(DATABASE, _encoder.encode(found))

    def _came(self, message: bytes) -> None:
        try:
            self._know(_decoder.decode(message))
        except msgspec.MsgspecError as error:
            raise BadFrame(f"no figures of a database: {error}") from error

    def _know(self, figures: DatabaseFigures) -> None:
        self._figures, self._at_s = figures, time.monotonic()
