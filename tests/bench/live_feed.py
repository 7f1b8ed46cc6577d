"""The ticks of the live bench: a batch holds one of each symbol, stamped when it leaves.

`feed` runs in a process of its own (`asking.Asker`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np

from tests.bench.client import Client, Sent, post_request
from tests.bench.rows import FLAG_SHARES, FLAGS, MARKET

CONNECTIONS = 4
BATCHES_PER_S = 100.0

STAMP = "0000-00-00T00:00:00.000000Z"
"""Stands for the time in requests that are built beforehand: the same length."""

_STAMP = STAMP.encode()


class _Tick(msgspec.Struct, gc=False):
    symbol: str
    bid: float
    ask: float
    last: float
    volume: float
    flags: int
    timestamp: str = STAMP
    seq: int = 0
    spread: None = None


@dataclass(frozen=True, slots=True)
class Fed:
    """What was sent. newest: the time of its last batch as text; cpu_share: of a core."""

    sent: Sent
    batches: int
    newest: bytes
    cpu_share: float

    def ack_ms(self, percent: float) -> float:
        """Return a percentile of the time from sending to the answer."""
        return float(np.percentile(self.sent.ack_s, percent)) * 1e3


def time_text(ns: int) -> bytes:
    """Return a time (UTC nanoseconds) as RFC 3339 with six digits."""
    at = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns // 1000 % 1_000_000:06d}Z".encode()


def requests_of(count: int, seed: int = 1) -> list[bytes]:
    """Return `count` POSTs to /tick/batch, each of one tick a symbol whose price walks on, without their time."""
    rng = np.random.default_rng(seed)
    columns = []
    for symbol, price, digits, _ in MARKET:
        point = 10.0**-digits
        bid = np.round(np.maximum(price + np.cumsum(rng.integers(-1, 2, count)) * point, price / 2), digits)
        ask = np.round(bid + rng.integers(1, 4, count) * point, digits)
        flags = rng.choice(FLAGS, count, p=FLAG_SHARES)
        volume = np.where(flags & 8, rng.integers(1, 500, count), 0).astype(np.float64)
        values = (column.tolist() for column in (bid, ask, ask, volume, flags))
        columns.append([_Tick(symbol, *row) for row in zip(*values, strict=True)])
    batches = zip(*columns, strict=True)
    return [post_request("/tick/batch", msgspec.json.encode({"ticks": batch})) for batch in batches]


def feed(address: tuple[str, int], seconds: float, start_ns: int) -> Fed:
    """Post BATCHES_PER_S batches a second, evenly spaced, from start_ns (time.time_ns) on."""
    newest = b""

    def stamped(request: bytes) -> bytes:
        nonlocal newest
        newest = time_text(time.time_ns())
        return request.replace(_STAMP, newest)

    requests = requests_of(round(seconds * BATCHES_PER_S))
    client = Client(address, CONNECTIONS, stamped)
    time.sleep(max(0.0, (start_ns - time.time_ns()) / 1e9))
    sent = client.post_all(requests, [len(MARKET)] * len(requests), BATCHES_PER_S)
    client.close()
    return Fed(sent, len(requests), newest, sent.cpu_s / (sent.last_s - sent.first_s))
