"""When a rule alerts: once a crossing, whatever noise there is, and in whatever order flushes come."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.evaluate import LATE_US, Alert, evaluate, silence_s, volume_ratio
from app.alerts.hours import open_since
from app.alerts.rules import NewRule, Rule, State, checked
from app.errors import BadField, MissingField
from app.storage.alert_rules import decode_state, encode_state

S = 1_000_000


def rule(alert_type: str = "price_crosses", threshold: float = 100.0, **fields: Any) -> Rule:
    """A rule with a hysteresis of 0.5 and no cool-down unless told otherwise."""
    if alert_type in ("price_crosses", "spread_above", "no_tick", "volume_spike"):
        fields.setdefault("symbol", "AAPL")
    new = NewRule(alert_type, threshold, **{"hysteresis": 0.5, "cooldown_s": 0, **fields})
    made = {name: getattr(checked(new), name) for name in NewRule.__struct_fields__}
    return Rule(rule_id=1, created_at="", **made)


def prices(*values: float, start_s: int = 0) -> list[tuple[int, float]]:
    return [((start_s + at) * S, value) for at, value in enumerate(values)]


def fired(one: Rule, *values: float, state: State | None = None) -> list[float]:
    return [alert.value for alert in evaluate(one, state or State(), prices(*values))]


def test_a_price_that_crosses_alerts_once_however_noisy_it_is() -> None:
    noise = Random(1)
    around = [100 + noise.uniform(-0.4, 0.4) for _ in range(5000)]
    assert len(fired(rule(direction="above"), 99.0, *around)) == 1
    assert len(fired(rule(direction="above"), 99.0, *around, 99.4, *around)) == 2
    assert len(fired(rule(direction="above", hysteresis=0), 99.0, *around)) > 1000


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("above", [100.0, 103.0]), ("below", [98.0, 97.0]), ("both", [100.0, 98.0, 103.0, 97.0])],
)
def test_it_crosses_the_way_that_was_asked_for(direction: str, expected: list[float]) -> None:
    assert fired(rule(direction=direction), 99.0, 100.0, 101.0, 98.0, 103.0, 97.0) == expected


def test_a_price_that_is_beyond_from_the_start_has_crossed_nothing() -> None:
    assert fired(rule(direction="above"), 101.0, 102.0, 99.9, 101.0) == []
    assert fired(rule(direction="above"), 101.0, 102.0, 99.5, 101.0) == [101.0]


def test_a_condition_that_holds_from_the_start_is_told() -> None:
    assert fired(rule("spread_above", 10.0, hysteresis=2), 12.0, 9.0, 12.0, 8.0, 11.0) == [12.0, 11.0]
    assert fired(rule("spread_above", 10.0), 10.0) == []


def test_within_the_cool_down_nothing_is_told_and_what_lasts_is_told_after_it() -> None:
    one = rule(direction="above", cooldown_s=10)
    assert fired(one, 99.0, 101.0, 99.0, 101.0, 99.0, 101.0, 99.0) == [101.0]
    values = [99.0, 101.0, 99.0, *[101.0 + at for at in range(20)]]  # second 1 alerts, second 11 is its end
    assert [(alert.at_us, alert.value) for alert in evaluate(one, State(), prices(*values))] == [
        (1 * S, 101.0),
        (11 * S, 109.0),
    ]


def test_the_basis_may_be_beyond_on_either_side() -> None:
    one = rule("basis_beyond", 5.0, subject="VN30F1M", hysteresis=1)
    assert fired(one, 0.0, 6.0, -6.0, -5.5, 0.0, -7.0) == [6.0, -6.0, -7.0]
    messages = [alert.message for alert in evaluate(one, State(), prices(6.0, -6.0))]
    assert messages == ["VN30F1M basis 6 is above 5", "VN30F1M basis -6 is below -5"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(54.2, "54 s"), (1800.0, "30 min"), (5 * 3600.0, "5 h"), (312.4 * 86_400, "312 days")]
)
def test_how_long_there_was_no_tick_is_told_in_units_of_people(seconds: float, words: str) -> None:
    (alert,) = evaluate(rule("no_tick", 30.0), State(), prices(seconds))
    assert alert.message == f"AAPL had no tick for {words} in market hours"


def test_a_spike_that_another_worker_flushed_later_alerts_too() -> None:
    one, state = rule(direction="above"), State()
    assert evaluate(one, state, [(1 * S, 99.0), (5 * S, 99.1)]) == []
    (late,) = evaluate(one, state, [(3 * S, 101.0)])
    assert (late.at_us, late.value) == (3 * S, 101.0)
    assert evaluate(one, state, [(3 * S + 1, 101.0), (4 * S, 102.0)]) == []
    assert [alert.at_us for alert in evaluate(one, state, [(6 * S, 101.0)])] == [6 * S]


def test_a_way_back_that_another_worker_flushed_later_counts_too() -> None:
    one, state = rule(direction="above"), State()
    assert len(evaluate(one, state, [(1 * S, 99.0), (2 * S, 101.0), (6 * S, 102.0)])) == 1
    assert evaluate(one, state, [(3 * S, 99.8)]) == []
    (again,) = evaluate(one, state, [(4 * S, 99.0)])
    assert (again.at_us, again.value) == (6 * S, 102.0)
    assert evaluate(one, state, [(5 * S, 99.0), (7 * S, 101.0)]) == []


@given(st.lists(st.sampled_from([98.0, 99.8, 100.2, 102.0]), min_size=2, max_size=30), st.integers(0, 1 << 30))
def test_two_workers_that_flush_in_any_order_find_a_crossing_if_there_is_one(values: list[float], seed: int) -> None:
    one, pick = rule(direction="above"), Random(seed)
    first = prices(98.0)
    ours, theirs = [], []
    for value in prices(*values, start_s=1):
        (ours if pick.random() < 0.5 else theirs).append(value)
    in_order = evaluate(one, State(), first + prices(*values, start_s=1))
    found = evaluate(one, State(), first + ours + theirs)
    assert bool(found) == bool(in_order)
    assert len(found) <= len(in_order)


def test_what_is_imported_later_alerts_nobody() -> None:
    one, state = rule(direction="above"), State()
    evaluate(one, state, [(10 * LATE_US, 99.0)])
    assert evaluate(one, state, [(9 * LATE_US - 1, 101.0)]) == []


@given(st.lists(st.floats(98, 102), min_size=1, max_size=40), st.integers(0, 39), st.floats(0, 1))
def test_state_that_was_stored_in_between_changes_nothing(values: list[float], at: int, hysteresis: float) -> None:
    one = rule(hysteresis=hysteresis, cooldown_s=3)
    whole = evaluate(one, State(), prices(*values))
    state = State()
    found: list[Alert] = evaluate(one, state, prices(*values)[:at])
    found += evaluate(one, decode_state(encode_state(state)), prices(*values)[at:])
    assert found == whole


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(98, 102)), max_size=40),
    st.integers(1, 40),
    st.sampled_from([("price_crosses", 100.0), ("basis_beyond", 1.0), ("spread_above", 100.0)]),
)
def test_values_that_come_together_say_what_they_say_one_by_one(
    values: list[tuple[int, float]], size: int, kind: tuple[str, float]
) -> None:
    one = rule(*kind, cooldown_s=2, subject="F" if kind[0] == "basis_beyond" else None)
    together, alone = State(), State()
    found = [alert for at in range(0, len(values), size) for alert in evaluate(one, together, values[at : at + size])]
    assert found == [alert for value in values for alert in evaluate(one, alone, [value])]
    assert (together.seen_us, together.value) == (alone.seen_us, alone.value)


@given(st.lists(st.floats(98, 102), max_size=60), st.floats(0.1, 1))
def test_between_two_alerts_of_a_direction_lies_a_way_back(values: list[float], hysteresis: float) -> None:
    one = rule(direction="above", hysteresis=hysteresis)
    alerts = evaluate(one, State(), prices(*values))
    for first, second in pairwise(alerts):
        between = values[first.at_us // S : second.at_us // S]
        assert any(100.0 - value >= hysteresis for value in between)


def test_a_silence_counts_from_the_opening_and_not_while_the_market_is_closed() -> None:
    assert silence_s(100 * S, 90 * S, 0, 0) == 10
    assert silence_s(100 * S, 10 * S, 95 * S, 0) == 5
    assert silence_s(100 * S, 10 * S, None, 0) == 0
    assert silence_s(100 * S, None, 0, 70 * S) == 30
    assert silence_s(100 * S, 200 * S, 0, 0) == 0  # a broker's clock may be ahead


NEW_YORK = [
    ("2026-01-13T14:29:59", None),  # Tuesday, a second before half past nine
    ("2026-01-13T14:30:00", "2026-01-13T14:30:00"),
    ("2026-01-13T20:59:59", "2026-01-13T14:30:00"),
    ("2026-01-13T21:00:00", None),
    ("2026-01-17T15:00:00", None),  # Saturday
    ("2026-01-19T15:00:00", None),  # Martin Luther King's day
]


@pytest.mark.parametrize(("moment", "expected"), NEW_YORK)
def test_market_hours_are_those_of_the_exchange(moment: str, expected: str | None) -> None:
    def us(text: str) -> int:
        return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * S

    assert open_since(us(moment), "XNYS") == (None if expected is None else us(expected))
    assert open_since(us(moment), "no such exchange") == 0


def test_a_spike_of_volume_is_one_of_the_last_minute_against_those_before() -> None:
    assert volume_ratio([]) is None
    assert volume_ratio(prices(10, 10, 10, 10, 50)) is None
    assert volume_ratio(prices(10, 10, 10, 10, 10, 50)) == 5
    assert volume_ratio(prices(10, 0, 10, 0, 10, 10, 10, 50)) == 5


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"alert_type": "price_crosses"}, MissingField, "symbol"),
        ({"alert_type": "basis_beyond"}, MissingField, "subject"),
        ({"alert_type": "metric_beyond", "dataset": "system_metrics"}, MissingField, "field"),
        ({"alert_type": "metric_beyond", "dataset": "ticks", "field": "bid"}, BadField, "dataset"),
        ({"alert_type": "metric_beyond", "dataset": "system_metrics", "field": "x"}, BadField, "field of"),
        ({"alert_type": "metric_beyond", "dataset": "system_metrics", "field": "cpu_percent"}, MissingField, "subject"),
        ({"alert_type": "metric_beyond", "dataset": "market_data", "field": "bid"}, MissingField, "symbol"),
        ({"alert_type": "price_crosses", "symbol": "A", "field": "volume"}, BadField, "field"),
        ({"alert_type": "price_crosses", "symbol": "A", "threshold": float("nan")}, BadField, "threshold"),
        ({"alert_type": "price_crosses", "symbol": "A", "hysteresis": -1.0}, BadField, "hysteresis"),
        ({"alert_type": "price_crosses", "symbol": "A", "cooldown_s": -1.0}, BadField, "cooldown_s"),
        ({"alert_type": "price_crosses", "symbol": "A", "name": "\0"}, BadField, "name"),
        ({"alert_type": "no_tick", "symbol": "A", "threshold": 0.5}, BadField, "no_tick"),
        ({"alert_type": "spread_above", "symbol": "A", "direction": "below"}, BadField, "direction"),
        ({"alert_type": "spread_above", "symbol": "A", "subject": "x"}, BadField, "subject"),
        ({"alert_type": "spread_above", "symbol": "A", "threshold": -1.0}, BadField, "threshold"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_by_the_name_of_its_field(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        checked(NewRule(**{"threshold": 1.0, **fields}))


def test_what_a_rule_leaves_out_is_filled_in() -> None:
    found = checked(NewRule("price_crosses", 200.0, symbol="AAPL"))
    assert (found.field, found.direction, found.hysteresis, found.cooldown_s) == ("price", "both", 0.2, 60)
    assert checked(NewRule("metric_beyond", 1, dataset="execution_metrics", field="fill_rate"))
