"""Bars made of pieces: the same whatever the pieces, exact, on the asked side, filled."""

from __future__ import annotations

import math
from dataclasses import fields
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.bar_series import PRICES, Pieces, Series, Sums, combine, filled, in_sequence, of_ticks, priced
from app.market.bars import VOLUME_UNIT, Groups, aggregate
from app.market.intervals import Buckets
from tests.tick_sets import MIDNIGHT_US, NAN, Row, key_of, rows, stored

MINUTE_US = 60_000_000
INTERVAL_OF = {60: "1m", 3600: "1h", 86_400: "1d"}


def pieces_of(ticks: list[Row], price: str) -> Pieces:
    columns = stored(ticks)
    prices = (columns.bid, columns.ask, columns.last)
    nonpositive_ok = bool(ticks) and ticks[0].nonpositive_ok
    return of_ticks(price, columns.time_us, *prices, columns.volume, columns.flags, nonpositive_ok)


def bars_of(ticks: list[Row], price: str = "bid", interval: str = "1m") -> list[dict[str, Any]]:
    return as_rows(priced(combine([pieces_of(ticks, price)], Buckets(interval))))


def as_rows(bars: Series) -> list[dict[str, Any]]:
    """Return the bars as text: -0.0 is not 0.0, and NaN is itself."""
    names = [field.name for field in fields(Series)]
    columns = [[repr(value) for value in getattr(bars, name).tolist()] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def closes(bars: Series) -> list[tuple[int, float, int]]:
    return list(zip(bars.time_us.tolist(), bars.close.tolist(), bars.ticks.tolist(), strict=True))


def total(sums: Sums, at: int) -> int:
    return int(sums.billions[at]) * 10**17 + int(sums.rest[at])


@st.composite
def _in_order(draw: st.DrawFn) -> list[Row]:
    """Draw the ticks of one symbol in their order."""
    symbol_id = draw(st.integers(2, 3))
    return sorted((row for row in draw(rows()) if row.symbol_id == symbol_id), key=key_of)


@settings(deadline=None)
@given(_in_order(), st.sampled_from(PRICES), st.sampled_from([60, 3600, 86_400]))
def test_bars_of_ticks_are_the_maintained_ones(ticks: list[Row], price: str, resolution_s: int) -> None:
    expected = aggregate(stored(ticks), [resolution_s])
    bars = combine([pieces_of(ticks, price)], Buckets(INTERVAL_OF[resolution_s]))
    assert bars.time_us.tolist() == expected.time_us.tolist()
    assert bars.ticks.tolist() == expected.ticks.tolist()
    volumes = (expected.volume, expected.buy_volume, expected.sell_volume)
    for sums, exact in zip(bars.sums, volumes, strict=True):
        assert [total(sums, at) for at in range(len(bars))] == exact
    for part in ("open", "high", "low", "close"):
        found, wanted = getattr(bars.sides[0], part), getattr(expected.sides[price], part)
        assert list(map(repr, found.tolist())) == list(map(repr, wanted.tolist()))


@settings(deadline=None)
@given(
    _in_order(),
    st.sampled_from(PRICES),
    st.sampled_from(["1s", "30s", "1m", "1h", "4h", "1d", "1w"]),
    st.sets(st.integers(0, 40), max_size=8),
    st.booleans(),
)
def test_bars_are_the_same_in_whatever_parts_their_ticks_come(
    ticks: list[Row], price: str, interval: str, cuts: set[int], backwards: bool
) -> None:
    buckets = Buckets(interval)
    at = sorted({cut for cut in cuts if cut < len(ticks)} | {0, len(ticks)})
    parts = [pieces_of(ticks[a:b], price) for a, b in pairwise(at)] or [pieces_of([], price)]
    if backwards:
        bars = combine(parts[-1:], buckets)
        for part in parts[-2::-1]:
            bars = combine([part, bars], buckets)
    else:
        bars = combine(parts[:1], buckets)
        for part in parts[1:]:
            bars = combine([bars, part], buckets)
    assert as_rows(priced(bars)) == bars_of(ticks, price, interval)


def test_a_bid_bar_without_a_bid_is_of_trades_and_no_other_mixes_the_two() -> None:
    trade = Row(time_us=MIDNIGHT_US, last=7.0, volume=2.0, flags=56)
    later_trade = Row(time_us=MIDNIGHT_US + MINUTE_US, last=9.0, volume=3.0, flags=24)
    bid = Row(time_us=MIDNIGHT_US + MINUTE_US + 1, bid=5.0, flags=2)
    minutes = bars_of([trade, later_trade, bid])
    assert [(bar["open"], bar["low"], bar["volume"], bar["ticks"]) for bar in minutes] == [
        ("7.0", "7.0", "2.0", "1"),
        ("5.0", "5.0", "3.0", "2"),
    ]
    (hour,) = bars_of([trade, later_trade, bid], interval="1h")
    assert (hour["open"], hour["high"], hour["low"], hour["close"]) == ("5.0",) * 4
    assert (hour["volume"], hour["buy_volume"], hour["sell_volume"], hour["ticks"]) == ("5.0", "2.0", "0.0", "3")


def test_a_bar_without_the_price_is_left_out_and_its_ticks_count_in_longer_ones() -> None:
    ticks = [
        Row(time_us=MIDNIGHT_US, ask=3.0, flags=4),
        Row(time_us=MIDNIGHT_US + MINUTE_US, bid=2.0, ask=3.0),
        Row(time_us=MIDNIGHT_US + 2 * MINUTE_US, last=2.5, volume=1.0, flags=24),
    ]
    assert [bar["ticks"] for bar in bars_of(ticks, "mid")] == ["1"]
    assert [(bar["ticks"], bar["volume"], bar["close"]) for bar in bars_of(ticks, "mid", "1h")] == [("3", "1.0", "2.5")]
    assert [bar["close"] for bar in bars_of(ticks, "ask")] == ["3.0", "3.0"]
    assert [bar["close"] for bar in bars_of(ticks, "last")] == ["2.5"]


def test_a_quote_never_counts_as_a_trade() -> None:
    quote = Row(bid=1.0, ask=2.0, last=9.0, volume=7.0, flags=6 | 16 | 32 | 64)
    assert bars_of([quote], "last") == []
    (bar,) = bars_of([quote])
    assert (bar["volume"], bar["buy_volume"], bar["sell_volume"]) == ("0.0", "0.0", "0.0")


VOLUMES = st.one_of(
    st.integers(0, 10**20).map(lambda units: units / 10**8),
    st.sampled_from([0.0, 1e-8, 0.1, 0.3, 0.999999999999, 1e9, 1e9 - 1e-8, 123456789.5, 1e12, 9e15 + 1]),
)


@given(st.lists(st.lists(VOLUMES, min_size=1, max_size=20), min_size=1, max_size=4))
def test_volumes_are_summed_exactly_and_rounded_once(volumes: list[list[float]]) -> None:
    ticks = [
        Row(time_us=MIDNIGHT_US + minute * MINUTE_US, seq=seq, last=1.0, volume=volume, flags=24)
        for minute, those in enumerate(volumes)
        for seq, volume in enumerate(those)
    ]
    expected = []
    for those in volumes:
        units = sum(math.floor(v) * VOLUME_UNIT + round((v - math.floor(v)) * VOLUME_UNIT) for v in those)
        expected.append(repr(float(Fraction(units, VOLUME_UNIT))))
    assert [bar["volume"] for bar in bars_of(ticks, "last")] == expected


def test_a_sum_of_very_many_is_exact() -> None:
    count = 600_000
    sums = Sums(np.full(count, 3), np.full(count, 10**17 - 1))
    one = sums.by(Groups(np.zeros(count, np.int64)))
    assert total(one, 0) == count * (3 * 10**17 + 10**17 - 1)
    assert 0 <= int(one.rest[0]) < 10**17


# ---- filling


def _series(closes_by_minute: dict[int, float]) -> Series:
    ticks = [Row(time_us=MIDNIGHT_US + m * MINUTE_US, bid=close) for m, close in closes_by_minute.items()]
    return priced(combine([pieces_of(ticks, "bid")], Buckets("1m")))


def _minutes(*minutes: int) -> np.ndarray:
    return np.array([MIDNIGHT_US + minute * MINUTE_US for minute in minutes], np.int64)


def test_a_gap_holds_the_close_before_it() -> None:
    bars = filled(_series({1: 5.0, 4: 6.0}), _minutes(1, 2, 3, 4, 5), NAN)
    assert [close for _, close, _ in closes(bars)] == [5.0, 5.0, 5.0, 6.0, 6.0]
    assert bars.ticks.tolist() == [1, 0, 0, 1, 0]
    gap = as_rows(bars)[1]
    assert (gap["open"], gap["high"], gap["low"], gap["volume"], gap["buy_volume"], gap["sell_volume"]) == (
        *("5.0",) * 3,
        *("0.0",) * 3,
    )


def test_what_is_before_the_first_bar_holds_the_close_before_all() -> None:
    bars = filled(_series({3: 6.0}), _minutes(1, 2, 3, 4), 4.5)
    assert [close for _, close, _ in closes(bars)] == [4.5, 4.5, 6.0, 6.0]
    nothing = filled(in_sequence([]), _minutes(1, 2), 4.5)
    assert (nothing.close.tolist(), nothing.ticks.tolist()) == ([4.5, 4.5], [0, 0])
    assert nothing.ticks.dtype == np.int64


@given(st.dictionaries(st.integers(0, 30), st.floats(0.1, 9), min_size=1), st.integers(0, 20))
def test_bars_that_are_there_stay_as_they_are(closes_by_minute: dict[int, float], further: int) -> None:
    bars = _series(dict(sorted(closes_by_minute.items())))
    last = max(closes_by_minute)
    starts = _minutes(*range(min(closes_by_minute), last + further + 1))
    found = as_rows(filled(bars, starts, NAN))
    assert [row["time_us"] for row in found] == [repr(us) for us in starts.tolist()]
    assert [row for row in found if row["ticks"] != "0"] == as_rows(bars)
    for before, row in pairwise(found):
        if row["ticks"] == "0":
            assert {row[name] for name in ("open", "high", "low", "close")} == {before["close"]}


def test_nothing_makes_nothing() -> None:
    assert bars_of([]) == []
    assert len(in_sequence([])) == 0
    assert len(filled(in_sequence([]), _minutes(), NAN)) == 0


@pytest.mark.parametrize("price", PRICES)
def test_zero_has_no_sign(price: str) -> None:
    """Which of 0.0 and -0.0 is highest would depend on the order."""
    ticks = [
        Row(seq=seq, bid=zero, ask=zero, last=zero, flags=30, nonpositive_ok=True)
        for seq, zero in enumerate([-0.0, 0.0, -0.0])
    ]
    (bar,) = bars_of(ticks, price)
    assert {bar[part] for part in ("open", "high", "low", "close")} == {"0.0"}
