"""Unknown names while the database hangs: one look for all who wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from app import symbol_cache
from app.lanes import LaneTimeout
from app.symbol_cache import SymbolCache


class HangingLane:
    """Stands for a lane whose database never answers."""

    def __init__(self) -> None:
        self.calls = 0

    def call_within(self, timeout_s: float | None, interrupt: Callable[[], None], fn: Any) -> Any:
        self.calls += 1
        gevent.sleep(0.2)
        raise LaneTimeout("no answer")


def test_requests_with_unknown_names_do_not_wait_one_after_another_for_a_database_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shorter than a look that fails, as in life; longer than ten greenlets take to be told.
    monkeypatch.setattr(symbol_cache, "MISS_INTERVAL_S", 0.1)
    lane = HangingLane()
    cache = SymbolCache(tmp_path / "symbols.json", lane, list, lambda: None)  # type: ignore[arg-type]
    waiting = [gevent.spawn(cache.know_better) for _ in range(10)]
    gevent.joinall(waiting, timeout=30)
    assert [greenlet.value for greenlet in waiting] == [False] * 10
    assert lane.calls == 1
