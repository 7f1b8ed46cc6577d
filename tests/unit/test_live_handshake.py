"""A handshake through the application, over a real pair of sockets, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket as sockets
from werkzeug.test import EnvironBuilder

from app import create_app
from app.settings import load
from app.stream.hub import Hub
from app.web import live_session
from tests.configured_keys import configured_keys

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

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.ours, self.theirs = sockets.socketpair()
        self.app = create_app()
        hub = Hub(lambda names: [], list, 1e9)
        meters = SimpleNamespace(answered=lambda *_: None)
        keys = configured_keys(directory, **settings)
        self.run = SimpleNamespace(settings=load({}, settings, None), hub=hub, meters=meters, keys=keys)
        self.app.extensions["tickhub"] = self.run

    def serve(self) -> None:
        """Serve the client; the request must end without an answer."""
        environ = EnvironBuilder(path="/ws", headers=HEADERS).get_environ() | {"gunicorn.socket": self.ours}
        with gevent.Timeout(10), pytest.raises(StopIteration):
            self.app.wsgi_app(environ, lambda *_: pytest.fail("an answer was begun"))

    def ask(self, said: bytes) -> bytes:
        """Shake hands, say something, and return all that comes back."""
        self.theirs.sendall(said)
        self.serve()
        self.ours.close()
        got = b""
        while piece := self.theirs.recv(4096):
            got += piece
        return got


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    found = Connection(tmp_path)
    yield found
    found.theirs.close()


def test_nothing_follows_the_close(connection: Connection) -> None:
    head, _, frames = connection.ask(b"\x81\x84\0\0\0\0ping" + CLOSE).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == b'\x81\x0f{"type":"pong"}' + CLOSED
    assert len(connection.run.hub) == 0


def test_compression_is_not_agreed_to_unless_it_is_set(connection: Connection, tmp_path: Path) -> None:
    assert b"deflate" not in connection.ask(CLOSE)
    assert b"permessage-deflate" in Connection(tmp_path, ws_deflate="true").ask(CLOSE)


def test_a_client_that_leaves_without_a_word_is_forgotten(connection: Connection) -> None:
    connection.theirs.shutdown(sockets.SHUT_WR)
    connection.serve()
    assert len(connection.run.hub) == 0


def test_a_client_that_left_before_the_handshake_was_answered_is_no_failure(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    connection.theirs.close()
    connection.serve()
    assert len(connection.run.hub) == 0
    assert not caplog.records


def test_who_shows_no_key_in_time_is_closed_with_1008(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(live_session, "AUTH_WAIT_S", 0.05)
    keyed = Connection(tmp_path, api_key_read="read-0123456789ab")
    _, _, frames = keyed.ask(b"\x81\x84\0\0\0\0ping").partition(b"\r\n\r\n")
    pong, _, close = frames.partition(b"}")
    assert pong.endswith(b'{"type":"pong"')
    assert close == b"\x88\x16\x03\xf0no API key was shown"


def test_who_shows_its_key_in_time_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(live_session, "AUTH_WAIT_S", 0.05)
    keyed = Connection(tmp_path, api_key_read="read-0123456789ab")
    said = b'{"action":"auth","key":"read-0123456789ab"}'
    gevent.spawn_later(0.2, keyed.theirs.sendall, CLOSE)
    frames = keyed.ask(b"\x81" + bytes((0x80 | len(said),)) + b"\0\0\0\0" + said)
    assert frames.endswith(b'{"type":"authenticated"}' + CLOSED)


def test_a_replay_that_fails_is_logged_and_told(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    def replay(*_: object) -> Iterator[Any]:
        yield []
        raise ZeroDivisionError

    connection.run.symbols = SimpleNamespace(map=SimpleNamespace(names=[]))
    connection.run.live_trades = SimpleNamespace(replay=replay)
    said = b'{"action":"subscribe","symbol":"*","channels":["trades"],"since":0}'
    gevent.spawn_later(0.2, connection.theirs.sendall, CLOSE)
    got = connection.ask(b"\x81" + bytes((0x80 | len(said),)) + b"\0\0\0\0" + said)
    assert b'"code":"internal"' in got
    assert b"replay_complete" not in got
    assert [record.message for record in caplog.records] == ["a replay failed"]


def test_at_the_end_of_the_server_nobody_is_let_in(connection: Connection) -> None:
    connection.run.hub.close(0.1)
    answer = connection.app.test_client().get("/ws", headers=HEADERS)
    assert (answer.status_code, answer.json["code"]) == (503, "not_ready")  # type: ignore[index]  # it is JSON
    assert answer.headers["Retry-After"]


def test_a_handshake_of_another_page_is_refused_before_any_other_look(connection: Connection) -> None:
    answer = connection.app.test_client().get("/ws", headers=HEADERS | {"Origin": "http://evil.example"})
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")  # type: ignore[index]  # it is JSON
