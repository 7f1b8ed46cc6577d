"""Answers with a Redis behind them: the same ones, from the cache or not, and never one that is out of date."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, Server, folder, wait_until
from tests.process.redis_server import RedisServer
from tests.process.test_query_lanes import Probed

DAY = "start=2026-01-13&end=2026-01-14"
PATHS = (
    f"/api/ticks/TSLA?{DAY}",
    f"/api/ticks/TSLA?{DAY}&limit=3&order=desc",
    f"/api/bars/TSLA?{DAY}",
    f"/api/bars/TSLA?{DAY}&interval=5m&price=ask",
    f"/api/bars/TSLA?{DAY}&interval=15m&fill=previous&limit=20",
    "/api/bars/TSLA?interval=1d&tz=America/New_York",
    "/api/bars/TSLA?interval=1h&limit=2",
)
LEFT_OUT = ("Date", "Connection", "X-Request-Id")

pytestmark = pytest.mark.long


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with folder() as home:
        found = RedisServer(home)
        try:
            yield found.start()
        finally:
            found.kill9()


@pytest.fixture
def server(make_server: MakeServer, redis: RedisServer) -> Server:
    found = make_server("--redis-url", redis.url, "--cache-ttl-s", "600", environ={"PROBE_REDIS_S": "1.5"})
    found.module = Probed.module
    found.start().wait_ready()
    send(found, *range(10))
    wait_until(lambda: get(found, PATHS[0]) and said(found, "hit"), what="the cache to be of use")
    return found


def tick(seq: int, day: int = 13) -> dict[str, Any]:
    """A tick in its own five minutes."""
    time = f"2026-01-{day}T{15 + seq // 12:02}:{5 * (seq % 12):02}:00Z"
    return {"symbol": "TSLA", "bid": 400 + seq, "ask": 401 + seq, "spread": None, "volume": 0, "flags": 6} | {
        "timestamp": time,
        "seq": seq,
    }


def send(server: Server, *seqs: int, day: int = 13) -> None:
    assert server.post([tick(seq, day) for seq in seqs])[0] == 200
    server.wait_drained()


def get(server: Server, path: str) -> tuple[int, bytes, dict[str, str]]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
        client.request("GET", path)
        answer = client.getresponse()
        kept = {name: text for name, text in answer.getheaders() if name not in LEFT_OUT}
        return answer.status, answer.read(), kept


def said(server: Server, result: str) -> int:
    metrics = get(server, "/metrics")[1].decode()
    found = re.search(rf'^tickhub_query_cache_total{{result="{result}"}} (\S+)$', metrics, re.MULTILINE)
    return int(float(found[1])) if found else 0


def test_an_answer_from_the_cache_is_the_same_answer(server):
    for path in PATHS:
        misses, hits = said(server, "miss"), said(server, "hit")
        answers = [get(server, path) for _ in range(3)]
        assert answers[0][0] == 200, answers[0]
        assert answers[1] == answers[2] == answers[0]
        assert said(server, "hit") - hits >= 2
        assert said(server, "miss") - misses <= 1


def test_a_tick_that_touches_an_answer_is_in_it_at_once_and_others_leave_it_in_the_cache(server):
    for path in PATHS:
        get(server, path)
    for seq in range(10, 20):
        before = [get(server, path)[1] for path in PATHS]
        send(server, seq)
        answers = [get(server, path)[1] for path in PATHS]
        assert answers[0] != before[0]
        assert answers[3] != before[3]
        assert f'"seq":{seq}}}'.encode() in answers[0]
        hits = said(server, "hit")
        send(server, seq, day=12)
        assert [get(server, path)[1] for path in PATHS[:4]] == answers[:4]
        assert said(server, "hit") - hits == 4


def test_what_comes_late_into_an_answer_or_was_taken_out_of_it_is_seen(server):
    first = get(server, PATHS[3])[1]
    with closing(server.database.connect()) as conn, conn, conn.cursor() as cur:
        cur.execute("DELETE FROM ticks WHERE seq >= 5")
    conn.close()
    command = [sys.executable, "-m", "app", "rebuild", "bars"]
    subprocess.run(command, cwd=ROOT, env=server.environ, check=True, capture_output=True, timeout=60)
    second = get(server, PATHS[3])[1]
    assert second != first
    assert b'"open":410.0' not in second
    send(server, *range(5, 10))
    assert get(server, PATHS[3])[1] == first


def test_while_redis_hangs_dies_or_lies_the_answers_are_right(server, redis):
    expected = {path: get(server, path) for path in PATHS}
    with redis.client() as client:
        for name in client.keys("tickhub:*"):
            client.set(name, b'{"symbol":"TSLA","bars":[],"next_page_token":null}')
    assert {path: get(server, path) for path in PATHS} == expected
    redis.pause()
    assert {path: get(server, path) for path in PATHS} == expected
    send(server, 30)
    assert b'"seq":30}' in get(server, PATHS[0])[1]
    redis.resume()
    redis.kill9()
    assert get(server, PATHS[0])[0] == 200
    redis.start()
    hits = said(server, "hit")
    wait_until(lambda: get(server, PATHS[0]) and said(server, "hit") > hits, what="the cache to be of use again")
    assert b'"seq":30}' in get(server, PATHS[0])[1]
    assert server.log().count("is away") == server.log().count("is back") == 1


def test_two_servers_share_a_redis_and_nothing_else(server, redis, make_server):
    other = make_server("--redis-url", redis.url).start().wait_ready()
    send(other, 0, 1, 2)
    wait_until(lambda: get(other, PATHS[0]) and said(other, "hit"), what="the cache to be of use")
    for _ in range(2):
        for path in PATHS:
            assert get(server, path)[1] != get(other, path)[1], path


def test_a_server_whose_redis_never_was_there_serves_and_stops(make_server):
    lonely = make_server("--redis-url", "redis://:hunter2@127.0.0.1:1/0").start().wait_ready()
    send(lonely, 1)
    assert b'"seq":1}' in get(lonely, PATHS[0])[1]
    assert lonely.stop() == 0
    assert lonely.log().count("the query cache (Redis at 127.0.0.1:1) is away") == 1
    assert "hunter2" not in lonely.log()
