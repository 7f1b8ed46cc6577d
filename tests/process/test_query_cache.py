"""The query cache on a real Redis, and what all that can be wrong with one costs: nothing but the cache."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.query_cache import NullCache, make_cache
from app.redis_cache import MAX_VALUE_BYTES, RedisCache
from app.settings import load
from tests.process.harness import ROOT, WAIT_S, folder, wait_until
from tests.process.redis_server import RedisServer

AWAY, BACK = "is away", "is back"

PATIENT_S = 4.0
"""How long workers wait for a Redis that is well: it takes that long to answer when the machine stands still."""
SOON_S = 1.5
"""How long they wait for one that will hang."""
PRODUCT_S = None
"""As long as servers do."""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with folder() as home:
        server = RedisServer(home)
        try:
            yield server
        finally:
            server.kill9()


class Worker:
    """A process with a cache (tests/process/cache_client.py)."""

    def __init__(self, url: str, log: Path, waits_s: float | None) -> None:
        self._log = log
        options = [] if waits_s is None else [str(waits_s)]
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.cache_client", url, *options],
                cwd=ROOT,
                env={name: text for name, text in os.environ.items() if name != "REDIS_URL"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    def call(self, *words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the worker is gone:\n{self.log()}"
        return json.loads(line)

    def get(self, key: str) -> bytes | None:
        found = self.call("get", key)
        return None if found is None else base64.b64decode(found)

    def put(self, key: str, value: bytes, ttl_s: float = 60.0) -> None:
        self.call("put", key, base64.b64encode(value).decode(), ttl_s)

    def results(self, name: str) -> int:
        return int(self.call("results").get(name, 0))

    def works(self) -> bool:
        """Tell whether a value comes back."""
        self.put("does it work", b"yes")
        return self.get("does it work") == b"yes"

    def wait_works(self) -> Worker:
        wait_until(self.works, what="the cache to work")
        return self

    def log(self) -> str:
        return self._log.read_text()

    def lines(self, word: str) -> int:
        return sum(word in line for line in self.log().splitlines())

    def end(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(WAIT_S)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(WAIT_S)


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    with ExitStack() as stack:
        logs = iter(range(100))

        def make(url: str, waits_s: float | None = PATIENT_S) -> Worker:
            worker = Worker(url, tmp_path / f"{next(logs)}.log", waits_s)
            stack.callback(worker.kill)
            return worker

        yield make


@pytest.fixture
def worker(redis: RedisServer, make_worker: Callable[..., Worker]) -> Worker:
    redis.start()
    return make_worker(redis.url).wait_works()


@pytest.fixture
def soon_done(redis: RedisServer, make_worker: Callable[..., Worker]) -> Worker:
    """A worker whose Redis will hang."""
    redis.start()
    return make_worker(redis.url, SOON_S).wait_works()


def keys(redis: RedisServer, password: str | None = None) -> list[bytes]:
    with redis.client(password) as client:
        return sorted(name for name in client.keys("*") if b":probe:" not in name)


def only_key(redis: RedisServer, worker: Worker, key: str, value: bytes = b"as it was") -> bytes:
    """Put a value, and return the name that it has in Redis."""
    before = set(keys(redis))
    worker.put(key, value)
    (name,) = set(keys(redis)) - before
    return name


# What it keeps


def test_what_one_worker_put_another_gets(redis, worker, make_worker):
    worker.put("/api/bars/AAPL?version=1", b"\x00 any bytes \xff")
    other = make_worker(redis.url).wait_works()
    assert other.get("/api/bars/AAPL?version=1") == b"\x00 any bytes \xff"
    assert other.get("/api/bars/AAPL?version=2") is None


def test_an_empty_value_is_a_value(worker):
    worker.put("empty", b"")
    assert worker.get("empty") == b""


def test_names_are_ours_and_of_one_length_whatever_was_asked(redis, worker):
    for key in ("", "x" * 100_000, "\r\nFLUSHALL\r\n", "Zürich \ud800"):
        name = only_key(redis, worker, key)
        assert name.startswith(b"tickhub:1:")
        assert len(name) == len(b"tickhub:1:") + 64
        assert worker.get(key) == b"as it was"


def test_nothing_stays_longer_than_it_was_put_for(redis, worker):
    name = only_key(redis, worker, "short")
    with redis.client() as client:
        assert 0 < client.pttl(name) <= 60_000
        worker.put("short", b"gone soon", 5.0)
        assert 0 < client.pttl(name) <= 5000
        client.pexpire(name, 1)  # it is over now
        wait_until(lambda: client.get(name) is None, what="Redis to forget it")
    assert worker.get("short") is None


def test_a_value_is_not_served_past_its_time_though_redis_still_has_it(redis, worker):
    name = only_key(redis, worker, "short")
    with redis.client() as client:

        def kept_beyond_its_time() -> bool:
            worker.put("short", b"until the bar is complete", 0.5)
            return bool(client.persist(name))

        wait_until(kept_beyond_its_time, what="Redis to keep it")
        wait_until(lambda: worker.get("short") is None, what="its time to be over")
        assert client.get(name).endswith(b"until the bar is complete")


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, 0.0001])
def test_what_is_over_already_is_not_put(redis, worker, ttl_s):
    before = keys(redis)
    worker.put("over", b"x", ttl_s)
    assert keys(redis) == before
    assert worker.results("error") == 0


def test_a_value_of_a_mebibyte_is_kept_and_a_larger_one_is_not(redis, worker):
    largest = os.urandom(MAX_VALUE_BYTES)
    worker.put("largest", largest)
    assert worker.get("largest") == largest
    before = keys(redis)
    worker.put("too large", largest + b"x")
    assert worker.get("too large") is None
    assert keys(redis) == before


def test_no_damaged_byte_is_served(redis, worker):
    name = only_key(redis, worker, "damaged")
    with redis.client() as client:
        sound = client.get(name)
        for at in range(len(sound)):
            client.set(name, sound[:at] + bytes([sound[at] ^ 0x01]) + sound[at + 1 :])
            assert worker.get("damaged") is None, at
        client.set(name, sound)
    assert worker.get("damaged") == b"as it was"


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda client, name: client.set(name, b""),
        lambda client, name: client.set(name, b"hello"),
        lambda client, name: client.set(name, client.get(name)[:-1]),
        lambda client, name: client.append(name, b"x"),
        lambda client, name: client.set(name, b"x" * 50_000_000),
        lambda client, name: (client.delete(name), client.rpush(name, b"a", b"list")),
        lambda client, name: (client.delete(name), client.hset(name, "a", "hash")),
        lambda client, name: (client.delete(name), client.xadd(name, {"a": "stream"})),
    ],
)
def test_what_somebody_else_wrote_there_is_a_miss_and_is_overwritten(redis, worker, overwrite):
    name = only_key(redis, worker, "foreign")
    with redis.client() as client:
        overwrite(client, name)
    assert worker.get("foreign") is None
    worker.put("foreign", b"ours again")
    assert worker.get("foreign") == b"ours again"
    assert worker.results("error") == 0


def test_a_value_under_another_name_is_a_miss(redis, worker):
    one, other = only_key(redis, worker, "one"), only_key(redis, worker, "other", b"the other's")
    with redis.client() as client:
        client.set(other, client.get(one))
    assert worker.get("one") == b"as it was"
    assert worker.get("other") is None


def test_hits_and_misses_are_counted(worker):
    hits, misses = worker.results("hit"), worker.results("miss")
    worker.put("counted", b"x")
    assert [worker.get(key) for key in ("counted", "not there", "counted")] == [b"x", None, b"x"]
    assert (worker.results("hit"), worker.results("miss")) == (hits + 2, misses + 1)
    assert worker.results("error") == 0


def test_many_requests_at_once_use_few_connections(redis, worker):
    assert worker.call("storm", 500) == 500
    with redis.client() as client:
        assert client.info("clients")["connected_clients"] <= 20
    assert worker.results("error") == 0


def test_a_stopped_cache_holds_no_connection_and_can_be_started_again(redis, worker):
    for _ in range(2):
        worker.call("stop")
    assert not worker.works()
    with redis.client() as client:
        wait_until(lambda: client.info("clients")["connected_clients"] == 1, what="the connections to be closed")
    for _ in range(2):
        worker.call("start")
    worker.wait_works()
    assert worker.end() == 0


# What can be wrong with it


@pytest.mark.long
def test_a_redis_that_hangs_is_asked_no_more_until_it_answers_again(redis, soon_done):
    worker = soon_done
    redis.pause()
    assert worker.get("while it hangs") is None
    errors = worker.results("error")
    assert errors == 1
    for _ in range(20):
        assert worker.get("later") is None
    assert worker.results("error") == errors, "it was asked again"
    redis.resume()
    worker.wait_works()
    assert (worker.lines(AWAY), worker.lines(BACK)) == (1, 1)


@pytest.mark.long
def test_requests_that_meet_a_hanging_redis_together_all_go_on(redis, soon_done):
    worker = soon_done
    worker.call("storm", 100)
    redis.pause()
    assert worker.call("storm", 300) == 300
    assert worker.lines(AWAY) == 1, worker.log()
    redis.resume()
    worker.wait_works()


@pytest.mark.long
def test_a_redis_that_is_killed_is_used_again_when_it_is_back(redis, worker):
    worker.call("storm", 50)
    redis.kill9()
    assert worker.get("while it is dead") is None
    assert worker.lines(AWAY) == 1
    redis.start()
    worker.wait_works()
    assert (worker.lines(AWAY), worker.lines(BACK)) == (1, 1)


def test_a_redis_that_was_restarted_between_two_requests_may_be_missed_but_breaks_nothing(redis, worker):
    worker.call("storm", 50)
    redis.kill9()
    redis.start()
    assert worker.get("kept before") is None
    worker.wait_works()


@pytest.mark.long
def test_a_redis_that_comes_late_is_found(redis, make_worker):
    worker = make_worker(redis.url)
    assert worker.get("not there yet") is None
    wait_until(lambda: worker.lines(AWAY), what="the line that it is away")
    redis.start()
    worker.wait_works()
    assert (worker.lines(AWAY), worker.lines(BACK)) == (1, 1)


@pytest.mark.long
def test_a_wrong_password_is_told_once_and_never_shown(redis, make_worker):
    redis.start("--requirepass", "the-right-one")
    worker = make_worker(f"redis://:hunter2-and-%24more@127.0.0.1:{redis.port}/0")
    wait_until(lambda: worker.lines(AWAY), what="the line that it is away")
    assert worker.call("storm", 10) == 10
    with redis.client("the-right-one") as client:
        client.config_set("requirepass", "hunter2-and-$more")
    worker.wait_works()
    assert (worker.lines(AWAY), worker.lines(BACK)) == (1, 1)
    assert "hunter2" not in worker.log()
    assert "$more" not in worker.log()


@pytest.mark.long
def test_a_password_that_is_asked_for_in_the_middle_costs_the_cache_only(redis, worker):
    with redis.client() as client:
        client.config_set("requirepass", "from now on")
        client.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: worker.get("anything") is None and worker.lines(AWAY), what="the cache to be away")
    with redis.client("from now on") as client:
        client.config_set("requirepass", "")
    worker.wait_works()


def fill(client: Redis) -> None:
    client.config_set("maxmemory", "1mb")
    client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.long
def test_a_full_redis_is_left_alone_until_there_is_room(redis, worker):
    with redis.client() as client:
        fill(client)
        worker.put("one too many", b"x")
        assert worker.lines("used memory > 'maxmemory'") == 1, worker.log()
        for _ in range(20):
            worker.put("more", b"x")
        assert worker.results("error") == 1
        client.config_set("maxmemory", "0")
    worker.wait_works()
    assert (worker.lines(AWAY), worker.lines(BACK)) == (1, 1)


@pytest.mark.long
def test_a_redis_that_fills_again_and_again_is_not_logged_again_and_again(redis, worker):
    with redis.client() as client:
        for _ in range(3):
            fill(client)
            wait_until(lambda: not worker.works(), what="the cache to be away")
            client.config_set("maxmemory", "0")
            worker.wait_works()
    assert worker.results("error") == 3
    assert (worker.lines(AWAY), worker.lines(BACK)) == (1, 1)


@pytest.mark.long
def test_a_replica_that_takes_no_writes_is_left_alone(redis, worker):
    with redis.client() as client:
        client.replicaof("127.0.0.1", "1")
        worker.put("no", b"x")
        assert worker.lines(AWAY) == 1, worker.log()
        for _ in range(20):
            worker.put("no", b"x")
        assert worker.results("error") == 1
        client.replicaof("NO", "ONE")
    worker.wait_works()


class Stranger:
    """Something on a port that is no Redis: says `greeting` in bits, for ever, to whoever comes."""

    def __init__(self, greeting: bytes = b"", every_s: float = 0.02) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.guests: list[socket.socket] = []
        self._greeting, self._every_s = greeting, every_s
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with suppress(OSError):
            while True:
                guest = self._listener.accept()[0]
                self.guests.append(guest)
                if self._greeting:
                    threading.Thread(target=self._talk, args=(guest,), daemon=True).start()

    def _talk(self, guest: socket.socket) -> None:
        with suppress(OSError):
            while guest.send(self._greeting):
                time.sleep(self._every_s)  # it never ends, and says something every time

    def close(self) -> None:
        for each in (self._listener, *self.guests):
            each.close()


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"$",
        b"$1000000000\r\nx",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b"-ERR what\r\n",
        b"$-1\r\n",
        b":1\r\n",
        b"*2\r\n",
        b">2\r\n",
        b"\xff\x00",
    ],
)
def test_a_stranger_on_the_port_costs_no_request_anything(make_worker, greeting):
    stranger = Stranger(greeting)
    try:
        worker = make_worker(stranger.url, PRODUCT_S)
        wait_until(lambda: worker.lines(AWAY), what="the line that it is away")
        guests = len(stranger.guests)
        assert worker.call("storm", 200) == 200
        worker.put("anything", b"x")
        assert worker.results("skipped") == 200
        assert len(stranger.guests) <= guests + 2, "only the watch may go there"
        assert worker.lines(AWAY) == 1
    finally:
        stranger.close()


def test_a_port_that_takes_no_connection_costs_no_request_anything(make_worker):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Linux drops what comes to a full queue: no answer, no refusal.
        crowd = [socket.socket() for _ in range(3)]
        for one in crowd:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(full.getsockname())
        worker = make_worker(f"redis://127.0.0.1:{full.getsockname()[1]}", PRODUCT_S)
        wait_until(lambda: worker.lines(AWAY), what="the line that it is away")
        assert worker.call("storm", 200) == 200
        assert worker.results("skipped") == 200
        for one in crowd:
            one.close()


class Wire:
    """Passes on to a Redis; connections can go deaf, as those through a firewall that forgot them do."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._life = 0
        self.spoken_into_the_void: set[int] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def deafen(self) -> None:
        self._life += 1

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._pass, args=(client, self._life), daemon=True).start()

    def _pass(self, client: socket.socket, life: int) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream)) as server, suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if self._life == life:
                        (server if source is client else client).sendall(data)
                    elif source is client:
                        self.spoken_into_the_void.add(client.fileno())


@pytest.mark.long
def test_idle_connections_that_went_deaf_are_given_up_together(redis, make_worker):
    redis.start()
    wire = Wire(redis.port)
    try:
        worker = make_worker(wire.url, SOON_S).wait_works()
        worker.call("storm", 50)
        wire.deafen()
        assert worker.get("into the void") is None
        worker.wait_works()
        assert worker.call("storm", 50) == 50
        assert worker.results("error") == 1
        assert len(wire.spoken_into_the_void) == 1
    finally:
        wire.close()


# Without Redis


def test_without_a_url_nothing_is_kept(tmp_path):
    cache = make_cache(load({}, None, None))
    assert isinstance(cache, NullCache)
    cache.start()
    assert not cache.worth_asking
    cache.put("a", b"b", 60.0)
    assert cache.get("a") is None
    cache.stop()


@pytest.mark.parametrize("url", ["redis://:secret@host:99999", "redis://:secret@host:x/0", "redis://[::1", "redis://?db=x"])
def test_a_url_that_makes_no_sense_leaves_the_server_without_a_cache(url, caplog):
    assert isinstance(make_cache(load({"TICKHUB_REDIS_URL": url}, None, None)), NullCache)
    assert "redis_url" in caplog.text
    assert "secret" not in caplog.text


def test_options_in_the_url_change_nothing_that_requests_rely_on(redis, make_worker):
    redis.start()
    options = "decode_responses=true&protocol=3&socket_timeout=60&retry_on_timeout=true&health_check_interval=1"
    worker = make_worker(f"{redis.url}?{options}", PRODUCT_S).wait_works()
    redis.pause()
    assert worker.get("while it hangs") is None
    assert worker.lines(AWAY) == 1
    redis.resume()


def test_a_unix_socket_will_do(redis, make_worker, tmp_path):
    with folder() as home:
        redis.start("--unixsocket", str(home / "redis.sock"))
        worker = make_worker(f"unix://{home}/redis.sock?db=1", PRODUCT_S).wait_works()
        assert keys(redis) == [], "it went to database 0"
        redis.pause()
        assert worker.get("while it hangs") is None
        redis.resume()


def test_the_address_in_the_log_has_no_password():
    assert "hunter2" not in RedisCache("redis://me:hunter2@10.0.0.1:7000/0")._link.name
