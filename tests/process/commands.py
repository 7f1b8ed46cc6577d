"""`python -m app COMMAND` on the data directory of a server."""

from __future__ import annotations

import subprocess
import sys

from tests.process.harness import ROOT, Server
from tests.waiting import WAIT_S


def command(server: Server, *args: str) -> subprocess.Popen[str]:
    """Begin a command on the server's data directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "app", *args],
        cwd=ROOT,
        env=server.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def app(server: Server, *args: str, expect: int = 0) -> str:
    """Run a command on the server's data directory; return what it printed."""
    process = command(server, *args)
    try:
        said, _ = process.communicate(timeout=2 * WAIT_S)
    finally:
        process.kill()
    assert process.returncode == expect, said
    return said
