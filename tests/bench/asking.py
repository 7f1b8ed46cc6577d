"""Ask as clients do: keep-alive sockets in a process of their own, timed from the request to the last byte.

What runs in the process is any function of this module (or of `plain_sql`), called by name through `Asker`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from tests.bench.client import BenchError

Address = tuple[str, int]
ANSWER_WITHIN_S = 120.0
READ_BYTES = 1 << 18
OK = b"HTTP/1.1 200"


class Asker:
    """A process that runs one function at a time and sends back what it returned."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        self._pipe.send((function, args))

    def result(self, within_s: float = 600.0) -> Any:
        """Return what the function returned; raises BenchError when it failed."""
        if not self._pipe.poll(within_s):
            raise BenchError(f"no result within {within_s:.0f} s")
        try:
            good, value = self._pipe.recv()
        except EOFError:
            raise BenchError("the asking process died") from None
        if not good:
            raise BenchError(value)
        return value

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        self.start(function, *args)
        return self.result()


def _serve(pipe: Pipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone decides how this ends
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, args = pipe.recv()
            try:
                pipe.send((True, function(*args)))
            except Exception as error:
                pipe.send((False, f"{type(error).__name__}: {error}"))


class Connection:
    """One keep-alive connection: a request, then its whole answer."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, timeout=ANSWER_WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def close(self) -> None:
        self._socket.close()

    def get(self, path: str) -> bytes:
        """Return the body of a 200; raises BenchError for any other answer."""
        return self.ask(get_request(path))

    def ask(self, request: bytes) -> bytes:
        """Send a whole request; return the body of a 200, raises BenchError for any other answer."""
        self._socket.sendall(request)
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive()
        status, headers = parse_head(bytes(self._received[:end]))
        del self._received[: end + 4]
        chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        body = self._chunks() if chunked else self._take(int(headers[b"content-length"]))
        if status != 200:
            asked = request.partition(b" HTTP/")[0].decode()
            raise BenchError(f"{asked} was answered {status}: {body[:300]!r}")
        return body

    def _receive(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise BenchError("the server closed the connection")
        self._received += data

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            while (end := self._received.find(b"\r\n")) < 0:
                self._receive()
            size = int(self._received[:end], 16)
            del self._received[: end + 2]
            piece = self._take(size + 2)
            if not size:
                return b"".join(pieces)
            pieces.append(piece[:-2])


def get_request(path: str, *headers: str) -> bytes:
    """Return the bytes of one GET."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Return status and headers, names in lower case, of an answer's head."""
    status_line, *lines = head.split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    return int(status_line.split(b" ", 2)[1]), headers


@dataclass(slots=True)
class Asked:
    """Times of requests in milliseconds, in the order in which they were asked, and the rows of each answer."""

    ms: np.ndarray
    rows: np.ndarray
    bytes: int = 0

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.ms, percent))


def rows_in(body: bytes) -> int:
    """Return how many rows a JSON answer holds: each has one timestamp."""
    return body.count(b'"timestamp":')


def in_turn(address: Address, paths: Sequence[str], warm: int, connections: int) -> Asked:
    """Get one path after the other, over the connections in turn; before that the first `warm`, which do not count."""
    return ask_in_turn(address, [*map(get_request, paths[:warm]), *map(get_request, paths)], warm, connections)


def ask_in_turn(address: Address, requests: Sequence[bytes], warm: int, connections: int) -> Asked:
    """Send one request after the other, over the connections in turn; the first `warm` do not count."""
    taken, rows, received = [], [], 0
    open_ones = [Connection(address) for _ in range(connections)]
    for number, request in enumerate(requests):
        connection = open_ones[number % connections]
        start_s = time.perf_counter()
        body = connection.ask(request)
        end_s = time.perf_counter()
        if number >= warm:
            taken.append((end_s - start_s) * 1e3)
            rows.append(rows_in(body))
            received += len(body)
    for connection in open_ones:
        connection.close()
    return Asked(np.array(taken), np.array(rows), received)


def at_a_pace(address: Address, paths: Sequence[str], connections: int, per_second: float, seconds: float) -> Asked:
    """Get the paths over and over, evenly spaced over the connections, each of which asks for itself.

    A request that is due while its connection still waits counts its time from when it was due.
    """
    pause_s = connections / per_second
    seen: list[list[tuple[float, int]]] = [[] for _ in range(connections)]
    failed: list[str] = []
    start_s = time.perf_counter() + 0.05

    def ask(number: int) -> None:
        try:
            connection = Connection(address)
            connection.get(paths[number % len(paths)])
            for turn in range(int(seconds / pause_s)):
                due_s = start_s + turn * pause_s + number / per_second
                time.sleep(max(due_s - time.perf_counter(), 0.0))
                # Waking up late is this machine's doing, not the server's; waiting for the connection is.
                begun_s = time.perf_counter() if due_s > free_s[number] else due_s
                body = connection.get(paths[(turn * connections + number) % len(paths)])
                free_s[number] = time.perf_counter()
                seen[number].append(((free_s[number] - begun_s) * 1e3, rows_in(body)))
            connection.close()
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")

    free_s = [0.0] * connections
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise BenchError(failed[0])
    every = [pair for pairs in seen for pair in pairs]
    return Asked(np.array([ms for ms, _ in every]), np.array([rows for _, rows in every]))


class _Page(msgspec.Struct):
    next_page_token: str | None


def walk(address: Address, path: str) -> Asked:
    """Follow next_page_token from the first page to the last; each page's time and rows."""
    connection = Connection(address)
    taken, rows, received = [], [], 0
    following: str | None = path
    while following is not None:
        start_s = time.perf_counter()
        body = connection.get(following)
        taken.append((time.perf_counter() - start_s) * 1e3)
        rows.append(rows_in(body))
        received += len(body)
        token = msgspec.json.decode(body, type=_Page).next_page_token
        following = None if token is None else f"{path}&page_token={token}"
    connection.close()
    return Asked(np.array(taken), np.array(rows), received)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One whole export. seconds: from the request to its last byte; bytes: as sent, chunk heads included."""

    seconds: float
    bytes: int
    rows: int


def fetch(address: Address, path: str, kind: str) -> Fetched:
    """Read one export to its end, then count its rows with the format's usual reader; kind: csv, ndjson, ..."""
    pieces: list[bytes] = []
    start_s = time.perf_counter()
    with socket.create_connection(address, timeout=ANSWER_WITHIN_S) as sock:
        sock.sendall(get_request(path, "Connection: close"))
        while data := sock.recv(1 << 20):
            pieces.append(data)
    seconds = time.perf_counter() - start_s
    return Fetched(seconds, sum(map(len, pieces)), _count_rows(_body(b"".join(pieces), path), kind))


def _body(answer: bytes, path: str) -> bytes:
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, headers = parse_head(head)
    if status != 200:
        raise BenchError(f"GET {path} was answered {status}: {rest[:300]!r}")
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        return rest
    pieces: list[bytes] = []
    at = 0
    while True:
        end = rest.find(b"\r\n", at)
        size = int(rest[at:end], 16) if end > at else -1
        if size < 0 or len(rest) < end + 4 + size:
            raise BenchError(f"GET {path} was cut off after {len(rest)} bytes")
        if size == 0:
            return b"".join(pieces)
        pieces.append(rest[end + 2 : end + 2 + size])
        at = end + 4 + size


def _count_rows(body: bytes, kind: str) -> int:
    # Imported here: a process that asks for quotes shall not carry it.
    import pyarrow as pa
    import pyarrow.parquet

    if kind == "arrow":
        return int(pa.ipc.open_stream(body).read_all().num_rows)
    if kind == "parquet":
        return int(pyarrow.parquet.read_table(pa.BufferReader(body)).num_rows)
    return body.count(b"\n") - (kind == "csv")


@dataclass(frozen=True, slots=True)
class Drained:
    """Exports read one after the other. whole: how many came to their end; bytes of all, in `seconds`."""

    whole: int
    bytes: int
    seconds: float


def drain(address: Address, paths: Sequence[str], seconds: float) -> Drained:
    """Read exports to nowhere, over and over, until the time is up; then leave in the middle of one."""
    buffer = bytearray(1 << 20)
    whole, received = 0, 0
    start_s = time.monotonic()
    while True:
        path = paths[whole % len(paths)]
        with socket.create_connection(address, timeout=ANSWER_WITHIN_S) as sock:
            sock.sendall(get_request(path, "Connection: close"))
            head = tail = b""
            while count := sock.recv_into(buffer):
                if len(head) < len(OK):
                    head += bytes(buffer[: min(count, 300)])
                    if head[: len(OK)] != OK[: len(head)]:
                        raise BenchError(f"GET {path} was answered {head!r}")
                received += count
                tail = (tail + bytes(buffer[max(count - 5, 0) : count]))[-5:]
                if time.monotonic() - start_s > seconds:
                    return Drained(whole, received, time.monotonic() - start_s)
            if tail != b"0\r\n\r\n":
                raise BenchError(f"GET {path} was cut off: it ended with {tail!r}")
            whole += 1
