"""Times as senders write them, a column at a time: strings and epoch numbers to microseconds.

Strings of one length are laid out as a matrix of characters, one row of it a position, and each position is
handled for all strings at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.market.columns import I8, Mask

MIN_US = -62_135_596_800_000_000
MAX_US = 253_402_300_799_999_999
"""0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: what RFC 3339 can write and PostgreSQL can store."""

_UNIT_US = {"s": 1_000_000, "ms": 1_000}

_Chars = npt.NDArray[np.uint8]
_Index = npt.NDArray[np.intp]

_HEAD = 19  # YYYY-MM-DDTHH:MM:SS
_HEAD_PAIRS = (0, 2, 5, 8, 11, 14, 17)
_ZONES = (1, 6, 5, 3, 0)
"""How long the forms of an offset are: Z, ±HH:MM, ±HHMM, ±HH, none. A string fits one of them at most."""
_FRACTIONS = (0, *range(2, 11))
"""How long a fraction is, with its point."""
_LENGTHS = frozenset(_HEAD + fraction + zone for fraction in _FRACTIONS for zone in _ZONES)


@dataclass(slots=True)
class TimeColumn:
    """n parsed times: us: int64[n]; naive: bool[n]; ok: bool[n].

    us is UTC microseconds since 1970, or where naive the wall-clock reading as if it were UTC. Rows that are
    not ok have us 0 and naive False.
    """

    us: I8
    naive: Mask
    ok: Mask


def parse_times(values: list[str]) -> TimeColumn:
    """Parse date-times; a string that is none is not ok, and none raises.

    Taken are `YYYY-MM-DDTHH:MM:SS[.f{1,9}][Z|±HH:MM|±HHMM|±HH]` (RFC 3339; also with t, z, or a space) and
    MetaTrader's `YYYY.MM.DD HH:MM:SS[.f{1,9}]`. Years are 1 to 9999, in UTC too; there is no second 60.
    Digits behind the microsecond are cut off.
    """
    n = len(values)
    lengths = list(map(len, values))
    distinct = set(lengths)
    if len(distinct) == 1 and distinct <= _LENGTHS:
        return _parse_equally_long(values, lengths[0])
    times = TimeColumn(np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_))
    for length in distinct & _LENGTHS:
        rows = np.flatnonzero(np.array(lengths) == length)
        part = _parse_equally_long([values[row] for row in rows.tolist()], length)
        times.us[rows], times.naive[rows], times.ok[rows] = part.us, part.naive, part.ok
    return times


def numbers_to_us(
    values: Sequence[int | float] | npt.NDArray[Any], unit: Literal["s", "ms"]
) -> tuple[I8, Mask]:
    """Return the microseconds (int64[n]) of epoch seconds or milliseconds, and which rows are ok (bool[n]).

    Integers are exact, floats rounded to the nearest microsecond, ties to even. NaN, infinities and what lies
    outside the years 1 to 9999 are not ok, and 0.
    """
    factor = _UNIT_US[unit]
    low, high = MIN_US // factor, MAX_US // factor
    numbers = values if isinstance(values, np.ndarray) else _array(values)
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64)
    elif numbers.dtype == object:
        # Integers beyond 64 bits. Those in range are below 2^53, so a float holds them exactly.
        numbers = np.array([x if low <= x <= high + 1 else np.nan for x in numbers.tolist()], np.float64)
    with np.errstate(invalid="ignore"):  # a signalling NaN is one more NaN
        ok: Mask = (numbers >= low) & (numbers < high + 1)
    inside = np.where(ok, numbers, 0)
    if inside.dtype.kind in "iub":
        return inside.astype(np.int64) * factor, ok
    # The fraction alone is multiplied: the product of the whole number would be rounded before its rounding.
    whole = np.floor(inside)
    us = whole.astype(np.int64) * factor + np.rint((inside - whole) * factor).astype(np.int64)
    ok &= us <= MAX_US
    return np.where(ok, us, 0), ok


def _array(values: Sequence[int | float]) -> npt.NDArray[Any]:
    try:
        return np.array(values)
    except OverflowError:
        return np.array(values, object)


@cache  # at most as many as there are pairs of length and zone
def _layout(length: int, zone: int) -> tuple[int, _Index, _Index, _Index]:
    """Return the fraction's length, the positions of two-digit numbers (tens, ones), and of all digits.

    The position `length` is read as the digit 0; it fills a fraction up to six digits, an offset to minutes.
    """
    fraction = length - _HEAD - zone
    pairs = [(at, at + 1) for at in _HEAD_PAIRS]
    digits = list(range(_HEAD + 1, _HEAD + fraction))
    filled = (digits + [length] * 6)[:6]
    pairs += [(filled[0], filled[1]), (filled[2], filled[3]), (filled[4], filled[5])]
    if zone >= 3:
        hours, minutes = length - zone + 1, length - 2 if zone > 3 else length
        pairs += [(hours, hours + 1), (minutes, minutes + 1 if zone > 3 else length)]
    tens, ones = (np.array(column, np.intp) for column in zip(*pairs, strict=True))
    used = {*tens.tolist(), *ones.tolist(), *digits} - {length}
    return fraction, tens, ones, np.array(sorted(used), np.intp)


def _parse_equally_long(values: list[str], length: int) -> TimeColumn:
    n = len(values)
    # "replace" writes one "?" for one character: every row keeps its length, and no foreign digit passes.
    text = "".join(values).encode("ascii", "replace")
    chars = np.ascontiguousarray(np.frombuffer(text, np.uint8).reshape(n, length).T)
    digits = np.zeros((length + 1, n), np.uint8)
    np.subtract(chars, ord("0"), out=digits[:length])
    times = TimeColumn(np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_))
    for zone in _ZONES:
        if length - _HEAD - zone not in _FRACTIONS:
            continue
        fits = _has_zone(chars, zone)
        if not fits.any():
            continue
        us, ok = _parse_form(chars, digits, zone, fits)
        times.us += us
        times.ok |= ok
        if zone == 0:
            times.naive = ok
        if times.ok.all():
            break
    return times


def _has_zone(chars: _Chars, zone: int) -> Mask:
    if zone == 0:
        return np.ones(chars.shape[1], np.bool_)
    mark = chars[-zone]
    if zone == 1:
        zulu: Mask = (mark == ord("Z")) | (mark == ord("z"))
        return zulu
    signed: Mask = (mark == ord("+")) | (mark == ord("-"))
    return signed & (chars[-3] == ord(":")) if zone == 6 else signed


def _parse_form(chars: _Chars, digits: _Chars, zone: int, fits: Mask) -> tuple[I8, Mask]:
    """Return the microseconds (0 where not ok) of the rows that are wholly of this form, and which are."""
    fraction, tens, ones, used = _layout(len(chars), zone)
    ok: Mask = fits & (digits[used] <= 9).all(axis=0) & _separated(chars, fraction, naive=zone == 0)
    numbers = (digits[tens] * np.uint8(10) + digits[ones]).astype(np.int64)
    century, year, month, day, hour, minute, second, f1, f2, f3 = numbers[:10]
    year = century * 100 + year
    ok &= (year >= 1) & (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 59)
    months = (year - 1970) * 12 + month - 1
    first_day = _day_of_month_start(months)
    ok &= (day >= 1) & (day <= _day_of_month_start(months + 1) - first_day)
    minutes = (first_day + day - 1) * 1440 + hour * 60 + minute
    if zone >= 3:
        offset_hour, offset_minute = numbers[10:]
        ok &= (offset_hour <= 23) & (offset_minute <= 59)
        offset = offset_hour * 60 + offset_minute
        minutes += np.where(chars[-zone] == ord("-"), offset, -offset)
    us = (minutes * 60 + second) * 1_000_000 + (f1 * 100 + f2) * 100 + f3
    ok &= (us >= MIN_US) & (us <= MAX_US)
    return np.where(ok, us, 0), ok


def _separated(chars: _Chars, fraction: int, *, naive: bool) -> Mask:
    space = chars[10] == ord(" ")
    iso: Mask = (chars[4] == ord("-")) & (chars[7] == ord("-")) & (space | (chars[10] | 0x20 == ord("t")))
    if naive:
        iso |= (chars[4] == ord(".")) & (chars[7] == ord(".")) & space
    iso &= (chars[13] == ord(":")) & (chars[16] == ord(":"))
    return iso & (chars[_HEAD] == ord(".")) if fraction else iso


def _day_of_month_start(months: I8) -> I8:
    """Return the days since 1970-01-01 of the first of a month, given in months since January 1970."""
    return months.view("M8[M]").astype("M8[D]").view(np.int64)
