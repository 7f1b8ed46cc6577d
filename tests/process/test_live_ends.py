"""How live connections end: with the server, with one worker of it, with its configuration, or with the client."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import ExitStack, closing

import pytest
from websockets.exceptions import ConnectionClosed

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.live import HANDSHAKE, Client, client, send
from tests.process.wire import AWAY
from tests.process.workers import owner_of

RESET = struct.pack("ii", 1, 0)


def readers_of(server: Server, stack: ExitStack, count: int) -> list[Client]:
    """So many readers, with several workers of each of them."""
    found = [stack.enter_context(client(server)) for _ in range(count)]
    for reader in found:
        reader.subscribe("AAPL")
    return found


def end_of(reader: Client) -> int | None:
    """Return how a reader's connection ended, 1006 when without a word; None: it did not."""
    try:
        reader.sync()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006
    return None


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_server_that_ends_says_1001(make_server: MakeServer, number: int) -> None:
    server = make_server("--database-url", AWAY, workers=2).start().wait_accepting()
    with ExitStack() as stack:
        readers = readers_of(server, stack, 6)
        readers.append(stack.enter_context(client(server, "/ws/metrics")))
        deaf = stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port))))
        deaf.sendall(HANDSHAKE)
        assert deaf.recv(4096).startswith(b"HTTP/1.1 101")
        server.process.send_signal(number)  # type: ignore[union-attr]  # it was started
        assert [reader.close_code() for reader in readers] == [1001] * 7
        assert server.process.wait(60) == 0  # type: ignore[union-attr]
    assert "SIGKILL" not in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 1006), (signal.SIGTERM, 1001)])
def test_a_worker_that_ends_takes_only_its_own_sockets(make_server: MakeServer, number: int, code: int) -> None:
    server = make_server("--database-url", AWAY, workers=2).start().wait_accepting()
    pids = wait_until(lambda: len(found := server.worker_pids()) == 2 and found, what="two workers")
    wait_until(lambda: [one["state"] for one in server.stats()["worker_status"]] == ["running"] * 2, what="both")
    with ExitStack() as stack:
        readers = readers_of(server, stack, 10)
        while len({owner_of(reader.ws.local_address[1], pids) for reader in readers}) < 2:
            readers += readers_of(server, stack, 1)
        os.kill(pids[0], number)
        wait_until(lambda: pids[0] not in server.worker_pids(), what="the worker to be gone")
        ends = [end_of(reader) for reader in readers]
        assert set(ends) == {None, code}
        send(server, "AAPL", bid=8.75)
        for reader in (reader for reader, end in zip(readers, ends, strict=True) if end is None):
            reader.until(lambda said: said.get("bid") == 8.75)


@pytest.mark.long
def test_at_sighup_readers_are_sent_away_and_find_the_new_workers(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, workers=2).start().wait_accepting()
    old = set(wait_until(lambda: len(found := server.worker_pids()) == 2 and found, what="two workers"))
    with ExitStack() as stack:
        readers = readers_of(server, stack, 6)
        server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]  # it was started
        assert [reader.close_code() for reader in readers] == [1001] * 6
        wait_until(lambda: not old & set(server.worker_pids()), what="the old workers to be gone")
        again = readers_of(server.wait_accepting(), stack, 4)
        send(server, "AAPL", bid=9.25)
        for reader in again:
            reader.until(lambda said: said.get("bid") == 9.25)
    assert "Traceback" not in server.log()


def test_clients_that_vanish_at_any_moment_leave_neither_a_socket_nor_a_line_in_the_log(
    make_server: MakeServer,
) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    lines = server.log().count("\n")
    subscribe = b'{"action":"subscribe","symbol":"*","conflate_ms":0}'
    said = HANDSHAKE + b"\x81" + bytes((0x80 | len(subscribe),)) + b"\0\0\0\0" + subscribe
    for size in range(0, len(said) + 1, 3):
        with closing(socket.create_connection(("127.0.0.1", server.port))) as raw:
            raw.sendall(said[:size])
            if size % 2:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if size % 30 == 0:
            send(server, "AAPL", "MSFT")
    for wait_for_the_answer in range(1, 60):
        with closing(socket.create_connection(("127.0.0.1", server.port))) as raw:
            raw.sendall(said)
            raw.recv(wait_for_the_answer)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    send(server, "AAPL", "MSFT")
    wait_until(lambda: server.stats()["active_connections"] <= 1, what="the connections to be gone")
    assert server.log().count("\n") == lines, server.log()
