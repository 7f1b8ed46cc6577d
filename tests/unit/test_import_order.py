"""What the order of a file tells: ordinals of equal times, and the second pass of a repeated hour."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.clock import BrokerClock
from app.market.file_rows import FileRows
from app.market.file_ticks import FileTicks
from app.market.tick_files import parse_text, read_layout
from app.market.tick_order import Ordinals, OutOfOrder, WallTimes

S = 1_000_000
EPOCH = datetime(1970, 1, 1)


def wall(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def walls(*texts: str) -> np.ndarray:
    return np.array([wall(text) for text in texts], np.int64)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=30), max_size=8))
def test_ordinals_count_equal_times_in_any_order_and_across_blocks(blocks: list[list[int]]):
    ordinals, seen = Ordinals(), Counter[int]()
    for block in blocks:
        numbered = ordinals.number(np.array(block, np.int64))
        for time, ordinal in zip(block, numbered.tolist(), strict=True):
            assert ordinal == seen[time]
            seen[time] += 1


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), max_size=10), max_size=10), st.integers(1, 8))
def test_what_is_forgotten_is_refused_never_miscounted(blocks: list[list[int]], remembered: int):
    ordinals, seen = Ordinals(), Counter[int]()
    for block in blocks:
        try:
            numbered = ordinals.number(np.array(block, np.int64), remembered)
        except OutOfOrder:
            assert min(block) < max(seen), "nothing is refused that is in order"
            return
        for time, ordinal in zip(block, numbered.tolist(), strict=True):
            assert ordinal == seen[time]
            seen[time] += 1


def test_a_file_in_order_is_numbered_whatever_its_size():
    ordinals = Ordinals()
    for start in range(0, 1000, 10):
        assert ordinals.number(np.repeat(np.arange(start, start + 10), 2), 5).tolist() == [0, 1] * 10
    with pytest.raises(OutOfOrder, match="sort the file"):
        ordinals.number(np.array([3]), 5)


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_the_second_pass_of_a_repeated_hour_is_told_by_the_step_back(size: int):
    # New York + 7 h: on 2013-11-03 the wall clock shows 08:00 to 09:00 twice.
    texts = ["07:30", "08:10", "08:50", "08:59:59.9", "08:00", "08:00:01", "08:45", "08:59:59.95", "09:10"]
    given_ = walls(*(f"2013-11-03T{text}" for text in texts))
    times = WallTimes(BrokerClock("America/New_York+7h"))
    got = np.concatenate([times.to_utc_us(given_[i : i + size]) for i in range(0, len(given_), size)])
    ahead = np.where(np.arange(len(texts)) < 4, 3, 2)
    assert got.tolist() == (given_ - ahead * 3600 * S).tolist()


def test_ticks_a_little_out_of_order_are_no_second_pass():
    times = WallTimes(BrokerClock("America/New_York"))
    given_ = walls("2013-11-03T01:40", "2013-11-03T01:39:59", "2013-11-03T01:20", "2013-11-03T01:41")
    assert times.to_utc_us(given_).tolist() == (given_ + 4 * 3600 * S).tolist()


def test_late_ticks_of_the_second_pass_stay_in_it():
    times = WallTimes(BrokerClock("America/New_York"))
    given_ = walls("2013-11-03T01:59:59", "2013-11-03T01:00", "2013-11-03T02:00:01", "2013-11-03T01:59:58")
    hours = np.array([4, 5, 5, 5])
    assert times.to_utc_us(given_).tolist() == (given_ + hours * 3600 * S).tolist()


def test_a_file_out_of_order_is_refused_where_an_hour_repeats_and_only_there():
    clock = BrokerClock("America/New_York")
    harmless = walls("2013-10-03T05:00", "2013-10-03T04:00", "2013-10-02T05:00")
    assert WallTimes(clock).to_utc_us(harmless).tolist() == (harmless + 4 * 3600 * S).tolist()
    with pytest.raises(OutOfOrder, match="America/New_York repeats"):
        WallTimes(clock).to_utc_us(walls("2013-11-03T01:30", "2013-11-02T01:30"))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1800), st.lists(st.integers(1, 600), min_size=30, max_size=80), st.integers(1, 50))
def test_a_feed_without_long_silence_comes_back_as_it_was(start: int, gaps: list[int], size: int):
    """A true UTC feed across the change, written as wall times and read again in blocks."""
    zone = ZoneInfo("America/New_York")
    first = int(datetime(2013, 11, 3, 4, 30, tzinfo=ZoneInfo("UTC")).timestamp()) + start
    utc = np.array(first + np.cumsum(gaps)) * S
    clock = BrokerClock("America/New_York")
    local, folds = clock.to_wall_us(utc)
    assert [bool(datetime.fromtimestamp(u / S, zone).fold) for u in utc] == folds.tolist()
    late = np.flatnonzero(folds)
    if len(late) and local[late[0]] > local[: late[0]].max(initial=0) - 1800 * S:
        return  # a silence of half an hour and more hides the change
    times = WallTimes(clock)
    got = np.concatenate([times.to_utc_us(local[i : i + size]) for i in range(0, len(local), size)])
    assert got.tolist() == utc.tolist()


OLDEST, NEWEST = wall("1990-01-01"), wall("2020-01-01")
HEADER = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>"


def build(*lines: str, nonpositive: bool = False, header: str = HEADER):
    rows = parse_text("\n".join(lines).encode(), 2, 0, read_layout(header))
    ticks_of = FileTicks(BrokerClock("UTC"), OLDEST, NEWEST)
    return ticks_of.build(rows, np.array([7, 8], np.int32), np.array([nonpositive] * 2), 3, 5_000)


def reasons(rows: FileRows) -> dict[int, str]:
    return {bad.line: bad.reason for bad in rows.bad}


def test_a_refused_row_keeps_its_place_in_the_count():
    ticks, rows = build(
        "2013.10.08\t04:00:00\t1\t\t\t\t2",
        "2013.10.08\t04:00:00\t-1\t\t\t\t2",
        "2013.10.08\t04:00:00\tx\t\t\t\t2",
        "2013.10.08\t04:00:00\t1\t\t\t\t2",
    )
    assert ticks.seq.tolist() == [0, 2]
    assert ticks.row_no.tolist() == [0, 3]
    assert ticks.received_us.tolist() == [5_000, 5_003]
    assert ticks.journal_no.tolist() == [3, 3]
    assert reasons(rows) == {3: "bid is not above zero", 4: "bid: invalid value 'x'"}


def test_what_cannot_be_a_tick_is_refused_with_the_reason():
    ticks, rows = build(
        "1989.12.31\t23:59:59.999\t1\t\t\t\t2",
        "1990.01.01\t00:00:00\t1\t\t\t\t2",
        "2020.01.01\t00:00:00\t1\t\t\t\t2",
        "2020.01.01\t00:00:00.001\t1\t\t\t\t2",
        "0001.01.01\t00:00:00\t1\t\t\t\t2",
        "9999.12.31\t00:00:00\t1\t\t\t\t2",
        "2013.10.08\t04:00:00\t\t\t1\t-1\t24",
        "2013.10.08\t04:00:00\t\t\t1\t1e300\t24",
        "2013.10.08\t04:00:00\t1\t0\t\t\t6",
        "2013.10.08\t04:00:00\t0\t0\t0\t0\t0",
        "2013.10.08\t04:00:00\t0\t2\t\t\t4",
    )
    assert ticks.row_no.tolist() == [1, 2, 9, 10]
    assert reasons(rows) == {
        2: "the time is before the oldest allowed",
        5: "the time is in the future",
        6: "the time is out of range",
        7: "the time is out of range",
        8: "volume is negative",
        9: "volume is out of range",
        10: "ask is not above zero",
    }


def test_an_instrument_may_allow_prices_at_or_below_zero():
    ticks, rows = build("2013.10.08\t04:00:00\t-37.63\t-37.6\t\t\t6", nonpositive=True)
    assert ticks.bid.tolist() == [-37.63]
    assert ticks.nonpositive_ok.tolist() == [True]
    assert not rows.bad


def test_each_symbol_counts_for_itself():
    ticks, _ = build("A,1380000000,1", "B,1380000000,1", "A,1380000000,1", header="symbol,time,bid")
    assert ticks.symbol_id.tolist() == [7, 8, 7]
    assert ticks.seq.tolist() == [0, 0, 1]


def test_a_seq_in_the_file_is_kept():
    ticks, _ = build("1380000000,1,5", "1380000000,1,9", header="time,bid,seq")
    assert ticks.seq.tolist() == [5, 9]
