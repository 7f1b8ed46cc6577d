"""Times of parameters: what each way of writing them means, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadParameter
from app.market.time_params import parse_time
from app.market.timestamps import MAX_US, MIN_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
CLOSE = 1_768_326_883 * SECOND  # 2026-01-13T17:54:43Z


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-13T17:54:43Z",
        "2026-01-13 17:54:43z",
        "2026-01-13T17:54:43.0000009Z",
        "2026-01-13T19:54:43+02:00",
        "2026-01-13T12:54:43-0500",
        " 2026-01-13T17:54:43Z ",
        "1768326883",
        "1768326883.0000009",
        "+1768326883",
        "1768326883000",
        "1768326883000000",
        "1768326883000000999",
    ],
)
def test_one_instant_can_be_written_in_many_ways(text):
    assert parse_time(text) == CLOSE


@pytest.mark.parametrize(
    "text", ["2026-01-13T19:54:43 02:00", "2026-01-13T19:54:43.000 0200", "2026-01-13 19:54:43 02"]
)
def test_a_plus_that_a_url_made_a_blank_is_a_plus(text):
    assert parse_time(text) == CLOSE


def test_a_bare_date_is_midnight_utc():
    assert parse_time("2024-02-29") == (datetime(2024, 2, 29, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("0", 0),
        ("-1", -SECOND),
        ("-0.0000001", -1),
        ("1.000001", SECOND + 1),
        ("99999999999", 99_999_999_999 * SECOND),
        ("100000000000", 100_000_000 * SECOND),
        ("99999999999999", 99_999_999_999_999_000),
        ("100000000000000", 100_000_000 * SECOND),
        ("99999999999999999", 99_999_999_999_999_999),
        ("100000000000000000", 100_000_000 * SECOND),
        ("-100000000000", -100_000_000 * SECOND),
    ],
)
def test_the_magnitude_of_a_number_tells_its_unit(text, us):
    assert parse_time(text) == us


@given(st.integers(10**8 * SECOND, 10**11 * SECOND - 1))
def test_seconds_to_nanoseconds_agree_to_the_microsecond(us):
    whole, fraction = divmod(us, SECOND)
    in_ms, rest = divmod(us, 1000)
    texts = [f"{whole}.{fraction:06}", f"{in_ms}.{rest:03}", f"{us}", f"{us * 1000 + 999}"]
    assert [parse_time(text) for text in texts] == [us] * 4


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-23 * 60, 23 * 60))
def test_rfc_3339_is_read_as_the_standard_library_reads_it(wall, offset_minutes):
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    text = f"{wall.isoformat(timespec='microseconds')}{sign}{minutes // 60:02}:{minutes % 60:02}"
    assert parse_time(text) == (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize("text", ["2026-01-13T17:54:43", "2026-01-13 17:54:43.25", "2026.01.13 17:54:43"])
def test_a_naive_date_time_is_refused_with_the_remedy(text):
    with pytest.raises(BadParameter, match=r"add Z for UTC, or an offset"):
        parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "yesterday",
        "2026-13-01",
        "2026-02-30",
        "2026-1-3",
        "13.01.2026",
        "2026-01-13T17:54Z",
        "2026-01-13 17:54",
        "2026-01-13T17:54:60Z",
        "2026-01-13T17:54:43+25:00",
        "NaN",
        "inf",
        "1e9",
        "1_768_326_883",
        "0x10",
        "1768326883.",
        "--1",
        "１７６８３２６８８３",
        "٢٠٢٦-٠١-١٣",
        "999999999999999999999999",
        "-99999999999",
        "1768326883'; DROP TABLE ticks; --",
        "2026-01-13T17:54:43Z\x00",
        "1\n2",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadParameter, match="is no time"):
        parse_time(text)


def test_the_message_is_one_short_printable_line_whatever_was_sent():
    with pytest.raises(BadParameter) as refused:
        parse_time("x\r\n\x1b" * 10_000)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@given(st.text())
def test_any_text_is_a_time_in_range_or_refused(text):
    us, message = None, ""
    try:
        us = parse_time(text)
    except BadParameter as refused:
        message = str(refused)
    assert message.isprintable() and message if us is None else MIN_US <= us <= MAX_US
