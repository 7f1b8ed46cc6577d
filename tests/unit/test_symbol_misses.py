"""Unknown names: one look for all who wait, and little memory meanwhile."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from app import symbol_cache
from app.lanes import LaneTimeout
from app.market.accept import Limits
from app.market.clock import BrokerClock
from app.market.decode import Rows, decode_batch
from app.market.symbols import SEED, SymbolMap
from app.symbol_cache import SymbolCache
from app.web import ingest
from tests.process.wire import batch, tick


class HangingLane:
    """Stands for a lane whose database never answers."""

    def __init__(self) -> None:
        self.calls = 0

    def call_within(self, timeout_s: float | None, interrupt: Callable[[], None], fn: Any) -> Any:
        self.calls += 1
        gevent.sleep(0.2)  # longer than looks are apart
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


class _Watched(Rows):
    """Rows whose end can be seen."""

    __hash__ = object.__hash__


def test_a_request_that_waits_to_hear_of_a_name_holds_its_body_only() -> None:
    alive: weakref.WeakSet[_Watched] = weakref.WeakSet()
    held: list[int] = []

    def decode(body: bytes) -> Rows:
        found = decode_batch(body, 10)
        rows = _Watched(found.rows, found.index, found.rejected, found.total)
        alive.add(rows)
        return rows

    def know_better() -> bool:
        gc.collect()
        held.append(len(alive))
        return True

    run: Any = SimpleNamespace(
        symbols=SimpleNamespace(map=SymbolMap(SEED), know_better=know_better),
        settings=SimpleNamespace(unknown_symbols="reject"),
        clock=BrokerClock("UTC"),
        limits=Limits(oldest_us=0, oldest="1970-01-01", max_ahead_us=3600 * 10**6),
        meters=SimpleNamespace(refused=lambda rows: None),
    )
    accepted = ingest.take_ticks(run, batch(tick(symbol="NEW")), decode)
    assert [refused.code for refused in accepted.rejected] == ["unknown_symbol"]
    assert held == [0]
