"""Metrics that real servers collect: by one worker of two, whatever becomes of it; every trade in one sample."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.wire import ask

INTERVAL_S = 0.5
_numbers = itertools.count()


def trades(server: Server, symbol: str, count: int) -> None:
    """Send trades of now, each of volume 2; again, where a worker is killed that was to answer."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    base = {"symbol": symbol, "timestamp": at, "bid": 10.0, "ask": 10.1, "last": 10.05, "spread": 1, "volume": 2}
    sent = [base | {"flags": 24, "seq": next(_numbers)} for _ in range(count)]

    def answered() -> bool:
        try:
            status, answer = server.post(sent)
        except (OSError, http.client.HTTPException):
            return False
        assert status == 200, answer
        return True

    wait_until(answered, what="an answer")


def rows(server: Server, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    return server.database.rows(query, *arguments)


def collected(server: Server) -> dict[str, tuple[int, float]]:
    """Return how many trades, and of what volume, samples have, by symbol."""
    query = "SELECT symbol, sum(trades)::bigint, sum(volume) FROM market_data JOIN instruments USING (symbol_id)"
    return {symbol: (count, volume) for symbol, count, volume in rows(server, f"{query} GROUP BY 1")}


def moments(server: Server) -> list[float]:
    """Return when samples of hosts were taken, as often as they are stored."""
    return [float(at) for (at,) in rows(server, "SELECT extract(epoch FROM time) FROM system_metrics ORDER BY 1")]


def leader(server: Server, but: int | None = None) -> int:
    """Return the process that is elected, once it is another one than `but`."""

    def look() -> int | None:
        pids = [int(one.split(":")[1]) for (one,) in rows(server, "SELECT holder FROM leases WHERE held_until > now()")]
        return pids[0] if pids and pids[0] != but else None

    return int(wait_until(look, 60, "a worker to be elected"))


def collecting(make_server: MakeServer, **environ: str) -> Server:
    environ = {"TICKHUB_METRICS_INTERVAL_S": str(INTERVAL_S), **environ}
    server = make_server(workers=2, environ=environ).start().wait_ready()
    wait_until(lambda: rows(server, "SELECT 1 FROM collected"), 60, "the first sample")
    return server


@pytest.mark.long
def test_one_of_two_workers_collects_the_market_and_the_host(make_server: MakeServer) -> None:
    server = collecting(make_server)
    for _ in range(10):
        trades(server, "AAPL", 3)
        trades(server, "TSLA", 1)
    wait_until(lambda: collected(server) == {"AAPL": (30, 60.0), "TSLA": (10, 20.0)}, 30, "the samples")
    answer = ask(server, "GET", "/api/market_data?symbol=AAPL").json["records"][-1]
    assert (answer["bid"], answer["ask"], answer["last_price"]) == (10.0, 10.1, 10.05)
    assert answer["spread_bps"] == pytest.approx(20_000 * 0.1 / 20.1, abs=1e-3)
    quiet = rows(server, "SELECT count(*) FROM market_data")
    already = len(moments(server))
    wait_until(lambda: len(moments(server)) >= already + 4, 30, "samples of the host")
    assert rows(server, "SELECT count(*) FROM market_data") == quiet, "nothing was traded, nothing is to be said"
    found = moments(server)
    assert [round(at / INTERVAL_S, 6) % 1 for at in found] == [0] * len(found)
    assert len(set(found)) == len(found)
    host = ask(server, "GET", "/api/system_metrics").json["records"][-1]
    assert host["host"]
    assert host["health_status"] == "healthy"
    assert 0 < host["memory_percent"] < 100
    assert 0 < host["disk_usage_percent"] <= 100
    assert 0 <= host["cpu_percent"] <= 100
    assert host["uptime_seconds"] > 0
    assert host["active_alerts"] == 0
    stats = server.wait_drained()
    assert (stats["ticks_received"], stats["ticks_processed"], stats["stored"]) == (40, 40, 40), "only what was sent"
    assert "Traceback" not in server.log()
    assert server.stop() == 0


@pytest.mark.long
def test_nothing_is_collected_where_the_interval_is_zero(make_server: MakeServer) -> None:
    server = make_server(workers=1).start().wait_ready()
    leader(server)
    trades(server, "AAPL", 3)
    server.wait_drained()
    time.sleep(1)  # in which nothing may be collected
    assert (moments(server), collected(server)) == ([], {})


@pytest.mark.long
def test_when_the_collecting_worker_is_killed_another_goes_on_and_no_trade_is_missed_or_doubled(
    make_server: MakeServer,
) -> None:
    server = collecting(make_server)
    sent = 0
    for _ in range(3):
        first = leader(server)
        for number in range(30):
            trades(server, "AMD", 4)
            sent += 4
            if number == 15:
                os.kill(first, signal.SIGKILL)  # before, while or after it took or sent a sample
            time.sleep(0.02)  # trades go on, over several samples
        leader(server, but=first)
    server.wait_drained()
    wait_until(lambda: collected(server).get("AMD") == (sent, 2.0 * sent), 60, "all trades in samples")
    found = moments(server)
    assert len(set(found)) == len(found)
    time.sleep(3 * INTERVAL_S)  # in which nothing more may be counted
    assert collected(server) == {"AMD": (sent, 2.0 * sent)}
    stats = json.loads(ask(server, "GET", "/stats").data)
    assert stats["set_aside"] == 0
    (done, counted), = rows(
        server, "SELECT sum(next_row), sum(stored + duplicates + set_aside + skipped + lost) FROM ingest_log"
    )
    assert done == counted
    assert "Traceback" not in server.log()
