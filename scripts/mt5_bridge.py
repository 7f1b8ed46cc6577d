#!/usr/bin/env python3
"""Bring ticks from MetaTrader 5 (or an exported file, or a simulated market) to tickhub, losing none.

Copy this one file to the Windows machine where the terminal runs; it needs Python 3.11+ and `MetaTrader5`
(`--replay` and `--simulate` need neither Windows nor that package). docs/bridge.md tells the whole story.

    main thread                                              sender thread
    terminal, file or simulation -> numbered rows -> spool -> POST /tick/batch -> 2xx -> deleted

What it keeps:
1. Rows and the cursor behind them enter the spool in one synced transaction: a death between any two steps
   re-reads or re-sends, never skips. The server knows a tick by (symbol, time, seq) and stores it once.
2. A row leaves the spool when the server took it (2xx), or moves to `refused`, with the reason, when the
   server said never. Everything else is tried again. A full spool stops the reading; terminals keep history.
3. `seq` is the ordinal of a tick among its symbol's ticks of that millisecond; `fold` marks the second pass
   of an hour that the broker's clock ran through twice.
"""

from __future__ import annotations

import argparse
import bisect
import calendar
import contextlib
import gzip
import hashlib
import http.client
import io
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import sys
import threading
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

SET_BACK_MS = 30 * 60_000  # a step back of at least this is the clock being set back; less is a late tick
SECOND_PASS_MS = 24 * 3_600_000  # so long after a clock was set back ticks are marked as read the second time
SET_BACK_MAX_MS = 4 * 3_600_000  # no clock is set back further: more is a wrong clock or an unsorted file
GAP_MS = 3_600_000  # a silence that the terminal must confirm: its history may still be loading
GAP_PATIENCE_S = 5.0
ERROR_PATIENCE_S = (
    60.0  # an answer that came with an error may lack ticks; copy_ticks waits up to 45 s itself
)
ANCHOR_PATIENCE_S = 300.0  # an answer without the tick read last lacks ticks, or the broker rewrote history
READ_ROWS = 20_000
REPLAY_AHEAD_ROWS = 200_000  # a file is its own spool; no need to copy it far ahead of the server
REPLAY_CHUNK = 5_000  # rows a transaction: one sync for that many
POLL_S = 0.1
AWAY_S = 600.0
TIMEOUT_S = 30.0
BACKOFF_FIRST_S = 0.5
BACKOFF_CAP_S = 30.0
SLOW_RETRY_S = 30.0  # what only a person can mend: key, address
RETRY_AFTER_CAP_S = 600.0
NOT_READY_S = 2.0
DISK_RETRY_S = 5.0
RETRY_CODES = frozenset({"not_ready", "buffer_full", "rate_limited", "database_away"})

T = TypeVar("T")


class Trouble(Exception):
    """The bridge cannot go on; the message is for the person at the keyboard."""


class ClockError(Trouble):
    """Time went back in a way that no setting of a clock explains."""


class Voice:
    """One status line on a terminal, plain lines in a log; a standing trouble is repeated once a minute."""

    def __init__(self) -> None:
        self._tty = sys.stdout.isatty()
        self._lock = threading.Lock()
        self._said: dict[str, tuple[str, float]] = {}

    def say(self, text: str, key: str = "") -> None:
        with self._lock:
            before, at = self._said.get(key, ("", 0.0))
            if key and text == before and time.monotonic() - at < 60:
                return
            self._said[key] = (text, time.monotonic())
            line = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}"
            print(f"\r{line:<110}" if self._tty else line, flush=True)

    def over(self, key: str) -> bool:
        """Forget a trouble; True when there was one."""
        with self._lock:
            return self._said.pop(key, None) is not None

    @property
    def status_every_s(self) -> float:
        return 1.0 if self._tty else 10.0

    def status(self, text: str) -> None:
        if not self._tty:
            self.say(text)
            return
        with self._lock:
            print(f"\r{text:<110}", end="", flush=True)


@dataclass
class Cursor:
    """Where the reading of one symbol stands; times are the broker's wall clock, milliseconds as if UTC.

    ms, seen: the last tick's time, and how many ticks of that millisecond were read.
    peak: the newest time since the clock was last set back (-1: no tick yet).
    earlier, earlier_seen: the newest time before that (-1: never set back), and how many ticks it had.
    in_second: how many ticks were read of the second that ms is in.
    before_s, before_seen: the second that had ticks before that one, and how many; -1, 0: none.
    """

    ms: int = 0
    seen: int = 0
    peak: int = -1
    earlier: int = -1
    earlier_seen: int = 0
    in_second: int = 0
    before_s: int = -1
    before_seen: int = 0
    counts: dict[int, int] = field(default_factory=dict, init=False)
    prune_at: int = field(default=200_000, init=False)

    @classmethod
    def load(cls, state: list[int] | None) -> Cursor | None:
        if state is None:
            return None
        cursor = cls(*state)
        cursor.counts[cursor.ms] = cursor.seen
        return cursor

    def state(self) -> list[int]:
        clock = [self.ms, self.seen, self.peak, self.earlier, self.earlier_seen]
        return [*clock, self.in_second, self.before_s, self.before_seen]

    @property
    def from_ms(self) -> int:
        """Where to ask from: so that an answer shows ticks that are known before it shows unknown ones."""
        second = self.ms // 1000
        return 1000 * (min(self.before_s, second) if self.before_seen else second)

    @property
    def second_pass(self) -> bool:
        return self.seen > 0 and self.ms <= self.earlier

    def number(self, ms: int) -> tuple[int, int]:
        """Take the next tick's time and return its (seq, fold). Raises ClockError and changes nothing."""
        if ms > self.peak:
            self.peak = ms
        elif ms <= self.peak - SET_BACK_MS:
            if ms <= self.earlier or ms < self.peak - SET_BACK_MAX_MS:
                raise ClockError(
                    f"time goes back from {wall(self.peak)} to {wall(ms)}, which is no clock set back"
                )
            self.earlier, self.earlier_seen, self.peak = self.peak, self.counts.get(self.peak, 0), ms
            self.in_second = 0
            self.counts.clear()
        seq = self.counts.get(ms, 0)
        self.counts[ms] = seq + 1
        if len(self.counts) > self.prune_at:
            # A late tick can be no older than this, else it would be the clock set back.
            floor = self.peak - SET_BACK_MS
            self.counts = {at: n for at, n in self.counts.items() if at > floor}
            self.prune_at = max(200_000, 2 * len(self.counts))
        if ms // 1000 != self.ms // 1000:
            self.before_s, self.before_seen, self.in_second = self.ms // 1000, self.in_second, 0
        self.in_second += 1
        self.ms, self.seen = ms, seq + 1
        # The second pass may hold later ticks of the repeated hour than the first did; behind the hour the mark
        # changes nothing, and no clock repeats another hour within days.
        return seq, 1 if ms <= self.earlier + SECOND_PASS_MS else 0


def wall(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def row_text(symbol: str, ms: int, numbered: tuple[int, int], **values: float | None) -> str:
    seq, fold = numbered
    tick = {"symbol": symbol, **values, "time_msc": ms, "seq": seq} | ({"fold": 1} if fold else {})
    return json.dumps(tick, separators=(",", ":"))


class Spooled(NamedTuple):
    """A row of the spool: its place in the order of reading, its symbol, its JSON."""

    id: int
    symbol: str
    row: str


class Spool:
    """Rows on disk between reading and acknowledgement, with the cursors of the reading; for two threads.

    spool: to be sent, in this order. waiting: the server was not ready for their symbol, which is asked
    again on its own. refused: with code and message.
    """

    def __init__(self, path: Path, max_rows: int, stop: threading.Event, voice: Voice) -> None:
        self.path, self.max_rows, self._stop, self._voice = path, max_rows, stop, voice
        path.parent.mkdir(parents=True, exist_ok=True)
        # An open transaction on a file beside it: a lock that every system has and no crash leaves behind.
        self._guard = sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None)
        try:
            self._guard.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._guard.close()
            raise Trouble(f"another bridge uses {path} ({error}); give this one its own --spool") from error
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(
            """
            CREATE TABLE IF NOT EXISTS spool (
                id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, row TEXT NOT NULL,
                read_at REAL NOT NULL);
            CREATE TABLE IF NOT EXISTS waiting (
                id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, row TEXT NOT NULL);
            CREATE INDEX IF NOT EXISTS waiting_by_symbol ON waiting (symbol, id);
            CREATE TABLE IF NOT EXISTS refused (
                id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, row TEXT NOT NULL,
                code TEXT NOT NULL, message TEXT NOT NULL, refused_at TEXT NOT NULL);
            CREATE TABLE IF NOT EXISTS cursor (name TEXT PRIMARY KEY, state TEXT NOT NULL);
            """
        )
        count = "SELECT (SELECT count(*) FROM spool), (SELECT count(*) FROM waiting), count(*) FROM refused"
        self.unsent: int
        self.waiting: int
        self.refused: int
        self.unsent, self.waiting, self.refused = self._db.execute(count).fetchone()
        self.acknowledged = 0

    def close(self) -> None:
        with self._lock:
            self._db.close()
        self._guard.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _insist(self, work: Callable[[], T]) -> T:
        """Do the work, again and again while the disk is full; rows in hand are not dropped for that."""
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                self._voice.say(f"the spool {self.path} cannot be written: {error}; trying again", "disk")
                if self._stop.wait(DISK_RETRY_S):
                    raise Trouble(f"stopped while the spool could not be written: {error}") from error

    @property
    def rows(self) -> int:
        return self.unsent + self.waiting

    @property
    def full(self) -> bool:
        return self.rows + self.refused >= self.max_rows

    @property
    def lag_s(self) -> float:
        """Age of the oldest row that is not acknowledged, since it was read."""
        with self._lock:
            oldest = self._db.execute("SELECT read_at FROM spool ORDER BY id LIMIT 1").fetchone()
        return max(0.0, time.time() - float(oldest[0])) if oldest else 0.0

    def cursor(self, name: str) -> list[int] | None:
        with self._lock:
            found = self._db.execute("SELECT state FROM cursor WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    def add(self, rows: list[tuple[str, str]], cursors: dict[str, list[int]]) -> None:
        """Store (symbol, row) pairs and the cursors behind them in one synced transaction."""
        now = time.time()

        def work() -> None:
            with self._transaction() as db:
                db.executemany(
                    "INSERT INTO spool (symbol, row, read_at) VALUES (?, ?, ?)",
                    [(symbol, row, now) for symbol, row in rows],
                )
                states = [(name, json.dumps(state)) for name, state in cursors.items()]
                db.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?)", states)
            with self._lock:
                self.unsent += len(rows)

        self._insist(work)

    def forget(self, name: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM cursor WHERE name = ?", (name,))

    def head(self, limit: int) -> list[Spooled]:
        with self._lock:
            found = self._db.execute("SELECT id, symbol, row FROM spool ORDER BY id LIMIT ?", (limit,))
            return [Spooled(*row) for row in found]

    def head_waiting(self, symbol: str, limit: int) -> list[Spooled]:
        with self._lock:
            query = "SELECT id, symbol, row FROM waiting WHERE symbol = ? ORDER BY id LIMIT ?"
            return [Spooled(*row) for row in self._db.execute(query, (symbol, limit))]

    def waiting_symbols(self) -> list[str]:
        with self._lock:
            return [name for (name,) in self._db.execute("SELECT DISTINCT symbol FROM waiting")]

    def settle(
        self,
        done: list[Spooled],
        refused: list[tuple[Spooled, str, str]],
        wait: list[Spooled],
        from_waiting: bool,
    ) -> None:
        """Write the server's answer down in one transaction; what it was not ready for goes to waiting."""
        source = "waiting" if from_waiting else "spool"
        wait = [] if from_waiting else wait
        gone = [(row.id,) for row in itertools.chain(done, (row for row, _, _ in refused), wait)]
        now = datetime.now(UTC).isoformat(timespec="seconds")

        def work() -> None:
            with self._transaction() as db:
                db.executemany(f"DELETE FROM {source} WHERE id = ?", gone)  # noqa: S608 - one of our two names
                db.executemany("INSERT INTO waiting VALUES (?, ?, ?)", wait)
                db.executemany(
                    "INSERT INTO refused (symbol, row, code, message, refused_at) VALUES (?, ?, ?, ?, ?)",
                    [(row.symbol, row.row, code, message, now) for row, code, message in refused],
                )
            with self._lock:
                if from_waiting:
                    self.waiting -= len(gone)
                else:
                    self.unsent -= len(gone)
                    self.waiting += len(wait)
                self.refused += len(refused)
                self.acknowledged += len(done)

        self._insist(work)

    def resend_refused(self, code: str) -> int:
        """Put refused rows (of one code, or with "" all) back to be sent; return how many."""
        chosen = {"code": code, "now": time.time()}
        with self._transaction() as db:
            db.execute(
                "INSERT INTO spool (symbol, row, read_at) SELECT symbol, row, :now FROM refused "
                "WHERE :code IN ('', code) ORDER BY id",
                chosen,
            )
            moved = db.execute("DELETE FROM refused WHERE :code IN ('', code)", chosen).rowcount
        self.refused -= moved
        self.unsent += moved
        return moved

    def refused_summary(self) -> list[tuple[str, int, str]]:
        with self._lock:
            return self._db.execute(
                "SELECT code, count(*), min(message) FROM refused GROUP BY code ORDER BY code"
            ).fetchall()


class Verdict(NamedTuple):
    """What an answer means for the batch: done (unless named in rejected), split it, or keep it and wait."""

    done: bool = False
    rejected: dict[int, tuple[str, str]] | None = None
    split: bool = False
    wait_s: float | None = None  # None: the usual back-off
    says: str = ""


def judge(status: int, retry_after: str | None, body: bytes, sent: int) -> Verdict:
    """Read the server's answer to `sent` rows. Whatever is not clearly an acknowledgement keeps the rows."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    says = f"{status} {answer.get('code', '')} {answer.get('message', '')}".strip()
    rejected: dict[int, tuple[str, str]] = {}
    listed = answer.get("rejected") or []
    for entry in listed if isinstance(listed, list) else [listed]:
        index = entry.get("index") if isinstance(entry, dict) else None
        if not isinstance(index, int) or not 0 <= index < sent:
            return Verdict(wait_s=SLOW_RETRY_S, says=f"{says}: the list of rejected rows makes no sense")
        rejected[index] = (str(entry.get("code", "unknown")), str(entry.get("message", "")))
    if 200 <= status < 300:
        if answer.get("received") == sent - len(rejected) and answer.get("status") in ("success", "partial"):
            return Verdict(done=True, rejected=rejected)
        return Verdict(wait_s=SLOW_RETRY_S, says=f"{says}: not the answer of a tickhub that took {sent} rows")
    if status == 400 and rejected:
        return Verdict(rejected=rejected, says=says)
    if status == 413:
        return Verdict(split=True, says=says)
    if status in (429, 503):
        return Verdict(wait_s=seconds(retry_after), says=says)
    if status in (401, 403):
        says = f"THE SERVER REFUSES THE API KEY ({says}); nothing is lost, all is kept"
        return Verdict(wait_s=SLOW_RETRY_S, says=says)
    if status < 500 and status != 408:
        return Verdict(wait_s=SLOW_RETRY_S, says=f"{says}: is --url right? nothing is lost, all is kept")
    return Verdict(says=says)


def seconds(retry_after: str | None) -> float | None:
    """Read Retry-After in seconds, never so short as to hammer; None where it is anything else."""
    text = (retry_after or "").strip()
    return min(max(float(text), 0.2), RETRY_AFTER_CAP_S) if text.isascii() and text.isdigit() else None


class Server:
    """The way to tickhub: one kept-alive connection."""

    def __init__(self, url: str, api_key: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Trouble(f"--url {url}: give it as http://host:port")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
        self._path = parts.path.rstrip("/") + "/tick/batch"
        self._headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "User-Agent": "mt5-bridge"}
        if api_key:
            self._headers["X-API-Key"] = api_key

    def post(self, body: bytes) -> tuple[int, str | None, bytes]:
        """Send one batch and return (status, Retry-After, body). Raises OSError or HTTPException."""
        reused = self._connection.sock is not None
        try:
            return self._post(body)
        except (ConnectionError, http.client.BadStatusLine):
            # A server may close an idle connection at any time; that says nothing about the next one.
            if not reused:
                raise
            return self._post(body)

    def _post(self, body: bytes) -> tuple[int, str | None, bytes]:
        try:
            self._connection.request("POST", self._path, body, self._headers)
            response = self._connection.getresponse()
            return response.status, response.getheader("Retry-After"), response.read()
        except BaseException:
            self._connection.close()
            raise


class Sender(threading.Thread):
    """Sends the spool's rows in order, symbol by symbol never out of it, until told to stop."""

    def __init__(self, spool: Spool, server: Server, batch: int, stop: threading.Event, voice: Voice) -> None:
        super().__init__(name="sender", daemon=True)
        self._spool, self._server, self._stop_event, self._voice = spool, server, stop, voice
        self._batch = self._limit = batch
        self._failures = 0
        # Symbols that the server was not ready for: (when to ask again, how often asked)
        self._held = dict.fromkeys(spool.waiting_symbols(), (0.0, 0))
        self.state = "not asked yet"
        self.died: Exception | None = None

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                wait_s = self.step()
                if wait_s:
                    self._stop_event.wait(wait_s)
        except Exception as error:  # noqa: BLE001 - the main thread raises it again
            self.died = error

    def _next(self) -> tuple[list[Spooled], bool]:
        """Return the next rows to send, and whether they come from waiting."""
        for symbol, (due, _) in list(self._held.items()):
            if time.monotonic() < due:
                continue
            if rows := self._spool.head_waiting(symbol, self._limit):
                return rows, True
            del self._held[symbol]
        while rows := self._spool.head(self._limit):
            held = [row for row in rows if row.symbol in self._held]
            if held:  # they may not overtake those of their symbol that wait
                self._spool.settle([], [], held, from_waiting=False)
                rows = [row for row in rows if row.symbol not in self._held]
            if rows:
                break
        return rows, False

    def step(self) -> float:
        """Send one batch and settle it; return how many seconds to wait before the next."""
        rows, from_waiting = self._next()
        if not rows:
            return 0.05
        body = ('{"ticks":[' + ",".join([row.row for row in rows]) + "]}").encode()
        try:
            verdict = judge(*self._server.post(gzip.compress(body, 1)), len(rows))
        except (OSError, http.client.HTTPException) as error:
            verdict = Verdict(says=f"away: {error or type(error).__name__}")
        return self._settle(rows, verdict, from_waiting)

    def _settle(self, rows: list[Spooled], verdict: Verdict, from_waiting: bool) -> float:
        if verdict.split:
            if len(rows) > 1:
                self._limit = len(rows) // 2
            else:
                self._spool.settle([], [(rows[0], "too_large", verdict.says)], [], from_waiting)
                self._limit = self._batch
            return 0.0
        if not verdict.done and not verdict.rejected:
            delay_s = verdict.wait_s
            if delay_s is None:
                # Full jitter: many bridges that lost one server do not come back in step.
                most_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2**self._failures)
                delay_s = random.uniform(0, most_s)  # noqa: S311 - no secret
                self._failures = min(self._failures + 1, 10)
            self.state = verdict.says
            self._voice.say(f"server: {verdict.says}", "server")
            return delay_s
        rejected = verdict.rejected or {}
        wait = [rows[i] for i, (code, _) in rejected.items() if code in RETRY_CODES]
        refused = [(rows[i], *why) for i, why in rejected.items() if why[0] not in RETRY_CODES]
        done = [row for i, row in enumerate(rows) if i not in rejected] if verdict.done else []
        self._spool.settle(done, refused, wait, from_waiting)
        for symbol in {row.symbol for row in wait}:
            tries = self._held.get(symbol, (0.0, 0))[1]
            due = time.monotonic() + min(NOT_READY_S * 2**tries, BACKOFF_CAP_S)
            self._held[symbol] = (due, min(tries + 1, 5))
            self._voice.say(f"{symbol}: the server is not ready for it; its rows wait", f"wait {symbol}")
        for _, code, message in refused:
            self._voice.say(f"refused: {message} ({code}); see --resend-refused", f"refused {code}")
        self._failures, self.state = 0, "ok"
        if self._voice.over("server"):
            self._voice.say("server: ok again")
        return 0.0


class Terminal:
    """Reads a MetaTrader 5 terminal's tick history from a cursor, so that no tick is skipped or taken twice.

    mt5: the MetaTrader5 module. symbols: the broker's name to tickhub's.
    since_ms: where the first reading of a symbol begins (broker's clock); None: at its newest tick.
    """

    def __init__(
        self, mt5: Any, symbols: dict[str, str], spool: Spool, voice: Voice, since_ms: int | None
    ) -> None:
        self._mt5, self._symbols, self._since_ms = mt5, symbols, since_ms
        self._spool, self._voice = spool, voice
        self._cursors = {broker: Cursor.load(spool.cursor(f"mt5:{broker}")) for broker in symbols}
        self._points: dict[str, float] = {}
        self._doubts: dict[tuple[str, str], tuple[object, float]] = {}
        self._given_up: dict[str, str] = {}
        self._read_at = dict.fromkeys(symbols, 0.0)  # not before
        self._overlap_at = dict.fromkeys(symbols, 0.0)
        self._retry_at = 0.0
        self.connected = False

    def connect(self, path: str = "") -> bool:
        """Attach to the terminal and choose the symbols; False (and said) when it is not there."""
        if not (self._mt5.initialize(path) if path else self._mt5.initialize()):
            error = self._mt5.last_error()
            self._voice.say(f"terminal: not there {error}; is MetaTrader 5 running?", "terminal")
            return False
        for broker in self._symbols:
            if not self._mt5.symbol_select(broker, True):
                self._voice.say(f"{broker}: the terminal does not know it {self._mt5.last_error()}", broker)
                continue
            info = self._mt5.symbol_info(broker)
            if info is not None and info.point > 0:
                self._points[broker] = info.point
        self._voice.over("terminal")
        self._voice.say(f"terminal: connected, {len(self._symbols)} symbols")
        self.connected = True
        return True

    def poll(self, path: str = "") -> int:
        """Read what is new of every symbol into the spool; return the number of rows."""
        if not self.connected:
            if time.monotonic() < self._retry_at:
                return 0
            self._retry_at = time.monotonic() + 5
            if not self.connect(path):
                return 0
        rows = 0
        for broker in self._symbols:
            if self._spool.full:
                self._voice.say("the spool is full: the terminal is not read (it keeps its history)", "full")
                break
            if broker in self._given_up:
                self._voice.say(self._given_up[broker], broker)
            elif self._read_at[broker] <= time.monotonic():
                rows += self.read(broker)
        return rows

    def read(self, broker: str) -> int:
        """Read one symbol's next ticks into the spool, at most READ_ROWS of them; return how many."""
        cursor = self._cursors[broker] or self._first(broker)
        if cursor is None:
            return 0
        # After a time away, a clock set back meanwhile shows only in an answer that begins long before the cursor.
        overlap = cursor.seen > 0 and time.time() > self._overlap_at[broker]
        long_before_ms = min(cursor.from_ms, cursor.ms - SET_BACK_MAX_MS)
        rows = self._read_from(broker, cursor, long_before_ms if overlap else cursor.from_ms)
        set_back = not overlap and rows == 0 and self._set_back(broker, cursor)
        if set_back:
            rows = self._read_from(broker, cursor, long_before_ms)
        if set_back or cursor.second_pass:
            self._read_at[broker] = time.monotonic() + 1.0  # such a reading spans hours: not at every poll
        return rows

    def _read_from(self, broker: str, cursor: Cursor, from_ms: int) -> int:
        count = READ_ROWS
        while True:
            ticks = self._mt5.copy_ticks_from(broker, from_ms // 1000, count, self._mt5.COPY_TICKS_ALL)
            error = self._mt5.last_error()
            if ticks is None:
                self._voice.say(f"{broker}: the terminal could not give ticks {error}; asking again", broker)
                self.connected = self._mt5.terminal_info() is not None
                return 0
            times = ticks["time_msc"].tolist()
            whole = len(times) < count or count >= 64 * READ_ROWS
            begin, end = self._news(broker, cursor, times, error, whole)
            self._overlap_at[broker] = time.time() + AWAY_S
            if begin < end:
                return self._take(broker, cursor, ticks[begin : min(end, begin + READ_ROWS)])
            if whole:
                return 0
            count *= 2  # all was read before: a second of very many ticks, or hours behind a clock change

    def _first(self, broker: str) -> Cursor | None:
        start_ms = self._since_ms
        if start_ms is None:
            newest = self._mt5.symbol_info_tick(broker)
            if newest is None or newest.time_msc <= 0:
                self._voice.say(f"{broker}: no tick yet {self._mt5.last_error()}", broker)
                return None
            start_ms = int(newest.time_msc)
        cursor = self._cursors[broker] = Cursor(ms=start_ms)
        self._spool.add([], {f"mt5:{broker}": cursor.state()})
        return cursor

    def _set_back(self, broker: str, cursor: Cursor) -> bool:
        """Tell whether the newest tick is before the cursor: an answer from the cursor on may not show it."""
        newest = self._mt5.symbol_info_tick(broker) if cursor.seen and not cursor.second_pass else None
        if newest is None or not 0 < newest.time_msc <= cursor.ms - SET_BACK_MS:
            return False
        seen, now = wall(cursor.ms), wall(newest.time_msc)
        self._voice.say(f"{broker}: read up to {seen}, its newest tick is of {now}", broker)
        return True

    def _news(
        self, broker: str, cursor: Cursor, times: list[int], error: tuple[int, str], whole: bool
    ) -> tuple[int, int]:
        """Return the bounds of the unread ticks to be trusted: an answer may lack some that come later."""
        if error[0] == self._mt5.RES_S_OK:
            self._doubts.pop((broker, "error"), None)
        elif self._doubtful(broker, "error", None, ERROR_PATIENCE_S):
            self._voice.say(f"{broker}: the answer came with an error {error}; asking again", broker)
            return 0, 0
        begin = self._after_cursor(cursor, times)
        if begin is not None:
            self._doubts.pop((broker, "anchor"), None)
        else:
            if not times or not whole or self._doubtful(broker, "anchor", cursor.ms, ANCHOR_PATIENCE_S):
                return 0, 0
            floor = max(cursor.ms, cursor.earlier)
            begin = next((at for at, ms in enumerate(times) if ms > floor), len(times))
            self._voice.say(f"{broker}: the tick at {wall(cursor.ms)} left the history; going on behind it")
        before = cursor.ms
        for at in range(begin, len(times)):
            if times[at] - before > GAP_MS:
                if at > begin or self._doubtful(broker, "gap", (before, times[at]), GAP_PATIENCE_S):
                    return begin, at
                self._voice.say(f"{broker}: no ticks between {wall(before)} and {wall(times[at])}")
            before = times[at]
        return begin, len(times)

    @staticmethod
    def _after_cursor(cursor: Cursor, times: list[int]) -> int | None:
        """Return the index behind the tick read last; None when that tick is not in the answer."""
        if not cursor.seen:
            return bisect.bisect_left(times, cursor.ms)
        start = behind_nth(times, cursor.earlier, cursor.earlier_seen, 0) if cursor.second_pass else 0
        begin = None if start is None else behind_nth(times, cursor.ms, cursor.seen, start)
        # An answer that lacks its beginning may hold another tick in that one's place: then it holds too few.
        from_ms = cursor.from_ms
        if (
            begin is not None
            and sum(ms >= from_ms for ms in times[start:begin]) < cursor.in_second + cursor.before_seen
        ):
            return None
        return begin

    def _doubtful(self, broker: str, kind: str, doubt: object, patience_s: float) -> bool:
        """True until the same doubt has stood for patience_s."""
        known, since = self._doubts.get((broker, kind), (self, 0.0))
        if known != doubt:
            self._doubts[broker, kind] = (doubt, time.monotonic())
            return True
        return time.monotonic() - since < patience_s

    def _take(self, broker: str, cursor: Cursor, ticks: Any) -> int:
        symbol, point = self._symbols[broker], self._points.get(broker)
        columns = ("time_msc", "bid", "ask", "last", "volume", "volume_real", "flags")
        rows: list[tuple[str, str]] = []
        values = zip(*(ticks[name].tolist() for name in columns), strict=True)
        for ms, bid, ask, last, volume, real, flags in values:
            try:
                numbered = cursor.number(ms)
            except ClockError as error:
                self._given_up[broker] = (
                    f"{broker}: NO LONGER READ: {error}; go on with a new --spool and --since"
                )
                break
            spread = round((ask - bid) / point) if point and bid > 0 and ask > 0 else None
            tick = {"bid": bid, "ask": ask, "last": last, "spread": spread, "flags": flags}
            rows.append((symbol, row_text(symbol, ms, numbered, volume=real if real > 0 else volume, **tick)))
        self._spool.add(rows, {f"mt5:{broker}": cursor.state()})
        self._cursors[broker] = cursor
        self._voice.over(broker)
        return len(rows)


def behind_nth(times: list[int], ms: int, n: int, start: int) -> int | None:
    """Return the index behind the n-th occurrence of ms at or after start, None when there are fewer."""
    at = start - 1
    try:
        for _ in range(n):
            at = times.index(ms, at + 1)
    except ValueError:
        return None
    return at + 1


HEADER = ["<DATE>", "<TIME>", "<BID>", "<ASK>", "<LAST>", "<VOLUME>", "<FLAGS>"]
NUMBER = r"(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)?"
LINE = re.compile(
    r"(\d{4}\.\d\d\.\d\d)\t([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,3}))?"
    rf"\t{NUMBER}\t{NUMBER}\t{NUMBER}\t{NUMBER}\t(0|[1-9]\d*)\r?\n?",
    re.ASCII,
)


class Line(NamedTuple):
    """A line of an export: its number in the file, and the row it means; row None: it cannot be read."""

    number: int
    ms: int
    row: str | None
    text: str


def open_export(path: Path) -> io.TextIOWrapper:
    """Open an export, plain, .gz or .zip, in UTF-8 or UTF-16, told by its bytes and not by its name."""
    raw: Any = path.open("rb")
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        raw = gzip.GzipFile(fileobj=raw)
    elif magic == b"PK\x03\x04":
        archive = zipfile.ZipFile(raw)
        names = [entry for entry in archive.namelist() if not entry.endswith("/")]
        if len(names) != 1:
            raise Trouble(f"{path}: holds {len(names)} files, one is wanted")
        raw = archive.open(names[0])
    stream = io.BufferedReader(raw)
    start = stream.peek(4)[:4]
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    encoding = "utf-16-le" if start == b"<\0D\0" else encoding
    return io.TextIOWrapper(stream, encoding, errors="replace", newline="\n")


def read_export(path: Path, symbol: str, skip: int) -> Iterator[Line]:
    """Yield the rows behind line number `skip`, and every unreadable line. Raises Trouble, with the line.

    Lines before `skip` are read too, for their time only: so seq and fold come out the same as in one go.
    """
    cursor = Cursor()
    begin = '{"symbol":' + json.dumps(symbol) + ',"bid":'
    day, day_ms, number = "", 0, 0
    try:
        with open_export(path) as lines:
            number = 1
            if next(lines, "").strip().split("\t") != HEADER:
                raise Trouble(f"not an export of ticks, which begins with {' '.join(HEADER)}")
            for number, text in enumerate(lines, 2):
                found = LINE.fullmatch(text)
                if found is None:
                    if not text.isspace():
                        yield Line(number, 0, None, text)
                    continue
                date, hour, minute, second, fraction, bid, ask, last, volume, flags = found.groups()
                if date != day:
                    try:
                        day_ms = calendar.timegm(datetime.strptime(date, "%Y.%m.%d").timetuple()) * 1000
                    except ValueError:
                        yield Line(number, 0, None, text)
                        continue
                    day = date
                ms = day_ms + (int(hour) * 3600 + int(minute) * 60 + int(second)) * 1000
                if fraction:
                    ms += int(fraction) if len(fraction) == 3 else int(fraction.ljust(3, "0"))
                seq, fold = cursor.number(ms)
                if number > skip:
                    row = (
                        f'{begin}{bid or "null"},"ask":{ask or "null"},"last":{last or "null"},"spread":null,'
                        f'"volume":{volume or "0"},"flags":{flags},"time_msc":{ms},"seq":{seq}'
                    )
                    yield Line(number, ms, row + (',"fold":1}' if fold else "}"), text)
    except (Trouble, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise Trouble(f"{path}, line {number}: {error}") from error


class Bridge:
    """The main thread's side: reads until there is no more or someone stops it, and shows how it stands."""

    def __init__(self, spool: Spool, sender: Sender, stop: threading.Event, voice: Voice) -> None:
        self.spool, self.sender, self.stop, self.voice = spool, sender, stop, voice
        self._shown = (time.monotonic(), spool.acknowledged)

    def breathe(self, pause_s: float) -> bool:
        """Wait, show the status when due, and tell whether to go on."""
        stopped = self.stop.wait(pause_s)
        if self.sender.died:
            raise self.sender.died
        at, acknowledged = self._shown
        passed = time.monotonic() - at
        if passed >= self.voice.status_every_s:
            spool = self.spool
            self._shown = (time.monotonic(), spool.acknowledged)
            self.voice.status(
                f"{(spool.acknowledged - acknowledged) / passed:,.0f} ticks/s, lag {spool.lag_s:.1f} s, "
                f"spool {spool.rows:,}, refused {spool.refused:,}, server {self.sender.state}"
            )
        return not stopped

    def terminal(self, terminal: Terminal, path: str) -> None:
        while self.breathe(POLL_S):
            while terminal.poll(path) >= READ_ROWS and self.breathe(0):
                pass

    def replay(self, path: Path, symbol: str, speed: float | None) -> None:
        """Send an export and wait until it is acknowledged. speed: times real time; None: flat out."""
        with path.open("rb") as start:
            name = f"file:{path.name}:{symbol}:{hashlib.sha256(start.read(65536)).hexdigest()[:16]}"
        skip = (self.spool.cursor(name) or [0])[0]
        if skip:
            self.voice.say(f"{path.name}: going on behind line {skip}")
        ahead = min(REPLAY_AHEAD_ROWS, self.spool.max_rows)
        rows: list[tuple[str, str]] = []
        number, first_ms, began, bad, trouble = skip, -1, 0.0, 0, None
        rejects_path = self.spool.path.with_name(f"{path.name}.rejects")
        with contextlib.ExitStack() as files:
            rejects: io.TextIOWrapper | None = None
            try:
                for line in read_export(path, symbol, skip):
                    if line.row is None:
                        bad += 1
                        if rejects is None:
                            rejects = files.enter_context(rejects_path.open("w", encoding="utf-8"))
                        rejects.write(f"{line.number}\t{line.text.rstrip()}\n")
                        continue
                    if speed and first_ms < 0:
                        first_ms, began = line.ms, time.monotonic()
                    wait_s = (line.ms - first_ms) / 1000 / speed - (time.monotonic() - began) if speed else 0
                    if len(rows) >= REPLAY_CHUNK or (rows and wait_s > 0):
                        if not self._spool_chunk(rows, {name: [number]}, ahead):
                            return
                        rows = []
                    while wait_s > 0:
                        if not self.breathe(min(wait_s, 0.2)):
                            return
                        wait_s = (line.ms - first_ms) / 1000 / (speed or 1) - (time.monotonic() - began)
                    rows.append((symbol, line.row))
                    number = line.number
            except Trouble as error:
                trouble = error  # what came before it is good, and is sent
        if not self._spool_chunk(rows, {name: [number]}, ahead) or not self.drain():
            return
        if bad:
            self.voice.say(f"{path.name}: {bad} lines cannot be read: they are in {rejects_path}")
        if trouble:
            raise trouble
        self.spool.forget(name)  # the whole file is with the server; asked again, it is sent again

    def _spool_chunk(self, rows: list[tuple[str, str]], cursors: dict[str, list[int]], ahead: int) -> bool:
        while self.breathe(0):
            if self.spool.full:
                self.voice.say("the spool is full: not reading on", "full")
            elif self.spool.rows < ahead:
                self.spool.add(rows, cursors)
                return True
            self.breathe(0.02)
        return False

    def drain(self) -> bool:
        """Wait until nothing is left to send; False when stopped before."""
        while self.spool.rows:
            if not self.breathe(0.02):
                return False
        return True

    def simulate(self, symbols: Iterable[str], rate: float) -> None:
        """Make a market: random walks, several ticks in one millisecond, trades among the quotes."""
        names, rng = list(symbols), random.Random()  # noqa: S311 - a toy market needs no secrets
        cursors = {name: Cursor.load(self.spool.cursor(f"simulate:{name}")) or Cursor() for name in names}
        mids = {name: 10_000 + 1_000 * at for at, name in enumerate(names)}
        lasts = {name: (mids[name] / 100, 1) for name in names}
        owed, before_ms = 0.0, time.time_ns() // 1_000_000
        while self.breathe(0.05):
            now_ms = time.time_ns() // 1_000_000
            owed += rate * max(0, now_ms - before_ms) / 1000
            if self.spool.full or owed < 1 or now_ms <= before_ms:
                before_ms, owed = now_ms, min(owed, rate)
                continue
            rows, name, times = [], names[0], sorted(rng.choices(range(before_ms, now_ms), k=int(owed)))
            for at in range(len(times)):
                if at and rng.random() < 0.3:
                    times[at] = times[at - 1]
                else:
                    name = rng.choice(names)
                mids[name] = max(100, mids[name] + rng.randint(-3, 3))
                half, flags = rng.randint(1, 4), rng.choice((2, 4, 6, 6))
                if rng.random() < 0.2:
                    flags = 24 | rng.choice((32, 64))
                    lasts[name] = ((mids[name] + (half if flags & 32 else -half)) / 100, rng.randint(1, 500))
                tick = {
                    "bid": (mids[name] - half) / 100,
                    "ask": (mids[name] + half) / 100,
                    "spread": 2 * half,
                }
                tick |= {"last": lasts[name][0], "volume": lasts[name][1], "flags": flags}
                numbered = cursors[name].number(times[at])
                rows.append((name, row_text(name, times[at], numbered, **tick)))
            owed -= int(owed)
            before_ms = now_ms
            self.spool.add(rows, {f"simulate:{name}": cursor.state() for name, cursor in cursors.items()})


def parse_symbols(args: argparse.Namespace) -> dict[str, str]:
    """Return broker's name -> tickhub's name, from --symbols, --symbols-file and --symbol-map."""
    names = [name.strip() for name in args.symbols.split(",")]
    if args.symbols_file:
        lines = args.symbols_file.read_text(encoding="utf-8-sig").splitlines()
        names += [line.partition("#")[0].strip() for line in lines]
    symbols = {name: name for name in names if name}
    for pair in args.symbol_map.split(",") if args.symbol_map else []:
        broker, equals, name = (part.strip() for part in pair.partition("="))
        if not equals or not name or broker not in symbols:
            raise Trouble(f"--symbol-map {pair}: give it as broker=name, of a symbol in --symbols")
        symbols[broker] = name
    return symbols


def parse_since(text: str) -> int:
    """Return the milliseconds of a time of the broker's clock: `2026-01-13` or `2026-01-13 17:54`."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is not None:
        raise argparse.ArgumentTypeError(
            "give the broker's clock as the terminal shows it, without an offset"
        )
    return calendar.timegm(when.timetuple()) * 1000


def parse_speed(text: str) -> float | None:
    speed = None if text == "max" else float(text)
    if speed is not None and not 0 < speed < 1e9:
        raise argparse.ArgumentTypeError("a number above 0, or max")
    return speed


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # a key given as --api-key must not be taken for a file's name
        description="Bring MetaTrader 5's ticks to tickhub, losing none.",
        epilog="The API key, where the server wants one, comes from the environment variable TICKHUB_API_KEY "
        "or --api-key-file.",
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:5000", help="where tickhub is (%(default)s)")
    add("--api-key-file", type=Path, help="a file that holds the API key")
    add("--symbols", default="", help="the broker's names, separated by commas")
    add("--symbols-file", type=Path, help="the same, one a line; # begins a remark")
    add("--symbol-map", default="", help="broker=name,...: other names at tickhub, as EURUSD.m=EURUSD")
    add(
        "--since",
        type=parse_since,
        help="where a symbol's first reading begins, broker's clock (default: now)",
    )
    add("--terminal-path", default="", help="terminal64.exe, when there are several")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--replay", type=Path, metavar="FILE", help='send an "Export ticks" file and end')
    mode.add_argument("--simulate", action="store_true", help="make up a market")
    mode.add_argument(
        "--resend-refused",
        nargs="?",
        const="",
        metavar="CODE",
        help="send refused rows again (of one code), and end",
    )
    add("--symbol", help="of --replay (default: the file's name up to the first _)")
    add(
        "--speed",
        type=parse_speed,
        default=None,
        help="of --replay: 1 is real time, N that many times, max (default)",
    )
    add("--rate", type=float, default=100.0, help="of --simulate: ticks a second (%(default)s)")
    add(
        "--spool",
        type=Path,
        help="the file that holds what is not acknowledged (default: tickhub-MODE.db here)",
    )
    add("--spool-max-rows", type=int, default=20_000_000, help="when full, reading stops (%(default)s)")
    add("--batch", type=int, default=5_000, help="rows a request (%(default)s)")
    args = parser.parse_args(argv)
    args.mode = "replay" if args.replay else "simulate" if args.simulate else "terminal"
    if args.mode == "terminal" and args.resend_refused is None and not (args.symbols or args.symbols_file):
        parser.error("name the --symbols to read, or a --symbols-file")
    if args.batch < 1 or args.spool_max_rows < 1 or args.rate <= 0:
        parser.error("--batch, --spool-max-rows and --rate are above 0")
    args.spool = args.spool or Path(f"tickhub-{args.mode}.db")
    return args


def load_mt5() -> Any:
    try:
        import MetaTrader5  # type: ignore[import-not-found]  # exists on Windows only
    except ImportError as error:
        raise Trouble(f"{error}: py -m pip install MetaTrader5 (Windows; --replay needs none)") from error
    return MetaTrader5


def run(args: argparse.Namespace, stop: threading.Event, voice: Voice) -> int:
    """Run one mode to its end; return the exit status."""
    key = os.environ.get("TICKHUB_API_KEY", "")
    if args.api_key_file:
        key = args.api_key_file.read_text(encoding="utf-8-sig")
    server = Server(args.url, key.strip())
    symbols = parse_symbols(args)
    mt5 = load_mt5() if args.mode == "terminal" and args.resend_refused is None else None
    spool = Spool(args.spool, args.spool_max_rows, stop, voice)
    refused_before = spool.refused
    if args.resend_refused is not None:
        voice.say(f"{spool.resend_refused(args.resend_refused)} refused rows are sent again")
        refused_before = spool.refused
    sender = Sender(spool, server, args.batch, stop, voice)
    bridge = Bridge(spool, sender, stop, voice)
    voice.say(
        f"{args.mode} to {args.url}, spool {args.spool} ({spool.rows} rows in it, {spool.refused} refused)"
    )
    sender.start()
    try:
        if args.resend_refused is not None:
            bridge.drain()
        elif mt5 is not None:
            bridge.terminal(Terminal(mt5, symbols, spool, voice, args.since), args.terminal_path)
        elif args.replay:
            bridge.replay(args.replay, args.symbol or args.replay.name.split("_")[0], args.speed)
        else:
            bridge.simulate(symbols or ["AAPL", "TSLA", "NVDA"], args.rate)
    finally:
        stopped = stop.is_set()
        stop.set()
        sender.join(5)
        left = f", {spool.rows} left in {args.spool}, they go with the next start" if spool.rows else ""
        voice.say(f"{spool.acknowledged} rows acknowledged{left}")
        for code, rows, message in spool.refused_summary():
            voice.say(f"{rows} refused as {code}, as {message}; when mended: --resend-refused {code}")
        if mt5 is not None:
            mt5.shutdown()
        if not sender.is_alive():  # else its request ends with the process, and is sent again
            spool.close()
    return 1 if spool.refused > refused_before and not stopped else 0


def main(argv: list[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console that lacks a letter must not end the bridge
        sys.stdout.reconfigure(errors="replace")
    args = parse_args(argv)
    stop, voice = threading.Event(), Voice()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    try:
        return run(args, stop, voice)
    except (Trouble, OSError, sqlite3.DatabaseError) as error:
        print(f"mt5_bridge: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
