"""The database is away for long: through deaths and restarts, with bounded memory, and nothing to do afterwards."""

from __future__ import annotations

import json
import os
import signal
import threading

import psutil
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.load import Load, Probe, Ticks
from tests.process.proof import assert_ledger_adds_up, assert_stored_once
from tests.process.proxy import Proxy

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

MIB = 1 << 20
SEED = 11


class Peak:
    """Watches the workers' resident memory, MiB."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.most_mib = 0.0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def now_mib(self) -> float:
        return max((_rss(pid) for pid in self._server.worker_pids()), default=0) / MIB

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.most_mib = max(self.most_mib, self.now_mib())


def _rss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def test_ticks_are_taken_without_a_database_through_deaths_and_restarts_and_drain_alone(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url, workers=2)
    server.database = database
    server.start().wait_accepting()
    with Load(server, SEED, with_seq=True) as load:
        load.more(2000)
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        load.more(2000)
        assert server.stop() == 0, server.log()
        server.start()
        load.more(2000)
        server.kill9()
        server.start()
        load.more(2000)
        assert server.status("/health") == 503
        assert server.stats()["buffer_size"] >= 8000
        proxy.open()
        load.finish()
    server.wait_drained()
    assert_stored_once(database, load.expected())
    assert_ledger_adds_up(server, load.acknowledged_rows)


def test_a_frozen_database_holds_up_neither_acceptance_nor_the_loop_nor_an_end(
    make_server: MakeServer,
) -> None:
    server = make_server(workers=2, environ={"TICKHUB_SHUTDOWN_GRACE_S": "8"})
    server.start().wait_ready()
    with Load(server, SEED, with_seq=False) as load, Probe(server) as probe:
        load.more(500)
        server.database.pause()
        wait_until(lambda: server.stats()["database_status"] == "disconnected", what="it to be noticed")
        load.more(3000)
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        load.more(1000)
        answers = probe.answers
        wait_until(lambda: probe.answers > answers + 50, what="answers while the database is frozen")
        # A killed worker's connections break; what may not happen is that somebody waits.
        assert not [failure for failure in probe.failures if "timed out" in failure.lower()]
        # The grace period, and what a busy machine may add.
        assert server.stop(within_s=8 + 30) == 0, server.log()
        server.start()
        load.more(1000)
        server.database.resume()
        load.finish()
    server.wait_drained()
    assert_stored_once(server.database, load.expected())
    assert_ledger_adds_up(server, load.acknowledged_rows)


def test_memory_stays_bounded_while_a_journal_of_many_times_the_bound_fills_and_drains(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    buffer_mib, slack_mib = 2, 40
    server = make_server(
        "--database-url", proxy.url, environ={"TICKHUB_BUFFER_MAX_BYTES": str(buffer_mib * MIB)}
    )
    server.database = database
    server.start().wait_accepting()
    bodies = [
        json.dumps({"ticks": Ticks(SEED, sender, with_seq=True).batch(5000)}).encode() for sender in range(3)
    ]
    assert server.post_raw("/tick/batch", bodies[0])[0] == 200
    with Peak(server) as peak:
        idle_mib = peak.now_mib()
        for at in range(200):
            assert server.post_raw("/tick/batch", bodies[at % 3])[0] == 200
        stats = server.stats()
        assert stats["journal_bytes"] > 60 * MIB, "else this proves little"
        proxy.open()
        server.wait_drained()
    print(
        f"idle {idle_mib:.0f} MiB, at most {peak.most_mib:.0f} MiB, journal {stats['journal_bytes'] >> 20} MiB"
    )
    assert peak.most_mib < idle_mib + buffer_mib + slack_mib
    assert server.stats()["duplicates"] > 900_000
