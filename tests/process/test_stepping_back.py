"""Heavy commands let others go first; the embedded database that one of them has started does not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from app.cli.stepping_back import NICE, step_back
from tests.process.commands import app
from tests.process.conftest import MakeServer
from tests.process.harness import ROOT

_TELL = "import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH, os.getpriority(os.PRIO_PROCESS, 0))"


def test_who_steps_back_and_what_it_starts_have_the_lowest_priority() -> None:
    script = f"""
import subprocess, sys
from app.cli.stepping_back import step_back
step_back()
step_back()
{_TELL}
subprocess.run([sys.executable, "-c", {_TELL!r}], check=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [f"True {NICE}"] * 2


def test_where_it_is_forbidden_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    monkeypatch.setattr(os, "setpriority", forbidden)
    step_back()


@pytest.mark.parametrize("command", [("archive", "run"), ("backup", "full"), ("maintain", "health")])
def test_the_database_that_a_command_starts_keeps_its_priority(
    make_server: MakeServer, command: tuple[str, ...]
) -> None:
    server = make_server()
    app(server, *command)
    pid = server.database.postmaster_pid()
    assert pid is not None
    priority = os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid)
    assert priority == (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
