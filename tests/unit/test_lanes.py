"""The crossing between greenlets and threads: outcomes, order, time limits, and a loop that never waits."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.monkey import get_original

from app import lanes
from app.errors import TickhubError
from app.lanes import Lane, LaneTimeout
from tests.waiting import others_turn, run_until

native_sleep = get_original("time", "sleep")
WAIT_S = 30


@pytest.fixture
def lane() -> Iterator[Lane]:
    found = Lane("test")
    with gevent.Timeout(WAIT_S):
        yield found
    found.stop()


class Refused(Exception):
    pass


def refuse(word: str) -> None:
    raise Refused(word)


def after_ticks(tick: Callable[[], object]) -> None:
    """Let the loop run round twenty times, then call `tick`."""
    for _ in range(20):
        gevent.sleep(0.001)  # a turn of the loop with its timers
    tick()


def test_a_call_returns_what_the_function_returns_with_all_its_arguments(lane: Lane) -> None:
    assert lane.call(divmod, 17, 5) == (3, 2)
    assert lane.call(int, "ff", base=16) == 255


def test_a_call_raises_what_the_function_raises_and_the_lane_goes_on(lane: Lane) -> None:
    with pytest.raises(Refused, match="no"):
        lane.call(refuse, "no")
    with pytest.raises(SystemExit):
        lane.call(lambda: exec("raise SystemExit(3)"))
    assert lane.call(len, "abc") == 3


def test_all_calls_run_on_one_thread_which_is_not_the_loops(lane: Lane) -> None:
    threads = [lane.call(threading.get_ident) for _ in range(5)]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_calls_run_in_the_order_in_which_they_were_made(lane: Lane) -> None:
    ran: list[int] = []

    def run(number: int) -> int:
        native_sleep(0.002 if number == 0 else 0)
        ran.append(number)
        return number

    callers = [gevent.spawn(lane.call, run, number) for number in range(20)]
    gevent.joinall(callers, raise_error=True)
    assert ran == list(range(20))
    assert [caller.value for caller in callers] == ran


def test_a_call_that_is_late_is_interrupted_and_the_lane_is_free_again(lane: Lane) -> None:
    interrupted = threading.Event()

    def wait() -> str:
        assert interrupted.wait(WAIT_S)
        return "too late to count"

    with pytest.raises(LaneTimeout, match="test"):
        lane.call_within(0.02, interrupted.set, wait)
    assert interrupted.is_set()
    assert lane.call(len, "abcd") == 4


def test_a_call_that_cannot_be_interrupted_is_given_up_and_its_outcome_goes_to_nobody_else(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "INTERRUPT_GRACE_S", 0.02)
    let_go = threading.Event()
    with pytest.raises(LaneTimeout):
        lane.call_within(0.02, None, let_go.wait, WAIT_S)
    with pytest.raises(LaneTimeout):
        lane.call_within(0.02, None, len, "waits behind the one that hangs")
    let_go.set()
    assert lane.call(len, "ab") == 2


def test_a_call_in_time_is_not_interrupted(lane: Lane) -> None:
    interrupts: list[int] = []
    assert lane.call_within(WAIT_S, lambda: interrupts.append(1), len, "abc") == 3
    assert interrupts == []


def test_a_caller_that_is_killed_leaves_the_lane_to_the_others(lane: Lane) -> None:
    let_go = threading.Event()
    caller = gevent.spawn(lane.call, let_go.wait, WAIT_S)
    others_turn()
    caller.kill()
    let_go.set()
    assert lane.call(len, "abc") == 3


def test_a_stopped_lane_finishes_what_waits_and_takes_nothing_more(lane: Lane) -> None:
    waiting = [gevent.spawn(lane.call, len, "x" * n) for n in range(5)]
    others_turn()
    lane.stop()
    lane.stop()
    gevent.joinall(waiting, raise_error=True)
    assert [greenlet.value for greenlet in waiting] == [0, 1, 2, 3, 4]
    with pytest.raises(TickhubError, match="stopped"):
        lane.call(len, "abc")


def test_a_waiting_lane_holds_neither_arguments_nor_outcome(lane: Lane) -> None:
    class Batch:
        pass

    batch = Batch()
    gone = weakref.ref(batch)
    assert lane.call(lambda given: given, batch) is batch
    del batch
    run_until(lambda: gone() is None, "the lane to let the batch go")


def test_the_loop_goes_on_while_a_lane_waits_in_c(lane: Lane) -> None:
    """Only the loop can end what the lane waits for."""
    readable, writable = os.pipe()
    try:
        ticking = gevent.spawn(after_ticks, lambda: os.write(writable, b"!"))
        ready, _, _ = lane.call(get_original("select", "select"), [readable], [], [], WAIT_S)
        ticking.kill()
    finally:
        os.close(readable)
        os.close(writable)
    assert ready, "the loop stood still"


def test_the_loop_goes_on_while_a_lane_computes_in_python(lane: Lane) -> None:
    told: list[bool] = []

    def compute() -> bool:
        until = time.monotonic() + WAIT_S
        while not told and time.monotonic() < until:
            pass
        return bool(told)

    ticking = gevent.spawn(after_ticks, lambda: told.append(True))
    assert lane.call(compute), "the loop stood still"
    ticking.kill()


def test_a_thousand_greenlets_get_each_its_own_answer(lane: Lane) -> None:
    callers = [gevent.spawn(lane.call, lambda n: n * n, number) for number in range(1000)]
    gevent.joinall(callers, raise_error=True)
    assert [caller.value for caller in callers] == [n * n for n in range(1000)]
