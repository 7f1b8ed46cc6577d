"""Time strings and epoch numbers against the standard library's reading of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.market.timestamps import MAX_US, MIN_US, numbers_to_us, parse_times

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def parse_one(text: str) -> tuple[int, bool, bool]:
    times = parse_times([text])
    return int(times.us[0]), bool(times.naive[0]), bool(times.ok[0])


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-13T17:54:43Z", "2026-01-13 17:54:43"),
        ("2026-01-13t17:54:43z", "2026-01-13 17:54:43"),
        ("2026-01-13 17:54:43.5Z", "2026-01-13 17:54:43.500000"),
        ("2026-01-13T17:54:43.000001Z", "2026-01-13 17:54:43.000001"),
        ("2026-01-13T17:54:43.123456999Z", "2026-01-13 17:54:43.123456"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31 23:59:59.999999"),
        ("2026-01-13T17:54:43+02:00", "2026-01-13 15:54:43"),
        ("2026-01-13T17:54:43.250-05:30", "2026-01-13 23:24:43.250000"),
        ("2026-01-13T17:54:43+0200", "2026-01-13 15:54:43"),
        ("2026-01-13T17:54:43.1-0930", "2026-01-14 03:24:43.100000"),
        ("2026-01-13T17:54:43+02", "2026-01-13 15:54:43"),
        ("2026-01-13T17:54:43.123-11", "2026-01-14 04:54:43.123000"),
        ("2026-01-13T17:54:43-00:00", "2026-01-13 17:54:43"),
        ("2024-02-29T00:00:00+23:59", "2024-02-28 00:01:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999"),
    ],
)
def test_a_string_with_an_offset_is_an_instant(text, utc):
    assert parse_one(text) == (us(utc), False, True)


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("2026-01-13T17:54:43", "2026-01-13 17:54:43"),
        ("2026-01-13 17:54:43.123", "2026-01-13 17:54:43.123000"),
        ("2026.01.13 17:54:43", "2026-01-13 17:54:43"),
        ("2026.01.13 17:54:43.123", "2026-01-13 17:54:43.123000"),
        ("2000.02.29 23:59:59.999", "2000-02-29 23:59:59.999000"),
    ],
)
def test_a_string_without_an_offset_is_a_reading_of_the_wall_clock(text, wall):
    assert parse_one(text) == (us(wall), True, True)


BAD = [
    "",
    "now",
    "2026-01-13",
    "2026-01-13T17:54",
    "2026-01-13T17:54:43.",
    "2026-01-13T17:54:43.Z",
    "2026-01-13T17:54:43,5Z",
    "2026-01-13T17:54:43.1234567890Z",
    "2026-01-13_17:54:43Z",
    "2026-01-13T17-54-43Z",
    "2026/01/13 17:54:43",
    "2026.01.13T17:54:43",
    "2026.01.13 17:54:43Z",
    "2026.01-13 17:54:43",
    "2026-01-13T17:54:60Z",
    "2026-01-13T17:60:43Z",
    "2026-01-13T24:00:00Z",
    "2026-00-13T17:54:43Z",
    "2026-13-13T17:54:43Z",
    "2026-01-00T17:54:43Z",
    "2026-01-32T17:54:43Z",
    "2026-02-30T17:54:43Z",
    "2026-02-29T17:54:43Z",
    "1900-02-29T17:54:43Z",
    "2026-04-31T17:54:43Z",
    "0000-01-01T00:00:00Z",
    "-001-01-01T00:00:00Z",
    "+2026-01-13T17:54:43",
    "2026-01-13T17:54:43+24:00",
    "2026-01-13T17:54:43+02:60",
    "2026-01-13T17:54:43+2:00",
    "2026-01-13T17:54:43+02:0",
    "2026-01-13T17:54:43+02-00",
    "2026-01-13T17:54:43+0:200",
    "2026-01-13T17:54:43 02:00",
    "2026-01-13T17:54:43 +0200",
    "2026-01-13T17:54:43ZZ",
    "2026-01-13T17:54:43+00:00Z",
    "2026-01-13T17:54:43.+0200",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
    " 2026-01-13T17:54:43Z",
    "2026-01-13T17:54:43Z ",
    "2026-01-13T17:54:43\0",
    "\0" * 20,
    "２０２６-01-13T17:54:43Z",
    "2026-01-1٣T17:54:43Z",
    "2026-01-13T17:54:4\ud800Z",
    "2026-01-13T17:54:43\U0001d7d8",
    "9" * 24,
    "Z" * 20,
    "+" * 25,
    "2" * 1_000_000,
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:40]))
def test_what_is_no_time_is_not_ok(text):
    assert parse_one(text) == (0, False, False)


def test_bad_rows_of_every_length_leave_their_neighbours_alone():
    good = "2026-01-13T17:54:43.123Z"
    mixed = [value for text in BAD for value in (text, good)]
    times = parse_times(mixed)
    assert times.ok.tolist() == [False, True] * len(BAD)
    assert set(times.us[1::2].tolist()) == {us("2026-01-13 17:54:43.123")}
    assert not times.us[::2].any()
    assert not times.naive.any()


def test_an_empty_column_is_an_empty_column():
    times = parse_times([])
    assert (times.us.dtype, times.naive.dtype, times.ok.dtype) == (np.int64, np.bool_, np.bool_)
    assert len(times.us) == len(times.naive) == len(times.ok) == 0


@st.composite
def spelled(draw):
    """A date-time in one of the ways it may be written, and the same for `datetime.fromisoformat`."""
    moment = draw(st.datetimes()).replace(microsecond=0)
    digits = draw(st.text("0123456789", max_size=9))
    zone = draw(st.sampled_from(["", "", "Z", "z", "colon", "plain", "hours"]))
    hours, minutes, sign = draw(st.integers(0, 23)), draw(st.integers(0, 59)), draw(st.sampled_from("+-"))
    plain = {"colon": f"{sign}{hours:02}:{minutes:02}", "plain": f"{sign}{hours:02}{minutes:02}"}
    offset = {"hours": f"{sign}{hours:02}", **plain}.get(zone, zone)
    if zone == "" and draw(st.booleans()):
        head = moment.strftime("%m.%d %H:%M:%S")
        return f"{moment.year:04}.{head}" + (digits and "." + digits), moment, digits, ""
    head = moment.isoformat(draw(st.sampled_from("Tt ")))
    return head + (digits and "." + digits) + offset, moment, digits, offset


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(st.lists(spelled(), max_size=20))
def test_every_way_of_writing_a_time_is_read_as_the_standard_library_reads_it(rows):
    times = parse_times([row[0] for row in rows])
    for at, (_, moment, digits, offset) in enumerate(rows):
        text = moment.isoformat() + (digits and "." + digits) + offset.upper()
        read = datetime.fromisoformat(text)
        shift = read.utcoffset() or timedelta()
        expected = (read.replace(tzinfo=None) - EPOCH - shift) // MICROSECOND
        ok = MIN_US <= expected <= MAX_US
        assert (times.us[at], times.naive[at], times.ok[at]) == (expected * ok, not offset, ok), text


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(st.lists(spelled(), min_size=1, max_size=8), st.data())
def test_a_damaged_time_is_read_as_the_standard_library_reads_it_or_not_at_all(rows, data):
    damaged = []
    for text, *_ in rows:
        at = data.draw(st.integers(0, len(text) - 1))
        damaged.append(text[:at] + data.draw(st.sampled_from("0159:.-+ TZ\0²")) + text[at + 1 :])
    times = parse_times(damaged)
    for text, value, naive, ok in zip(
        damaged, times.us.tolist(), times.naive.tolist(), times.ok.tolist(), strict=True
    ):
        if not ok:
            assert (value, naive) == (0, False)
            continue
        read = datetime.fromisoformat(text[:10].replace(".", "-") + text[10:].upper())
        assert naive == (read.tzinfo is None)
        assert value == (read.replace(tzinfo=None) - EPOCH - (read.utcoffset() or timedelta())) // MICROSECOND


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=36), max_size=20))
def test_no_string_raises(texts):
    times = parse_times(texts)
    assert len(times.us) == len(texts)
    assert not times.us[~times.ok].any()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(MIN_US // 1000 - 5, MAX_US // 1000 + 5) | st.integers(), max_size=20))
@example([2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0])
@example([MIN_US // 1000 - 1, MIN_US // 1000, MAX_US // 1000, MAX_US // 1000 + 1])
def test_whole_milliseconds_are_exact(values):
    answer, ok = numbers_to_us(values, "ms")
    assert ok.tolist() == [MIN_US <= value * 1000 <= MAX_US for value in values]
    assert answer.tolist() == [value * 1000 * good for value, good in zip(values, ok.tolist(), strict=True)]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.floats(-1e14, 3e14) | st.floats() | st.integers(10**12, 2 * 10**12), max_size=20),
    st.sampled_from(["s", "ms"]),
)
@example([float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 1e12 + 0.0005], "ms")
@example([10**400, 0.5, 2**70], "ms")
@example([253_402_300_799.5, 253_402_300_799.99999, 253_402_300_800.0], "s")
def test_fractions_are_rounded_to_the_nearest_microsecond(values, unit):
    factor = {"s": 1_000_000, "ms": 1_000}[unit]
    answer, ok = numbers_to_us(values, unit)
    assert answer.dtype == np.int64
    for value, got, good in zip(values, answer.tolist(), ok.tolist(), strict=True):
        finite = isinstance(value, int) or np.isfinite(value)
        exact = Fraction(value) * factor if finite else None
        assert good == (exact is not None and MIN_US <= round(exact) <= MAX_US and value * factor >= MIN_US)
        assert abs(got - exact) <= Fraction(1, 2) + Fraction(1, 10**6) if good else got == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint64, np.float64, np.float32, object])
def test_arrays_of_any_number_type_are_read(dtype):
    answer, ok = numbers_to_us(np.array([0, 1, 86_400_000], dtype), "ms")
    assert answer.tolist() == [0, 1_000, 86_400_000_000]
    assert ok.all()
    assert numbers_to_us(np.array([0, 1, 86_400], dtype), "s")[0].tolist() == [0, 1_000_000, 86_400_000_000]


def test_a_float_of_today_keeps_its_microsecond():
    now = datetime(2026, 1, 13, 17, 54, 43, 123457, UTC)
    expected = us("2026-01-13 17:54:43.123457")
    assert numbers_to_us([now.timestamp()], "s")[0].tolist() == [expected]
    assert numbers_to_us([expected / 1000], "ms")[0].tolist() == [expected]
