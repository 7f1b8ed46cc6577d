"""Clients that take for ever: each is ended, and the others do not notice meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.process.harness import Server
from tests.process.wire import AWAY, ask, batch, checked, read_answers, running, tick

pytestmark = pytest.mark.long
PATIENCE_S = 60.0
"""Longer than what the server allows, shorter than the 75 s after which it ends an idle connection anyway."""

MANY = 200


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY) as server:
        yield server
        assert "Traceback" not in server.log()


def connected(server: Server, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
    client.sendall(data)
    return client


@pytest.mark.parametrize("head", [b"", b"GET /stats HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "a head"])
def test_connections_that_never_ask_are_closed_while_others_are_served(server: Server, head: bytes) -> None:
    slow = [connected(server, head) for _ in range(MANY)]
    try:
        for _ in range(20):
            assert ask(server, "POST", "/tick/batch", batch(tick())).status == 200
        for client in slow:
            assert client.recv(1) == b""
    finally:
        for client in slow:
            client.close()


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(server: Server) -> None:
    with closing(connected(server, b"GET /stats HTTP/1.1\r\nHost: x\r\n")) as client:
        over = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not over.wait(1.0):
                    client.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
        finally:
            over.set()
            dripping.join()


def test_a_small_body_that_never_ends_is_answered_and_stores_nothing(server: Server) -> None:
    before = server.stats()["ticks_received"]
    body = batch(tick())
    slow = [
        connected(server, b"POST /tick/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-1])
        for _ in range(MANY)
    ]
    try:
        for _ in range(20):
            assert ask(server, "GET", "/stats").status == 200
        for client in slow:
            head = client.recv(65536)
            assert head.startswith(b"HTTP/1.1 400 "), head
            assert b"the body did not arrive" in head
    finally:
        for client in slow:
            client.close()
    assert server.stats()["ticks_received"] == before


def test_an_idle_connection_that_has_asked_before_is_kept(server: Server) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with closing(connected(server, request)) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.settimeout(25.0)  # longer than a first request may take
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        client.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        (answer,) = read_answers(client)
        assert checked(answer).status == 200
