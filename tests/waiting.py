"""Waiting for a condition, as all tests do it; and what a test that lacks something does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NoReturn

import gevent
import pytest

WAIT_S = 60.0
"""Far more than anything here takes: when it is over, it is broken, not slow."""


def wait_until(condition: Callable[[], Any], timeout_s: float = WAIT_S, what: str = "it") -> Any:
    """Poll until the condition holds, and return what it returned."""
    return _poll(condition, timeout_s, what, lambda: time.sleep(0.02))


def run_until(condition: Callable[[], Any], what: str = "it", timeout_s: float = WAIT_S, every_s: float = 0.001) -> Any:
    """Let the greenlets of this process run until the condition holds, and return what it returned."""
    return _poll(condition, timeout_s, what, lambda: gevent.sleep(every_s))


def others_turn() -> None:
    """Let the other greenlets of this process go on once."""
    gevent.sleep(0)


def _poll(condition: Callable[[], Any], timeout_s: float, what: str, rest: Callable[[], None]) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain for {what}"
        rest()
    return found


def skip_here(why: str) -> NoReturn:
    """Skip the test, saying why; in continuous integration it fails: `.ci/run` installs all that tests need."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
