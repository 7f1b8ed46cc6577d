"""Runs what is due, while this process is elected: one job at a time, as a process. Greenlet side.

    due         the table says running, in this term of office; then the process is started (child.py)
    it ends     the table says ok or failed, with the last lines that it printed
    elected no more, or told to stop: the process is ended, the table says cut_off if it still may
    killed      the process ends by itself; whoever is elected next finds it running in another term: cut_off

What was cut off runs again. Between the commit of `running` and the start of the process lies nothing that can be
lost: a job that never began, because this process died, or had no room to begin it, counts as cut off, too.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import gevent
from psycopg2.extensions import cursor as Cursor

from app.desk import Desk
from app.election import Election
from app.errors import TickhubError
from app.jobs.child import CUT_OFF, GRACE_S
from app.jobs.schedule import MERGE, Job, LastRun, State, jobs_of, last_moment, next_due
from app.settings import ROOT, Settings
from app.storage.job_store import JobRow, NotElected, begin, end, late_ticks_wait, read_jobs, take_over
from app.storage.lease import Term

LOOK_S = 5.0
"""How often the table is read, by every worker: /stats shows it."""

LONGEST_S = 12 * 3600.0
"""What takes longer hangs: it is ended, so that the other jobs come on. What was archived until then stays so."""

POLL_S = 0.5
LINES = 20
MESSAGE_BYTES = 4000

_COMMAND = (sys.executable, "-m", "app")

log = logging.getLogger("tickhub")

T = TypeVar("T")


@dataclass(slots=True)
class _Running:
    job: Job
    term: Term
    process: subprocess.Popen[bytes]
    output: Path
    began_s: float
    is_ending: bool = False
    is_overdue: bool = False


class JobRunner:
    """This worker's part in running jobs; `rows` is what the table said last, in every worker."""

    def __init__(
        self,
        jobs: Sequence[Job],
        election: Election,
        write: Callable[[Callable[[Cursor], object]], object],
        run_dir: Path,
        environ: Mapping[str, str],
    ) -> None:
        """Take the jobs, and what is needed to run them. write: runs a function on a lane, in a transaction."""
        self._jobs, self._election, self._write = tuple(jobs), election, write
        self._dir, self._environ = run_dir, dict(environ)
        self._running: _Running | None = None
        self._failed_in_a_row: dict[str, int] = {}
        self._unsaid: Callable[[Cursor], object] | None = None
        self._unsaid_term: Term | None = None
        self._stopping = False
        self._looked_s = float("-inf")
        self.rows: tuple[JobRow, ...] = ()

    def run(self) -> None:
        """Take part for ever; to be spawned as a greenlet."""
        while not self._stopping:
            try:
                self.step()
            except NotElected:
                log.warning("[JOB] another process was elected meanwhile")
            except TickhubError as error:
                log.debug("jobs were not looked at: %s", error)
            except Exception:
                log.exception("running jobs failed")
            gevent.sleep(POLL_S)

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the jobs that the settings ask for; `rows` may have others, of settings of before."""
        return frozenset(job.name for job in self._jobs)

    @property
    def pid(self) -> int | None:
        """Return the process of the job that runs here, None when none does."""
        return None if self._running is None else self._running.process.pid

    def step(self) -> None:
        """Do what is to be done now. Raises NotElected, and DatabaseAway."""
        self._watch()
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        if self._running is None:
            self._look()
        else:
            self._read()

    def stop(self) -> None:
        """Start nothing any more, and end what runs: within child.GRACE_S and a second. Idempotent."""
        self._stopping = True
        running = self._running
        if running is None:
            return
        self._end(running)
        until = time.monotonic() + GRACE_S + 1
        while running.process.poll() is None and time.monotonic() < until:
            gevent.sleep(0.05)
        if running.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
        self._running = None
        try:
            self._say_ended(running, "cut_off", None)
        except TickhubError as error:
            log.debug("the end of %s was not written: %s", running.job.name, error)

    def _look(self) -> None:
        """Read the table, and start what is due if this process is elected."""
        now = self._read()
        term = self._election.term
        if term is None or not self._jobs:
            return
        known = {row.name: row for row in self.rows}
        jobs = [job for job in self._jobs if job.name != MERGE.name or self._is_to_merge(known.get(job.name))]
        new = [(job.name, last_moment(job, now)) for job in jobs if job.name not in known]
        if new or any(row.state == "running" for row in self.rows):
            self._write(lambda cur: take_over(cur, term, new))
            self._read()
        failed = self._failed_in_a_row
        runs = {
            row.name: LastRun(_state(row.state), row.due_at, row.ended_at, failed.get(row.name, 0)) for row in self.rows
        }
        found = next_due(jobs, runs, now)
        if found is not None and not self._stopping:
            self._start(term, *found)

    def _is_to_merge(self, last: JobRow | None) -> bool:
        # What did not end well is run until it does, though somebody else has merged all meanwhile: else it were seen
        # as failed for ever.
        return (last is not None and last.state in ("failed", "cut_off")) or bool(self._write(late_ticks_wait))

    def _read(self) -> datetime:
        found: list[datetime] = []

        def read(cur: Cursor) -> None:
            now, rows = read_jobs(cur)
            found.append(now)
            self.rows = tuple(rows)

        self._write(read)
        return found[0]

    def _start(self, term: Term, job: Job, due_at: datetime) -> None:
        if not self._write(lambda cur: begin(cur, term, job.name, due_at)):
            return
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = self._dir / f"{job.name}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.jobs.child", str(os.getpid()), *_COMMAND, *job.arguments],
                cwd=ROOT,
                env={**os.environ, **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running = _Running(job, term, process, output, time.monotonic())
        log.info("[JOB] %s begins (process %d)", job.name, process.pid)

    def _watch(self) -> None:
        """Look at the process, and end it when this worker is not elected any more."""
        if self._unsaid is not None:
            self._say_again()
        running = self._running
        if running is None:
            return
        status = running.process.poll()
        if status is not None and status < 0:
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)  # it was killed, and what it kept was not
        if status is None:
            if self._election.term != running.term and not running.is_ending:
                log.warning("[JOB] %s is ended: this process is not elected any more", running.job.name)
                self._end(running)
            elif time.monotonic() - running.began_s > LONGEST_S and not running.is_ending:
                running.is_overdue = True
                self._end(running)
            return
        self._running = None
        state: State = "ok" if status == 0 else "failed"
        if status and not running.is_overdue and (status == CUT_OFF or running.is_ending):
            state = "cut_off"
        self._say_ended(running, state, None if state == "cut_off" else status)

    def _end(self, running: _Running) -> None:
        if not running.is_ending:
            running.is_ending = True
            running.process.terminate()

    def _say_ended(self, running: _Running, state: State, status: int | None) -> None:
        message, name = _tail(running.output), running.job.name
        self._failed_in_a_row[name] = self._failed_in_a_row.get(name, 0) + 1 if state == "failed" else 0
        if running.is_overdue:
            message = "\n".join([*filter(None, [message]), f"ended: it ran for more than {LONGEST_S / 3600:g} hours"])
        level = logging.INFO if state == "ok" else logging.WARNING if state == "cut_off" else logging.ERROR
        last = message.splitlines()[-1] if message else "it printed nothing"
        log.log(level, "[JOB] %s: %s (exit status %s): %s", name, state, status, last)
        term = running.term

        def say(cur: Cursor) -> None:
            end(cur, term, name, state, status, message)

        self._unsaid, self._unsaid_term = say, term
        self._say_again()

    def _say_again(self) -> None:
        """Write how it ended; when the database is away, as soon as it is back, in the same term of office."""
        say = self._unsaid
        if say is None:
            return
        if self._election.term != self._unsaid_term and not self._stopping:
            self._unsaid = None  # it was said that it was cut off, and it will run again
            return
        self._write(say)
        self._unsaid = None
        self._read()


def make_runner(settings: Settings, desk: Desk, run_dir: Path) -> JobRunner:
    """Return the runner of the jobs that the settings ask for; run_dir: where their output goes."""
    return JobRunner(jobs_of(settings), desk.election, desk.write, run_dir, settings.to_environ())


def _tail(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MESSAGE_BYTES))
            text = file.read().decode(errors="replace").replace("\0", "")
    except OSError:
        return None
    # What a progress bar wrote over itself is of no use.
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]
    return "\n".join([line for line in lines if line][-LINES:]) or None


def _state(text: str) -> State:
    known: tuple[State, ...] = ("waiting", "running", "ok", "failed", "cut_off")
    return next(state for state in known if state == text)
