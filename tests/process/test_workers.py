"""Workers come and go: the figures add up, the log stays readable, and the server lives."""

from __future__ import annotations

import http.client
import os
import re
import signal

import psutil
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.load import Load, Ticks
from tests.process.proof import wait_for_line
from tests.process.proxy import Proxy

SEED = 3
MIB = 1 << 20
IDLE_MIB = 110

BOOT_FAILS = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "app.runtime" and os.path.exists({flag!r}):
            raise ImportError("broken on purpose")
sys.meta_path.insert(0, Finder())
"""


def kill_a_worker(server: Server) -> int:
    pid = int(wait_until(server.worker_pids, what="a worker")[0])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in server.worker_pids(), what="the master to notice")
    return pid


@pytest.mark.long
def test_stats_add_up_over_dead_workers(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    server.start().wait_ready()
    ticks = Ticks(SEED, 0, with_seq=True)
    rows = 0
    dead = []
    for at in range(6):
        batch = ticks.batch(20 + at)
        assert server.post(
            [*batch, {"symbol": "NOSUCH", **{k: batch[0][k] for k in batch[0] if k != "symbol"}}]
        )[1]["received"] == len(batch)
        rows += len(batch)
        if at in (1, 3):
            server.wait_drained()
            dead.append(kill_a_worker(server))
            wait_until(lambda: server.status("/health") == 200, what="the server to serve")
    server.wait_drained()
    wait_until(lambda: len(server.stats()["worker_status"]) == 2, what="two workers")
    stats = server.stats()
    assert stats["ticks_received"] == stats["ticks_processed"] == stats["stored"] == rows
    assert stats["rejected"] == stats["errors"] == 6
    assert stats["workers"] == 2
    assert not set(dead) & {worker["pid"] for worker in stats["worker_status"]}
    server.kill9()
    server.start().wait_ready()
    stats = server.stats()
    # The journals still hold what is committed, for a database that is restored to an older state.
    assert stats["ticks_received"] == stats["ticks_processed"]
    assert stats["rejected"] == 0


@pytest.mark.long
def test_the_log_tells_of_every_flushed_tick_in_a_line_a_second(make_server: MakeServer) -> None:
    server = make_server(workers=1)
    server.start().wait_ready()
    with Load(server, SEED, with_seq=True) as load:
        wait_until(lambda: load.rows() > 4000 or load.errors, what="load")
        load.finish()
    stats = server.wait_drained()
    assert server.stop() == 0
    found = re.findall(r"\[FLUSH\] Processed (\d+) ticks \| Total: (\d+)", server.log())
    assert sum(int(rows) for rows, _ in found) == int(found[-1][1]) == stats["ticks_processed"]
    assert len(found) <= stats["uptime_seconds"] + 3


@pytest.mark.long
def test_failed_flushes_are_logged_now_and_then_and_counted_always(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url)
    server.database = database
    proxy.open()
    server.start().wait_ready()
    proxy.close()
    assert server.post(Ticks(SEED, 0, with_seq=True).batch(150))[0] == 200
    wait_until(lambda: server.stats()["errors"] >= 3, what="three failed flushes")
    lines = [line for line in server.log().splitlines() if "[ERROR] Database flush failed: " in line]
    assert len(lines) == 1
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_workers_that_keep_dying_are_restarted_with_growing_delays_while_the_master_lives(
    make_server: MakeServer,
) -> None:
    server = make_server(workers=1)
    server.start().wait_accepting()
    while len(delays(server)) < 3:  # the first has none, and who is killed too soon does not tell of its own
        before = len(delays(server))
        kill_a_worker(server)
        wait_until(lambda before=before: len(delays(server)) > before or alive(server), what="the next worker")
    seconds = delays(server)
    assert seconds == sorted(set(seconds)), "they do not grow"
    server.wait_accepting()


def delays(server: Server) -> list[float]:
    """Seconds that new workers said they would wait, in order."""
    return [float(text) for text in re.findall(r"workers keep dying: waiting ([0-9.]+) s", server.log())]


def alive(server: Server) -> bool:
    """Tell whether a worker answers; the master takes connections for one that is to come."""
    try:
        return server.request("GET", "/health/live", timeout_s=0.5)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_text(server: Server, lines: int) -> str:
    wait_until(lambda: server.log().count("workers keep dying") >= lines, what="delays")
    return server.log()


@pytest.mark.long
def test_a_server_whose_one_worker_cannot_boot_lives_and_serves_once_it_can(make_server: MakeServer) -> None:
    server = make_server(workers=1)
    site = server.home.with_name("site")
    site.mkdir()
    flag = site / "broken"
    flag.touch()
    (site / "sitecustomize.py").write_text(BOOT_FAILS.format(flag=str(flag)))
    server.environ["PYTHONPATH"] = str(site)
    server.start()
    wait_for_line(server, "broken on purpose")
    wait_text(server, 1)
    assert server.process is not None
    assert server.process.poll() is None
    flag.unlink()
    server.wait_accepting()
    assert server.stop() == 0


@pytest.mark.long
def test_an_idle_worker_is_small(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    server.start().wait_ready()
    assert server.post(Ticks(SEED, 0, with_seq=True).batch(100))[0] == 200
    server.wait_drained()
    memory = [psutil.Process(pid).memory_full_info() for pid in server.worker_pids()]
    for info in memory:
        print(f"a worker: {info.rss / MIB:.0f} MiB resident, {info.uss / MIB:.0f} MiB its own")
    assert max(info.rss for info in memory) < IDLE_MIB * MIB
