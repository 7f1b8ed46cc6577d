"""What `/ws/metrics` sends: one object ten times a second, made once for all who watch. Greenlet side."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent
import msgspec

from app.stream.hub import MAX_STALL_S
from app.stream.subscriber import SLOW_CLOSE_S, TOO_SLOW, Subscriber
from app.web.current_metrics import CurrentMetrics

EVERY_S = 0.1
MOST_SHARE = 0.05
"""Share of a core that making the objects may take: with thousands of symbols they come less often."""

log = logging.getLogger("tickhub")


class MetricsFeed:
    """The readers of a worker's figures; works only while there are any."""

    def __init__(self, figures: Callable[[], CurrentMetrics]) -> None:
        """Take how to get the figures as they are now."""
        self._figures = figures
        self._readers: set[Subscriber] = set()
        self._running = False

    def add(self, reader: Subscriber) -> None:
        """Send to a reader from now on."""
        self._readers.add(reader)
        if not self._running:
            self._running = True
            gevent.spawn(self._send)

    def remove(self, reader: Subscriber) -> None:
        """Send no more; also to one that is not there."""
        self._readers.discard(reader)

    def _send(self) -> None:
        due_s = time.monotonic()
        try:
            while self._readers:
                began_s, began_cpu_s = time.monotonic(), time.thread_time()
                text = msgspec.json.encode(self._figures())
                made_s = time.thread_time() - began_cpu_s  # on a busy machine most of the time is that of others
                for count, reader in enumerate(list(self._readers), 1):
                    stalled_since = reader.socket.stalled_since
                    if stalled_since is None:  # else this one is left out for it: the next one is newer
                        reader.socket.send_texts([text])
                    elif began_s - stalled_since > MAX_STALL_S:
                        reader.socket.close(TOO_SLOW, "nothing was read for long", SLOW_CLOSE_S)
                    if count % 16 == 0:
                        gevent.sleep(0)
                due_s = max(due_s + EVERY_S, began_s + made_s / MOST_SHARE, time.monotonic())
                gevent.sleep(max(0.0, due_s - time.monotonic()))
        except Exception:
            log.exception("live figures cannot be sent")
            for reader in self._readers:
                reader.socket.close(1011, "the figures cannot be made")
            self._readers.clear()
        finally:
            self._running = False
