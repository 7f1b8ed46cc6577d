"""Whether the client of a request is still there, seen without taking a byte of what it sends. Greenlet side.

What Linux tells about a connection whose request is being answered, tried with curl (SIGINT and SIGKILL), requests (a
timeout), and `nc -N`:

- A client that ends, however it is killed, sends FIN: POLLRDHUP. One that only shuts down its sending side looks
  exactly the same; what tells them apart is how it takes bytes. The first sends RST for them: POLLHUP and POLLERR.
- A client that ends with unread bytes of the answer sends RST at once.
- One that sends its next request early shows POLLIN only; it is there.

So before the answer's first byte FIN means gone, as it does for nginx and Go; a client that half-closes must do with
what is answered before anybody looks (`WATCH_EVERY_S` in reads.py). Whoever has half-closed when the answer begins
gets all of it: if it has left in truth, the bytes bring RST. A FIN that comes later is a client that left.
"""

from __future__ import annotations

import select
from typing import Any

from gevent.monkey import get_original

_poll = get_original("select", "poll")  # gevent's own knows no hang-ups
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL
_FIN = getattr(select, "POLLRDHUP", 0)  # macOS has none, and shows POLLHUP already for FIN
_KEY = "tickhub.client"


class SocketClient:
    """The client at the other end of a connection."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._half_closed = False

    def begin(self) -> None:
        """Note that bytes of the answer are sent from now on."""
        self._half_closed = self._shows(_FIN)

    def gone(self) -> bool:
        """Tell whether nobody waits for the answer any more; never blocks."""
        return self._shows(_ENDED if self._half_closed else _ENDED | _FIN)

    def break_off(self) -> None:
        """Have the connection end as broken (RST), not as complete; it is closed by who owns it."""
        self._socket.break_off()

    def _shows(self, events: int) -> bool:
        fd = self._socket.fileno()
        if fd < 0:
            return True
        look = _poll()
        look.register(fd, events)
        return bool(look.poll(0))


class NoClient:
    """Stands for the client where there is no socket; never leaves."""

    def begin(self) -> None:
        """Do nothing."""

    def gone(self) -> bool:
        """Return False."""
        return False

    def break_off(self) -> None:
        """Do nothing."""


def client_of(environ: dict[str, Any]) -> SocketClient | NoClient:
    """Return the client of a WSGI request, always the same one; good for as long as the request is served."""
    client: SocketClient | NoClient | None = environ.get(_KEY)
    if client is None:
        socket = environ.get("gunicorn.socket")
        client = environ[_KEY] = NoClient() if socket is None else SocketClient(socket)
    return client
