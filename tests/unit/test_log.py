"""The log's own thread: files that are rotated, the last lines of a process, and a log that nobody reads."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.web import log as web_log
from app.web.log import ThreadedHandler, reopen_files
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 10.0

LAST_WORDS = """
import logging, sys
from app.web.log import ThreadedHandler
log = logging.getLogger("last words")
log.addHandler(ThreadedHandler(logging.FileHandler(sys.argv[1])))
for number in range(2000):
    log.error("line %d", number)
sys.exit(1)
"""

EVERYBODYS_LINES = """
import logging, sys, warnings
from types import SimpleNamespace
import gevent
from app.web.log import log_from_a_thread
from app.web.log_lines import JsonLines
error_log = logging.getLogger("gunicorn.error")
error_log.setLevel(logging.INFO)
error_log.propagate = False
error_log.addHandler(logging.StreamHandler())
error_log.handlers[0].setFormatter(JsonLines())
log_from_a_thread(SimpleNamespace(error_log=error_log, access_log=logging.getLogger("gunicorn.access")))

def fails():
    raise ValueError("in a greenlet")

gevent.spawn(fails).join()
gevent.get_hub().loop.run_callback(fails)
gevent.sleep(0)
warnings.warn("of Python")
logging.getLogger("a library").warning("of a library")
logging.getLogger("a library").info("which is nobody's business")
logging.getLogger("tickhub").info("ours")
error_log.handlers[0].flush()
"""


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("test_log")
    made.propagate = False
    yield made
    made.handlers.clear()


def test_a_rotated_log_goes_on_in_a_new_file_and_loses_no_line(
    tmp_path: Path, logger: logging.Logger
) -> None:
    path, rotated = tmp_path / "tickhub.log", tmp_path / "tickhub.log.1"
    handler = ThreadedHandler(logging.FileHandler(path))
    logger.addHandler(handler)
    for _ in range(100):
        logger.error("before")
    wait_until(lambda: path.exists() and len(path.read_text()) >= 700)
    path.rename(rotated)
    logger.error("between")
    reopen_files(SimpleNamespace(error_log=logger, access_log=logging.getLogger("test_log.access")))
    logger.error("after")
    wait_until(lambda: path.exists() and path.read_text() == "after\n")
    assert rotated.read_text() == "before\n" * 100 + "between\n"


def test_a_log_that_cannot_be_reopened_goes_on_where_it_was(tmp_path: Path, logger: logging.Logger) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = ThreadedHandler(logging.FileHandler(folder / "tickhub.log"))
    logger.addHandler(handler)
    folder.rename(tmp_path / "moved")
    handler.reopen()
    logger.error("still here")
    wait_until(lambda: (tmp_path / "moved" / "tickhub.log").read_text() == "still here\n")


def test_the_last_lines_of_a_process_are_written(tmp_path: Path) -> None:
    path = tmp_path / "tickhub.log"
    done = subprocess.run([sys.executable, "-c", LAST_WORDS, path], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 1
    assert path.read_text().splitlines() == [f"line {number}" for number in range(2000)]


def test_what_libraries_say_and_what_ends_a_greenlet_has_the_form_of_all_lines() -> None:
    command = [sys.executable, "-c", EVERYBODYS_LINES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["level"]) for line in found] == [
        ("tickhub", "error"),
        ("tickhub", "error"),
        ("py.warnings", "warning"),
        ("a library", "warning"),
        ("tickhub", "info"),
    ]
    for line in found[:2]:
        assert line["exception"].endswith("ValueError: in a greenlet")
    assert "of Python" in found[2]["message"]


def test_a_log_that_nobody_reads_is_bounded_and_holds_nobody_up(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_log, "MAX_LINES", 100)
    monkeypatch.setattr(web_log, "FLUSH_S", 0.05)
    read_end, write_end = os.pipe()
    stream = os.fdopen(write_end, "w")
    handler = ThreadedHandler(logging.StreamHandler(stream))
    logger.addHandler(handler)
    for _ in range(300):
        logger.error("a line%s", " " * 1000)
    handler.flush()  # comes back though nothing moves
    with os.fdopen(read_end) as reader:
        lines = [reader.readline() for _ in range(100)]
        wait_until(lambda: handler._lines.qsize() < 50)
        logger.error("read again")
        while lines[-1] != "read again\n":
            lines.append(reader.readline())
    dropped = sum(int(line.split()[1]) for line in lines if "were dropped" in line)
    written = sum("a line" in line for line in lines)
    assert (written + dropped, dropped > 0) == (300, True)
    stream.close()
