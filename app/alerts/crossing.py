"""When a value that comes and goes alerts: once a crossing, however noisy it is. Pure.

    armed --(beyond the threshold, and the cool-down is over: alert)--> not armed
    not armed --(back by the hysteresis)--> armed

A crossing within the cool-down is not forgotten: if the value is still beyond when that is over, it alerts then. So
there is at most one alert a cool-down, and a condition that lasts is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a value may cross.

    sign: 1 upwards, -1 downwards. touches: reaching it is enough. edge: a value that is beyond it when it is first seen
    has crossed nothing; else it alerts at once.
    """

    threshold: float
    sign: int
    hysteresis: float
    cooldown_us: int
    touches: bool
    edge: bool

    def is_beyond(self, value: float) -> bool:
        """Tell whether a value is on the side that alerts."""
        excess = (value - self.threshold) * self.sign
        return excess >= 0 if self.touches else excess > 0

    def is_back(self, value: float) -> bool:
        """Tell whether a value is so far on the other side that the next crossing counts."""
        return not self.is_beyond(value) and (self.threshold - value) * self.sign >= self.hysteresis


class Watch(Struct):
    """What was seen of a line. since_us: when `armed` last changed; fired_us: of the last alert. UTC microseconds."""

    armed: bool | None = None
    since_us: int = 0
    fired_us: int | None = None


def is_quiet(watch: Watch, line: Line, low: float, high: float) -> bool:
    """Tell whether values from low to high, looked at in order of time, would change nothing."""
    if watch.armed is None:
        return False
    farthest, nearest = (high, low) if line.sign > 0 else (low, high)
    return not (line.is_beyond(farthest) if watch.armed else line.is_back(nearest))


def look(watch: Watch, line: Line, at_us: int, value: float) -> bool:
    """Take the newest value; tell whether it alerts."""
    if watch.armed is None:
        watch.armed, watch.since_us = not (line.edge and line.is_beyond(value)), at_us
    if not watch.armed:
        if line.is_back(value):
            watch.armed, watch.since_us = True, at_us
        return False
    return _fire(watch, line, at_us, value)


def look_back(watch: Watch, line: Line, at_us: int, value: float) -> bool:
    """Take a value that is older than the newest one; tell whether it alerts.

    It shows that the line was crossed in between, or that the value had gone back, if it is later than what made the
    watch what it is. Where that changed it, the newest value is to be looked at again.
    """
    if watch.armed is None or at_us <= watch.since_us:
        return False
    if watch.armed:
        return _fire(watch, line, at_us, value)
    if line.is_back(value):
        watch.armed, watch.since_us = True, at_us
    return False


def _fire(watch: Watch, line: Line, at_us: int, value: float) -> bool:
    if not line.is_beyond(value):
        return False
    if watch.fired_us is not None and at_us - watch.fired_us < line.cooldown_us:
        return False
    watch.armed, watch.since_us, watch.fired_us = False, at_us, at_us
    return True
