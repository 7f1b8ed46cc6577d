"""A connection to each worker of a server, to ask one of them and no other."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from tests.process.harness import Server, wait_until


class Workers:
    """Asks workers by their process id."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._clients: dict[int, http.client.HTTPConnection] = {}

    def reach(self, count: int) -> list[int]:
        """Connect to all `count` living workers; return their process ids."""
        wait_until(lambda: self._reach(count), what="a connection to each worker")
        return sorted(self._clients)

    def get(self, pid: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        return self._ask(self._clients[pid], "GET", path, headers=headers)

    def post(self, pid: int, *ticks: dict[str, Any]) -> None:
        status, answer = self._ask(self._clients[pid], "POST", "/tick/batch", json.dumps({"ticks": ticks}))
        assert status == 200, answer

    def bid(self, pid: int, symbol: str) -> float | None:
        """Return the bid that a worker has, None for what it does not know."""
        status, answer = self.get(pid, f"/api/quotes/{symbol}")
        return float(answer["bid"]) if status == 200 and answer["bid"] is not None else None

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _reach(self, count: int) -> bool:
        living = set(self._server.worker_pids())
        for pid in self._clients.keys() - living:
            self._clients.pop(pid).close()
        if len(living) == count and len(self._clients) < count:
            client = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
            with suppress(OSError, http.client.HTTPException):
                self._ask(client, "GET", "/health/live")
                pid = owner_of(client.sock.getsockname()[1], living)
                if pid is not None and pid not in self._clients:
                    self._clients[pid] = client
                    return len(self._clients) == count
            client.close()
        return len(self._clients) == count == len(living)

    @staticmethod
    def _ask(
        client: http.client.HTTPConnection,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        client.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = client.getresponse()
        # The client would connect again by itself, and perhaps to another worker.
        assert not answer.will_close, answer.headers
        return answer.status, json.loads(answer.read())


def owner_of(port: int, pids: Iterable[int]) -> int | None:
    """Return which of the processes has the other end of a connection from this port of ours; None: none of them."""
    for pid in pids:
        with suppress(psutil.Error):
            if any(end.raddr and end.raddr.port == port for end in psutil.Process(pid).net_connections("inet")):
                return pid
    return None
