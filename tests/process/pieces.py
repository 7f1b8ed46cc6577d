"""Asking for Parquet in pieces, and the files that the pieces are of."""

from __future__ import annotations

import fcntl
import io
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.process.harness import Server
from tests.process.reading import DAY_MS, made_ticks, store
from tests.process.wire import get

DAY = "start=2026-01-13&end=2026-01-14&format=parquet"
TSLA = f"/api/ticks/TSLA?{DAY}"
MIB = 1 << 20
AGED_S = 100.0
"""Long enough ago for a file to make room for others."""


def moments(count: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return sorted(DAY_MS + rng.randrange(80_000_000) for _ in range(count))


def url(server: Server, path: str = TSLA) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def whole(server: Server, path: str = TSLA) -> bytes:
    answer = get(server, path)
    assert answer.status == 200
    return answer.data


def files(server: Server, suffix: str = "whole") -> list[Path]:
    return sorted((server.home / "run" / "spool").glob(f"*.{suffix}"))


def age(server: Server) -> None:
    """Make it seem as if nobody had read a file for a while."""
    for path in files(server):
        before = time.time() - AGED_S
        with suppress(FileNotFoundError):
            os.utime(path, (before, before))


def more(server: Server, symbol: str, count: int, seed: int) -> None:
    """Have ticks arrive in the day."""
    store(server, made_ticks(symbol, moments(count, seed), seed))


def table(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def columns_of(found: pa.Table) -> dict[str, list[Any]]:
    times = [f"{at:%Y-%m-%dT%H:%M:%S.%f}Z" for at in found["timestamp"].to_pylist()]
    return {name: found[name].to_pylist() for name in found.column_names} | {"timestamp": times}


def spool_bytes(server: Server) -> int:
    """What all files take at one moment: room is made and used up behind their lock."""
    sizes = {}
    with (server.home / "run" / "spool" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in [*files(server, "part"), *files(server)]:
            with suppress(FileNotFoundError):
                found = path.stat()
                sizes[found.st_ino] = found.st_size  # one that is just renamed counts once
    return sum(sizes.values())


def kept_open(server: Server) -> list[str]:
    """The files that workers hold open, those without a name too; none is seen where there is no /proc."""
    spool, found = str(server.home / "run" / "spool"), []
    for pid in server.worker_pids():
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(descriptor))
    return [target for target in found if target.startswith(spool)]
