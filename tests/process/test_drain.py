"""SIGTERM and Ctrl-C: everything accepted is flushed, the database is stopped, the exit status is 0."""

from __future__ import annotations

import os
import signal

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.load import Load, Ticks
from tests.process.proof import assert_ledger_adds_up, assert_stored_once, wait_for_line

SEED = 5
LAZY = {"TICKHUB_FLUSH_INTERVAL_S": "60", "TICKHUB_FLUSH_ROWS": "1000000"}
"""Nothing is flushed but by draining."""


def send(server: Server, number: int) -> None:
    if number == signal.SIGINT:
        assert server.process is not None
        # As a terminal does: to the whole group, workers included.
        os.killpg(server.process.pid, number)
    else:
        assert server.process is not None
        server.process.send_signal(number)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)], ids=["SIGTERM", "Ctrl-C"]
)
def test_an_end_flushes_what_waits_stops_the_database_and_is_no_failure(
    make_server: MakeServer, number: int
) -> None:
    server = make_server(workers=2, environ=LAZY)
    server.start().wait_ready()
    batches = [Ticks(SEED, sender, with_seq=False).batch(30) for sender in range(3)]
    for batch in batches:
        assert server.post(batch)[0] == 200
    assert server.stats()["ticks_processed"] == 0
    send(server, number)
    assert server.process is not None
    assert server.process.wait(60) == 0, server.log()
    assert server.database.postmaster_pid() is None
    server.database.up()
    assert server.database.rows("SELECT count(*) FROM ticks")[0][0] == sum(map(len, batches))
    assert_ledger_adds_up(server, sum(map(len, batches)), exactly=True)


@pytest.mark.long
def test_an_end_under_load_flushes_all_that_was_acknowledged_and_stops_an_adopted_database(
    make_server: MakeServer,
) -> None:
    server = make_server(workers=2)
    server.database.up()
    server.start().wait_ready()
    adopted = server.database.postmaster_pid()
    assert adopted is not None
    with Load(server, SEED, with_seq=True) as load:
        wait_until(lambda: load.rows() > 1500 or load.errors, what="load")
        assert server.database.postmaster_pid() == adopted
        assert server.stop() == 0, server.log()
        acknowledged = load.acknowledged_rows
        assert server.database.postmaster_pid() is None
        server.database.up()
        assert_ledger_adds_up(server, acknowledged)
        server.start().wait_ready()
        load.finish()
    server.wait_drained()
    assert_stored_once(server.database, load.expected())


@pytest.mark.long
def test_a_second_server_on_the_same_data_directory_refuses_and_names_the_first(
    make_server: MakeServer,
) -> None:
    server = make_server()
    server.start().wait_accepting()
    assert server.process is not None
    second = Server(server.home)
    second.log_path = lambda: server.home.with_name("second.log")  # type: ignore[method-assign]
    second.start()
    assert second.process is not None
    assert second.process.wait(60) == 2
    line = wait_for_line(second, "is in use by another tickhub server")
    assert str(server.process.pid) in line
    assert "Traceback" not in second.log()
    assert server.status("/health/ready") == 200


@pytest.mark.long
def test_a_server_told_to_stop_while_its_workers_boot_stops_at_once(make_server: MakeServer) -> None:
    server = make_server(workers=2, environ={"TICKHUB_SHUTDOWN_GRACE_S": "120"})
    for line in ("Booting worker", "Booting worker", "tickhub listens"):
        server.start()
        wait_for_line(server, line)
        # Half of the grace period: a worker that missed the signal is killed at its end.
        assert server.stop(within_s=60) == 0, server.log()
        assert server.worker_pids() == []
