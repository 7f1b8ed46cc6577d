"""Who is elected: one at a time, replaced when it ends or hangs, and powerless once another one took over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import gevent
import psycopg2
import pytest

from app import election
from app.election import MARGIN_S, TERM_S, Election
from app.lanes import Lane
from app.storage.connection import Connection
from app.storage.lease import Term, claim, is_held, release
from tests.waiting import run_until


@contextmanager
def session(url: str) -> Iterator[psycopg2.extensions.cursor]:
    """A connection of one transaction, as a transaction pooler may give for each."""
    with closing(psycopg2.connect(url)) as conn, conn, conn.cursor() as cur:
        yield cur


def claimed(url: str, holder: str, wait_ms: int = 0) -> Term | None:
    """Claim for a minute. wait_ms: for a lock; 0: for ever."""
    with session(url) as cur:
        cur.execute("SELECT set_config('lock_timeout', %s, true)", (str(wait_ms),))
        return claim(cur, "desk", holder, 60)


def held(url: str, term: Term) -> bool:
    with session(url) as cur:
        return is_held(cur, term)


def end_now(url: str) -> None:
    """Let time pass: the term is over."""
    with session(url) as cur:
        cur.execute("UPDATE leases SET held_until = clock_timestamp() - interval '1 ms'")


def test_one_of_two_is_elected_and_stays_so_while_it_renews(database_url: str) -> None:
    first = claimed(database_url, "a")
    assert first == Term("desk", "a", 1)
    assert claimed(database_url, "b") is None
    assert claimed(database_url, "a") == first
    with session(database_url) as cur:
        assert claim(cur, "another", "b", 60) == Term("another", "b", 1)


def test_a_term_that_is_over_is_anybodys_and_its_number_rises(database_url: str) -> None:
    first = claimed(database_url, "a")
    assert first is not None
    end_now(database_url)
    assert held(database_url, first)  # nobody has taken over
    second = claimed(database_url, "b")
    assert second == Term("desk", "b", 2)
    assert claimed(database_url, "a") is None
    assert not held(database_url, first)
    assert held(database_url, second)


def test_its_own_term_that_is_over_is_not_renewed_but_begun_anew(database_url: str) -> None:
    first = claimed(database_url, "a")
    assert first is not None
    end_now(database_url)
    assert claimed(database_url, "a") == Term("desk", "a", 2)
    assert not held(database_url, first)


def test_who_gives_up_is_replaced_at_once_and_only_the_holder_can_give_up(database_url: str) -> None:
    first = claimed(database_url, "a")
    assert first is not None
    with session(database_url) as cur:
        assert not release(cur, Term("desk", "b", 1))
        assert not release(cur, Term("desk", "a", 7))
    assert claimed(database_url, "b") is None
    with session(database_url) as cur:
        assert release(cur, first)
    assert claimed(database_url, "b") == Term("desk", "b", 2)


def test_nobody_takes_over_between_the_check_and_the_commit(database_url: str) -> None:
    first = claimed(database_url, "a")
    assert first is not None
    end_now(database_url)
    with closing(psycopg2.connect(database_url)) as conn, conn.cursor() as cur:
        assert is_held(cur, first)
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            claimed(database_url, "b", wait_ms=100)
        conn.commit()
    assert claimed(database_url, "b") == Term("desk", "b", 2)


class Clock:
    """Seconds that pass when told so."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def elect(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Election]]:
    """Make workers that take part, each with a lane and a connection of its own."""
    monkeypatch.setattr(election, "RENEW_S", 0.02)
    lanes, greenlets = [], []

    def make(holder: str, **options: Any) -> Election:
        lane, connection = Lane(holder), Connection(lambda: database_url, 5, 3, holder)
        lanes.append((lane, connection))
        made = Election("desk", lane, connection, options.pop("away", lambda: None), holder=holder, **options)
        greenlets.append(gevent.spawn(made.run))
        return made

    yield make
    gevent.killall(greenlets)
    for lane, connection in lanes:
        lane.call(connection.close)
        lane.stop()


def test_of_three_workers_one_is_elected_and_the_next_one_when_it_leaves(elect: Callable[..., Election]) -> None:
    workers = [elect(name) for name in "abc"]
    for number in range(1, 4):
        (leader,) = run_until(lambda: [one for one in workers if one.term is not None])
        assert leader.term.number == number
        gevent.sleep(0.1)  # in which no other one may be elected
        assert [one for one in workers if one.term is not None] == [leader]
        leader.stop()
        workers.remove(leader)
        assert leader.term is None


def test_one_that_hangs_stops_believing_before_another_one_can_take_over(
    elect: Callable[..., Election], database_url: str
) -> None:
    clock, reason = Clock(), []
    leader = elect("a", now=clock, away=lambda: reason[0] if reason else None)
    run_until(lambda: leader.term is not None)
    reason.append("it hangs: no claim leaves any more")
    gevent.sleep(0.1)  # what was under way ends
    clock.s += TERM_S - MARGIN_S - 0.001
    assert leader.term is not None
    clock.s += 0.001
    assert leader.term is None
    with session(database_url) as cur:
        cur.execute("SELECT extract(epoch FROM held_until - taken_at) >= %s FROM leases", (TERM_S,))
        assert cur.fetchone() == (True,)
    end_now(database_url)
    other = elect("b")
    run_until(lambda: other.term is not None)
    reason.clear()
    gevent.sleep(0.1)  # in which it asks, and may not be elected
    assert leader.term is None
    assert other.term is not None


def test_while_the_database_is_away_nobody_begins_and_a_term_runs_out(elect: Callable[..., Election]) -> None:
    clock = Clock()
    leader = elect("a", now=clock, away=lambda: "away")
    gevent.sleep(0.1)  # in which nobody may be elected
    assert leader.term is None
