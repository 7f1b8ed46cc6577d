"""kill -9 of anything at any moment: what was acknowledged is stored once, and bars follow."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server
from tests.process.load import Load
from tests.process.proof import assert_ledger_adds_up, assert_stored_once

SEED = 20_260_113


def kill_worker(server: Server, rng: random.Random) -> None:
    pids = server.worker_pids()
    if pids:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(pids), signal.SIGKILL)


def kill_master(server: Server, rng: random.Random) -> None:
    server.kill_master()
    server.start()


def kill_postmaster(server: Server, rng: random.Random) -> None:
    server.database.kill9()


def kill_all(server: Server, rng: random.Random) -> None:
    server.kill9()
    server.database.kill9()
    server.start()


KILLS = [kill_worker, kill_postmaster, kill_worker, kill_master, kill_worker, kill_all]


def run(server: Server, *, with_seq: bool, rounds: int, seed: int, most_s: float) -> None:
    rng = random.Random(seed)
    server.start().wait_ready()
    with Load(server, seed, with_seq=with_seq) as load:
        for at in range(rounds):
            time.sleep(rng.uniform(0.1, most_s))  # some fall into the boot of what the kill before made start
            KILLS[at % len(KILLS)](server, rng)
        server.wait_ready()
        load.finish()
    server.wait_drained()
    assert load.rows() > 0
    assert_stored_once(server.database, load.expected())
    assert_ledger_adds_up(server, load.acknowledged_rows)
    assert server.stop() == 0, server.log()


def test_two_workers_lose_and_double_nothing_whatever_is_killed(make_server: MakeServer) -> None:
    run(make_server(workers=2), with_seq=True, rounds=6, seed=SEED, most_s=1.2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("workers", "with_seq"),
    [(1, False), (2, False), (4, True)],
    ids=["1 worker", "2 workers", "4 workers, with seq"],
)
def test_nothing_is_lost_or_doubled_in_many_rounds_of_kills(
    make_server: MakeServer, workers: int, with_seq: bool
) -> None:
    server = make_server("--pg-max-connections", "80", workers=workers)
    run(server, with_seq=with_seq, rounds=7, seed=SEED + workers, most_s=2.5)
