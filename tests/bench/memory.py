"""How much memory the workers take while something runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

from tests.bench.machine import shared_memory_mb

EVERY_S = 0.05


class MemoryWatch:
    """The sum of some processes' memory in MB, before and at its highest, from entering to leaving."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = list(pids)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before_mb = self.peak_mb = 0.0

    @property
    def growth_mb(self) -> float:
        return self.peak_mb - self.before_mb

    def __enter__(self) -> MemoryWatch:
        self.before_mb = self.peak_mb = self._now_mb()
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, self._now_mb())

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self.peak_mb = max(self.peak_mb, self._now_mb())

    def _now_mb(self) -> float:
        return sum(map(shared_memory_mb, self._pids))
