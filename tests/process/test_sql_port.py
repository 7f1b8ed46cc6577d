"""`scripts/serve --pg-port`: the way in for SQL, and what the server says of it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import psycopg2
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, free_port, wait_until

pytestmark = pytest.mark.long


def test_the_port_is_open_with_the_server_and_a_database_left_running_keeps_its_own(make_server: MakeServer) -> None:
    port = free_port()
    server = make_server("--pg-port", str(port)).start().wait_ready()
    server.post([{"symbol": "TSLA", "bid": 1, "ask": 2, "spread": 1, "volume": 0, "flags": 6, "timestamp": 1.7e12}])
    server.wait_drained()
    assert f"SQL for reading on 127.0.0.1:{port}; its URL: python -m app url --read-only" in server.log()
    told = subprocess.run(
        [sys.executable, "-m", "app", "url", "--read-only"],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    with closing(psycopg2.connect(told.stdout.splitlines()[-1])) as conn, conn.cursor() as cur:
        cur.execute("SELECT symbol, bid, ask FROM ticks_view")
        assert cur.fetchall() == [("TSLA", 1.0, 2.0)]

    server.kill9()
    other = free_port()
    server.flags[-1] = str(other)
    server.start().wait_ready()
    wait_until(lambda: "PostgreSQL was running already" in server.log(), what="a word on the port")
    assert f"SQL for reading on 127.0.0.1:{port}; its" in server.log()
    assert f"for --pg-port {other} start anew" in server.log()
    assert server.stop() == 0
    server.start().wait_ready()
    assert f"SQL for reading on 127.0.0.1:{other}; its" in server.log()
    assert "running already" not in server.log()
