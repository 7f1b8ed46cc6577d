"""Ticks that are known to the last field, and ways to ask for them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np

from tests.process.harness import Server, wait_until
from tests.process.wire import Answer, ask

Row = dict[str, Any]

DAY_MS = 1_768_262_400_000
"""2026-01-13 00:00 UTC, a Tuesday."""


def read(server: Server, path: str, headers: Mapping[str, str] | None = None, **params: Any) -> Answer:
    """Return the answer to a GET with these parameters; its form is checked."""
    return ask(server, "GET", f"{path}?{urlencode(params)}" if params else path, headers=headers)


def rows_of(server: Server, path: str, **params: Any) -> list[Row]:
    """Return the rows of a JSON answer that must be a success."""
    answer = read(server, path, **params)
    assert answer.status == 200, answer
    return list(answer.json["bars" if path.startswith("/api/bars") else "ticks"])


def refusal(server: Server, path: str, **params: Any) -> tuple[int, str, str]:
    """Return status, code and message of an answer that must be none."""
    answer = read(server, path, **params)
    assert answer.status >= 400, answer
    return answer.status, answer.json["code"], answer.json["message"]


def ticks_path(symbol: str) -> str:
    return f"/api/ticks/{quote(symbol, safe='')}"


def bars_path(symbol: str) -> str:
    return f"/api/bars/{quote(symbol, safe='')}"


def text_of(time_ms: int) -> str:
    """Return a time as answers write it."""
    return f"{np.datetime64(time_ms, 'ms').astype('M8[us]')}Z"


def made_ticks(symbol: str, moments_ms: Iterable[int], seed: int = 1) -> list[Row]:
    """Return a tick at each moment, with a seq that counts those of one moment: quotes, trades, one side, none."""
    rng, ticks = random.Random(seed), list[Row]()
    before_ms, seq = -1, 0
    for time_ms in moments_ms:
        seq = seq + 1 if time_ms == before_ms else 0
        before_ms = time_ms
        bid = 100 + rng.random()
        tick: Row = {"symbol": symbol, "bid": bid, "ask": bid + 0.1 * rng.random(), "last": None, "spread": None}
        tick |= {"volume": 0, "flags": 6, "timestamp": time_ms, "seq": seq}
        kind = rng.random()
        if kind < 0.3:
            tick |= {"last": bid, "volume": rng.random(), "flags": rng.choice((24, 56, 88, 120))}
        elif kind < 0.4:
            tick |= {"ask": None, "flags": 2, "spread": rng.random()}
        elif kind < 0.45:
            tick |= {"bid": None, "ask": None, "last": 1 / 3, "volume": 1e-8, "flags": 8}
        ticks.append(tick)
    return ticks


def shown(tick: Row) -> Row:
    """Return what an answer says of a tick that had a seq."""
    volume = float(tick["volume"])
    bought, sold = ((volume if tick["flags"] & 8 and tick["flags"] & side else 0.0) for side in (32, 64))
    values = {name: tick[name] for name in ("bid", "ask", "last", "spread")}
    sides = {"volume": volume, "buy_volume": bought, "sell_volume": sold}
    return {"timestamp": text_of(tick["timestamp"]), **values, **sides, "flags": tick["flags"], "seq": tick["seq"]}


def store(server: Server, ticks: Sequence[Row]) -> None:
    """Send ticks, and wait until they are in the database."""
    for begin in range(0, len(ticks), 2500):
        batch = ticks[begin : begin + 2500]
        assert server.post(batch) == (200, {"status": "success", "received": len(batch)})
    wait_until(lambda: server.stats()["buffer_size"] == 0, what="the flush")
