"""What is told of a day's ticks, against plain Python: gaps, odd prices, outliers, late ones, in pieces of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.columns import F8
from app.quality.days import Day, days
from app.quality.hours import hours, quarters
from app.quality.outliers import log_changes, scores
from app.quality.tally import Coverage, Limits, Piece, Tally
from tests.plain_coverage import PlainTick, plain_day

S = 1_000_000
OPEN = ((1_000 * S, 2_000 * S), (3_000 * S, 4_000 * S))
DAY = Day(date(1970, 1, 1), 0, 5_000 * S, OPEN)


def tick(at_s: float, bid: float | None = 1.0, ask: float | None = 1.5, **more: Any) -> PlainTick:
    at_us = round(at_s * S)
    usual = {"time_us": at_us, "bid": bid, "ask": ask, "last": None, "flags": 6, "received_us": at_us}
    return PlainTick(**usual | more)


def counted(
    ticks: Sequence[PlainTick], day: Day = DAY, limits: Limits | None = None, piece_rows: int = 3, **more: Any
) -> Coverage:
    """Return what is found of ticks that come in pieces."""
    tally = Tally(day, limits or Limits(), **more)
    for start in range(0, len(ticks), piece_rows):
        rows = ticks[start : start + piece_rows]

        def prices(name: str, rows: Sequence[PlainTick] = rows) -> F8:
            return np.array([getattr(row, name) for row in rows], np.float64)  # None becomes NaN

        def numbers(name: str, rows: Sequence[PlainTick] = rows) -> Any:
            return np.array([getattr(row, name) for row in rows], np.int64)

        tally.add(
            Piece(
                numbers("time_us"),
                prices("bid"),
                prices("ask"),
                prices("last"),
                numbers("flags"),
                numbers("received_us"),
            )
        )
    return tally.result()


def figures(found: Coverage) -> dict[str, Any]:
    """Return them as `plain_day` does."""
    return {
        "ticks": found.ticks,
        "session_ticks": found.session_ticks,
        "session_s": found.day.session_us / S,
        "coverage": None if math.isnan(found.covered) else found.covered,
        "gaps": [tuple(gap) for gap in found.gaps],
        "gaps_s": found.gaps_us / S,
        "longest_gap_s": max((gap.us for gap in found.gaps), default=0) / S,
        "crossed": found.crossed,
        "nonpositive": found.nonpositive,
        "outliers": None if found.outliers is None else len(found.outliers),
        "late": found.late,
        "first": found.first_us,
        "last": found.last_us,
    }


def plain(ticks: Sequence[PlainTick], day: Day = DAY, **limits: float) -> dict[str, Any]:
    found = plain_day(ticks, day.open, **limits)
    return found | {"outliers": None if found["outliers"] is None else len(found["outliers"])}


def gaps_s(found: Coverage) -> list[tuple[float, float]]:
    return [(gap.start_us / S, gap.end_us / S) for gap in found.gaps]


def test_a_session_without_a_tick_is_one_gap() -> None:
    found = counted([])
    assert gaps_s(found) == [(1000, 2000), (3000, 4000)]
    assert (found.covered, found.ticks, found.first_us) == (0, 0, None)


def test_a_day_without_a_session_has_ticks_and_no_gaps() -> None:
    found = counted([tick(5), tick(900)], replace(DAY, open=()))
    assert (found.gaps, found.ticks, found.session_ticks) == ([], 2, 0)
    assert math.isnan(found.covered)


def test_openings_ends_and_breaks_bound_gaps_and_ticks_outside_do_not_fill_them() -> None:
    ticks = [tick(at) for at in (940, 1500, 1560, 1620.000001, 2000, 2500, 3990)]
    assert gaps_s(counted(ticks)) == [(1000, 1500), (1560, 1620.000001), (1620.000001, 2000), (3000, 3990)]


def test_a_gap_is_longer_than_its_limit_and_not_as_long() -> None:
    ticks = [tick(at) for at in (900, *range(1060, 4001, 60))]  # a limit behind the opening, and between them
    assert counted(ticks).gaps == []
    assert len(counted(ticks, limits=Limits(gap_s=59.999999)).gaps) == plain_gaps(ticks, 59.999999)


def plain_gaps(ticks: Sequence[PlainTick], gap_s: float) -> int:
    return len(plain_day(ticks, OPEN, gap_s=gap_s)["gaps"])


def test_crossed_and_nonpositive_prices_are_counted_by_tick() -> None:
    odd = [
        tick(1, 2.0, 1.5),  # crossed
        tick(2, 1.5, 1.5),  # locked: neither
        tick(3, 0.0, 1.5),
        tick(4, -1.0, -2.0),  # both
        tick(5, None, 0.0),
        tick(6, None, 1.5),
        tick(7, None, None, last=0.0, flags=8),
        tick(8, 1.0, 1.5, last=0.0, flags=6),  # no trade: its last says nothing
    ]
    found = counted(odd)
    assert (found.crossed, found.nonpositive) == (2, 4)


def test_a_tick_is_late_when_it_came_later_than_the_limit() -> None:
    ticks = [tick(at, received_us=(at + delay) * S) for at, delay in enumerate((0, 59, 60, 61, 500, -3600))]
    assert counted(ticks).late == 2
    assert counted(ticks, limits=Limits(late_s=0)).late == 4


def walk(count: int, step: float = 0.01) -> list[float]:
    rng = np.random.default_rng(7)
    return [round(float(price), 2) for price in 100 + step * np.cumsum(rng.choice([-1, 1, 2, -2], count))]


def test_a_price_that_is_wrong_once_is_two_outliers() -> None:
    prices = walk(300)
    prices[150] *= 1.05
    ticks = [tick(at, price - 0.01, price + 0.01) for at, price in enumerate(prices)]
    found = counted(ticks)
    assert found.outliers is not None
    (there, back) = found.outliers
    assert (there.time_us, back.time_us) == (150 * S, 151 * S)
    assert (there.price, there.score > 20, back.score < -20) == (pytest.approx(prices[150]), True, True)
    assert there.price == back.before


def test_hours_of_one_price_make_no_outlier_of_the_next_move() -> None:
    prices = walk(100)
    ticks = [tick(at, price, price + 0.02) for at, price in enumerate(prices)]
    ticks += [tick(100 + at, prices[-1], prices[-1] + 0.02) for at in range(10_000)]
    ticks.append(tick(10_100, prices[-1] + 0.02, prices[-1] + 0.04))
    assert counted(ticks, piece_rows=999).outliers == []


def test_without_a_two_sided_quote_trades_are_looked_at() -> None:
    prices = walk(60)
    prices[30] = 50
    ticks = [tick(at, None, None, last=price, flags=8) for at, price in enumerate(prices)]
    assert [one.price for one in counted(ticks).outliers or []] == [50, prices[31]]
    assert counted([replace(one, flags=2) for one in ticks]).outliers is None


def test_of_few_changes_nobody_knows_whether_they_are_outliers() -> None:
    ticks = [tick(at, 1 + at % 2, 3) for at in range(20)]
    assert counted(ticks).outliers is None
    assert counted([*ticks, tick(20, 1, 3)]).outliers == []


def test_prices_that_move_by_single_ticks_have_no_outliers() -> None:
    # One more up than down: the median of the changes is a tick up, and the deviations from it are nothing or two.
    ticks = [tick(at, 1 + at % 2 / 100, 2.0) for at in range(202)]
    assert counted(ticks, limits=Limits(outlier_z=1)).outliers == []


def test_a_score_is_a_change_in_deviations_of_the_usual_one() -> None:
    rng = np.random.default_rng(3)
    found = scores(rng.normal(0, 0.002, 100_001))
    assert found is not None
    assert found.std() == pytest.approx(1, abs=0.02)
    assert log_changes(np.array([1e5, np.nextafter(1e5, 2e5)]))[0] > 0


_TICKS = st.lists(
    st.builds(
        tick,
        st.floats(0, 5000),
        st.sampled_from([None, 0.0, -1.0, 1.0, 1.01, 1.02, 30.0]),
        st.sampled_from([None, 0.0, 1.01, 1.02, 1.03]),
        last=st.sampled_from([None, 0.0, 2.0, 2.5]),
        flags=st.sampled_from([2, 6, 8, 24, 30]),
        received_us=st.integers(0, 6000 * S),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(ticks=_TICKS, piece_rows=st.integers(1, 90), gap_s=st.floats(1, 2000), outlier_z=st.floats(1, 30))
def test_every_figure_is_that_of_plain_python(
    ticks: list[PlainTick], piece_rows: int, gap_s: float, outlier_z: float
) -> None:
    ticks.sort(key=lambda one: one.time_us)
    limits = Limits(gap_s=round(gap_s, 6), outlier_z=outlier_z)
    wanted = plain(ticks, gap_s=limits.gap_s, outlier_z=outlier_z)
    found = figures(counted(ticks, limits=limits, piece_rows=piece_rows))
    assert found.pop("outliers") == pytest.approx(wanted.pop("outliers"))
    assert found == wanted


@pytest.mark.parametrize(
    ("day", "of_hours"),
    [
        (date(2026, 3, 8), {hour: 3600 for hour in range(24) if hour != 2}),
        (date(2026, 11, 1), {hour: 7200 if hour == 1 else 3600 for hour in range(24)}),
    ],
)
def test_an_hour_that_clocks_skip_is_left_out_and_one_that_they_repeat_is_twice_as_long(
    day: date, of_hours: dict[int, int]
) -> None:
    (found,) = days(day, day.replace(day=day.day + 1), (None, "America/New_York"))
    empty = counted([], found, edges_us=quarters(found))
    assert {one.hour: one.session_us // S for one in hours(empty, "America/New_York")} == of_hours
    assert all(one.gaps_us == one.session_us for one in hours(empty, "America/New_York"))


def test_hours_have_the_ticks_sessions_and_gaps_of_their_day() -> None:
    (day,) = days(date(2026, 1, 13), date(2026, 1, 14), ("XNYS", None))
    opens, shuts = day.open[0]
    ticks = [tick(at / S) for at in range(opens - 3600 * S, opens + 5400 * S, 30 * S)]
    found = counted(ticks, day, edges_us=quarters(day), piece_rows=50)
    by_hour = {one.hour: one for one in hours(found, "America/New_York")}
    assert {hour: one.ticks for hour, one in by_hour.items() if one.ticks} == {8: 60, 9: 120, 10: 120}
    assert {h: one.session_us // S for h, one in by_hour.items() if one.session_us} == {9: 1800} | dict.fromkeys(
        range(10, 16), 3600
    )
    assert {hour: one.gaps_us // S for hour, one in by_hour.items() if one.gaps_us} == {10: 30} | dict.fromkeys(
        range(11, 16), 3600
    )
    assert sum(one.gaps_us for one in by_hour.values()) == found.gaps_us == shuts - ticks[-1].time_us
