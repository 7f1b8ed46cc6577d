"""How the page at / is served, and `scripts/quotes.py` beside it: on a real server."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.harness import ROOT, Server, wait_until
from tests.process.wire import AWAY, get, running, tick

KEY = "read-0123456789ab"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    keys = {"TICKHUB_API_KEY_READ": KEY}
    with running(data_template, "--database-url", AWAY, environ=keys) as server:
        yield server


def test_browsers_get_the_page_and_programs_the_list(server: Server) -> None:
    page = get(server, "/", Accept=BROWSER)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>tickhub</title>" in page.data
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}, {"Accept": "image/png"}):
        answer = get(server, "/", **accept)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert "Accept" in answer.headers["vary"]
        assert answer.json["endpoints"]


def test_its_files_are_asked_for_again_and_sent_once(server: Server) -> None:
    for name, kind in (("main.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
        first = get(server, f"/viewer/{name}")
        assert (first.status, first.headers["content-type"].split(";")[0]) == (200, kind)
        assert first.headers["x-content-type-options"] == "nosniff"
        assert first.headers["cache-control"] == "no-cache"
        again = get(server, f"/viewer/{name}", If_None_Match=first.headers["etag"])
        assert (again.status, again.data) == (304, b"")
    licence = get(server, "/viewer/vendor/lightweight-charts/LICENSE")
    assert (licence.status, licence.headers["content-type"]) == (200, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "__init__.py",
        "index.html",
        "../web/viewer.py",
        "..%2fweb%2fviewer.py",
        "%2fetc%2fx.css",
        "nope.js",
        "%00.js",
        "vendor",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    answer = get(server, f"/viewer/{path}")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


def quotes_script(server: Server, *symbols: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "quotes.py"), "--url", f"ws://127.0.0.1:{server.port}/ws", *symbols]


@pytest.mark.long
def test_quotes_py_writes_a_line_an_update_where_there_is_no_terminal(data_template: Path) -> None:
    with running(data_template) as server:
        assert server.post([tick(bid=190.1, ask=190.2)])[0] == 200
        script = subprocess.Popen(
            quotes_script(server, "aapl", "nope"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert script.stdout is not None
            assert script.stderr is not None
            assert script.stdout.readline().split()[:3] == ["AAPL", "190.1", "190.2"]
            assert script.stderr.readline() == "Unknown symbol: nope\n"
            assert server.post([tick(bid=190.3, ask=190.4)])[0] == 200
            assert script.stdout.readline().split()[:3] == ["AAPL", "190.3", "190.4"]
        finally:
            script.kill()
            script.communicate()


class Terminal:
    """A script on a terminal of a size, and what it wrote there."""

    def __init__(self, command: list[str], lines: int = 0, columns: int = 0) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {name: text for name, text in os.environ.items() if name not in ("LINES", "COLUMNS")}
        self.script = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.seen = b""

    def shows(self, text: bytes) -> bool:
        with suppress(OSError):  # nothing now, or nobody is at the other end any more
            self.seen += os.read(self._ours, 65536)
        return text in self.seen

    def tables(self) -> list[list[str]]:
        """Return the tables that were drawn, as lines without colours."""
        text = re.sub(r"\x1b\[\d*[mKJ]", "", self.seen.decode())
        return [drawn.replace("\r", "").splitlines() for drawn in text.split("\x1b[H")[1:]]

    def close(self) -> None:
        self.script.kill()
        self.script.wait()
        os.close(self._ours)


@pytest.mark.long
def test_quotes_py_draws_a_table_on_a_terminal(data_template: Path) -> None:
    with running(data_template) as server:
        assert server.post([tick(bid=190.1, ask=190.2)])[0] == 200
        terminal = Terminal(quotes_script(server))  # which does not tell its size
        narrow = Terminal(quotes_script(server, "AAPL", "nope"), lines=24, columns=45)
        try:
            wait_until(lambda: terminal.shows(b"190.1"), what="the snapshot")
            wait_until(lambda: narrow.shows(b"Unknown symbol: nope  ws:"), what="the refusal below the table")
            assert server.post([tick(bid=190.3, ask=190.4)])[0] == 200
            wait_until(lambda: terminal.shows(b"\x1b[32m         190.3"), what="a rise, in green")
            wait_until(lambda: narrow.shows(b"190.3"), what="the rise on the narrow one")
            drawn = [lines for lines in narrow.tables() if len(lines) == 3][-1]
            assert all(len(line) <= 45 for line in drawn)
            assert drawn[0].split() == ["symbol", "bid", "ask"]
            assert drawn[1].split() == ["AAPL", "190.3", "190.4"]
            terminal.script.send_signal(signal.SIGINT)
            assert terminal.script.wait(30) == 0
            terminal.shows(b"")
            assert b"Traceback" not in terminal.seen
            assert terminal.tables()[-1][-1].startswith("ws://")
        finally:
            terminal.close()
            narrow.close()


@pytest.mark.long
def test_quotes_py_survives_a_restart_and_ends_with_who_reads_it(data_template: Path) -> None:
    with running(data_template) as server:
        assert server.post([tick(bid=190.1, ask=190.2)])[0] == 200
        script = subprocess.Popen(
            quotes_script(server),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert script.stdout is not None
            assert script.stdout.readline().split()[1] == "190.1"
            assert server.stop() == 0
            server.start().wait_ready()
            assert server.post([tick(bid=190.3, ask=190.4)])[0] == 200
            while script.stdout.readline().split()[1] != "190.3":
                pass  # the snapshot, if it was quicker
            script.stdout.close()

            def ended() -> bool:
                server.post([tick(bid=190.3 + next(cents) / 100, ask=200.0)])
                return script.poll() is not None

            cents = itertools.count(1)
            wait_until(ended, what="the script to end")
            assert script.returncode == 0
        finally:
            script.kill()
            script.wait()


def test_quotes_py_says_what_is_wrong_with_an_address(server: Server) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "quotes.py"), "--url", f"http://127.0.0.1:{server.port}/ws"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "ws" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("key", "why"),
    [({}, "an API key is needed"), ({"TICKHUB_API_KEY": "wrong-0123456789a"}, "this API key is not known")],
)
def test_quotes_py_ends_where_its_key_does_not_do(server: Server, key: dict[str, str], why: str) -> None:
    environ = {name: text for name, text in os.environ.items() if name != "TICKHUB_API_KEY"} | key
    ended = subprocess.run(quotes_script(server), capture_output=True, text=True, timeout=60, env=environ)
    assert ended.returncode == 1
    assert why in ended.stderr
    assert "TICKHUB_API_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr
