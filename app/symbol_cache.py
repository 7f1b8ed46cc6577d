"""The symbol map of a worker: from the data directory at start, from the database when it answers. Greenlet side."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import msgspec
from gevent.lock import Semaphore

from app.errors import DatabaseAway
from app.lanes import Lane, LaneTimeout
from app.market.symbols import SEED, Instrument, SymbolMap

MISS_INTERVAL_S = 0.1
"""A name that is not in the map makes us ask the database, but with so much time between at least, whatever clients
send: reading 10,000 symbols takes 15 ms. A request with such a name waits for its turn: were it longer, a sender who
always has one among others would be held up."""

MISS_TIMEOUT_S = 5.0
"""How long a look that a request with an unknown name waits for may take."""

log = logging.getLogger("tickhub")


class SymbolCache:
    """Keeps the symbol map current, and a copy of it on disk for a start without the database."""

    def __init__(
        self,
        path: Path,
        lane: Lane,
        read: Callable[[], list[Instrument]],
        interrupt: Callable[[], None],
    ) -> None:
        self._path = path
        self._lane = lane
        self._read = read
        self._interrupt = interrupt
        self._one_at_a_time = Semaphore()
        self._read_at = self._tried_at = self._failed_at = float("-inf")
        self._on_disk = b""
        self.map = self._load()

    def _load(self) -> SymbolMap:
        try:
            data = self._path.read_bytes()
            self._on_disk = data
            return SymbolMap.from_json(data)
        except FileNotFoundError:
            return SymbolMap(SEED)
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read (%s): starting with the seeded symbols", self._path.name, error)
            return SymbolMap(SEED)

    def refresh(self, timeout_s: float) -> bool:
        """Read the map from the database; return whether that worked."""
        began = self._tried_at = time.monotonic()
        try:
            instruments = self._lane.call_within(timeout_s, self._interrupt, self._read)
        except (DatabaseAway, LaneTimeout):
            self._failed_at = self._tried_at = time.monotonic()
            return False
        self._tried_at = time.monotonic()  # from its end on: what takes long is not begun again at once
        self._read_at = began  # what was added since then may not be in it
        self._failed_at = float("-inf")
        if instruments != self.map.instruments:
            self.map = SymbolMap(instruments)
        data = self.map.to_json()
        if data != self._on_disk:
            try:
                self._lane.call(_replace, self._path, data)
                self._on_disk = data
            except OSError as error:  # a full disk: what was read counts all the same
                log.warning("%s cannot be written: %s", self._path.name, error)
        return True

    def know_better(self) -> bool:
        """After a miss: have the map be one that was read after now; return False when that cannot be had.

        An older one will not do: another worker may have added the name since, and told its client so. Those who wait
        share a look, which begins MISS_INTERVAL_S after the last one.
        """
        asked_at = time.monotonic()
        with self._one_at_a_time:
            while self._read_at <= asked_at:
                now = time.monotonic()
                if self._failed_at > min(asked_at, now - MISS_INTERVAL_S):
                    return False
                if now - self._tried_at >= MISS_INTERVAL_S:
                    return self.refresh(MISS_TIMEOUT_S)
                gevent.sleep(self._tried_at + MISS_INTERVAL_S - now)
            return True


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one. Lane side."""
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_bytes(data)
    new.replace(path)
