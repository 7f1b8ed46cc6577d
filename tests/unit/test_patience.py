"""Waits that last too long are ended, and nothing else is."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent.event import Event

from app.errors import BadJson
from app.web.patience import Patience
from tests.waiting import others_turn


def waiting(patience: Patience, gate: Event, then: Event) -> str:
    with patience.wait():
        gate.wait()
    then.wait()
    return "it came"


@pytest.fixture
def patience() -> Patience:
    return Patience(20.0)


def test_what_waits_too_long_is_ended_where_it_waits(patience: Patience) -> None:
    gates = Event(), Event()
    greenlet = gevent.spawn(waiting, patience, *gates)
    others_turn()
    patience.look(time.monotonic() + 19)
    gevent.sleep(0.01)  # in which it may not be ended
    assert not greenlet.ready()
    patience.look(time.monotonic() + 21)
    greenlet.join(5)
    assert isinstance(greenlet.exception, BadJson)
    assert "within 20 s" in str(greenlet.exception)
    assert not patience._since


def test_what_has_come_at_the_last_moment_is_let_go_on(patience: Patience) -> None:
    gate, then = Event(), Event()
    greenlet = gevent.spawn(waiting, patience, gate, then)
    others_turn()
    gate.set()
    patience.look(time.monotonic() + 21)  # both are due in the hub now, and the greenlet is the first
    gevent.sleep(0.01)  # in which it may not be ended
    then.set()
    assert greenlet.get(timeout=5) == "it came"
