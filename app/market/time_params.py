"""Times as people write them in a request or on a command line: one text to one microsecond. Pure, lane side."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from app.errors import BadParameter
from app.market.timestamps import MAX_US, MIN_US, parse_times

_EPOCH_LIMITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
"""A number of a magnitude below the first is of a unit that has so many microseconds. Each unit then spans the times
from 1973 to 5138, so that no two can be confused, and seconds those before as well."""
_MICROSECONDS_A_NANOSECOND = Fraction(1, 1000)

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_COMMON = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BLANK_OFFSET = re.compile(r"(.{19,}) ([0-9]{2}(:?[0-9]{2})?)", re.ASCII)
_SHOWN_CHARS = 60


def parse_time(text: str) -> int:
    """Return the UTC microseconds since 1970 that a text means.

    Taken are RFC 3339 with an offset, a bare date (midnight UTC), and epoch seconds, milliseconds, microseconds or
    nanoseconds, told apart by their magnitude (below 1e11, 1e14, 1e17, or more). What is behind the microsecond is cut
    off. Raises BadParameter, with a message that makes a sentence behind "NAME: ".
    """
    given = text.strip()
    us = _number(given) if _NUMBER.fullmatch(given) else _written(given)
    if us is None:
        raise BadParameter(
            f"{_shown(text)} is no time: write 2026-01-13T17:54:43Z, 2026-01-13 or the seconds since 1970"
        )
    return us


def _number(text: str) -> int | None:
    number = Fraction(text)
    unit = next((us for limit, us in _EPOCH_LIMITS if abs(number) < limit), _MICROSECONDS_A_NANOSECOND)
    us = (number * unit).__floor__()
    return us if MIN_US <= us <= MAX_US else None


def _written(text: str) -> int | None:
    if _DATE.fullmatch(text):
        text += "T00:00:00Z"
    if _COMMON.fullmatch(text):
        # A third of the time that the columns below take for one; what it refuses they refuse too.
        with suppress(ValueError, OverflowError):
            us = (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
            return us if MIN_US <= us <= MAX_US else None
    # A + in a URL arrives as a blank unless it was sent as %2B, which people forget.
    if blank := _BLANK_OFFSET.fullmatch(text):
        text = f"{blank[1]}+{blank[2]}"
    times = parse_times([text])
    if not times.ok[0]:
        return None
    if times.naive[0]:
        raise BadParameter(
            f"{_shown(text)} could be anybody's clock: add Z for UTC, or an offset such as -05:00 or +02:00"
        )
    return int(times.us[0])


def _shown(text: str) -> str:
    short = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
    return short if short.isprintable() and short.strip() == short != "" else repr(short)
