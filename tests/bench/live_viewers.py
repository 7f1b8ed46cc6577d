"""A crowd of viewers in one process: raw sockets, one epoll, and no more looking at a frame than its figures need.

The functions `join`, `watch` and `leave` run in a process of their own (`asking.Asker`), on one crowd.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import select
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from tests.bench.client import BenchError

Address = tuple[str, int]

LATENCY_EVERY = 4
"""Of each viewer's frames one in so many is searched for its newest tick."""

CHECK_EVERY = 50
"""Of so many viewers one is a checked one: all that it gets is decoded."""

ANSWER_WITHIN_S = 30.0
QUIET_S = 0.5
"""The end of the ticks has arrived when nothing came for so long."""

READ_BYTES = 1 << 17
TEXT, CLOSE = 1, 8
UPDATE = b'"type":"quote"'
FIGURES = b'"market_data":'
"""What there is once in each update: of a quote, of /ws/metrics."""

_TIME = re.compile(rb'"timestamp":"([^"]{27})"')


@dataclass(slots=True)
class Seen:
    """What the reading viewers got from `from_ns` to `to_ns`; latency_ms: of a sample of the frames.

    cpu_share: of this process, in cores. lost: connections that ended, by their close code (1006: without one).
    checked: updates that were decoded, from joining to the end.
    """

    viewers: int
    stalled: int
    seconds: float
    frames: int
    updates: int
    bytes: int
    latency_ms: np.ndarray
    cpu_share: float
    lost: dict[int, int]
    checked: int

    def latency(self, percent: float) -> float:
        """Return a percentile of the time from the newest tick of a frame to its arrival, in milliseconds."""
        return float(np.percentile(self.latency_ms, percent))


def text_frame(text: bytes) -> bytes:
    """Return a client's text frame; its mask is zero, which leaves the text as it is."""
    if len(text) > 125:
        raise ValueError("a message of the bench is short")
    return bytes((0x80 | TEXT, 0x80 | len(text))) + bytes(4) + text


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return opcode and payload of each whole frame, and the bytes of one that is not whole yet.

    Raises BenchError for what a server of updates does not send: masks, fragments.
    """
    frames = []
    at, end = 0, len(data)
    while end - at >= 2:
        first, size = data[at], data[at + 1]
        if not first & 0x80 or size & 0x80:
            raise BenchError(f"a frame in parts, or masked: {data[at : at + 14]!r}")
        begin = at + 2
        if size == 126:
            begin += 2
            if end < begin:
                break
            (size,) = struct.unpack_from("!H", data, at + 2)
        elif size == 127:
            begin += 8
            if end < begin:
                break
            (size,) = struct.unpack_from("!Q", data, at + 2)
        if end < begin + size:
            break
        frames.append((first & 0x0F, data[begin : begin + size]))
        at = begin + size
    return frames, data[at:]


def newest_time(payload: bytes) -> bytes:
    """Return the latest timestamp of the updates in a frame, as it is written there."""
    return max(_TIME.findall(payload))


def ns_of(text: bytes) -> int:
    """Return an RFC 3339 time in UTC nanoseconds."""
    at = datetime.fromisoformat(text.decode())
    return int(at.replace(microsecond=0).timestamp()) * 1_000_000_000 + at.microsecond * 1000


class Check:
    """What must hold of the updates of one connection: by symbol, `n` counts up and no time is earlier."""

    def __init__(self) -> None:
        self.updates = 0
        self._last: dict[str, tuple[int, str]] = {}

    def look(self, payload: bytes) -> None:
        """Take a frame. Raises BenchError."""
        said = json.loads(payload)
        for update in said if isinstance(said, list) else [said]:
            if update["type"] == "quote":
                self._update(update)

    def _update(self, update: dict[str, Any]) -> None:
        before = self._last.get(update["symbol"])
        n = update.get("n", 0)  # the reference does not count
        if before is not None and ((n and n != before[0] + 1) or update["timestamp"] < before[1]):
            raise BenchError(f"after n={before[0]} of {before[1]} came {update}")
        self._last[update["symbol"]] = (n, update["timestamp"])
        self.updates += 1


class _Viewer:
    __slots__ = ("check", "frames", "last", "left", "sock")

    def __init__(self, sock: socket.socket, number: int, *, checked: bool) -> None:
        self.sock = sock
        self.left = b""
        self.last = b""
        self.frames = number  # so that not all look into the same frames
        self.check = Check() if checked and number % CHECK_EVERY == 0 else None


class Crowd:
    """Connections that read, and others that do not."""

    def __init__(self, path: str) -> None:
        self._path, self._update = path, UPDATE if path == "/ws" else FIGURES
        self._epoll = select.epoll()
        self._viewers: dict[int, _Viewer] = {}
        self._stalled: list[socket.socket] = []
        self._lost: Counter[int] = Counter()

    def join(self, address: Address, count: int, subscription: bytes, *, stalled: bool = False) -> None:
        """Connect and subscribe; return when each has got its first update. Those that stall read only up to there."""
        for _ in range(count):
            sock, left = handshake(address, self._path)
            if subscription:
                sock.sendall(text_frame(subscription))
            while self._update not in left:
                left += _received(sock)
            if stalled:
                self._stalled.append(sock)
                continue
            viewer = _Viewer(sock, len(self._viewers), checked=self._update == UPDATE)
            sock.setblocking(False)
            self._viewers[sock.fileno()] = viewer
            self._epoll.register(sock, select.EPOLLIN)
            self._take(viewer, left, _Tally(0, 0))

    def watch(self, from_ns: int, to_ns: int) -> Seen:
        """Read until the ticks end, and return what came from from_ns to to_ns (time.time_ns)."""
        tally = _Tally(from_ns, to_ns)
        viewers, poll, read = self._viewers, self._epoll.poll, self._read
        began_cpu_s = ended_cpu_s = None
        heard_ns = to_ns
        while (now_ns := time.time_ns()) < heard_ns + QUIET_S * 1e9:
            if began_cpu_s is None and now_ns >= from_ns:
                began_cpu_s = time.process_time()
            elif ended_cpu_s is None and now_ns >= to_ns:
                ended_cpu_s = time.process_time()
            for descriptor, _ in poll(0.1, 256):
                # Quotes end with the ticks, figures never.
                if read(viewers[descriptor], tally) and self._update == UPDATE:
                    heard_ns = max(heard_ns, time.time_ns())
        seconds = (to_ns - from_ns) / 1e9
        return Seen(
            viewers=len(viewers),
            stalled=len(self._stalled),
            seconds=seconds,
            frames=tally.frames,
            updates=tally.updates,
            bytes=tally.bytes,
            latency_ms=np.array(tally.latency_ns) / 1e6,
            cpu_share=((ended_cpu_s or 0.0) - (began_cpu_s or 0.0)) / seconds,
            lost=dict(self._lost),
            checked=sum(viewer.check.updates for viewer in viewers.values() if viewer.check),
        )

    def behind(self, newest: bytes) -> int:
        """Return how many of those that read did not get the tick of that time as their last."""
        return sum(not viewer.last or newest_time(viewer.last) != newest for viewer in self._viewers.values())

    def leave(self) -> None:
        """Hang up, all of them."""
        for sock in [*self._stalled, *(viewer.sock for viewer in self._viewers.values())]:
            # Otherwise thousands of ports stay in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self._epoll.close()

    def _read(self, viewer: _Viewer, tally: _Tally) -> bool:
        """Read what there is for a viewer; return whether an update was in it."""
        try:
            data = viewer.sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._forget(viewer, 1006)
            return False
        return self._take(viewer, viewer.left + data if viewer.left else data, tally)

    def _take(self, viewer: _Viewer, data: bytes, tally: _Tally) -> bool:
        now_ns = time.time_ns()
        counts = tally.from_ns <= now_ns < tally.to_ns
        frames, viewer.left = split_frames(data)
        found = False
        for opcode, payload in frames:
            if opcode == CLOSE:
                self._forget(viewer, int.from_bytes(payload[:2], "big") or 1005)
                return found
            updates = payload.count(self._update)
            if viewer.check is not None:
                viewer.check.look(payload)
            if not updates:
                continue
            found = True
            viewer.last = payload
            viewer.frames += 1
            if counts:
                tally.frames += 1
                tally.updates += updates
                tally.bytes += len(payload)
                if viewer.frames % LATENCY_EVERY == 0:
                    tally.latency_ns.append(now_ns - ns_of(newest_time(payload)))
        return found

    def _forget(self, viewer: _Viewer, code: int) -> None:
        self._lost[code] += 1
        del self._viewers[viewer.sock.fileno()]
        self._epoll.unregister(viewer.sock)
        viewer.sock.close()


class _Tally:
    __slots__ = ("bytes", "frames", "from_ns", "latency_ns", "to_ns", "updates")

    def __init__(self, from_ns: int, to_ns: int) -> None:
        self.from_ns, self.to_ns = from_ns, to_ns
        self.frames = self.updates = self.bytes = 0
        self.latency_ns: list[int] = []


def handshake(address: Address, path: str) -> tuple[socket.socket, bytes]:
    """Return an open WebSocket and what came behind the answer to its handshake. Raises BenchError."""
    sock = socket.create_connection(address, timeout=ANSWER_WITHIN_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    sock.sendall("\r\n".join(lines).encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(sock)
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise BenchError(f"a handshake was answered {head[:100]!r} {rest[:200]!r}")
    return sock, rest


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(READ_BYTES)
    if not data:
        raise BenchError("the server hung up on a viewer that joined")
    return data


_crowds: list[Crowd] = []


def join(
    address: Address, count: int, subscription: dict[str, Any] | None, stalled: bool = False, path: str = "/ws"
) -> None:
    """Have so many more in the crowd of this process, all of one path; subscription None: none is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192) if hard > 0 else 8192), hard))
    if not _crowds:
        _crowds.append(Crowd(path))
    said = b"" if subscription is None else json.dumps(subscription).encode()
    _crowds[0].join(address, count, said, stalled=stalled)


def watch(from_ns: int, to_ns: int) -> Seen:
    """Have the crowd read."""
    return _crowds[0].watch(from_ns, to_ns)


def behind(newest: bytes) -> int:
    """Return how many of the crowd lack the end."""
    return _crowds[0].behind(newest)


def leave() -> None:
    """Send the crowd home."""
    _crowds.pop().leave()
