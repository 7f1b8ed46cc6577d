"""Accepting connections so that the workers share them evenly.

All workers wait on one socket, and whoever wakes first accepts. A handful of bridges that connect at once could all
end up with one worker, and stay there for days while another core idles.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.server import StreamServer

POLITE_S = 0.002
"""How long a worker with more connections leaves a new one to the others; far more than an idle one needs to take it,
and nothing to whoever connects."""

HANDSHAKE_S = 10.0
"""How long a client may take to agree on a key for TLS; it holds a connection meanwhile, and has asked nothing yet."""

log = logging.getLogger("tickhub")


class SharingServer(StreamServer):  # type: ignore[misc]  # gevent has no types
    """A server that lets workers with fewer connections accept first; `crowded()` tells whether there are any."""

    def __init__(self, *args: Any, crowded: Callable[[], bool], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowded = crowded
        self._polite_until = 0.0  # monotonic; 0: no connection is being left to others

    def do_read(self) -> Any:
        """Accept a connection, or return None to leave it to others for now: the loop asks again at once."""
        if self._crowded():
            now = time.monotonic()
            if not self._polite_until:
                self._polite_until = now + POLITE_S
            if now < self._polite_until:
                return None
        self._polite_until = 0.0
        return super().do_read()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """Serve a TLS connection; one that does not come about is closed, without a traceback for whoever knocks."""
        try:
            with gevent.Timeout(HANDSHAKE_S, TimeoutError("no handshake in time")):
                tls_socket = self.wrap_socket(client_socket, **self.ssl_args)
        except OSError as error:  # of ssl, too
            log.debug("no TLS with %s: %s", address, error)
            client_socket.close()
            return None
        try:
            return self.handle(tls_socket, address)
        finally:
            tls_socket.close()
