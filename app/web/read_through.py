"""Quotes that are stale here, read from another tickhub and stored as ticks. Greenlet side."""

from __future__ import annotations

import time
from collections.abc import Mapping

from app.errors import RequestError
from app.market.accept import accept
from app.market.columns import LAYOUT
from app.market.decode import Rows
from app.runtime import Runtime
from app.upstream import Upstream
from app.web.batches import tell, unknown
from app.web.ingest import DATASET


def read_through(run: Runtime, upstream: Upstream, stale: Mapping[str, str | None]) -> int:
    """Ask upstream for these quotes, and store the newer ones as ticks; return how many they were.

    stale: canonical name -> RFC 3339 time of the newest tick. They take the way of all ticks: journalled, so durable
    when this returns; a quote that is read again is a resend. With a journal that takes none they are not stored.
    """
    started = time.perf_counter()
    rows = upstream.newer(stale, run.symbols.map)
    if not rows:
        return 0
    found = Rows(rows, list(range(len(rows))), total=len(rows))
    accepted = accept(found, run.symbols.map, run.clock, run.limits, time.time_ns() // 1000, unknown)
    if not len(accepted.ticks):
        return 0
    payload = accepted.ticks.encode()
    try:
        received_us = run.ingest.accept(DATASET, LAYOUT, len(accepted.ticks), payload)
    except RequestError:
        return 0
    tell(run.quotes.accepted, accepted.ticks, received_us)
    tell(run.fan_out.accepted, accepted.ticks, received_us, payload)
    tell(run.meters.acknowledged, time.perf_counter() - started)
    return len(accepted.ticks)
