"""The crossing between greenlets and native threads: the only place where they meet.

A lane is one native thread that owns one resource (a journal, a connection). Functions run on it one after
another; the calling greenlet sleeps meanwhile and the event loop goes on. What runs on a lane is pure: it takes
arguments, returns an outcome, and touches no lock, logger, counter or event made after monkey-patching, since a
patched lock that a native thread holds can hang the loop for ever.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.monkey import get_original

from app.errors import TickhubError

P = ParamSpec("P")
T = TypeVar("T")

INTERRUPT_GRACE_S = 2.0
"""How long a call may go on after it was interrupted. A socket that was shut down wakes its reader within
milliseconds; more than this means the thread is stuck in the kernel, and waiting longer would not help."""

_start_thread = get_original("_thread", "start_new_thread")


class LaneTimeout(TickhubError):
    """The call did not end in time; it was interrupted."""


class Lane:
    """Run functions on one native thread, in the order of the calls.

    Made and called on the greenlet side only, after the process has forked.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], AsyncResult] | None] = SimpleQueue()
        self._outcomes: deque[tuple[AsyncResult, Any, BaseException | None]] = deque()
        self._wake = gevent.get_hub().loop.async_()
        self._wake.start(self._deliver)
        self._stopped = False
        _start_thread(self._run, ())

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            fn, args, result = call
            try:
                self._outcomes.append((result, fn(*args), None))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
                self._outcomes.append((result, None, error))
            self._wake.send()
            del call, fn, args, result  # a waiting lane must not keep a batch in memory

    def _deliver(self) -> None:
        while self._outcomes:
            result, value, error = self._outcomes.popleft()
            if error is None:
                result.set(value)
            else:
                result.set_exception(error)

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` on the lane and return what it returns, or raise what it raises."""
        return self.call_within(None, None, fn, *args, **kwargs)

    def call_within(
        self,
        timeout_s: float | None,
        interrupt: Callable[[], None] | None,
        fn: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `fn` on the lane, at most `timeout_s`; then `interrupt()` (greenlet side) must make it return.

        Raises LaneTimeout when time ran out, whatever the interrupted call did.
        """
        result = self.submit(fn, *args, **kwargs)
        result.wait(timeout_s)
        if not result.ready():
            if interrupt is not None:
                interrupt()
            result.wait(INTERRUPT_GRACE_S)
            raise LaneTimeout(f"{self.name}: no answer within {timeout_s} s")
        value: T = result.get(block=False)
        return value

    def submit(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Have `fn` run when its turn comes, and return at once with where its outcome will be."""
        if self._stopped:
            raise TickhubError(f"lane {self.name} is stopped")
        result = AsyncResult()
        self._calls.put(((lambda *a: fn(*a, **kwargs)) if kwargs else fn, args, result))
        return result

    def stop(self) -> None:
        """Let the thread end after the calls that wait; idempotent, does not wait."""
        if not self._stopped:
            self._stopped = True
            self._calls.put(None)
