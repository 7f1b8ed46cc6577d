"""An answer's head and its first bytes in one packet: gunicorn sends them in two calls, which costs both sides."""

from __future__ import annotations

from typing import Any


class Cork:
    """Stands for the socket of one answer: holds the first `sendall` back until something follows it."""

    __slots__ = ("_head", "_socket")

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._head: bytes | None = None

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

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed; to look at, so nothing is sent before."""
        descriptor: int = self._socket.fileno()
        return descriptor

    @property
    def begun(self) -> bool:
        """Whether bytes of the answer were sent."""
        return self._head == b""

    def __getattr__(self, name: str) -> Any:
        self.flush()  # whatever else is done with the socket comes behind the head
        return getattr(self._socket, name)
