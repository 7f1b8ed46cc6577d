"""Follow a server: its WAL and its journals come to the backups while it runs. Blocking, with a thread for the WAL.

Journals are copied every second whatever the database does: what it does not answer for is what they are needed for.
What is known of it all is in <backup_dir>/wal/following.json, written every second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from psycopg2.extensions import connection as Connection

from app.backup import journals, lineage, wal
from app.backup.catalog import Catalog
from app.backup.tools import BackupError, Tools
from app.backup.wal import WalReceiver

INTERVAL_S = 1.0
BEGINNING_S = 5.0
"""So long a receiver that was just started may take to be connected."""
RESTART_FIRST_S, RESTART_MOST_S = 1.0, 60.0
FIRST_ANSWER_S = 10.0
"""How long it waits for the database to say who it is: journals of another one must not come to these backups."""

CATCH_UP_S = 2.0
"""How long it waits at its end for the WAL of before."""

GAP = timedelta(seconds=10)
"""So long without a look at the journals: rows may have come and gone."""

MOST_GAPS = 100
STALE = timedelta(seconds=30)
"""A state that is older than this was left by a process that is gone, or hangs."""

TROUBLE = "TROUBLE: "
"""What a line begins with that somebody should see (jobs/standing.py)."""

FILE, LOCK = "wal/following.json", "following.lock"


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """What is known; times are UTC. The WAL from `since` to `wal_until` is here, and journals until `journals_until`.

    gaps: times in which journals were not looked at: rows that were acknowledged in one and committed after it are only
    in the WAL. wal_reached: timeline, and place in the WAL (bytes) up to which it was received. system: identifier of
    the database. trouble: None when all is well.
    """

    since: datetime | None = None
    wal_until: datetime | None = None
    journals_until: datetime | None = None
    gaps: tuple[tuple[datetime, datetime], ...] = ()
    wal_reached: tuple[int, int] | None = None
    system: str | None = None
    behind_bytes: int = 0
    trouble: str | None = None
    written_at: datetime | None = None

    def state(self, now: datetime) -> Literal["following", "trouble", "stopped"]:
        """Return `following`, `trouble` or `stopped`."""
        if self.written_at is None or now - self.written_at > STALE:
            return "stopped"
        return "following" if self.trouble is None else "trouble"

    def gaps_in(self, begin: datetime, end: datetime | None) -> list[tuple[datetime, datetime]]:
        """Return the gaps that reach into a time. end: None: now."""
        gaps = [*self.gaps]
        if (
            self.journals_until is not None
            and self.wal_until is not None
            and self.wal_until - self.journals_until > GAP
        ):
            gaps.append((self.journals_until, self.wal_until))
        return [gap for gap in gaps if gap[1] > begin and (end is None or gap[0] < end)]


def following(root: Path) -> Following | None:
    """Return what a directory of backups says of it, None when nothing is said."""
    try:
        return msgspec.json.decode((root / FILE).read_bytes(), type=Following)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None


class FollowedAlready(BackupError):
    """Another process follows into these backups."""


def alone(catalog: Catalog, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Be the only one who follows into these backups. Raises FollowedAlready while another one does."""
    return catalog.locked(LOCK, wait_s, FollowedAlready(f"another `backup wal` is at work in {catalog.root}"))


class Follower:
    """Follows one server, from `run` to `stop`."""

    def __init__(self, catalog: Catalog, tools: Tools, data_dir: Path, say: Callable[[str], None]) -> None:
        """Take what to follow and where to. say: called with a line of what changed, by two threads."""
        self._catalog, self._tools, self._data_dir, self._say = catalog, tools, data_dir, say
        self._ended = threading.Event()
        self._wal_ended = threading.Event()
        self._receiver = WalReceiver(tools, catalog.wal)
        known = following(catalog.root) or Following()
        self._since, self._system, self._gaps = known.since, known.system, known.gaps
        self._wal_until, self._journals_until = known.wal_until, known.journals_until
        self._wal_reached = known.wal_reached
        self._behind_bytes = 0
        self._wal_trouble: str | None = None
        self._receives = False
        self._journal_trouble: str | None = None
        self._write_trouble: str | None = None
        self._writing = threading.Lock()
        self._asked, self._foreign = threading.Event(), False

    def stop(self) -> None:
        """Have `run` come to its end; may be called by a signal."""
        self._ended.set()

    def run(self, still: Callable[[], bool] = lambda: True) -> None:
        """Follow until `stop`, or until `still` says no. The caller is alone."""
        receiving = threading.Thread(target=self._receive, name="wal", daemon=True)
        receiving.start()
        # Not for ever: where the database is away, its journals are all the more wanted.
        until_s = time.monotonic() + FIRST_ANSWER_S
        while not (self._asked.wait(INTERVAL_S / 10) or self._ended.is_set()) and time.monotonic() < until_s:
            pass
        try:
            while still():
                self._look()
                if self._ended.wait(INTERVAL_S):
                    break
            # Once more: what was acknowledged until now is followed, as far as it can be had soon.
            end = datetime.now(UTC)
            until = time.monotonic() + CATCH_UP_S
            while time.monotonic() < until and self._wal_trouble is None and (self._wal_until or end) < end:
                time.sleep(INTERVAL_S / 10)
            self._look()
        finally:
            self._wal_ended.set()
            receiving.join(CATCH_UP_S)
            self._receiver.stop()

    def _look(self) -> None:
        """Copy what is new of the journals, and write down how it all stands."""
        until = datetime.now(UTC)
        try:
            if self._foreign:
                raise OSError("they are of another database")
            journals.copy_new(self._data_dir / "journal", self._catalog.journal)
        except OSError as why:
            self._journal_trouble = self._tell(self._journal_trouble, f"journals are not copied: {why}")
        else:
            if self._journal_trouble is not None:
                self._say("journals are copied again")
            if self._journals_until is not None and until - self._journals_until > GAP:
                self._gaps = (*self._gaps, (self._journals_until, until))[-MOST_GAPS:]
            self._journal_trouble, self._journals_until = None, until
        if self._wal_trouble is None and self._wal_until is not None and until - self._wal_until > STALE:
            self._wal_trouble = self._tell(None, f"no WAL was received since {self._wal_until:%H:%M:%S}Z")
        try:
            self._write()
            if self._write_trouble is not None:
                self._say(f"{self._catalog.root} is written again")
            self._write_trouble = None
        except OSError as why:
            # Of its own: told in turns with the journals' trouble, each would be news every second.
            self._write_trouble = self._tell(self._write_trouble, f"{self._catalog.root} cannot be written: {why}")

    def _write(self) -> None:
        troubles = [one for one in (self._wal_trouble, self._journal_trouble) if one is not None]
        known = Following(
            since=self._since,
            wal_until=self._wal_until,
            journals_until=self._journals_until,
            gaps=self._gaps,
            wal_reached=self._wal_reached,
            system=self._system,
            behind_bytes=self._behind_bytes,
            trouble="; ".join(troubles) or None,
            written_at=datetime.now(UTC),
        )
        self._catalog.wal.mkdir(mode=0o700, exist_ok=True)
        fresh = self._catalog.root / f"{FILE}.new"
        with self._writing, fresh.open("wb") as file:
            file.write(msgspec.json.encode(known))
            file.flush()
            os.fsync(file.fileno())
            fresh.replace(self._catalog.root / FILE)

    def _receive(self) -> None:
        """Keep pg_receivewal running, and know up to when all WAL is here."""
        pause_s = RESTART_FIRST_S
        while not self._wal_ended.is_set():
            try:
                self._begin()
                began_s = time.monotonic()
                self._confirm()
                pause_s = RESTART_FIRST_S if time.monotonic() - began_s > RESTART_MOST_S else pause_s
                if self._wal_ended.is_set():
                    break
                raise BackupError(f"pg_receivewal ended with status {self._receiver.ended}")
            except (BackupError, OSError) as why:
                self._wal_trouble = self._tell(self._wal_trouble, f"no WAL is received: {why}")
            self._receiver.stop()
            self._wal_ended.wait(pause_s)
            pause_s = min(2 * pause_s, RESTART_MOST_S)

    def _begin(self) -> None:
        try:
            system = wal.system_of(self._tools)
            self._foreign = self._system not in (None, system)
        finally:
            self._asked.set()
        if self._foreign:
            raise BackupError(f"the backups in {self._catalog.root} are of another database: set another backup_dir")
        self._system = system
        lineage.adopt(self._data_dir, self._catalog.root)
        if self._receiver.must_begin_anew() or self._since is None:
            # Written down before it is so: killed in between, nothing is claimed that is not here.
            self._since = datetime.now(UTC)
            self._write()
            self._say("WAL from before now is not kept: take a full backup")
        self._receiver.start()

    def _confirm(self) -> None:
        """Look how far it is, until it ends or is told to."""
        began_s = time.monotonic()
        while self._receiver.ended is None and not self._wal_ended.is_set():
            try:
                with self._tools.connection() as conn:
                    self._ask(conn)
            except BackupError as why:
                if time.monotonic() - began_s > BEGINNING_S:
                    self._wal_trouble = self._tell(self._wal_trouble, f"the database does not say how far it is: {why}")
            self._wal_ended.wait(INTERVAL_S)

    def _ask(self, conn: Connection) -> None:
        asked: tuple[datetime, int] | None = None
        while self._receiver.ended is None and not self._wal_ended.is_set():
            now = datetime.now(UTC)
            if (state := wal.slot_state(conn)) is not None:
                written, got, timeline = state
                self._wal_reached = (timeline, got)
                asked = asked or (now, written)
                self._behind_bytes = max(0, written - got)
                if got >= asked[1]:
                    self._wal_until, asked = asked[0], None
                    if not self._receives or self._wal_trouble is not None:
                        self._say(f"WAL is received into {self._catalog.wal}")
                    self._receives, self._wal_trouble = True, None
            self._wal_ended.wait(INTERVAL_S / 2)

    def _tell(self, before: str | None, now: str) -> str:
        if before != now:
            self._say(f"{TROUBLE}{now}")
        return now
