"""What tests of backups do: numbered ticks, commands on a data directory, and moments between batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.process.harness import ROOT, Database, Server
from tests.waiting import WAIT_S, wait_until

BASE_MS = 1_768_327_200_000
"""2026-01-13 18:00 UTC."""


def ticks(first: int, count: int, symbol: str = "TSLA", base_ms: int = BASE_MS) -> list[dict[str, object]]:
    """Distinct ticks, numbered by their bid (from 1)."""
    return [
        {
            "symbol": symbol,
            "timestamp": base_ms + number,
            "bid": number + 1,
            "ask": number + 2,
            "spread": None,
            "volume": 0,
            "flags": 6,
            "seq": 0,
        }
        for number in range(first, first + count)
    ]


def send(server: Server, first: int, count: int) -> None:
    """Send ticks, and wait until they are stored."""
    assert server.post(ticks(first, count))[0] == 200
    server.wait_drained()


def backups_of(server: Server) -> Path:
    given = server.environ.get("TICKHUB_BACKUP_DIR")
    return Path(given) if given else server.home / "backups"


@contextmanager
def receiving(server: Server) -> Iterator[None]:
    """`backup wal` beside a server."""
    wal = backups_of(server) / "wal"
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "backup", "wal"], cwd=ROOT, env=server.environ, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: wal.exists() and any(wal.iterdir()), what="WAL to be received")
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()


def now() -> str:
    """This moment, in its own microsecond."""
    moment = datetime.now(UTC).isoformat(sep=" ")
    time.sleep(0.01)  # what comes next is later, by the clock of the database too
    return moment


def stored(database: Database) -> list[int]:
    """Return the numbers of the ticks that are stored."""
    return [int(bid) - 1 for (bid,) in database.rows("SELECT bid FROM ticks ORDER BY time, seq")]


def everything(database: Database) -> dict[str, list[str]]:
    """Return every row of every table of ours, as text."""
    tables = database.rows(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname IN ('public', 'history', 'secret') AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1"
    )
    return {name: [row for (row,) in database.rows(f"SELECT t::text FROM {name} t ORDER BY 1")] for (name,) in tables}


def caught_up(server: Server) -> None:
    """Wait until the journals' copies hold all that the journals hold."""
    home, kept = server.home, backups_of(server)

    def same() -> bool:
        live = {path.relative_to(home): path.stat().st_size for path in home.glob("journal/[!.]*/*.seg")}
        copies = {path.relative_to(kept): path.stat().st_size for path in kept.glob("journal/*/*.seg")}
        return bool(live) and all(copies.get(path) == size for path, size in live.items())

    wait_until(same, what="the journals to be copied")


def wal_received(server: Server) -> None:
    """Wait until the WAL of all that was committed is received: then whoever receives it may be ended."""
    lsn = server.database.rows("SELECT pg_current_wal_flush_lsn()")[0][0]
    behind = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= %s"
    wait_until(lambda: server.database.rows(behind, lsn)[0][0], what="the WAL to be received")


def follows(server: Server) -> dict[str, Any]:
    """Wait until all that was written before now is followed; return what /stats says."""
    asked = datetime.now(UTC)

    def done() -> dict[str, Any] | None:
        found = server.stats()["backup_following"]
        if found is None or found["state"] != "following" or found["wal_until"] is None:
            return None
        moments = [datetime.fromisoformat(found[name]) for name in ("wal_until", "journals_until")]
        return dict(found) if min(moments) > asked else None

    return dict(wait_until(done, what="the backups to follow"))


def flip_a_bit(path: Path, at: int = 4321) -> None:
    """Damage a file as a bad disk does: its size and time stay."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
