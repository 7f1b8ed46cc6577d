"""How many answers a worker makes page by page at a time. Greenlet side.

Each holds the page that is sent, the one ahead, and the rows of the next, for as long as its client takes: some 12 MB.
Without a bound a few hundred clients that read slowly would take all memory, and so many that read quickly would wait
for query lanes until their transfers are broken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent.lock import Semaphore

from app.errors import ClientGone, QueryTimeout
from app.reads import Client

MOST_STREAMS = 24
"""Some 280 MB of a worker, measured with NDJSON and CSV of ticks. When all are read as quickly as they come, each waits
for a lane a quarter of a second a page; a transfer whose page waits for `lane_wait_s` is broken off."""


class StreamPlaces:
    """The places for such answers in one worker."""

    def __init__(self, most: int, wait_s: float) -> None:
        """Take how many there are, and how long one is waited for, s."""
        self._most = most
        self._wait_s = wait_s
        self._free = Semaphore(most)

    @contextmanager
    def taken(self, client: Client) -> Iterator[None]:
        """Hold a place for the block. Raises QueryTimeout when none becomes free in time, ClientGone."""
        if not self._free.acquire(blocking=False):
            if not self._free.acquire(timeout=self._wait_s):
                raise QueryTimeout(f"{self._most} long answers are being sent already. Ask again later.")
            if client.gone():
                self._free.release()
                raise ClientGone
        try:
            yield
        finally:
            self._free.release()
