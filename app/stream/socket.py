"""One WebSocket: frames in at a bounded rate, frames out in one send, closing. Greenlet side.

flask-sock's and simple-websocket's part is the handshake. The rest is here, because simple-websocket leaves out what
`send` did not take at once, reads a flood without a pause, and keeps whatever has come in without a bound.
Frames that come in are read by wsproto.

The greenlet of the request reads and, at the end, closes; anybody may send. Sending never waits: what the kernel does
not take is kept, for a greenlet that waits until it does.
"""

from __future__ import annotations

import contextlib
import socket as sockets
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.socket import wait_read, wait_write
from wsproto import WSConnection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from app.errors import RateLimited
from app.stream import messages

GOING_AWAY, POLICY, TOO_BIG, TOO_SLOW = 1001, 1008, 1009, 1013

MAX_MESSAGE_BYTES = 64 * 1024
RECEIVE_BYTES = 4096
EVENTS_A_TURN = 64
"""Frames looked at before others are served: the smallest ones take about 10 us each."""

SEND_BUFFER_BYTES = 64 * 1024
"""What the kernel holds for a reader (Linux doubles it for its own book-keeping). Left to itself it would hold
megabytes, and one that reads no more would look well for long."""

MESSAGES_PER_S, BURST = 50.0, 200.0
FLOOD_PAUSE_S = 0.02
"""How long one that sends too much is not read from, after each turn."""

FLOOD_WARNINGS = 3
WARN_EVERY_S = 1.0
"""So many errors, with so much time between, before a flooding client is closed."""

CLOSE_S = 1.0
"""How long a client may take to answer a close."""

GONE_S = 180
"""How long what was sent may stay unconfirmed: a client whose network or machine is gone says nothing. Longer than the
hub lets a reader stall (2 minutes and a heartbeat), who is to be told why it is closed."""

SLOW_CLOSE_S = 10.0
"""How long one that is too slow may take to read up to its close."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER by which a socket ends with RST when it is closed."""

_WAITS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Budget:
    """Messages that a client may send: so many a second, more at once after a rest."""

    def __init__(self, per_s: float = MESSAGES_PER_S, burst: float = BURST) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_s = burst, time.monotonic()

    def take(self) -> bool:
        """Count a message; return whether it was allowed."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Message:
    """A message as its parts come in; one that is not wanted, or too big, is passed over to its end."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._dropped = False
        self.size = 0
        self.too_big = False

    def add(self, event: TextMessage | BytesMessage, *, wanted: bool) -> str | bytes | None:
        """Take a part; return the message when it is whole and wanted."""
        self.size += len(event.data)
        self.too_big = self.too_big or self.size > MAX_MESSAGE_BYTES
        self._dropped = self._dropped or not wanted or self.too_big
        if self._dropped:
            self._parts.clear()
        else:
            self._parts.append(event.data)
        if not event.message_finished:
            return None
        parts, dropped = self._parts, self._dropped
        self._parts, self._dropped, self.size = [], False, 0
        return None if dropped else parts[0][:0].join(parts)


class Socket:
    """An open WebSocket.

    sock: what the handshake went over. connection: wsproto's, after the handshake. early: bytes that came with it.
    """

    def __init__(self, sock: Any, connection: WSConnection, early: bytes = b"", *, deflates: bool = False) -> None:
        self._sock = sock
        self._connection = connection
        self._early = early
        self._deflates = deflates
        self._left: list[bytes] = []
        self._writer: gevent.Greenlet | None = None
        self._ender: gevent.Greenlet | None = None
        self._budget = Budget()
        self._warnings, self._warned_s = 0, float("-inf")
        self.on_drained: Callable[[], None] = lambda: None
        self.stalled_since: float | None = None
        """Since when (monotonic) the kernel has taken nothing of what is left; None: nothing is left."""
        self.closing = False
        self.ended = False
        sock.settimeout(0)
        self._fileno = sock.fileno()
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, SEND_BUFFER_BYTES)
        with contextlib.suppress(OSError):
            sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: macOS
            sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT, GONE_S * 1000)
        # Once: the socket may be one that looks its attributes up for every call.
        self._send_now, self._receive_now = sock.send, sock.recv

    def send_texts(self, texts: list[bytes]) -> None:
        """Send texts, each in a frame of its own, in one go; nothing once it is closing."""
        if self.closing or self.ended:
            return
        if self._deflates:
            self.send(b"".join(self._connection.send(TextMessage(text.decode())) for text in texts))
        elif len(texts) == 1:
            self.send(messages.frame(texts[0]))
        else:
            self.send(b"".join([part for text in texts for part in (messages.frame_head(len(text)), text)]))

    def send(self, data: bytes) -> None:
        """Send frames. What the kernel does not take at once waits: look at `stalled_since` before sending much."""
        if self.ended or not data:
            return
        if self._left:
            self._left.append(data)
            return
        sent = self._try(data)
        if sent < len(data) and not self.ended:
            self._left.append(data[sent:])
            self.stalled_since = time.monotonic()
            self._writer = gevent.spawn(self._write)

    def messages(self) -> Iterator[str | bytes]:
        """Yield what the client says, until the connection has ended."""
        message, events = _Message(), 0
        while data := self._receive():
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, CloseConnection):  # what is no frame ends in one as well
                    self._answer_close(event)  # before others have their turn: wsproto sends no data behind it
                    return
                events += 1
                if events % EVENTS_A_TURN == 0:
                    gevent.sleep(FLOOD_PAUSE_S if self._warnings else 0)
                allowed = not self.closing and (not getattr(event, "frame_finished", True) or self._allowed())
                if isinstance(event, TextMessage | BytesMessage):
                    whole = message.add(event, wanted=allowed)
                    if message.too_big:
                        self.close(TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
                    elif whole is not None:
                        yield whole
                elif allowed and isinstance(event, Ping) and self.stalled_since is None:
                    self.send(self._connection.send(event.response()))
            if self.closing:
                gevent.sleep(0)  # a client that does not stop is in no hurry; unfolded, this may have been megabytes

    def close(self, code: int, reason: str = "", within_s: float = CLOSE_S) -> None:
        """Begin to close: what waits in part and the close leave, then nothing; after `within_s` it is cut."""
        if self.closing or self.ended:
            return
        self.closing = True
        self._ender = gevent.spawn_later(within_s, self.cut)
        with contextlib.suppress(LocalProtocolError):
            self.send(self._connection.send(CloseConnection(code, reason)))

    def cut(self) -> None:
        """End the connection at once; whoever reads from it sees its end."""
        self.ended = True
        with contextlib.suppress(OSError):
            # A client that only sends would else never learn of it: a closed window is not opened any more.
            self._sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _RESET)
            self._sock.shutdown(sockets.SHUT_RDWR)

    def finish(self) -> None:
        """Let go of it: for the greenlet that reads, at the end. It waits for what is still to be sent, CLOSE_S."""
        if self._writer is not None and not self.ended:
            self._writer.join(CLOSE_S)
        self.ended = True
        gevent.killall([greenlet for greenlet in (self._writer, self._ender) if greenlet is not None])

    def _answer_close(self, event: CloseConnection) -> None:
        if not self.closing:
            self.closing = True
            with contextlib.suppress(LocalProtocolError):
                self.send(self._connection.send(event.response()))

    def _allowed(self) -> bool:
        if self._budget.take():
            return True
        now = time.monotonic()
        if now - self._warned_s >= WARN_EVERY_S:
            if now - self._warned_s > 3 * WARN_EVERY_S:
                self._warnings = 0
            self._warnings += 1
            self._warned_s = now
            if self._warnings > FLOOD_WARNINGS:
                self.close(POLICY, "too many messages")
            elif self.stalled_since is None:
                why = f"more than {MESSAGES_PER_S:.0f} messages a second: those beyond are not looked at"
                self.send_texts([messages.error(RateLimited.code, why)])
        return False

    def _receive(self) -> bytes:
        """Return what came in, b"" at the end."""
        early, self._early = self._early, b""
        while not early and not self.ended:
            try:
                return bytes(self._receive_now(RECEIVE_BYTES))
            except _WAITS:
                wait_read(self._fileno)
            except OSError:
                return b""
        return early

    def _try(self, data: bytes) -> int:
        """Send what the kernel takes now, and return how much that was."""
        try:
            return int(self._send_now(data))
        except _WAITS:
            return 0
        except OSError:  # the reader left
            self.cut()
            return 0

    def _write(self) -> None:
        """Send what is left as the kernel takes it."""
        while self._left and not self.ended:
            wait_write(self._fileno)
            data = self._left[0] if len(self._left) == 1 else b"".join(self._left)
            sent = self._try(data)
            self._left = [data[sent:]] if sent < len(data) else []
            if sent:
                self.stalled_since = time.monotonic()
            else:
                gevent.sleep(FLOOD_PAUSE_S)  # TLS may be waiting to read
        self.stalled_since = None
        self._writer = None
        if not self.ended:
            self.on_drained()
