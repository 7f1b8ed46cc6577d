"""TCP ports for what tests start."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import suppress


def _own_ports() -> Iterator[int]:
    first = 12_000 + 4_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    # Of two runs at a time each begins elsewhere.
    return (first + (os.getpid() * 37 + number) % 4_000 for number in itertools.count())


_PORTS = _own_ports()


def free_port() -> int:
    """Return a port that nobody has, and that no client gets before the server does.

    What the system gives for port 0 it gives to clients, too; these lie below, each process of the tests has its own.
    """
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("ports without end")
