"""A lean HTTP client for load: pre-built requests, keep-alive connections, one selector, no threads.

It posts each request until it is answered 200 with as many rows as were sent. A 503 is sent again after its
Retry-After and counted; any other answer ends the run, because a figure with losses in it means nothing.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

ANSWER_WITHIN_S = 60.0
PROGRESS_WITHIN_S = 120.0
MAX_RECONNECTS = 100


class BenchError(Exception):
    """The run cannot be counted."""


@dataclass(slots=True)
class Sent:
    """What one sender saw. Times are time.monotonic() seconds, comparable between processes of a machine."""

    ack_s: array[float] = field(default_factory=lambda: array("d"))
    retries: int = 0
    reconnects: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    cpu_s: float = 0.0


def post_request(path: str, body: bytes) -> bytes:
    """Return the bytes of one POST with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection:
    """One keep-alive connection; `index` is the request in flight, -1 when idle."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.index = -1
        self.due_s = 0.0
        self.deadline_s = 0.0
        self.idle_since_s = 0.0
        self.left = memoryview(b"")
        self.received = bytearray()
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(self.address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received.clear()

    def push(self) -> bool:
        """Send what the kernel takes; return whether everything is out."""
        while self.left:
            try:
                self.left = self.left[self.socket.send(self.left) :]
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                # The server may have answered before it hung up: reading tells.
                return True
        return True

    def pull(self) -> tuple[int, dict[bytes, bytes], bytes] | None:
        """Return status, headers and body of a whole answer; raises ConnectionError at the end."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError("closed by the server")
        self.received += data
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        status_line, *lines = bytes(self.received[:head_end]).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if b"content-length" not in headers:
            raise BenchError(f"an answer without Content-Length: {status_line!r}")
        end = head_end + 4 + int(headers[b"content-length"])
        if len(self.received) < end:
            return None
        body = bytes(self.received[head_end + 4 : end])
        del self.received[:end]
        return int(status_line.split(b" ", 2)[1]), headers, body


class Client:
    """Post requests over a fixed number of connections, kept open between runs.

    stamp: what makes of a request the one that leaves, at the moment when it does; of the same length.
    """

    def __init__(
        self, address: tuple[str, int], connections: int, stamp: Callable[[bytes], bytes] = lambda request: request
    ) -> None:
        self._stamp = stamp
        self._selector = selectors.DefaultSelector()
        self._connections = [_Connection(address) for _ in range(connections)]
        for connection in self._connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def close(self) -> None:
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()

    def post_all(self, requests: Sequence[bytes], rows: Sequence[int], per_second: float = 0.0) -> Sent:
        """Post every request and wait until all are answered; return what was seen.

        rows: how many rows each request holds. per_second: requests a second, evenly spaced; 0 = as fast as
        they are answered. A paced request that is due while every connection is busy counts its time from
        when it was due, so that a slow server cannot hide behind the requests that it held up.

        Raises BenchError for an answer that is neither 200 with all rows nor 503, and for silence.
        """
        sent, cpu_s = Sent(), time.process_time()
        start_s = sent.first_s = time.monotonic()
        idle = deque(self._connections)
        again: list[tuple[float, int, float]] = []
        for connection in self._connections:
            connection.idle_since_s = start_s
        following, answered, watch_s = 0, 0, start_s + 1.0
        while answered < len(requests):
            now = time.monotonic()
            wake_s = now + 1.0
            while idle:
                if again and again[0][0] <= now:
                    _, index, due_s = heapq.heappop(again)
                elif following < len(requests):
                    scheduled_s = start_s + following / per_second if per_second else now
                    if scheduled_s > now:
                        wake_s = min(wake_s, scheduled_s)
                        break
                    held_up = per_second and idle[0].idle_since_s > scheduled_s
                    index, due_s = following, scheduled_s if held_up else now
                    following += 1
                else:
                    break
                self._start(idle.popleft(), requests[index], index, due_s, now)
            if idle and again:
                wake_s = min(wake_s, again[0][0])
            for key, events in self._selector.select(max(wake_s - now, 0.0)):
                connection = key.data
                if events & selectors.EVENT_WRITE and connection.push():
                    self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
                if not events & selectors.EVENT_READ:
                    continue
                try:
                    answer = connection.pull()
                except ConnectionError:
                    self._again(connection, requests, sent)
                    continue
                if answer is None:
                    continue
                now, index = time.monotonic(), connection.index
                if index < 0:
                    raise BenchError(f"an answer that nobody asked for: {answer[0]}")
                retry_after_s = check(answer, rows[index])
                if retry_after_s is None:
                    answered += 1
                    sent.ack_s.append(now - connection.due_s)
                    sent.last_s = now
                else:
                    sent.retries += 1
                    heapq.heappush(again, (now + retry_after_s, index, connection.due_s))
                self._rest(connection, answer[1], now)
                idle.append(connection)
            if now >= watch_s:
                watch_s = now + 1.0
                self._watch(now, max(start_s, sent.last_s))
        sent.cpu_s = time.process_time() - cpu_s
        return sent

    def _start(self, connection: _Connection, request: bytes, index: int, due_s: float, now: float) -> None:
        connection.index, connection.due_s = index, due_s
        connection.deadline_s = now + ANSWER_WITHIN_S
        connection.left = memoryview(self._stamp(request))
        if not connection.push():
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(connection.socket, both, connection)

    def _rest(self, connection: _Connection, headers: dict[bytes, bytes], now: float) -> None:
        cut_short = bool(connection.left)
        connection.index, connection.left, connection.idle_since_s = -1, memoryview(b""), now
        if cut_short or headers.get(b"connection", b"").lower() == b"close":
            self._reconnect(connection)

    def _again(self, connection: _Connection, requests: Sequence[bytes], sent: Sent) -> None:
        sent.reconnects += 1
        if sent.reconnects > MAX_RECONNECTS:
            raise BenchError("the server keeps closing connections")
        self._reconnect(connection)
        if connection.index >= 0:
            request = requests[connection.index]
            self._start(connection, request, connection.index, connection.due_s, time.monotonic())

    def _reconnect(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        connection.connect()
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _watch(self, now: float, progress_s: float) -> None:
        if now > progress_s + PROGRESS_WITHIN_S:
            raise BenchError(f"nothing was accepted for {PROGRESS_WITHIN_S:.0f} s")
        for connection in self._connections:
            if connection.index >= 0 and now > connection.deadline_s:
                raise BenchError(f"request {connection.index} got no answer in {ANSWER_WITHIN_S:.0f} s")


def check(answer: tuple[int, dict[bytes, bytes], bytes], rows: int) -> float | None:
    """Return None when all rows were accepted, or the seconds to wait before sending them again.

    Raises BenchError for everything else.
    """
    status, headers, body = answer
    if status == 503:
        return float(headers.get(b"retry-after", b"1"))
    if status == 200 and msgspec.json.decode(body).get("received") == rows:
        return None
    raise BenchError(f"{rows} rows were answered {status}: {body[:300]!r}")
