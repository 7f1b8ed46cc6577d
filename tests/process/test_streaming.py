"""Answers that are sent while they are made: whole, or visibly broken; and readers that do not read."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.probes import content
from tests.process.test_query_lanes import WELL_BEFORE_S, Probed, busy, connect, everything, metric, own, probed

BIG_BYTES = 8 << 20
"""A page that no socket buffer holds."""
SLOW_BYTES, SLOW_S = 4 * BIG_BYTES, 8.0
"""A page, and what a slow client takes for it. The server is rid of it a bit sooner: buffers hold the last eighth."""


@pytest.fixture(scope="module")
def shared(data_template: Path) -> Iterator[Probed]:
    with probed(data_template) as found:
        yield found


@pytest.fixture
def server(shared: Probed) -> Probed:
    return shared.forget()


def get(server: Server, path: str, method: str = "GET") -> http.client.HTTPResponse:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    client.request(method, path)
    return client.getresponse()


def read_into(received: bytearray, client: socket.socket) -> None:
    while part := client.recv(1 << 16):
        received += part


def closed_after(log: str) -> Iterator[int]:
    """After how many pages each stream was closed, in order."""
    for line in log.splitlines():
        if "PROBE closed after" in line:
            yield int(line.split("after ")[1].split(" ")[0])


def wait_closed(server: Probed, *pages: int) -> None:
    """Wait until as many streams were closed, each after so many pages."""
    wait_until(lambda: len(list(closed_after(server.news()))) >= len(pages), WELL_BEFORE_S, "the streams to be closed")
    assert list(closed_after(server.news())) == list(pages)


def test_pages_arrive_whole_and_in_order_and_the_connection_stays(server: Probed) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
        for size in (8, 200_000, BIG_BYTES):
            client.request("GET", f"/probe/pages?count=5&bytes={size}")
            answer = client.getresponse()
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert answer.read() == b"".join(content(page, size) for page in range(5))
    wait_closed(server, 5, 5, 5)


def test_no_pages_are_an_empty_answer(server: Probed) -> None:
    answer = get(server, "/probe/pages?count=0")
    assert (answer.status, answer.read()) == (200, b"")
    wait_closed(server, 0)


def test_an_older_client_gets_a_connection_that_ends_with_the_answer(server: Probed) -> None:
    with closing(connect(server)) as client:
        client.sendall(b"GET /probe/pages?count=5&bytes=8000 HTTP/1.0\r\n\r\n")
        head, _, body = everything(client).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == b"".join(content(page, 8000) for page in range(5))
    wait_closed(server, 5)


def test_an_error_on_the_first_page_is_an_answer(server: Probed) -> None:
    answer = get(server, "/probe/pages?fail=0&error=timeout")
    assert answer.status == 503
    assert json.loads(answer.read())["code"] == "query_timeout"
    answer = get(server, "/probe/pages?fail=0&error=bug")
    assert answer.status == 500
    assert json.loads(answer.read())["code"] == "internal"
    wait_closed(server, 0, 0)
    wait_until(lambda: "Traceback" in server.news(), WELL_BEFORE_S, "the log")  # or the next test finds it


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("error", "tracebacks"), [("timeout", 0), ("bug", 1)])
def test_an_error_on_a_later_page_breaks_the_transfer_and_is_logged_once(
    server: Probed, version: str, error: str, tracebacks: int
) -> None:
    with closing(connect(server)) as client:
        request = f"GET /probe/pages?count=5&bytes=80&fail=3&error={error} HTTP/{version}\r\nHost: x\r\n\r\n"
        client.sendall(request.encode())
        received = bytearray()
        with pytest.raises(ConnectionResetError):
            read_into(received, client)
    assert received.count(b"HTTP/1.") == 1, "a second head is no part of the stream"
    assert not received.endswith(b"0\r\n\r\n")
    wait_closed(server, 3)
    wait_until(lambda: "broken off" in server.news(), WELL_BEFORE_S, "the log")  # it comes behind that
    log = server.news()
    assert log.count("broken off") == 1
    assert log.count("Traceback") == tracebacks
    assert server.status("/health") == 200


def test_nothing_follows_a_stream_whose_greenlet_was_killed(server: Probed) -> None:
    stream = "GET /probe/pages?count=5&bytes=80&fail=3&error=kill HTTP/1.1\r\nHost: x\r\n\r\n"
    received = bytearray()
    with closing(connect(server)) as client:
        client.sendall(f"{stream}GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            read_into(received, client)
    assert received.count(b"HTTP/1.") == 1, "the next request's answer is no part of the stream"
    wait_closed(server, 3)


def test_a_broken_transfer_is_an_error_for_who_reads_it_with_a_library(server: Probed) -> None:
    answer = get(server, "/probe/pages?count=5&bytes=80000&slow=2&s=0.5&fail=3")
    assert answer.status == 200
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    wait_closed(server, 3)
    wait_until(lambda: "Traceback" in server.news(), WELL_BEFORE_S, "the log")  # or the next test finds it


def test_head_makes_one_page_at_most_and_sends_none(server: Probed) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
        for _ in range(2):
            client.request("HEAD", "/probe/pages?count=5&bytes=8000")
            answer = client.getresponse()
            assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, None, b"")
    wait_closed(server, 1, 1)


def test_a_client_that_does_not_read_holds_two_pages_and_no_connection(server: Probed) -> None:
    (worker,) = server.worker_pids()
    reads = 'tickhub_reads_total{kind="export",outcome="ok"}'
    before = metric(server, reads)
    before_bytes = psutil.Process(worker).memory_info().rss
    with closing(connect(server, f"/probe/pages?count=100&bytes={BIG_BYTES}")) as client:
        wait_until(lambda: metric(server, reads) == before + 2, what="the page that is sent and the one ahead")
        for _ in range(20):
            assert server.request("GET", "/probe/read?s=0")[0] == 200
        assert metric(server, reads) == before + 2
        assert busy(server.database) == []
        assert psutil.Process(worker).memory_info().rss - before_bytes < 6 * BIG_BYTES
        client.recv(100)
    wait_closed(server, 2)
    assert "Traceback" not in server.news()


def test_a_client_that_leaves_ends_the_stream_and_the_query_of_the_page_ahead(server: Probed) -> None:
    with closing(connect(server, f"/probe/pages?count=100&bytes={BIG_BYTES}&slow=1&s=60")) as client:
        wait_until(lambda: busy(server.database), what="the page ahead")
        client.recv(100)
    wait_until(lambda: not busy(server.database), WELL_BEFORE_S, "the query to be cancelled")
    wait_closed(server, 1)
    assert "Traceback" not in server.news()
    assert server.request("GET", "/probe/read?kind=export&s=0")[0] == 200


@pytest.mark.long
def test_a_client_that_stands_still_is_dropped(make_server: MakeServer) -> None:
    server = own(make_server, PROBE_STALLED_S="1").wait_ready()
    with closing(connect(server, f"/probe/pages?count=100&bytes={BIG_BYTES}")) as client:
        # The page ahead may not have been made by then.
        wait_until(lambda: list(closed_after(server.log())) in ([1], [2]), WELL_BEFORE_S, "the stream to be closed")
        with pytest.raises(ConnectionResetError):
            everything(client)
    assert server.log().count("the client does not read") == 1
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_slow_client_that_reads_is_not_dropped(make_server: MakeServer) -> None:
    """Each page takes longer than a client may stand still; it never does."""
    server = own(make_server, PROBE_STALLED_S="5").wait_ready()
    received = 0
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        client.settimeout(30)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET /probe/pages?count=2&bytes={SLOW_BYTES} HTTP/1.0\r\n\r\n".encode())
        began = time.monotonic()
        while part := client.recv(256 << 10):
            received += len(part)
            if received < SLOW_BYTES:
                time.sleep(max(0.0, began + SLOW_S * received / SLOW_BYTES - time.monotonic()))  # it reads, slowly
    assert received > 2 * SLOW_BYTES


@pytest.mark.long
def test_the_end_of_the_server_breaks_a_stream_that_goes_on(make_server: MakeServer) -> None:
    server = own(make_server, "--shutdown-grace-s", "8").wait_ready()
    with closing(connect(server, f"/probe/pages?count=100&bytes={BIG_BYTES}")) as client:
        client.recv(100)
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log()
        with pytest.raises(ConnectionResetError):
            everything(client)
    assert "Traceback" not in server.log()
