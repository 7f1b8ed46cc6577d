"""Exports replayed by real bridges into a server whose parts, and the bridges themselves, are killed."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.bridge_stand_in.loading import SCRIPT
from tests.process.harness import CLEAN, ROOT, Database, Server, wait_until
from tests.process.plain import Export

NEVER_S = 600.0
"""A replay that takes longer is stuck: the largest is some ten seconds of work, each kill some more."""

_ACKNOWLEDGED = """
    SELECT max(CAST(trim(state, '[]') AS INTEGER)) - (SELECT count(*) FROM spool) - (SELECT count(*) FROM waiting)
    FROM cursor
"""

Kill = Callable[[Server, random.Random], None]


class Replay:
    """A bridge that replays an export; killed, it is started again with the same command."""

    def __init__(self, export: Export, server: Server, folder: Path, *flags: str) -> None:
        self.export = export
        self._spool = folder / f"{export.symbol}.db"
        self._log = folder / f"{export.symbol}.log"
        files = ["--replay", str(export.path), "--spool", str(self._spool)]
        where = ["--url", f"http://127.0.0.1:{server.port}", "--symbol", export.symbol]
        # -I -S: with nothing but the standard library. A small spool keeps the reading beside the sending.
        self._command = [sys.executable, "-I", "-S", str(SCRIPT), *files, *where]
        self._command += ["--spool-max-rows", "20000", *flags]
        self._acknowledged = 0
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def log(self) -> str:
        return self._log.read_text()

    def acknowledged(self) -> int:
        """Return how many rows the server has taken, at least."""
        if self.done():
            self._acknowledged = self.export.rows
        try:
            with closing(sqlite3.connect(f"file:{self._spool}?mode=ro", uri=True, timeout=1)) as spool:
                (rows,) = spool.execute(_ACKNOWLEDGED).fetchone()
                self._acknowledged = max(self._acknowledged, rows or 0)
        except sqlite3.OperationalError:
            pass  # a spool being made, or left by a kill to be mended by the next bridge, shows nothing new
        return self._acknowledged

    def done(self) -> bool:
        """Tell whether everything is acknowledged."""
        if self.process.poll() is None:
            return False
        assert self.process.returncode == 0, self.log()
        return True


@contextmanager
def replays(exports: Sequence[Export], server: Server, folder: Path, *flags: str) -> Iterator[list[Replay]]:
    """Begin to replay the exports side by side; no bridge outlives the block."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        begun = []
        for export in exports:
            begun.append(Replay(export, server, folder, *flags))
            stack.callback(begun[-1].kill)
        yield begun


def kill_bridge(begun: Sequence[Replay], rng: random.Random) -> None:
    """Kill one of the bridges that are at work, and start it again."""
    at_work = [replay for replay in begun if not replay.done()]
    if at_work:
        replay = rng.choice(at_work)
        replay.kill()
        assert replay.process.returncode == -signal.SIGKILL
        replay.start()


def replay_through(
    kills: Sequence[Kill | None], begun: Sequence[Replay], server: Server, rng: random.Random
) -> None:
    """Kill once in each equal part of the way, at a random place (None: a bridge); see the replays to their end."""
    rows = sum(replay.export.rows for replay in begun)
    for at, kill in enumerate(kills):
        goal = rows * 0.85 * (at + rng.random()) / len(kills)
        wait_until(lambda goal=goal: sum(r.acknowledged() for r in begun) >= goal, NEVER_S, f"row {goal:.0f}")
        assert not all(replay.done() for replay in begun), "it was over before everything was killed"
        if kill is None:
            kill_bridge(begun, rng)
        else:
            kill(server, rng)
    wait_until(lambda: all(replay.done() for replay in begun), NEVER_S, "the replays to end")
    # Workers of a killed master may have answered until now, while the new one waits for their port.
    wait_until(server.worker_pids, what="workers of the present master")
    server.wait_ready()


def add_instruments(database: Database, exports: Sequence[Export]) -> None:
    for export in exports:
        for name in ("tickhub", CLEAN):
            database.rows(
                "INSERT INTO instruments (symbol, digits) VALUES (%s, %s)",
                export.symbol,
                export.digits,
                name=name,
            )


def import_clean(export: Export, server: Server, clock: str) -> None:
    """Import the export into the clean database with the command."""
    command = ["import", str(export.path), "--symbol", export.symbol, "--timezone", clock, "--add-symbol"]
    command += ["--reject-dir", str(server.home.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "app", *command, "--database-url", server.database.url(CLEAN)],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"{export.rows} rows, {export.rows} stored, 0 duplicates, 0 rejected;" in done.stdout
