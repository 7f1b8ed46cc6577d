"""A handshake through the application, over a real pair of sockets, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket as sockets
from werkzeug.test import EnvironBuilder

from app import create_app
from app.settings import load
from app.stream.hub import Hub

HEADERS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Extensions": "permessage-deflate",
}
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
CLOSED = b"\x88\x02\x03\xe8"


class Connection:
    """What gunicorn gives a request, and the client's end."""

    def __init__(self, **settings: Any) -> None:
        self.ours, self.theirs = sockets.socketpair()
        self.app = create_app()
        hub = Hub(lambda names: [], list, 1e9)
        meters = SimpleNamespace(answered=lambda status: None)
        self.run = SimpleNamespace(settings=load({}, settings, None), hub=hub, meters=meters)
        self.app.extensions["tickhub"] = self.run

    def ask(self, said: bytes, path: str = "/ws") -> bytes:
        """Shake hands, say something, and return all that comes back; the request must end without an answer."""
        builder = EnvironBuilder(path=path, headers=HEADERS)
        environ = builder.get_environ() | {"gunicorn.socket": self.ours}
        self.theirs.sendall(said)
        with gevent.Timeout(10), pytest.raises(StopIteration):
            self.app.wsgi_app(environ, lambda *_: pytest.fail("an answer was begun"))
        self.ours.close()
        got = b""
        while piece := self.theirs.recv(4096):
            got += piece
        return got


@pytest.fixture
def connection() -> Iterator[Connection]:
    found = Connection()
    yield found
    found.theirs.close()


def test_nothing_follows_the_close(connection: Connection) -> None:
    head, _, frames = connection.ask(b"\x81\x84\0\0\0\0ping" + CLOSE).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == b'\x81\x0f{"type":"pong"}' + CLOSED
    assert len(connection.run.hub) == 0


def test_compression_is_not_agreed_to_unless_it_is_set(connection: Connection) -> None:
    assert b"deflate" not in connection.ask(CLOSE)
    assert b"permessage-deflate" in Connection(ws_deflate="true").ask(CLOSE)


def test_a_client_that_leaves_without_a_word_is_forgotten(connection: Connection) -> None:
    connection.theirs.shutdown(sockets.SHUT_WR)
    builder = EnvironBuilder(path="/ws", headers=HEADERS)
    with gevent.Timeout(10), pytest.raises(StopIteration):
        connection.app.wsgi_app(builder.get_environ() | {"gunicorn.socket": connection.ours}, lambda *_: None)
    assert len(connection.run.hub) == 0


def test_at_the_end_of_the_server_nobody_is_let_in(connection: Connection) -> None:
    connection.run.hub.close(0.1)
    answer = connection.app.test_client().get("/ws", headers=HEADERS)
    assert (answer.status_code, answer.json["code"]) == (503, "not_ready")  # type: ignore[index]  # it is JSON
    assert answer.headers["Retry-After"]


def test_a_handshake_of_another_page_is_refused_before_any_other_look(connection: Connection) -> None:
    answer = connection.app.test_client().get("/ws", headers=HEADERS | {"Origin": "http://evil.example"})
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")  # type: ignore[index]  # it is JSON
