"""Ends what waits for a client too long, at next to no cost for what does not. Greenlet side.

A timer for each small body would cost more than reading it. So waits are only noted, and looked through now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from gevent.hub import get_hub

from app.errors import BadJson

LOOK_S = 2.0


class Patience:
    """The waits of one kind. One that began longest_s ago is ended by BadJson, LOOK_S later at most."""

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self._since: dict[object, float] = {}

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Let the block, of the present greenlet, wait so long. Raises BadJson within it."""
        me = gevent.getcurrent()
        self._since[me] = time.monotonic()
        try:
            yield
        finally:
            del self._since[me]

    def run(self) -> None:
        """Look for ever; to be spawned as a greenlet."""
        while True:
            gevent.sleep(LOOK_S)
            self.look(time.monotonic())

    def look(self, now_s: float) -> None:
        """End what has waited too long."""
        for greenlet, since in list(self._since.items()):
            if now_s - since >= self.longest_s:
                # In the hub, and only if it still waits there: thrown from here it might meet it in what comes next.
                get_hub().loop.run_callback(self._end, greenlet, since)

    def _end(self, greenlet: gevent.Greenlet, since: float) -> None:
        if self._since.get(greenlet) == since:
            greenlet.throw(BadJson(f"the body did not arrive within {self.longest_s:.0f} s"))


small_bodies = Patience(20.0)
"""Of requests' bodies that are small; the worker looks after it."""
