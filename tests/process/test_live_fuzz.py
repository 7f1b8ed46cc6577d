"""Whatever is sent to /ws, the server answers or closes, and goes on serving everybody else."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.process.harness import Server, wait_until
from tests.process.live import HANDSHAKE, client, send
from tests.process.wire import AWAY, running

LAST = "that is all"
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = ["action", "symbol", "symbols", "channels", "interval", "conflate_ms", "batch", "since", "key"]
WORDS = ["subscribe", "unsubscribe", "ping", "auth", "*", "AAPL", "quotes", "trades", "bars", "alerts", "1m", "1970"]
VALUES = st.recursive(
    st.sampled_from([*WORDS, None, True]) | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5).map(lambda said: json.dumps(said).encode())
ACTIONS = st.builds(
    lambda action, said: json.dumps({**said, "action": action}).encode(),
    st.sampled_from(WORDS[:4]),
    st.dictionaries(st.sampled_from(NAMES[1:]), VALUES, max_size=5),
)


def framed(first: int, payload: bytes) -> bytes:
    """A masked frame with this first byte: FIN, reserved bits and opcode."""
    size = len(payload)
    head = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0xFE, size)
    return bytes((first,)) + head + b"\0\0\0\0" + payload


OPCODES = st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A])
FRAMES = st.builds(framed, OPCODES, st.binary(max_size=200) | MESSAGES)
ANY_FRAMES = st.builds(framed, st.integers(0, 255), st.binary(max_size=200))


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY) as server:
        yield server
        assert "Traceback" not in server.log()
        assert server.stop() == 0


def talk(server: Server, data: bytes) -> bytes:
    """Send bytes behind a handshake, then a close, and return what comes until the end."""
    got = b""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as raw:
        raw.sendall(HANDSHAKE)
        while b"\r\n\r\n" not in got:
            got += raw.recv(4096)
        with suppress(OSError):  # it may have been closed by then
            raw.sendall(data + CLOSE)
            raw.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while piece := raw.recv(65536):
                got += piece
    assert got.startswith(b"HTTP/1.1 101 ")
    return got


def serves(server: Server) -> None:
    with client(server) as reader:
        reader.subscribe("MSFT")
        send(server, "MSFT", bid=7.25)
        reader.until(lambda said: said.get("bid") == 7.25)


@FEW
@given(st.binary(max_size=400))
@example(b"\x81\xff" + b"\xff" * 8)
@example(b"\x81\xff\x7f" + b"\xff" * 7 + b"\0" * 100)
@example(b"\x88\x80\0\0\0\0")
@example(b"\x88\x81\0\0\0\0\x03")
@example(framed(0x88, b"\x03\xed"))
@example(framed(0x88, b"\x00\x00"))
@example(framed(0x00, b"no beginning"))
@example(framed(0x01, b"a") + framed(0x01, b"another"))
def test_bytes_that_are_no_frames_end_only_their_connection(server: Server, data: bytes) -> None:
    talk(server, data)


@FEW
@given(st.lists(FRAMES | ANY_FRAMES, max_size=8).map(b"".join))
def test_frames_in_any_order_end_only_their_connection(server: Server, data: bytes) -> None:
    talk(server, data)


@pytest.mark.long
@FEW
@given(st.lists(MESSAGES | ACTIONS, min_size=1, max_size=8))
@example([b'{"action":"ping"}'])
@example([b"[" * 60_000])
@example([b'{"action":"subscribe","symbol":"' + b"x" * 60_000 + b'"}'])
def test_every_message_has_an_answer(server: Server, messages: list[bytes]) -> None:
    with client(server) as reader:
        for message in messages:
            reader.ws.send(message)
        reader.say(action=LAST)  # no ping: its answer may be that of a message
        heard = reader.until(lambda said: LAST in said.get("message", ""))[:-1]
        answers = [said for said in heard if said["type"] not in ("quote", "heartbeat", "replay_complete")]
        assert len(answers) >= len(messages)
        for said in answers:
            assert said["type"] in ("error", "subscribed", "unsubscribed", "pong", "authenticated")
            assert said.get("code") != "internal", said


def test_after_all_that_others_are_served_and_nothing_is_left(server: Server) -> None:
    serves(server)
    (pid,) = server.worker_pids()
    wait_until(lambda: server.stats()["active_connections"] <= 1, what="the connections to be gone")
    wait_until(
        lambda: len([one for one in psutil.Process(pid).net_connections("tcp") if one.status != "LISTEN"]) <= 1,
        what="the sockets to be gone",
    )
