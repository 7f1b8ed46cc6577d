"""An answer's head and its first bytes in one packet: gunicorn sends them in two calls, which costs both sides."""

from __future__ import annotations

from _socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any

_NO_LINGER = pack("ii", 1, 0)


class Cork:
    """Stands for the socket of one answer: holds the first `sendall` back until something follows it."""

    __slots__ = ("_head", "_socket", "broken")

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._head: bytes | None = None
        self.broken = False
        """Whether the answer was broken off: nothing may follow it on this connection."""

    def sendall(self, data: bytes) -> None:
        """Send data, together with what was held; hold it if it is the first."""
        if self._head is None:
            self._head = data
        elif self._head:
            head, self._head = self._head, b""
            self._socket.sendall(head + data)
        else:
            self._socket.sendall(data)

    def flush(self) -> None:
        """Send what is still held: an answer without a body."""
        head, self._head = self._head, b""
        if head:
            self._socket.sendall(head)

    def break_off(self) -> None:
        """Have the connection end with RST when it is closed: a plain end would look complete without a length."""
        self.broken, self._head = True, b""
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
        except OSError:
            return  # it has ended

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed; to look at, so nothing is sent before."""
        descriptor: int = self._socket.fileno()
        return descriptor

    def __getattr__(self, name: str) -> Any:
        self.flush()  # whatever else is done with the socket comes behind the head
        return getattr(self._socket, name)
