"""Keeps the database within reach: asks every second, and has it started or migrated when it is not right.

Greenlet side. The work is done by `python -m app database up` in a process of its own: it starts or adopts the
embedded server and migrates. The first start, a database that died and one that comes late are one path. A lock lets
one worker do it at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gevent
from gevent.event import Event

from app.errors import DatabaseAway
from app.lanes import Lane, LaneTimeout
from app.settings import ROOT

CHECK_INTERVAL_S = 1.0
CHECK_TIMEOUT_S = 5.0
FIRST_LOOK_S = 2.0
"""How long whoever needs the database waits until it was looked at for the first time, and brought up if need be. A
worker takes requests as soon as it runs, and a look takes milliseconds, a start a second; what takes more is called
away as at any other time."""

SOON_S = 0.1
"""When to look again while another worker brings it up."""

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 15.0

log = logging.getLogger("tickhub")


class Keeper:
    """Knows whether the database is usable, and sees to it."""

    def __init__(
        self,
        lane: Lane,
        check: Callable[[], str | None],
        interrupt: Callable[[], None],
        *,
        head: str,
        lock_path: Path,
        environ: Mapping[str, str],
        embedded: bool,
        on_back: Callable[[], None],
    ) -> None:
        self._lane = lane
        self._check = check
        self._interrupt = interrupt
        self._head = head
        self._lock_path = lock_path
        self._environ = dict(environ)
        self._embedded = embedded
        self._on_back = on_back
        self._failures = 0
        self._not_before = 0.0
        self.connected = False
        self.reason = "it has not answered yet"
        self._looked = Event()
        self._stopping = False

    def run(self) -> None:
        """Look after the database for ever; to be spawned as a greenlet."""
        while not self._stopping:
            wait_s = CHECK_INTERVAL_S
            try:
                wait_s = self._look()
            except Exception:
                log.exception("looking after the database failed")
            gevent.sleep(wait_s)

    def trouble(self) -> str | None:
        """Return why the database is known to be unusable, or None; before the first look wait for it, bounded."""
        self._looked.wait(FIRST_LOOK_S)
        return None if self.connected else self.reason

    def stop(self) -> None:
        """Start nothing from now on."""
        self._stopping = True

    def _look(self) -> float:
        """Look, help where that is wanted, and return after how long to look again."""
        if self._wants_help() and time.monotonic() >= self._not_before and not self._stopping:
            try:
                if self._bring_up():
                    self._wants_help()  # at once: requests wait for it
            except BlockingIOError:
                return SOON_S
        self._looked.set()
        return CHECK_INTERVAL_S

    def _wants_help(self) -> bool:
        """Ask the database and note what it says; return whether bringing it up may mend that."""
        reachable, revision = True, None
        try:
            revision = self._lane.call_within(CHECK_TIMEOUT_S, self._interrupt, self._check)
            self.reason = "" if revision == self._head else f"its schema is {revision}, not {self._head}"
        except (DatabaseAway, LaneTimeout) as error:
            reachable, self.reason = False, str(error)
        was, self.connected = self.connected, reachable and revision == self._head
        if self.connected:
            self._failures = 0
            if not was:
                self._on_back()
            return False
        if was:
            log.warning("the database is away: %s", self.reason)
        return self._embedded or reachable

    def _bring_up(self) -> bool:
        """Start and migrate it; return whether that worked. Raises BlockingIOError while another worker is at it."""
        with open(self._lock_path, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its own session: a Ctrl-C for the server must not end it halfway.
            child = subprocess.Popen(
                [sys.executable, "-m", "app", "database", "up"],
                cwd=ROOT,
                env={**os.environ, **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            out, _ = child.communicate()
        lines = [line for line in out.decode(errors="replace").splitlines() if line.strip()]
        for line in lines[-20:]:
            log.info("[DATABASE] %s", line)
        if child.returncode == 0:
            self._not_before = 0.0
            return True
        self._failures += 1
        longest = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        self._not_before = time.monotonic() + random.uniform(longest / 2, longest)  # noqa: S311 - jitter
        log.error("[ERROR] the database cannot be brought up (exit status %d)", child.returncode)
        return False
