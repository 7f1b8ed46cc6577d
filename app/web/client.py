"""Whether the client of a request is still there, seen without taking a byte of what it sends. Greenlet side.

What Linux tells about a connection whose request is being answered, tried with curl (SIGINT and SIGKILL), requests (a
timeout), and `nc -N`:

- A client that ends, however it is killed, sends FIN: POLLRDHUP. One that only shuts down its sending side looks
  exactly the same; what tells them apart is how it takes bytes. The first sends RST for them: POLLHUP and POLLERR.
- A client that ends with unread bytes of the answer sends RST at once.
- One that sends its next request early shows POLLIN only; it is there.

So before the answer's first byte FIN means gone, as it does for nginx and Go; a client that half-closes must do with
what is answered before anybody looks (`WATCH_EVERY_S` in reads.py). From then on it takes more than FIN: whoever
half-closed before still wants the rest, and of the others the next bytes bring the truth.
"""

from __future__ import annotations

import select
from _socket import SHUT_RD, SO_LINGER, SOL_SOCKET
from collections.abc import Mapping
from struct import pack
from typing import Any

from gevent.monkey import get_original

_poll = get_original("select", "poll")  # gevent's own knows no hang-ups
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL
_FIN = getattr(select, "POLLRDHUP", 0)  # macOS has none, and shows POLLHUP already for FIN
_NO_LINGER = pack("ii", 1, 0)


class SocketClient:
    """The client at the other end of a connection."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def gone(self) -> bool:
        """Tell whether nobody waits for the answer any more; never blocks."""
        fd = self._socket.fileno()
        if fd < 0:
            return True
        look = _poll()
        look.register(fd, _ENDED | (0 if self._socket.begun else _FIN))
        return bool(look.poll(0))

    def reset(self) -> None:
        """Have the connection end as broken (RST), not as complete: an answer without a length ends with it.

        Nothing more is read from it either. It is closed by who owns it.
        """
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
            self._socket.shutdown(SHUT_RD)
        except OSError:
            return  # it has ended


class NoClient:
    """Stands for the client where there is no socket; never leaves."""

    def gone(self) -> bool:
        """Return False."""
        return False

    def reset(self) -> None:
        """Do nothing."""


def client_of(environ: Mapping[str, Any]) -> SocketClient | NoClient:
    """Return the client of a WSGI request; good for as long as the request is served."""
    socket = environ.get("gunicorn.socket")
    return NoClient() if socket is None else SocketClient(socket)
