"""What is kept of an answer, at the client (ETag) and in Redis: never served when it would be wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import ROOT, WAIT_S, Server, folder, wait_until
from tests.process.reading import DAY_MS, made_ticks, read, rows_of, store
from tests.process.redis_server import RedisServer
from tests.process.test_query_lanes import Probed, metric
from tests.process.wire import Answer, ask, running

DAY = {"start": "2026-01-13", "end": "2026-01-14"}
TICKS, BARS = "/api/ticks/AAPL", "/api/bars/AAPL"
CLOSED: list[tuple[str, dict[str, Any]]] = [
    (TICKS, DAY),
    (TICKS, DAY | {"limit": 3, "order": "desc"}),
    (TICKS, {"end": "2026-01-14"}),
    (TICKS, DAY | {"format": "csv"}),
    (TICKS, DAY | {"format": "arrow"}),
    (TICKS, DAY | {"format": "ndjson", "limit": 2}),
    (BARS, DAY),
    (BARS, DAY | {"interval": "1s", "price": "ask"}),
    (BARS, DAY | {"interval": "1d", "tz": "Asia/Kathmandu"}),
    (BARS, DAY | {"fill": "previous", "limit": 9}),
    (BARS, DAY | {"interval": "15m", "format": "csv"}),
]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        store(server, made_ticks("AAPL", range(DAY_MS, DAY_MS + 3_600_000, 60_000)))
        yield server
        assert "Traceback" not in server.log()


def tag_of(server: Server, path: str, **params: Any) -> str:
    return read(server, path, **params).headers["etag"]


def again(server: Server, path: str, tag: str, **params: Any) -> Answer:
    return read(server, path, {"If-None-Match": tag}, **params)


late = iter(range(1000))


def send_late(server: Server, at_ms: int = DAY_MS) -> None:
    """Store a tick that was not there, at a time that was."""
    store(server, [made_ticks("AAPL", [at_ms])[0] | {"bid": 50.0, "ask": 51.0, "seq": 1000 + next(late)}])


# At the client


@pytest.mark.parametrize(("path", "params"), CLOSED)
def test_a_closed_range_has_a_tag_that_saves_the_second_answer(server: Server, path: str, params: Any) -> None:
    first = read(server, path, **params)
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    answer = again(server, path, tag, **params)
    assert (answer.status, answer.data, answer.headers["etag"]) == (304, b"", tag)
    assert again(server, path, f'"other", {tag}', **params).status == 304
    assert again(server, path, 'W/"other"', **params).data == first.data
    head = ask(server, "HEAD", f"{path}?" + "&".join(f"{name}={value}" for name, value in params.items()))
    assert (head.status, head.headers["etag"], head.data) == (200, tag, b"")


@pytest.mark.parametrize(("path", "params"), CLOSED)
def test_a_late_tick_makes_the_tag_another_one(server: Server, path: str, params: Any) -> None:
    tag = tag_of(server, path, **params)
    send_late(server)
    answer = again(server, path, tag, **params)
    assert answer.status == 200
    assert answer.headers["etag"] != tag
    assert answer.data == read(server, path, **params).data
    send_late(server, DAY_MS + 2 * 86_400_000)
    assert again(server, path, answer.headers["etag"], **params).status == 304, "a tick of another day"


def test_two_answers_never_have_the_same_tag(server: Server) -> None:
    variants = [dict(params) | {"path": path} for path, params in CLOSED]
    for name, value in (("limit", 1), ("order", "desc")):
        variants += [{"path": path, **DAY, name: value} for path in (TICKS, BARS)]
    for name, value in (("interval", "5m"), ("price", "mid"), ("tz", "Asia/Tokyo")):
        variants.append({"path": BARS, **DAY, name: value})
    tags = []
    for variant in variants:
        params = dict(variant)
        path = params.pop("path")
        tags.append(tag_of(server, path, **params))
        tags.append(read(server, path, {"Accept-Encoding": "gzip"}, **params).headers["etag"])
    assert len(set(tags)) == len(tags)


def test_an_alias_has_the_tag_of_the_name(server: Server) -> None:
    assert tag_of(server, "/api/ticks/aapl.us", **DAY) == tag_of(server, TICKS, **DAY)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        (TICKS, {}),
        (TICKS, {"start": "2026-01-13"}),
        (TICKS, {"start": "2026-01-13", "end": "2199-01-01"}),
        (TICKS, {"limit": 1, "order": "desc"}),
        (TICKS, {"start": "2026-01-13", "format": "csv"}),
        (BARS, {}),
        (BARS, {"start": "2026-01-13"}),
        (BARS, {"end": "2199-01-01"}),
        (BARS, {"interval": "1M", "end": "now"}),
    ],
)
def test_an_open_range_has_no_tag_and_is_answered_whatever_the_client_has(
    server: Server, path: str, params: dict[str, Any]
) -> None:
    if params.get("end") == "now":  # the month that the end lies in goes on
        params = params | {"end": int(time.time())}
    first = read(server, path, **params)
    assert "etag" not in first.headers
    for tag in ("*", tag_of(server, TICKS, **DAY)):
        answer = again(server, path, tag, **params)
        assert (answer.status, answer.data) == (200, first.data)


def test_a_tag_does_not_hide_an_error(server: Server) -> None:
    assert again(server, "/api/ticks/FOO", "*", **DAY).status == 404
    assert again(server, TICKS, "*", **DAY, limit=0).status == 400
    assert again(server, TICKS, "*", **DAY, page_token="x").status == 400


# In Redis


@pytest.fixture(scope="module")
def cached(data_template: Path) -> Iterator[tuple[Server, RedisServer]]:
    """A server with a Redis that works; AAPL has an hour of ticks."""
    with ExitStack() as stack:
        redis = RedisServer(stack.enter_context(folder()))
        stack.callback(redis.kill9)
        redis.start()
        settings = {"TICKHUB_FLUSH_INTERVAL_S": "0.01", "TICKHUB_REDIS_URL": redis.url, "TICKHUB_CACHE_TTL_S": "600"}
        settings["PROBE_REDIS_S"] = "4"
        server = stack.enter_context(running(data_template, environ=settings, module=Probed.module))
        store(server, made_ticks("AAPL", range(DAY_MS, DAY_MS + 3_600_000, 60_000)))
        wait_until(lambda: rows_of(server, TICKS, **DAY) and hits(server), what="the cache to be of use")
        yield server, redis
        assert "Traceback" not in server.log()


def hits(server: Server) -> float:
    return metric(server, 'tickhub_query_cache_total{result="hit"}')


def test_the_second_answer_comes_from_redis_and_a_new_tick_is_in_the_third(cached: tuple[Server, RedisServer]) -> None:
    server, _ = cached
    for path in (TICKS, BARS):
        first = read(server, path, **DAY)
        before = hits(server)
        assert read(server, path, **DAY).data == first.data
        assert hits(server) == before + 1
        send_late(server)
        third = read(server, path, **DAY)
        assert third.data != first.data
        assert hits(server) == before + 1
        send_late(server, DAY_MS - 1)
        send_late(server, DAY_MS + 86_400_000)
        assert read(server, path, **DAY).data == third.data
        assert hits(server) == before + 2, "ticks of other days have evicted it"


@pytest.mark.parametrize(
    ("params", "fill"),
    [
        ({}, False),
        ({"start": "today"}, True),
        pytest.param({}, True, marks=pytest.mark.long),
        pytest.param({"limit": 1}, False, marks=pytest.mark.long),
        pytest.param({"limit": 1, "order": "desc"}, False, marks=pytest.mark.long),
        pytest.param({"start": "today"}, False, marks=pytest.mark.long),
    ],
)
def test_a_running_bar_is_never_kept(cached: tuple[Server, RedisServer], params: dict[str, Any], fill: bool) -> None:
    server, _ = cached
    symbol = "NVDA" if fill else "META"
    path = f"/api/bars/{symbol}"
    params = params | {"interval": "1s"} | ({"fill": "previous"} if fill else {})
    if params.get("start") == "today":
        params["start"] = int(time.time() // 86_400 * 86_400)
        params["order"] = "desc"
    wait_until(lambda: time.time() % 1 < 0.3, what="the beginning of a second")
    now_ms = int(time.time() * 1000)
    over_ms = now_ms // 1000 * 1000 + 1000
    server.post([made_ticks(symbol, [now_ms])[0] | {"bid": 9.0, "ask": 9.0, "last": None}])
    bar: dict[str, Any] = {}
    while time.time() * 1000 < over_ms + 300 or not (fill or bar):  # filled ones have moved on to later seconds
        assert time.time() * 1000 < over_ms + WAIT_S * 1000, "the bar never came"
        before_ms = time.time() * 1000
        found = [row for row in rows_of(server, path, **params) if row["ticks"]]
        after_ms = time.time() * 1000
        bar = next((row for row in found if row["close"] == 9.0 and _start_ms(row) == over_ms - 1000), {})
        if before_ms >= over_ms and bar:
            assert bar["complete"] is True
        if after_ms < over_ms and bar:
            assert bar["complete"] is False


def _start_ms(bar: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(bar["timestamp"]).timestamp() * 1000)


@pytest.mark.long
def test_redis_killed_in_the_middle_costs_nothing_but_the_cache(cached: tuple[Server, RedisServer]) -> None:
    server, redis = cached
    before = {path: read(server, path, **DAY) for path in (TICKS, BARS)}
    redis.kill9()
    try:
        for path, answer in before.items():
            found = read(server, path, **DAY)
            assert (found.status, found.data, found.headers["etag"]) == (200, answer.data, answer.headers["etag"])
        send_late(server)
        assert read(server, TICKS, **DAY).data != before[TICKS].data
    finally:
        redis.start()
    count = hits(server)
    wait_until(lambda: rows_of(server, TICKS, **DAY) and hits(server) > count, what="the cache to be of use again")


TABLES = ("ticks", "bars", "current")


def test_a_database_that_is_set_back_does_not_revive_answers_of_what_came_after(
    cached: tuple[Server, RedisServer]
) -> None:
    server, _ = cached
    database = server.database
    with closing(database.connect()) as conn, conn, conn.cursor() as cur:
        for table in TABLES:
            cur.execute(f"CREATE TABLE IF NOT EXISTS public.kept_{table} AS TABLE {table}")
    old = {path: read(server, path, **DAY) for path in (TICKS, BARS)}
    send_late(server)
    lost = {path: read(server, path, **DAY) for path in (TICKS, BARS)}
    with closing(database.connect()) as conn, conn, conn.cursor() as cur:
        for table in TABLES:
            cur.execute(f"TRUNCATE {table}")
            cur.execute(f"INSERT INTO {table} TABLE public.kept_{table}")
    for path in (TICKS, BARS):
        assert read(server, path, **DAY).data == old[path].data
        assert again(server, path, lost[path].headers["etag"], **DAY).status == 200
    # As many ticks, as many writes as there were before it was set back, and other ones.
    store(server, [made_ticks("AAPL", [DAY_MS + 30_000])[0] | {"bid": 70.0, "ask": 71.0, "seq": 5000}])
    for path in (TICKS, BARS):
        found = read(server, path, **DAY)
        assert found.data not in (lost[path].data, old[path].data)
        assert found.headers["etag"] not in (lost[path].headers["etag"], old[path].headers["etag"])
        assert b"70.0" in found.data


@pytest.mark.long
def test_bars_that_were_rebuilt_are_read_anew(cached: tuple[Server, RedisServer]) -> None:
    server, _ = cached
    before = read(server, BARS, **DAY)
    server.database.rows("DELETE FROM ticks WHERE time >= '2026-01-13 00:30Z' AND time < '2026-01-14'")
    command = [sys.executable, "-m", "app", "rebuild", "bars"]
    subprocess.run(command, cwd=ROOT, env=server.environ, check=True, capture_output=True, timeout=60)
    after = read(server, BARS, **DAY)
    assert len(after.json["bars"]) == 30 < len(before.json["bars"])
    assert after.headers["etag"] != before.headers["etag"]
