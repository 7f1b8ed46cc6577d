"""Workers that share connections evenly depend on no single one of them."""

from __future__ import annotations

import http.client
import os
import signal
from contextlib import ExitStack, closing

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import wait_until


@pytest.mark.long
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
