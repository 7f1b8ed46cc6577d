"""`python -m app delete` beside a real server: what it answers follows, and ticks go on coming in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, WAIT_S, wait_until
from tests.process.proof import assert_as_loaded_cleanly
from tests.process.wire import ask

BASE_MS = 1_768_327_200_000
"""2026-01-13 18:00 UTC."""


def ticks(first: int, count: int) -> list[dict[str, object]]:
    return [
        {
            "symbol": symbol,
            "timestamp": BASE_MS + 1000 * number,
            "bid": number + 1,
            "ask": number + 2,
            "spread": None,
            "volume": 0,
            "flags": 6,
            "seq": 0,
        }
        for number in range(first, first + count)
        for symbol in ("TSLA", "NVDA")
    ]


@pytest.mark.long
def test_quotes_ticks_and_bars_follow_a_deletion(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    assert server.post(ticks(0, 300))[0] == 200
    server.wait_drained()

    def bids(symbol: str) -> set[float]:
        """Return what several requests are told, by whichever worker."""
        return {ask(server, "GET", f"/api/quotes/{symbol}").json["bid"] for _ in range(8)}

    # Each worker finds the database by itself.
    wait_until(lambda: all(ask(server, "GET", "/api/bars/TSLA").status == 200 for _ in range(20)), what="the database")
    wait_until(lambda: bids("TSLA") == {300.0}, what="the quote")
    day = "/api/bars/TSLA?interval=1m&start=2026-01-13&end=2026-01-14"
    assert len(ask(server, "GET", day).json["bars"]) == 5
    line = [sys.executable, "-m", "app", "delete", "TSLA", "--start", "2026-01-13T18:02:00Z", "--end", "2026-01-14"]
    done = subprocess.run(
        [*line, "--yes"], cwd=ROOT, env=server.environ, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "180 ticks" in done.stdout
    assert len(ask(server, "GET", day).json["bars"]) == 2
    assert len(ask(server, "GET", "/api/ticks/TSLA?start=2026-01-13&end=2026-01-14").json["ticks"]) == 120
    wait_until(lambda: bids("TSLA") == {120.0}, what="both workers to forget what was deleted")
    assert bids("NVDA") == {300.0}
    # An older tick than those that are gone is the newest one now.
    assert server.post(ticks(130, 1))[0] == 200
    server.wait_drained()
    wait_until(lambda: bids("TSLA") == {131.0}, what="the new quote")
    assert_as_loaded_cleanly(server.database)
    assert server.stop() == 0
