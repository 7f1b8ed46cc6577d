"""When a worker knows whether its database is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from app import keeper as keepers
from app.errors import DatabaseAway
from app.keeper import Keeper
from app.lanes import Lane
from tests.waiting import WAIT_S, run_until

MakeKeeper = Callable[[Callable[[], str | None]], Keeper]


@pytest.fixture
def make_keeper(tmp_path: Path) -> Iterator[MakeKeeper]:
    lane = Lane("reference")

    def make(check: Callable[[], str | None]) -> Keeper:
        return Keeper(
            lane, check, lambda: None, head="0007", lock_path=tmp_path / "lock", environ={}, embedded=True,
            on_back=lambda: None,
        )  # fmt: skip

    with gevent.Timeout(WAIT_S):
        yield make
    lane.stop()


def test_whoever_comes_before_the_first_look_waits_for_it(make_keeper: MakeKeeper) -> None:
    answer = threading.Event()
    keeper = make_keeper(lambda: answer.wait(WAIT_S) and "0007")
    early = gevent.spawn(keeper.trouble)
    looking = gevent.spawn(keeper.run)
    gevent.sleep(0.01)  # in which it may not know
    assert not early.ready()
    answer.set()
    assert early.get() is None
    looking.kill()


def test_nobody_waits_long_for_a_database_that_hangs(make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "FIRST_LOOK_S", 0.01)
    let_go = threading.Event()
    keeper = make_keeper(lambda: let_go.wait(WAIT_S) and "0007")
    looking = gevent.spawn(keeper.run)
    assert keeper.trouble() == "it has not answered yet"
    let_go.set()
    run_until(lambda: keeper.trouble() is None)
    looking.kill()


def test_what_was_brought_up_is_asked_again_at_once(make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "CHECK_INTERVAL_S", 10 * WAIT_S)
    is_up = False

    def check() -> str:
        if not is_up:
            raise DatabaseAway("nobody there")
        return "0007"

    def bring_up() -> bool:
        nonlocal is_up
        assert keeper.reason == "nobody there"
        is_up = True
        return True

    keeper = make_keeper(check)
    monkeypatch.setattr(keeper, "_bring_up", bring_up)
    looking = gevent.spawn(keeper.run)
    run_until(lambda: is_up and keeper.trouble() is None)
    looking.kill()


def test_whoever_comes_while_another_worker_brings_it_up_waits_for_that(
    make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def check() -> str:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise DatabaseAway("nobody there")
        return "0007"

    def bring_up() -> bool:
        raise BlockingIOError

    keeper = make_keeper(check)
    monkeypatch.setattr(keeper, "_bring_up", bring_up)
    looking = gevent.spawn(keeper.run)
    assert keeper.trouble() is None
    looking.kill()
