"""/ws/metrics on a real server: the figures of /api/metrics/current, ten times a second, for whoever watches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import Server, wait_until
from tests.process.live import client, send
from tests.process.wire import ask, running


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_METRICS_INTERVAL_S": "0"}) as server:
        yield server
        assert "Traceback" not in server.log()


def frames(text: Any) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(text)
    return said


def shape(value: Any) -> Any:
    """The names in an object, at all depths."""
    return {name: shape(inner) for name, inner in value.items()} if isinstance(value, dict) else None


def test_the_figures_are_those_of_a_read(server: Server) -> None:
    send(server, "VIX", bid=20.0, ask=20.5, volume=3)
    server.wait_drained()
    with client(server, "/ws/metrics") as reader:
        live = frames(reader.ws.recv(20))
        read = ask(server, "GET", "/api/metrics/current").json
        assert list(live) == list(read) == ["timestamp", "market_data", "strategy", "execution", "system", "ingest"]
        assert shape(live) == shape(read)
        assert live["market_data"] == read["market_data"]
        vix = live["market_data"]["VIX"]
        assert (vix["last_price"], vix["bid"], vix["ask"]) == (20.0, 20.0, 20.5)
        assert (vix["volume"], vix["trades"]) == (None, None), "there is no sample"
        assert vix["spread_bps"] == pytest.approx(246.9136, abs=1e-4)
        assert live["ingest"]["ticks_received"] == read["ingest"]["ticks_received"] >= 1
        assert live["system"]["health_status"] == "healthy"
        assert (live["strategy"], live["execution"]) == ({}, {})


def test_what_the_machine_does_is_a_share(server: Server) -> None:
    def processors() -> float | None:
        found: float | None = ask(server, "GET", "/api/metrics/current").json["system"]["cpu_percent"]
        return found

    assert 0 <= wait_until(lambda: (found := processors()) is not None and [found], what="a second look")[0] <= 100


@pytest.mark.long
def test_they_come_ten_times_a_second_at_most_and_between_them_a_ping_is_answered(server: Server) -> None:
    with client(server, "/ws/metrics") as reader:
        said = [frames(reader.ws.recv(20)) for _ in range(21)]
        first, last = (datetime.fromisoformat(one["timestamp"]) for one in (said[0], said[-1]))
        assert (last - first).total_seconds() > 1.5
        reader.ws.send("ping")
        assert any(frames(reader.ws.recv(20)).get("type") == "pong" for _ in range(50))
        reader.say(action="subscribe", symbol="AAPL")
        assert any(frames(reader.ws.recv(20)).get("code") == "unknown_command" for _ in range(50))


def test_they_are_made_once_for_a_hundred_who_watch(server: Server) -> None:
    with ExitStack() as stack:
        # Unbounded: what a client does not read holds up neither the server nor its own end.
        readers = [stack.enter_context(client(server, "/ws/metrics", max_queue=None)) for _ in range(100)]
        last = readers[-1].ws.recv(20)
        heard = []
        for reader in readers:
            mine = [reader.ws.recv(20)]
            while mine[-1] != last and frames(mine[-1])["timestamp"] < frames(last)["timestamp"]:
                mine.append(reader.ws.recv(20))
            heard.append(mine)
        # The last one got its first frame together with all others: byte by byte the same.
        assert sum(mine[-1] == last for mine in heard[:-1]) == 99
