"""A log that nobody reads, as behind a stopped terminal or a pager, costs its lines and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, WAIT_S
from tests.process.load import Ticks, content
from tests.process.proof import assert_ledger_adds_up, assert_stored_once


def fill(pipe: int) -> None:
    """Write to a pipe until it takes no more; by a descriptor of our own, or its other writers would not block."""
    own = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(own, b"x" * 512)
    os.close(own)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_server_whose_log_is_stuck_takes_ticks_and_drains_all_the_same(make_server: MakeServer) -> None:
    server = make_server("--log-level", "debug", "--access-log", workers=2)
    read_end, write_end = os.pipe()
    try:
        server.process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", *server.flags],
            cwd=ROOT,
            env=server.environ,
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
        )
        server.log_path().touch()
        server.wait_ready()
        fill(write_end)
        ticks = Ticks(23, 0, with_seq=True)
        batches = [ticks.batch(20) for _ in range(50)]
        assert all(server.post(batch)[0] == 200 for batch in batches)
        server.process.terminate()
        assert server.process.wait(WAIT_S) == 0
        assert server.database.postmaster_pid() is None, "a clean end stops the database"
        server.database.up()
        assert_stored_once(server.database, Counter(content(tick) for batch in batches for tick in batch))
        assert_ledger_adds_up(server, sum(map(len, batches)), exactly=True)
    finally:
        os.close(read_end)
        os.close(write_end)
