"""gunicorn's gevent worker, mended where tickhub promises more.

It drains at SIGTERM, SIGINT and when its master is gone; answers broken HTTP in JSON; and a failure to boot costs
one worker, not the server.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from functools import partial
from typing import Any

import gevent
from gevent.pool import Pool
from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from app.web.accepting import SharingServer
from app.web.cork import Cork
from app.web.log import last_words, log_from_a_thread, reopen_files
from app.web.patience import small_bodies

POLL_S = 0.1
NOTIFY_EVERY_S = 1.0
REQUESTS_SHARE = 0.3
"""Share of the grace period for requests under way; the rest is for flushing."""

SOCKETS_CLOSE_S = 1.0
"""How long WebSockets may take to answer their close, when the server goes away."""

FIRST_REQUEST_S = 15.0
"""How long a new connection may take for its first head. On one that has asked before it is `keepalive`, which is for
bridges that are idle between their batches."""

LINGER_S = 2.0
LINGER_BYTES = 64 << 20
"""How long, and for how much, a closing connection listens to a client that still sends. Closed at once it would be
reset, and the client might never see its answer, a 413 say."""

KILL_MARGIN_S = 2.0
"""The master kills at the end of the grace period: be gone by then."""

_ANSWERS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (http.LimitRequestLine, 414, "URI Too Long", "too_large"),
    (http.LimitRequestHeaders, 431, "Request Header Fields Too Large", "too_large"),
    # Not 501: a bridge takes every 5xx for trouble of ours, and would send it again for ever.
    (http.UnsupportedTransferCoding, 415, "Unsupported Media Type", "unsupported_encoding"),
    (http.ExpectationFailed, 417, "Expectation Failed", "bad_parameter"),
)

log = logging.getLogger("tickhub")


class TickhubWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker with a Runtime."""

    alive: bool
    slot = 0
    boot_delay_s = 0.0
    forked_at = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runtime: Any = None
        self._busy: set[Any] = set()

    def init_process(self) -> None:
        """Boot; a failure ends this process only: gunicorn would stop the server for its own statuses."""
        try:
            self._wait_for_turn()
            super().init_process()
        except SystemExit:
            raise
        except BaseException:
            self.log.exception("the worker failed to boot")
            sys.exit(1)

    def _wait_for_turn(self) -> None:
        if self.boot_delay_s <= 0:
            return
        self.log.warning("workers keep dying: waiting %.1f s before the next try", self.boot_delay_s)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: os._exit(0))
        until = time.monotonic() + self.boot_delay_s
        while time.monotonic() < until:
            self.tmp.notify()
            time.sleep(POLL_S)

    def load_wsgi(self) -> None:
        """Make the application, then start what it runs on."""
        from app.runtime import Runtime
        from app.settings import load

        log_from_a_thread(self.log)
        super().load_wsgi()
        self.runtime = Runtime(load(), self.slot)
        self.wsgi.extensions["tickhub"] = self.runtime
        self.runtime.start()

    def notify(self) -> None:
        """Show the master that we live; without a master, drain and end."""
        self.tmp.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.warning("the master is gone: draining")
            self.alive = False

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT and SIGQUIT drain like SIGTERM."""
        self.alive = False

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """SIGUSR1: the log was rotated."""
        reopen_files(self.log)

    def timeout_ctx(self) -> gevent.Timeout:
        """Return how long the head of the next request is waited for; then the connection is closed."""
        me = gevent.getcurrent()  # a connection is a greenlet
        timeout_s = self.cfg.keepalive if getattr(me, "has_asked", False) else FIRST_REQUEST_S
        me.has_asked = True
        return gevent.Timeout(timeout_s, False)

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        gevent.spawn(small_bodies.run)
        servers = []
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        for listener in self.sockets:
            listener.setblocking(1)
            server = SharingServer(
                listener,
                handle=partial(self.handle, listener),
                spawn=Pool(self.worker_connections + self.runtime.settings.ws_max_connections),
                crowded=self.runtime.crowded,
                **tls,
            )
            if self.cfg.workers > 1:
                server.max_accept = 1  # or one worker takes all connections of a burst
            server.start()
            servers.append(server)
        notified = float("-inf")
        while self.alive:
            if time.monotonic() - notified >= NOTIFY_EVERY_S:
                self.notify()
                notified = time.monotonic()
            gevent.sleep(POLL_S)
        self._drain(servers)
        if not last_words(self.log):
            os._exit(0)  # a process that ends as usual waits for what its threads are writing, here for ever

    def _drain(self, servers: list[Any]) -> None:
        deadline = time.monotonic() + max(1.0, self.cfg.graceful_timeout - KILL_MARGIN_S)
        heartbeat = gevent.spawn(self._keep_notifying)
        for server in servers:
            server.close()
        self.runtime.hub.close(SOCKETS_CLOSE_S)
        requests_until = time.monotonic() + REQUESTS_SHARE * (deadline - time.monotonic())
        while self._busy and time.monotonic() < requests_until:
            gevent.sleep(0.02)
        # What is left are idle connections and requests that hang: nothing more is accepted from here on.
        for server in servers:
            server.pool.kill(block=True, timeout=1.0)
        self.runtime.drain(deadline - time.monotonic())
        self.runtime.stop()
        heartbeat.kill()

    def _keep_notifying(self) -> None:
        while True:
            self.tmp.notify()
            gevent.sleep(NOTIFY_EVERY_S)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection; it counts while it is open."""
        slot = self.runtime.meters.slot
        slot.add("connections")
        try:
            super().handle(listener, client, addr)
        finally:
            slot.add("connections", -1)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve a request; it counts as under way meanwhile."""
        me = gevent.getcurrent()
        self._busy.add(me)
        self.runtime.requests_begun += 1
        cork = Cork(sock)
        try:
            super().handle_request(listener_name, req, cork, addr)
            cork.flush()
            last = req.body.failed  # where the next request begins is unknown
        except StopIteration:
            cork.flush()
            last = True
        finally:
            self._busy.discard(me)
        if cork.broken:
            raise StopIteration
        if last:
            util.close_graceful(sock, LINGER_S, LINGER_BYTES)
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no HTTP, in JSON; then the connection ends."""
        if isinstance(exc, gevent.GreenletExit):
            return  # the drain ends idle connections: they asked nothing
        if isinstance(exc, http.ParseException):
            known = (answer for answer in _ANSWERS if isinstance(exc, answer[0]))
            _, status, reason, code = next(known, (Exception, 400, "Bad Request", "bad_parameter"))
            self.log.debug("bad request from %s: %s", addr, exc)
            body = error_body(code, f"this is not a request that can be read: {exc}")
        else:
            self.log.error("a request failed", exc_info=exc)
            status, reason = 500, "Internal Server Error"
            body = error_body("internal", "the server failed on this request; its log says why")
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            client.sendall(head.encode("latin-1") + body)
        except OSError as error:
            self.log.debug("the client left before its answer: %s", error)
        util.close_graceful(client, LINGER_S, LINGER_BYTES)


def error_body(code: str, message: str) -> bytes:
    """Return an error as JSON."""
    from app.web.errors import encode

    return encode({"status": "error", "code": code, "message": message})
