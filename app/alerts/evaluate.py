"""What was committed, looked at by a rule: its new state, and its alerts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from app.alerts.crossing import Line, Watch, is_quiet, look, look_back
from app.alerts.rules import Rule, State, lines
from app.alerts.words import message_of

LATE_US = 60_000_000
"""A tick that is so much older than the newest one was no news to anybody: imported, or sent again after days. Those of
workers that flush at different moments are some seconds apart."""

LEAST_MINUTES = 5
"""Minutes with trades that a mean volume is made of, at least."""

Value = tuple[int, float]
"""When (UTC microseconds) and what."""


class Series:
    """Values in the order in which they were committed, made once for all rules that look at them."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values
        self.in_order = all(one[0] <= other[0] for one, other in pairwise(values))
        self.low = min((value for _, value in values), default=0.0)
        self.high = max((value for _, value in values), default=0.0)


class Alert(Struct):
    """Something to be told. at_us: UTC microseconds."""

    rule_id: int
    symbol: str | None
    at_us: int
    alert_type: str
    message: str
    severity: str
    value: float


def evaluate(rule: Rule, state: State, values: Sequence[Value] | Series) -> list[Alert]:
    """Take values in the order in which they were committed; change the state, return the alerts.

    Values that are older than the newest one change what is known of the time since the last alert, or since the value
    went back: workers flush at different moments.
    """
    series = values if isinstance(values, Series) else Series(values)
    found: list[Alert] = []
    watched = lines(rule)
    if not series.values or _pass_over(state, series, watched):
        return found
    for at_us, value in series.values:
        is_newest = at_us >= state.seen_us
        if not is_newest and state.seen_us - at_us > LATE_US:
            continue
        if is_newest:
            state.seen_us, state.value = at_us, value
        for direction, line in watched.items():
            watch = state.watches.setdefault(direction, Watch())
            since_us = watch.since_us
            if (look if is_newest else look_back)(watch, line, at_us, value):
                found.append(_alert(rule, direction, at_us, value))
            if is_newest or watch.since_us == since_us or state.value is None:
                continue
            if look(watch, line, state.seen_us, state.value):
                found.append(_alert(rule, direction, state.seen_us, state.value))
    return found


def overdue(rule: Rule, state: State, now_us: int) -> list[Alert]:
    """Return alerts of what was beyond within the cool-down and still is, now that it is over, though nothing came.

    now_us: by the database's clock. The values' clock has gone on as long as that one since the newest was looked at.
    """
    if state.value is None or not state.looked_us:
        return []
    at_us = state.seen_us + max(0, now_us - state.looked_us)
    found = []
    for direction, line in lines(rule).items():
        watch = state.watches.get(direction)
        if watch is not None and watch.armed and look(watch, line, at_us, state.value):
            found.append(_alert(rule, direction, at_us, state.value))
    return found


def _pass_over(state: State, series: Series, watched: dict[str, Line]) -> bool:
    """Take all values at once where none of them changes anything, and tell whether that was so.

    A thousand rules of one symbol must not go through its thousands of ticks one by one.
    """
    if not series.in_order or series.values[0][0] < state.seen_us:
        return False
    watches = [(state.watches.get(direction, Watch()), line) for direction, line in watched.items()]
    if not all(is_quiet(watch, line, series.low, series.high) for watch, line in watches):
        return False
    state.seen_us, state.value = series.values[-1]
    return True


def _alert(rule: Rule, direction: str, at_us: int, value: float) -> Alert:
    message = message_of(rule, direction, value)
    return Alert(rule.rule_id, rule.symbol, at_us, rule.alert_type, message, rule.severity, value)


def silence_s(now_us: int, newest_us: int | None, open_since_us: int | None, created_us: int) -> float:
    """Return for how long there was no tick in market hours; 0 while the market is closed."""
    if open_since_us is None:
        return 0.0
    return max(0.0, (now_us - max(newest_us or created_us, open_since_us)) / 1e6)


def volume_ratio(minutes: list[Value]) -> float | None:
    """Return the last minute's volume as a multiple of the mean of those before; None: too little is known."""
    *before, (_, volume) = minutes or [(0, 0.0)]
    volumes = [one for _, one in before if one > 0]
    if len(volumes) < LEAST_MINUTES:
        return None
    return volume / (sum(volumes) / len(volumes))
