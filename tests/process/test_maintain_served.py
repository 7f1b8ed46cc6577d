"""`python -m app maintain` beside a real server that takes ticks, and killed in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.process.commands import app, command
from tests.process.conftest import MakeServer
from tests.process.harness import far_from_now, wait_until
from tests.process.proof import assert_as_loaded_cleanly, assert_ledger_adds_up

WEEK_MS = 7 * 86_400_000
OLD_MS = 1_700_006_400_000
"""2023-11-15."""


def ticks(base_ms: int, first: int, count: int) -> list[dict[str, object]]:
    return [
        {
            "symbol": symbol,
            "timestamp": base_ms + 40 * number,
            "bid": number % 90 + 1,
            "ask": number % 90 + 2,
            "spread": None,
            "volume": 0,
            "flags": 6,
            "seq": 0,
        }
        for number in range(first, first + count)
        for symbol in ("TSLA", "NVDA", "AAPL")
    ]


@pytest.mark.long
def test_ticks_come_in_and_are_right_while_all_is_maintained_and_some_deleted(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    base_ms = int(time.time() * 1000) - 3_600_000
    sent, stopping = [0], threading.Event()

    def feed() -> None:
        while not stopping.is_set():
            assert server.post(ticks(base_ms, sent[0], 20))[0] == 200
            sent[0] += 20

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(2):
            before = sent[0]
            assert "health: " in app(server, "maintain")
            app(server, "delete", "NVDA", "--start", str(base_ms), "--end", str(base_ms + 4000), "--yes")
            assert sent[0] > before, "nothing came in meanwhile"
    finally:
        stopping.set()
        feeder.join()
    stats = server.wait_drained()
    assert stats["stored"] == 3 * sent[0]
    assert stats["errors"] == 0
    counts = dict(
        server.database.rows("SELECT symbol, count(*) FROM ticks JOIN instruments USING (symbol_id) GROUP BY 1")
    )
    assert counts["TSLA"] == counts["AAPL"] == sent[0]
    [(gone,)] = server.database.rows("SELECT sum(rows)::int FROM audit_log WHERE action = 'delete'")
    assert counts["NVDA"] == sent[0] - gone
    assert gone >= 20
    assert_as_loaded_cleanly(server.database)


@pytest.mark.long
def test_retention_that_is_killed_anywhere_is_finished_by_the_next_run(make_server: MakeServer) -> None:
    server = make_server(workers=1).start().wait_ready()
    now_ms = int(time.time() * 1000)
    for week in range(8):
        assert server.post(ticks(OLD_MS + week * WEEK_MS, 0, 10))[0] == 200
    assert server.post(ticks(now_ms, 0, 10))[0] == 200
    server.wait_drained()
    assert_ledger_adds_up(server, 9 * 30, exactly=True)
    bars = server.database.rows("SELECT count(*) FROM bars")

    def said() -> bool:
        return bool(server.database.rows("SELECT state FROM tick_ranges"))

    def one_gone() -> bool:
        [(left,)] = server.database.rows("SELECT count(*) FROM pg_class WHERE relname ~ '^ticks_202[34]....$'")
        return bool(left < 8)

    moments: list[Callable[[], bool]] = [lambda: True, said, one_gone]
    for moment in moments:
        process = command(server, "maintain", "retention", "--keep-days-ticks", "30")
        wait_until(lambda ready=moment, ran=process: ready() or ran.poll() is not None, what="a moment to kill it")
        process.kill()
        process.communicate()
    assert "retention: done" in app(server, "maintain", "retention", "--keep-days-ticks", "30")
    assert server.database.rows("SELECT count(*) FROM ticks") == [(30,)]
    assert server.database.rows("SELECT relname FROM pg_class WHERE relname ~ '^ticks_202[34]....$'") == []
    assert server.database.rows("SELECT count(*) FROM bars") == bars
    # Sent again: refused, row by row, and what is new comes in.
    for week in range(8):
        assert server.post(ticks(OLD_MS + week * WEEK_MS, 0, 10))[0] == 200
    assert server.post(ticks(now_ms, 10, 10))[0] == 200
    stats = server.wait_drained()
    assert (stats["stored"], stats["set_aside"]) == (9 * 30 + 30, 8 * 30)
    assert server.database.rows("SELECT count(*) FROM ticks") == [(60,)]
    assert server.database.rows("SELECT code, count(*) FROM rejected_ticks GROUP BY 1") == [("too_old", 240)]


@pytest.mark.long
def test_retention_that_would_leave_no_tick_is_a_job_that_failed(make_server: MakeServer) -> None:
    environ = {"TICKHUB_KEEP_DAYS_TICKS": "30", "TICKHUB_RETENTION_AT": far_from_now()}
    server = make_server(workers=1, environ=environ).start().wait_ready()
    assert server.post(ticks(OLD_MS, 0, 10))[0] == 200
    server.wait_drained()
    wait_until(lambda: server.database.rows("SELECT name FROM jobs"), what="the job to be known")
    server.database.rows("UPDATE jobs SET due_at = due_at - interval '1 day'")
    wait_until(lambda: server.stats()["warnings"] == ["job retention failed: see jobs"], what="the warning")
    [found] = server.stats()["jobs"]
    assert (found["state"], found["failures"]) == ("failed", 1)
    assert "nothing would be left of ticks" in found["message"]
    assert server.database.rows("SELECT count(*) FROM ticks") == [(30,)]
