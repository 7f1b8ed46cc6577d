"""A real Redis for a test: started, paused, killed, and gone afterwards."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from tests.process.harness import WAIT_S, free_port, wait_until
from tests.waiting import skip_here


def redis_binary() -> str:
    """Return the program, or skip the test; in continuous integration it has to be there."""
    found = shutil.which("redis-server")
    if found is None:
        skip_here("redis-server is not installed (Debian: apt-get install redis-server)")
    return found


class RedisServer:
    """A server on a port of its own, that keeps nothing on disk."""

    def __init__(self, home: Path) -> None:
        self._binary = redis_binary()
        self._home = home
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> RedisServer:
        """Start it and wait until it answers, if only that it wants a password."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._home / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, *fixed, "--dir", str(self._home), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, what="Redis to answer")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._home / "redis.log").read_text()
        try:
            with self.client() as client:
                return bool(client.ping())
        except AuthenticationError:
            return True
        except RedisError:
            return False

    def client(self, password: str | None = None) -> Redis:
        return Redis(port=self.port, password=password, socket_timeout=WAIT_S, retry=Retry(NoBackoff(), 0))

    def pause(self) -> None:
        """Make it a server that takes connections and never answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill9(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(WAIT_S)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
