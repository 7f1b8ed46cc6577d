"""Data directories with an embedded server for its tests: short paths, small servers, nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from app.storage import embedded
from app.storage.embedded import EmbeddedConfig
from app.storage.embedded_postmaster import postmaster
from tests.quick_disk import quick_disk
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30
PATIENCE_S = 200
"""For a first start, and for what ends it, where there is but a disk: a thousand files are synced to it."""


def config(home: Path, **settings: int) -> EmbeddedConfig:
    return EmbeddedConfig(home, **{"memory_mb": 64, "max_connections": 20, **settings})


@contextmanager
def folder(mode: int = 0o755, *, of_programs: bool = False) -> Iterator[Path]:
    """A directory with a short path; every server below it is killed at the end, by its own id.

    of_programs: some are copied to it and run; a container may refuse that in memory.
    """
    path = Path(tempfile.mkdtemp(prefix="tht-", dir="/tmp" if of_programs else quick_disk()))
    path.chmod(mode)
    try:
        yield path
    finally:
        for found in path.rglob("postmaster.pid"):
            process = postmaster(found.parent)
            if process is not None:
                process.send_signal(signal.SIGINT)
                wait_until(lambda gone=found.parent: postmaster(gone) is None)
        for note in path.rglob("postgres.socket"):
            shutil.rmtree(os.readlink(note), ignore_errors=True)
        shutil.rmtree(path)


def make_template(home: Path) -> Path:
    """Make a data directory whose server has run once and is down."""
    embedded.start(config(home), PATIENCE_S)
    assert embedded.stop(config(home), PATIENCE_S)
    return home


def copy(template: Path, home: Path) -> Path:
    subprocess.run(["cp", "-a", str(template), str(home)], check=True, timeout=WAIT_S)
    return home


def ask(home: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each committed, on the database of this data directory; the rows of the last one."""
    with closing(psycopg2.connect(embedded.url(config(home)))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def server(home: Path) -> psutil.Process:
    process = postmaster(home / "postgres")
    assert process is not None, "no server runs"
    return process


def python(
    code: str, home: Path, before: tuple[str, ...] = (), program: str = sys.executable, **options: Any
) -> subprocess.Popen[str]:
    """Run code in a process of its own; it has `embedded`, `config` (of `home`) and what it imports."""
    prelude = (
        "from pathlib import Path; import sys; from app.storage import embedded;"
        "config = embedded.EmbeddedConfig(Path(sys.argv[1]), memory_mb=64, max_connections=20)\n"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT} | options
    return subprocess.Popen([*before, program, "-B", "-c", prelude + code, str(home)], **options)


def output(process: subprocess.Popen[str]) -> str:
    try:
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out
