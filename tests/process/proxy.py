"""A proxy before the database that can be cut, can swallow what passes, and can lose the answer to a COMMIT."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.ports import free_port

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
FLUSH = b"tickhub flush"
"""In the start of the connections that write ticks: their application_name."""

POLL_S = 0.02


class Proxy:
    """Listens on 127.0.0.1 and passes on to a Unix socket. Begins closed: connections are refused."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = str(upstream)
        self.port = free_port()
        self.url = f"postgresql://tickhub@127.0.0.1:{self.port}/tickhub"
        self._listener: socket.socket | None = None
        self._swallows = False
        self._life = 0
        """Connections end when this moves on."""
        self._commits_to_lose = 0
        self.commits_lost = 0
        self.swallowed = 0
        """Connections that were accepted and never answered."""
        self.delay_s = 0.0
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Accept connections and pass everything on; what was swallowed before is cut."""
        self._swallows = False
        self.cut()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._spawn(self._accept, self._listener)

    def close(self) -> None:
        """Refuse connections, and cut those that are there."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut the connections that are there; new ones pass."""
        self._life += 1

    def swallow(self) -> None:
        """From now on accept connections and take bytes, and never answer."""
        self._swallows = True

    def lose_commits(self, count: int) -> None:
        """Cut the next `count` flushes after the server has committed, before the client hears of it."""
        self._commits_to_lose = count

    def remove(self) -> None:
        self.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _spawn(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            self._spawn(self._serve, client, self._life)

    def _serve(self, client: socket.socket, life: int) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._upstream)
            self._pass(client, server, life)

    def _pass(self, client: socket.socket, server: socket.socket, life: int) -> None:
        flushes = losing = counted = False
        while self._life == life:
            for source in select.select([client, server], [], [], POLL_S)[0]:
                data = source.recv(1 << 16)
                if self._swallows:
                    if not counted:
                        counted, self.swallowed = True, self.swallowed + 1
                    if not data:
                        return
                    continue
                if not data:
                    return
                if source is client:
                    flushes = flushes or FLUSH in data
                    if flushes and self._commits_to_lose and data.endswith(COMMIT):
                        self._commits_to_lose -= 1
                        losing = True
                    server.sendall(data)
                elif losing:
                    self.commits_lost += 1  # the server answers a COMMIT when it is done
                    return
                else:
                    time.sleep(self.delay_s)  # the slow network that it stands for
                    client.sendall(data)
