"""An archiver for tests: run in this process, or in one that dies at a step; and ticks that are hard to keep."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.archive import compacting
from app.archive.archiver import Archiver
from app.market.identity import derive_seq
from app.storage.connection import Connection
from app.storage.partitions import WEEK_US, week_of, week_start_us
from app.storage.tick_reader import read_ticks
from tests.batches import NAN, NOON_US, Tick

MONDAY_US = week_start_us(int(week_of(np.array([NOON_US]))[0])) - WEEK_US
"""The Monday midnight that begins the week before that of NOON_US."""

DAY_US = 86_400_000_000


def with_archiver(
    url: str,
    root: Path,
    do: Callable[[Archiver], object],
    step: Callable[[str], None] = lambda _: None,
    readers_timeout_s: float = 10,
    copies: Path | None = None,
) -> list[str]:
    """Do something with an archiver; return the lines that it said."""
    own, guard, *fetchers = every = [Connection(lambda: url, 5, 60, name) for name in ("archiver", "guard", "1", "2")]
    lines: list[str] = []
    try:
        timeout_s = readers_timeout_s
        how: dict[str, Any] = {"step": step, "say": lines.append, "readers_timeout_s": timeout_s, "copies": copies}
        do(Archiver(own, guard, fetchers, root, **how))
    finally:
        for connection in every:
            connection.close()
    return lines


def run(url: str, root: Path, hot_days: int = 1) -> list[str]:
    return with_archiver(url, root, lambda archiver: archiver.run(hot_days))


def bring_back(url: str, root: Path) -> list[str]:
    return with_archiver(url, root, lambda archiver: archiver.bring_back(0, 2**62))


def died_at(url: str, root: Path, wanted: str, what: str = "run") -> bool:
    """Run or bring back in a process that dies at a step, as by kill -9; tell whether it came to that step."""
    # Not a fork of this process: DuckDB's threads would be missing in it.
    command = [sys.executable, "-m", "tests.integration.archiving", url, str(root), wanted, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 9), f"the archiver failed by itself: {done.stderr}"
    return done.returncode == 9


def some_ticks() -> list[Tick]:
    """Ticks of two symbols in three weeks: quotes, trades, absent prices, given and derived seq, equal times."""
    rows: list[Tick] = []
    for week in range(3):
        for day in range(0, 7, 3):
            at = MONDAY_US + week * WEEK_US + day * DAY_US
            for i in range(12):
                rows.append(Tick(time_us=at + i // 3 * 400_000, seq=i % 3, bid=10 + i / 8, ask=10.5 + i / 8))
                rows.append(Tick(time_us=at + i * 700_000, seq=5, bid=NAN, ask=NAN, last=9 + i, volume=i, flags=56))
                rows.append(Tick("NVDA", at + i * 1000, seq=0, bid=3.25, ask=NAN, flags=2))
            rows.append(Tick(time_us=at + 33, seq=-(7 + day), bid=-0.0, ask=8.0, spread=1.5, flags=1026))
    return rows


def without_seq(times_us: list[int], symbol: str = "TSLA") -> list[Tick]:
    """Return ticks as they come without seq: each equal to the others of its time, with derived numbers."""
    same = np.full(len(times_us), 2.5)
    flags = np.full(len(times_us), 56, np.int32)
    symbols = np.zeros(len(times_us), np.int32)
    seqs = derive_seq([symbol], symbols, np.array(times_us), same, same, same, same, flags)
    return [
        Tick(symbol, at, int(seq), bid=2.5, ask=2.5, last=2.5, volume=2.5, flags=56)
        for at, seq in zip(times_us, seqs, strict=True)
    ]


def main(url: str, root: str, wanted: str, what: str) -> None:
    if wanted.startswith("compaction"):
        compacting.MOST_FILES = 1

    def do(archiver: Archiver) -> None:
        archiver.run(1) if what == "run" else archiver.bring_back(0, 2**62)

    with_archiver(url, Path(root), do, lambda name: os._exit(9) if name == wanted else None)


if __name__ == "__main__":
    main(*sys.argv[1:])


def read_times(url: str, root: Path | None, start_us: int | None = None) -> list[int]:
    """Return the times of TSLA's ticks from the database and the archive, as a page has them."""
    reader = Connection(lambda: url, 5, 30, "reader", root)
    try:
        with reader.reading(30) as cur:
            page = read_ticks(cur, 1, start_us, None, after=None, descending=False, max_rows=1000)
            return [int(at) for at in page.table.columns[0]]
    finally:
        reader.close()
