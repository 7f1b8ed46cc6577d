"""Jobs of a real server: run once by the elected worker, again when it is killed, ended with it in bounded time."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, far_from_now, runs, wait_until, words_of

TIDY = {"TICKHUB_MAINTAIN_SCHEDULE": "on", "TICKHUB_MAINTAIN_AT": far_from_now()}


def job(server: Server) -> dict[str, Any]:
    names = "state, runs, failures, holder, message, exit_status"
    rows = server.database.rows(f"SELECT {names} FROM jobs WHERE name = 'maintain'")
    return dict(zip(names.split(", "), rows[0], strict=True)) if rows else {}


def ask_for(server: Server) -> None:
    """Say that the newest moment is not served yet."""
    wait_until(lambda: job(server), what="the job to be known")
    server.database.rows("UPDATE jobs SET due_at = due_at - interval '1 day' WHERE name = 'maintain'")


def held(server: Server) -> tuple[int, psutil.Process, psutil.Process]:
    """Wait for the job's processes and stop its command; return the worker, what keeps the job, and the command."""

    def command() -> tuple[int, psutil.Process, psutil.Process] | None:
        if job(server).get("state") != "running":
            return None
        worker = int(job(server)["holder"].split(":")[1])
        with suppress(psutil.Error):  # of those that end meanwhile
            for keeper in psutil.Process(worker).children():
                for process in keeper.children() if "app.jobs.child" in words_of(keeper) else ():
                    words = words_of(process)
                    # Before it has become the command it looks as its keeper does, who waits for that.
                    if "maintain" in words and "app.jobs.child" not in words:
                        process.suspend()
                        return worker, keeper, process
        return None

    found: tuple[int, psutil.Process, psutil.Process] = wait_until(command, what="the job to run")
    return found


def gone(*processes: psutil.Process) -> bool:
    return not any(map(runs, processes))


@pytest.mark.long
def test_a_job_runs_once_and_is_shown(make_server: MakeServer) -> None:
    server = make_server(workers=2, environ=TIDY).start().wait_ready()
    wait_until(lambda: job(server).get("state") == "waiting", what="the job to wait for its moment")
    ask_for(server)
    wait_until(lambda: job(server)["state"] == "ok", what="the job to end")
    assert job(server)["runs"] == 1
    assert "analyze: " in job(server)["message"]
    shown = wait_until(
        lambda: [one for one in server.stats()["jobs"] if one["state"] == "ok"], what="the job to be shown"
    )
    assert shown[0]["name"] == "maintain"
    assert shown[0]["runs"] == 1
    assert shown[0]["succeeded_at"] == shown[0]["ended_at"] is not None
    assert server.stop() == 0
    server.start().wait_ready()
    time.sleep(6)  # longer than between two looks: it does not run again
    assert job(server)["runs"] == 1


@pytest.mark.long
def test_when_the_elected_worker_is_killed_its_job_ends_and_another_worker_runs_it_again(
    make_server: MakeServer,
) -> None:
    server = make_server(workers=2, environ=TIDY).start().wait_ready()
    ask_for(server)
    worker, keeper, command = held(server)
    psutil.Process(worker).kill()
    # The one that was held takes no SIGTERM: it is killed.
    wait_until(lambda: gone(keeper, command), what="the job's processes to end with the worker")
    wait_until(lambda: job(server)["state"] == "ok", what="the job to run again")
    assert job(server)["runs"] == 2
    assert job(server)["failures"] == 0
    assert int(job(server)["holder"].split(":")[1]) != worker
    assert server.stop() == 0


@pytest.mark.long
def test_sigterm_ends_the_job_with_the_server(make_server: MakeServer) -> None:
    server = make_server(workers=2, environ=TIDY).start().wait_ready()
    ask_for(server)
    _, keeper, command = held(server)
    assert server.stop(signal.SIGTERM) == 0
    assert gone(keeper, command)
    server.database.up()
    assert job(server)["state"] == "cut_off"
    assert job(server)["failures"] == 0
    server.database.down()


@pytest.mark.long
def test_a_job_that_fails_is_a_warning(make_server: MakeServer) -> None:
    # Nothing can be put where a file is in the way.
    environ = {"TICKHUB_BACKUP_SCHEDULE": "on", "TICKHUB_BACKUP_AT": far_from_now()}
    server = make_server(workers=1, environ=environ)
    (server.home / "backups").write_text("in the way")
    server.start().wait_ready()
    wait_until(lambda: server.database.rows("SELECT name FROM jobs"), what="the job to be known")
    server.database.rows("UPDATE jobs SET due_at = due_at - interval '1 day'")
    wait_until(lambda: server.stats()["warnings"] == ["job backup failed: see jobs"], what="the warning")
    [found] = server.stats()["jobs"]
    assert (found["state"], found["failures"]) == ("failed", 1)
    assert found["message"]
