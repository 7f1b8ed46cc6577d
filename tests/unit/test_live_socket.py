"""One WebSocket on a real pair of sockets: partial sends, stalls, floods, broken frames, closing."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace

import gevent
import pytest
from gevent import socket as sockets
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from app.stream import socket as under_test
from app.stream.socket import FLOOD_WARNINGS, MAX_MESSAGE_BYTES, Budget, Socket
from tests.waiting import others_turn, run_until

WAIT_S = 20.0


class Peer:
    """A client: wsproto's, on the other end of the pair."""

    def __init__(self, sock: sockets.socket, connection: WSConnection) -> None:
        self.sock, self.connection = sock, connection
        self.events: list[Event] = []
        sock.settimeout(WAIT_S)

    def say(self, *events: Event) -> None:
        self.sock.sendall(b"".join(self.connection.send(event) for event in events))

    def hear(self, until: Callable[[list[Event]], bool]) -> list[Event]:
        """Read until what came is enough, or the end."""
        while not until(self.events) and (data := self.sock.recv(1 << 16)):
            self.connection.receive_data(data)
            self.events += self.connection.events()
        return self.events

    def closed_with(self) -> int:
        (close,) = [event for event in self.hear(is_closed) if isinstance(event, CloseConnection)]
        return int(close.code)

    def texts(self) -> list[str]:
        """Return the whole texts so far."""
        whole, part = [], ""
        for event in self.events:
            if isinstance(event, TextMessage):
                part += event.data
                if event.message_finished:
                    whole.append(part)
                    part = ""
        return whole


def is_closed(events: list[Event]) -> bool:
    return any(isinstance(event, CloseConnection) for event in events)


class Line:
    """A socket, its peer, and what the socket has understood."""

    def __init__(self, early: bytes = b"", *, deflates: bool = False) -> None:
        ours, theirs = sockets.socketpair()
        server, client = WSConnection(ConnectionType.SERVER), WSConnection(ConnectionType.CLIENT)
        asked: list[Extension] = [PerMessageDeflate()] if deflates else []
        agreed: list[Extension] = [PerMessageDeflate()] if deflates else []
        server.receive_data(client.send(Request(host="localhost", target="/ws", extensions=asked)))
        list(server.events())
        client.receive_data(server.send(AcceptConnection(extensions=agreed)))
        list(client.events())
        self.raw = ours
        self.socket = Socket(ours, server, early, deflates=deflates)
        self.peer = Peer(theirs, client)
        self.said: list[str | bytes] = []
        self.reader = gevent.spawn(self._read)

    def _read(self) -> None:
        for message in self.socket.messages():
            self.said.append(message)
        self.socket.finish()
        self.raw.close()

    def wait_said(self, count: int) -> list[str | bytes]:
        run_until(lambda: len(self.said) >= count)
        return self.said


@contextmanager
def opened(*, deflates: bool = False) -> Iterator[Line]:
    found = Line(deflates=deflates)
    try:
        yield found
    finally:
        found.reader.kill()
        found.peer.sock.close()
        found.raw.close()


@pytest.fixture
def line() -> Iterator[Line]:
    with opened() as found:
        yield found


@contextmanager
def meanwhile(do: Callable[[], object]) -> Iterator[list[int]]:
    """Do something each time that others have their turn; yields how often that was so far."""
    turns = [0]

    def others() -> None:
        while True:
            do()
            turns[0] += 1
            others_turn()

    greenlet = gevent.spawn(others)
    try:
        yield turns
        assert not greenlet.dead, greenlet.exception
    finally:
        greenlet.kill()


def test_messages_come_whole_however_they_are_cut(line: Line) -> None:
    text = "é" * 10_000
    data = line.peer.connection.send(TextMessage("a")) + line.peer.connection.send(TextMessage(text))
    for part in (data[:1], data[1:5], data[5:6000], data[6000:]):
        line.peer.sock.sendall(part)
        gevent.sleep(0.005)  # each part is read by itself
    line.peer.say(Message("f", message_finished=False), Message("g", message_finished=True), BytesMessage(b"h"))
    assert line.wait_said(4) == ["a", text, "fg", b"h"]


def test_what_came_with_the_handshake_is_not_lost() -> None:
    client = FrameProtocol(client=True, extensions=[])
    line = Line(early=client.send_data("early"))
    assert line.wait_said(1) == ["early"]
    line.reader.kill()


def test_texts_of_every_size_arrive_in_one_send_each_in_its_frame(line: Line) -> None:
    texts = [b"x" * size for size in (0, 1, 125, 126, 127, 65_535, 65_536, 200_000)]
    line.socket.send_texts(texts)
    line.peer.hear(lambda events: len(line.peer.texts()) == len(texts))
    assert [len(text) for text in line.peer.texts()] == [len(text) for text in texts]


def test_what_the_kernel_does_not_take_follows_in_order_when_it_does(line: Line) -> None:
    drained: list[bool] = []
    line.socket.on_drained = lambda: drained.append(True)
    payload = os.urandom(500_000).hex().encode()
    line.socket.send_texts([payload])
    assert line.socket.stalled_since is not None, "a megabyte does not fit: else this test shows nothing"
    line.socket.send_texts([b"after it"])
    line.peer.hear(lambda events: line.peer.texts()[-1:] == ["after it"])
    assert line.peer.texts() == [payload.decode(), "after it"]
    run_until(lambda: drained)
    assert line.socket.stalled_since is None


def test_the_kernel_holds_little_for_a_reader(line: Line) -> None:
    assert line.raw.getsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF) <= 2 * under_test.SEND_BUFFER_BYTES


def test_a_ping_between_two_parts_of_a_message_is_answered_at_once(line: Line) -> None:
    line.peer.say(Message("f", message_finished=False), Ping(b"there?"))
    (pong,) = line.peer.hear(bool)
    assert isinstance(pong, Pong)
    line.peer.say(Message("g", message_finished=True))
    assert line.wait_said(1) == ["fg"]


@pytest.mark.parametrize("before", [62, 63, 64])
@pytest.mark.parametrize("deflates", [False, True])
def test_what_is_sent_while_the_client_closes_hurts_nobody(deflates: bool, before: int) -> None:
    """The reading greenlet makes way for others after so many frames: the close may be the next one."""
    with opened(deflates=deflates) as line, meanwhile(lambda: line.socket.send_texts([b"x"])):
        line.peer.say(*[Pong()] * before, CloseConnection(1000, "done"))
        assert line.peer.closed_with() == 1000
        line.reader.join(WAIT_S)


def test_what_unfolds_to_a_thousand_times_its_size_does_not_keep_others_from_their_turn() -> None:
    with opened(deflates=True) as line, meanwhile(lambda: None) as turns:
        receive, seen = line.socket._receive_now, list[int]()

        def noted(size: int) -> bytes:
            seen.append(turns[0])
            return bytes(receive(size))

        line.socket._receive_now = noted
        line.peer.say(*[TextMessage(" " * 4_000_000)] * 20)
        assert line.peer.closed_with() == 1009
        assert len(seen) > 10
        assert max(seen.count(turn) for turn in seen) <= 2


def test_a_client_without_a_network_is_not_waited_for_for_ever() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(closing(sockets.create_server(("127.0.0.1", 0))))
        stack.enter_context(closing(sockets.create_connection(listener.getsockname())))
        sock = stack.enter_context(closing(listener.accept()[0]))
        Socket(sock, WSConnection(ConnectionType.SERVER))
        assert sock.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT) == under_test.GONE_S * 1000


def test_a_ping_is_answered(line: Line) -> None:
    line.peer.say(Ping(b"there?"))
    (pong,) = line.peer.hear(bool)
    assert isinstance(pong, Pong)
    assert pong.payload == b"there?"


def test_a_client_that_closes_gets_its_close_back(line: Line) -> None:
    line.peer.say(CloseConnection(1000, "done"))
    assert line.peer.closed_with() == 1000
    line.reader.join(WAIT_S)
    assert line.socket.ended


def test_a_client_that_is_just_gone_is_noticed(line: Line) -> None:
    line.peer.sock.close()
    line.reader.join(WAIT_S)
    assert line.socket.ended


def test_a_close_is_said_and_its_answer_awaited(line: Line) -> None:
    line.socket.close(1001, "bye")
    assert line.peer.closed_with() == 1001
    line.peer.say(line.peer.events[-1].response())  # type: ignore[attr-defined]  # a CloseConnection
    line.reader.join(WAIT_S)
    assert line.socket.ended


def test_nothing_follows_a_close(line: Line) -> None:
    line.socket.close(1001, "bye", within_s=0.05)
    line.socket.send_texts([b"too late"])
    line.peer.sock.sendall(line.peer.connection.send(Ping(b"too late")))
    got = b""
    while piece := line.peer.sock.recv(4096):
        got += piece
    assert got == b"\x88\x05\x03\xe9bye"


def test_a_client_that_does_not_answer_a_close_is_cut(line: Line) -> None:
    line.socket.close(1001, "bye", within_s=0.05)
    line.reader.join(WAIT_S)
    assert line.socket.ended


def test_a_close_for_a_slow_reader_comes_behind_what_it_has_begun_to_get(line: Line) -> None:
    payload = b"x" * 2_000_000
    line.socket.send_texts([payload])
    line.socket.close(1013, "too slow", within_s=WAIT_S)
    assert line.peer.closed_with() == 1013
    assert [len(text) for text in line.peer.texts()] == [len(payload)]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_message_that_is_too_big_closes_with_1009(line: Line, parts: int) -> None:
    text = "x" * (MAX_MESSAGE_BYTES // parts + 1)
    line.peer.say(TextMessage("y" * MAX_MESSAGE_BYTES), *[Message(text, message_finished=False)] * parts)
    assert line.peer.closed_with() == 1009
    assert [len(said) for said in line.said] == [MAX_MESSAGE_BYTES]


def test_bytes_that_are_no_utf8_close_with_1007(line: Line) -> None:
    frames = FrameProtocol(client=True, extensions=[])
    line.peer.sock.sendall(bytes(frames._serialize_frame(Opcode.TEXT, b"\xff\xfe")))
    assert line.peer.closed_with() == 1007


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 50, b"\x81\x05hello", b"\x83\x80\0\0\0\0"])
def test_what_is_no_frame_closes_with_1002(line: Line, garbage: bytes) -> None:
    line.peer.sock.sendall(garbage)
    assert line.peer.closed_with() == 1002


def test_a_flood_is_warned_of_then_closed_and_others_have_their_turn(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "WARN_EVERY_S", 0.05)
    # Time goes on with what comes in: however slow this machine is, it is a flood.
    start, looks = time.monotonic(), itertools.count()
    monkeypatch.setattr(under_test, "time", SimpleNamespace(monotonic=lambda: start + next(looks) / 1000))
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            others_turn()

    def flood() -> None:
        data = line.peer.connection.send(TextMessage("ping")) * 2000
        try:
            while True:
                line.peer.sock.sendall(data)
        except OSError:
            return

    greenlets = [gevent.spawn(others), gevent.spawn(flood)]
    try:
        assert line.peer.closed_with() == 1008
    finally:
        gevent.killall(greenlets)
    codes = [json.loads(text)["code"] for text in line.peer.texts()]
    assert codes == ["rate_limited"] * FLOOD_WARNINGS
    assert len(line.said) < 2 * under_test.BURST
    assert turns > len(line.said) // under_test.EVENTS_A_TURN


def test_a_budget_fills_up_again() -> None:
    budget = Budget(per_s=1e6, burst=2)
    assert [budget.take(), budget.take()] == [True, True]
    empty = Budget(per_s=0, burst=2)
    assert [empty.take() for _ in range(3)] == [True, True, False]
