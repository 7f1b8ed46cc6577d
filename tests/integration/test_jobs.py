"""Jobs against a real database: run once, in a term of office, and again when they were cut off."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from psycopg2.extensions import connection

from app.jobs import runner, schedule
from app.jobs.child import CUT_OFF
from app.jobs.runner import JobRunner
from app.jobs.schedule import Job
from app.storage.connection import Connection
from app.storage.lease import Term, claim
from tests.batches import execute, rows_of
from tests.waiting import wait_until


class Office:
    """An election that a test decides."""

    def __init__(self, own: Connection, holder: str) -> None:
        self._own, self._holder = own, holder
        self.term: Term | None = None

    def take(self) -> None:
        with self._own.transaction() as cur:
            cur.execute("UPDATE leases SET held_until = now() - interval '1 second'")
            self.term = claim(cur, "desk", self._holder, 60)
        assert self.term is not None


@pytest.fixture
def own(database_url: str) -> Iterator[Connection]:
    made = Connection(lambda: database_url, 5, 60, "test")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOOK_S", 0.0)
    monkeypatch.setattr(runner, "_COMMAND", (sys.executable, "-c"))


@pytest.fixture
def make(own: Connection, tmp_path: Path) -> Iterator[Callable[..., tuple[JobRunner, Office]]]:
    made: list[JobRunner] = []

    def make(
        *jobs: tuple[str, str], holder: str = "a", merge: Job = schedule.MERGE
    ) -> tuple[JobRunner, Office]:
        def write(fn: Callable[[Any], object]) -> object:
            with own.transaction() as cur:
                return fn(cur)

        office = Office(own, holder)
        moment = datetime.now(UTC) - timedelta(minutes=1)
        wanted = [Job(name, (code,), moment.hour, moment.minute) for name, code in jobs]
        one = JobRunner([*wanted, merge], office, write, tmp_path / holder, {"MARK": "m"})  # type: ignore[arg-type]
        made.append(one)
        return one, office

    yield make
    for one in made:
        one.stop()


def ask_for(conn: connection, name: str) -> None:
    """Say that the newest moment of a job is not served yet."""
    execute(conn, f"UPDATE jobs SET due_at = due_at - interval '1 day' WHERE name = '{name}'")


def state(conn: connection, name: str = "j") -> tuple[Any, ...]:
    found = rows_of(conn, "SELECT state, exit_status, runs, failures FROM jobs WHERE name = %s", (name,))[0]
    conn.commit()
    return found


def step_until(one: JobRunner, condition: Callable[[], bool]) -> None:
    def stepped() -> bool:
        one.step()
        return condition()

    if not condition():
        wait_until(stepped, what="the job")


def test_a_new_job_waits_for_its_next_moment_then_runs_once_and_says_how_it_ended(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]]
) -> None:
    one, office = make(("j", "import os; print('done', os.environ['MARK'], os.nice(0) >= 10)"))
    for _ in range(3):
        one.step()
    assert rows_of(conn, "SELECT count(*) FROM jobs") == [(0,)], "nobody is elected"
    conn.commit()
    office.take()
    for _ in range(3):
        one.step()
    assert state(conn) == ("waiting", None, 0, 0)
    ask_for(conn, "j")
    step_until(one, lambda: state(conn)[0] == "ok")
    assert state(conn) == ("ok", 0, 1, 0)
    for _ in range(5):
        one.step()
    assert state(conn) == ("ok", 0, 1, 0)
    assert rows_of(conn, "SELECT message, succeeded_at = ended_at FROM jobs") == [("done m True", True)]
    assert [row.state for row in one.rows] == ["ok"]


def test_late_ticks_are_merged_again_and_again_until_it_ends_well(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]], tmp_path: Path
) -> None:
    is_over = tmp_path / "over"
    code = f"import os, sys; sys.exit(not os.path.exists({str(is_over)!r}) and 'another archiver works')"
    merge = replace(schedule.MERGE, arguments=(code,))
    one, office = make(merge=merge)
    office.take()
    for _ in range(3):
        one.step()
    assert rows_of(conn, "SELECT * FROM jobs") == [], "none waits"
    conn.commit()
    execute(
        conn,
        "INSERT INTO late_ticks (symbol_id, time, seq, volume, buy_volume, sell_volume, flags, journal_no, received_at,"
        " row_no) SELECT min(symbol_id), '2020-01-06', 0, 0, 0, 0, 6, 1, now(), 0 FROM instruments",
    )
    for _ in range(3):
        one.step()
    assert state(conn, "merge") == ("waiting", None, 0, 0)

    def minutes_pass(minutes: int) -> None:
        execute(conn, f"UPDATE jobs SET due_at = due_at - interval '{minutes} minutes'")

    for number in range(1, schedule.TRIES + 1):
        minutes_pass(10)
        step_until(one, lambda number=number: state(conn, "merge") == ("failed", 1, number, number))  # type: ignore[misc]
    minutes_pass(10)
    for _ in range(3):
        one.step()
    assert state(conn, "merge")[2] == schedule.TRIES, "what fails all the time is tried more seldom"
    # Somebody else has merged them: what failed is run until that is no news any more.
    is_over.touch()
    execute(conn, "DELETE FROM late_ticks")
    minutes_pass(50)
    step_until(one, lambda: state(conn, "merge")[0] == "ok")
    minutes_pass(100)
    for _ in range(3):
        one.step()
    assert state(conn, "merge")[2] == schedule.TRIES + 1


def test_a_job_that_fails_is_told_with_its_last_words_and_waits_for_its_next_moment(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]]
) -> None:
    one, office = make(("j", "import sys; print('a\\n' * 50); sys.exit('no room')"))
    office.take()
    one.step()
    ask_for(conn, "j")
    step_until(one, lambda: state(conn)[0] == "failed")
    for _ in range(5):
        one.step()
    assert state(conn) == ("failed", 1, 1, 1)
    [(message, succeeded)] = rows_of(conn, "SELECT message, succeeded_at FROM jobs")
    assert message.endswith("no room")
    assert len(message.splitlines()) == runner.LINES
    assert succeeded is None


def test_a_job_that_hangs_is_ended_and_the_next_one_comes_on(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LONGEST_S", 0.3)
    one, office = make(("j", "import time; print('at work', flush=True); time.sleep(600)"), ("k", "print('done')"))
    office.take()
    one.step()
    ask_for(conn, "j")
    step_until(one, lambda: state(conn)[0] == "failed")
    assert state(conn) == ("failed", CUT_OFF, 1, 1)
    [(message,)] = rows_of(conn, "SELECT message FROM jobs WHERE name = 'j'")
    conn.commit()
    assert message.splitlines()[-1].startswith("ended: it ran for more than ")
    monkeypatch.setattr(runner, "LONGEST_S", 60.0)
    ask_for(conn, "k")
    step_until(one, lambda: state(conn, "k")[0] == "ok")
    assert state(conn) == ("failed", CUT_OFF, 1, 1), "its turn comes at its next moment"


def test_a_job_that_could_not_be_started_is_started_later(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "CUT_OFF_AGAIN", timedelta(0))
    one, office = make(("j", "print('done')"))
    office.take()
    one.step()
    ask_for(conn, "j")
    in_the_way = tmp_path / "a"
    in_the_way.touch()  # its output cannot be written, as on a full disk
    with pytest.raises(OSError, match="File exists"):
        one.step()
    in_the_way.unlink()
    step_until(one, lambda: state(conn)[0] == "ok")


def test_one_job_runs_at_a_time(conn: connection, make: Callable[..., tuple[JobRunner, Office]]) -> None:
    one, office = make(("j", "import time; time.sleep(1)"), ("k", "pass"))
    office.take()
    one.step()
    ask_for(conn, "j")
    ask_for(conn, "k")
    seen = set()

    def both_ended() -> bool:
        states = (state(conn, "j")[0], state(conn, "k")[0])
        seen.add(states)
        return states == ("ok", "ok")

    step_until(one, both_ended)
    assert ("running", "running") not in seen
    assert ("running", "waiting") in seen


def test_whoever_is_elected_no_more_ends_its_job_and_the_next_one_runs_it_again(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(schedule, "CUT_OFF_AGAIN", timedelta(0))
    flag = tmp_path / "flag"
    code = f"import os, time; time.sleep(0 if os.path.exists({str(flag)!r}) else 600)"
    first, old = make(("j", code), holder="a")
    second, new = make(("j", code), holder="b")
    old.take()
    first.step()
    ask_for(conn, "j")
    step_until(first, lambda: state(conn)[0] == "running" and first.pid is not None)
    pid = first.pid
    assert pid is not None
    flag.touch()
    new.take()
    old.term = None
    step_until(second, lambda: state(conn)[0] == "ok")
    assert state(conn)[2] == 2
    step_until(first, lambda: not _alive(pid))
    for _ in range(3):
        first.step()
    assert state(conn) == ("ok", 0, 2, 0), "what the first one says of its own does not count any more"


@pytest.mark.long
def test_told_to_stop_it_ends_the_job_with_all_that_it_started(
    conn: connection, make: Callable[..., tuple[JobRunner, Office]], tmp_path: Path
) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stubborn!r}])"
    one, office = make(("j", code))
    office.take()
    one.step()
    ask_for(conn, "j")
    output = tmp_path / "a" / "j.log"
    step_until(one, lambda: output.exists() and "up" in output.read_text())
    pid = one.pid
    assert pid is not None
    group = [process for process in psutil.process_iter() if _group(process.pid) == pid]
    assert len(group) == 3
    one.stop()
    assert state(conn)[:3] == ("cut_off", None, 1)
    wait_until(lambda: not any(_alive(process.pid) for process in group), what="the group's end")


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
