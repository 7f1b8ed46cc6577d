"""Long answers make way for the other requests of their worker."""

from __future__ import annotations

import pytest

from app import pacing
from app.pacing import MOST_REST, REST_EACH_S, SHORT_PAGE_ROWS, Pace, first_page_rows
from app.row_stream import PAGE_ROWS


class World:
    """A clock that stands still but for rests, and the requests that others began."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.begun = 7
        self.rests: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now_s += seconds
        self.begun += 1  # who comes during a rest has lost nothing

    def page(self, worked_s: float, others: int, client_s: float = 0.0) -> None:
        self.now_s += worked_s + client_s
        self.begun += others


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(pacing, "time", made)
    monkeypatch.setattr(pacing, "gevent", made)
    return made


def test_alone_it_goes_on_at_once_with_long_pages(world: World) -> None:
    pace = Pace(lambda: world.begun)
    for _ in range(3):
        world.page(0.05, others=0)
        assert pace.rest(0.05) == PAGE_ROWS
    assert world.rests == []


def test_each_request_of_others_earns_a_rest_and_makes_pages_short(world: World) -> None:
    pace = Pace(lambda: world.begun)
    world.page(0.05, others=3)
    assert pace.rest(0.05) == SHORT_PAGE_ROWS
    assert world.rests == [pytest.approx(3 * REST_EACH_S)]
    world.page(0.05, others=0)
    assert pace.rest(0.05) == PAGE_ROWS, "those who came during the rest do not count"
    assert len(world.rests) == 1


def test_however_many_others_there_are_it_goes_on(world: World) -> None:
    pace = Pace(lambda: world.begun)
    world.page(0.05, others=100_000)
    pace.rest(0.05)
    assert world.rests == [pytest.approx(MOST_REST * 0.05)]


def test_a_client_that_reads_slowly_has_given_the_rest_already(world: World) -> None:
    pace = Pace(lambda: world.begun)
    world.page(0.05, others=3, client_s=0.02)
    pace.rest(0.05)
    assert world.rests == [pytest.approx(0.01)]
    world.page(0.05, others=500, client_s=9.0)
    assert pace.rest(0.05) == SHORT_PAGE_ROWS
    assert len(world.rests) == 1


def test_what_is_one_page_comes_as_one() -> None:
    assert [first_page_rows(limit) for limit in (10_001, PAGE_ROWS)] == [PAGE_ROWS, PAGE_ROWS]
    assert [first_page_rows(limit) for limit in (PAGE_ROWS + 1, None)] == [SHORT_PAGE_ROWS, SHORT_PAGE_ROWS]
