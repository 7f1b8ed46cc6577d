"""The figures of the whole server, added up from every worker's books, dead ones' too. Greenlet side."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from app.pipeline.books import JOURNAL_FIELDS, Book, Shelf
from app.slots import SLOT_FIELDS, STATES

RATE_WINDOW_S = 5.0


class Figures:
    """Reads all books of the run directory; `tick` is to be called every second for the rates."""

    def __init__(self, run_dir: Path) -> None:
        self._journals = Shelf(run_dir / "books", JOURNAL_FIELDS)
        self._slots = Shelf(run_dir / "slots", SLOT_FIELDS)
        self._seen: deque[tuple[float, int]] = deque()
        self._started = (run_dir / "started").stat().st_mtime

    def refresh(self) -> None:
        """Look for new books."""
        self._journals.refresh()
        self._slots.refresh()

    def tick(self) -> None:
        """Remember what was received, for the rate."""
        self.refresh()
        now = time.monotonic()
        self._seen.append((now, self.received()))
        while self._seen and now - self._seen[0][0] > RATE_WINDOW_S + 0.5:
            self._seen.popleft()

    def journal(self, name: str) -> int:
        """Return the sum of a number over all journals."""
        return self._journals.total(name)

    def slot(self, name: str) -> int:
        """Return the sum of a number over all worker slots."""
        return self._slots.total(name)

    def most(self, name: str) -> int:
        """Return the largest of a number over all worker slots."""
        return max((book[name] for book in self._slots.books()), default=0)

    def received(self) -> int:
        """Return the accepted rows since the server's start, those left in journals then included.

        Not those that the server collected itself: whoever looks whether his feed is alive must not see them.
        """
        return max(0, self.journal("received") - self.journal("collected"))

    def processed(self) -> int:
        """Return the rows of these that are stored, known duplicates, or set aside."""
        return self.stored() + self.journal("duplicates") + self.journal("set_aside")

    def stored(self) -> int:
        """Return the rows of these that were written to the database."""
        return max(0, self.journal("stored") - self.journal("collected_done"))

    def last_flush_us(self) -> int:
        """Return when rows were last committed, UTC microseconds, 0 for never."""
        return max((book["last_flush_us"] for book in self._journals.books()), default=0)

    def ticks_per_second(self) -> float:
        """Return the rows received a second over the last seconds."""
        if len(self._seen) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._seen[0], self._seen[-1]
        return round(max(0, n1 - n0) / max(t1 - t0, 0.001), 1)

    def workers(self) -> list[Book]:
        """Return the slots of living workers."""
        return [book for book in self._slots.books() if book["state"] != STATES.index("stopped") and book["pid"]]

    def uptime_s(self) -> float:
        """Return the seconds since the server's start."""
        return max(0.0, time.time() - self._started)
