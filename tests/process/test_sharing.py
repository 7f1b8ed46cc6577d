"""Connections spread over the workers: bridges that connect at once do not all end up with one."""

from __future__ import annotations

import http.client
import os
import signal
from contextlib import ExitStack, closing

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until

CONNECTIONS = 40
ROUNDS = 3
"""By chance alone the shares would be this even in one round of four."""


def shares(server: Server) -> list[int]:
    return [worker["connections"] for worker in server.stats()["worker_status"]]


def test_workers_share_connections_evenly(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    server.start()
    server.wait_ready()
    wait_until(lambda: len(shares(server)) == 2, what="two workers")
    for _ in range(ROUNDS):
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                client = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port)))
                client.request("GET", "/health/live")
                client.getresponse().read()
            # The one that asks is counted too.
            found = shares(server)
            assert sum(found) in (CONNECTIONS, CONNECTIONS + 1)
            assert max(found) - min(found) <= 2, found
        wait_until(lambda: sum(shares(server)) <= 2, what="the connections to be gone")
    assert server.stop() == 0


def test_a_worker_takes_connections_though_the_other_one_hangs(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    server.start()
    server.wait_ready()
    hanging, _ = wait_until(lambda: len(found := server.worker_pids()) == 2 and found, what="two workers")
    with ExitStack() as stack:
        os.kill(hanging, signal.SIGSTOP)
        stack.callback(os.kill, hanging, signal.SIGCONT)
        for _ in range(4):
            # The frozen one takes none; whatever the shares, somebody answers.
            client = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)))
            client.request("GET", "/health/live")
            assert client.getresponse().status == 200
    assert server.stop() == 0
