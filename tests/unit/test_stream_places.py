"""Places for answers that are made while they are sent: bounded, waited for a while, and never lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import gevent
import pytest

from app.errors import ClientGone, QueryTimeout
from app.stream_places import StreamPlaces
from app.web.client import NoClient
from tests.waiting import others_turn

WAIT_S = 30.0
"""Far more than anything here takes."""


class Someone:
    """A client that leaves when it is told to."""

    left = False

    def gone(self) -> bool:
        return self.left


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with gevent.Timeout(WAIT_S):
        yield


def all_free(places: StreamPlaces, most: int) -> bool:
    """Tell whether so many places can be had, and no more."""
    if not most:
        # One that is free is had at once, without a turn for anybody else.
        with gevent.Timeout(0.05, False), suppress(QueryTimeout), places.taken(NoClient()):
            return False
        return True
    with places.taken(NoClient()):
        return all_free(places, most - 1)


@pytest.mark.parametrize("wait_s", [0, 0.05])
def test_who_finds_no_place_in_time_is_told_to_come_again(wait_s: float) -> None:
    places = StreamPlaces(2, wait_s)
    with places.taken(NoClient()), places.taken(NoClient()):
        with pytest.raises(QueryTimeout, match="2 long answers"), places.taken(NoClient()):
            pass
        assert QueryTimeout.retry_after_s
    assert all_free(places, 2)


def test_a_place_that_becomes_free_goes_to_who_waits() -> None:
    places, done = StreamPlaces(1, WAIT_S), []

    def later() -> None:
        with places.taken(NoClient()):
            done.append("had it")

    with places.taken(NoClient()):
        waiting = gevent.spawn(later)
        gevent.sleep(0.02)  # in which it may get none
        assert done == []
    waiting.get()
    assert done == ["had it"]
    assert all_free(places, 1)


def test_who_left_while_waiting_takes_no_place() -> None:
    places, client = StreamPlaces(1, WAIT_S), Someone()

    def later() -> None:
        with places.taken(client):
            raise AssertionError("nobody is there to read it")

    with places.taken(NoClient()):
        waiting = gevent.spawn(later)
        others_turn()
        client.left = True
    with pytest.raises(ClientGone):
        waiting.get()
    assert all_free(places, 1)


def test_an_answer_that_fails_and_one_that_is_ended_give_their_places_back() -> None:
    places = StreamPlaces(2, 0)
    with pytest.raises(ZeroDivisionError), places.taken(NoClient()):
        raise ZeroDivisionError

    def for_ever() -> None:
        with places.taken(NoClient()):
            gevent.sleep(WAIT_S)  # until it is killed

    ended = gevent.spawn(for_ever)
    others_turn()
    ended.kill()
    assert all_free(places, 2)
