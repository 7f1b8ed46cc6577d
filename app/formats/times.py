"""Times as text, a column at once: 2026-01-13T17:54:43.000000Z. Pure, lane side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

WIDTH = 27
"""Bytes of every time, with six fraction digits and the Z."""

_DAY_US = np.int64(86_400_000_000)
_MINUTE_US = np.int64(60_000_000)
_SECOND_US = np.int32(1_000_000)

_PARTS = [("day", "S10"), ("minute", "S7"), ("second", "S3"), ("ms", "S3"), ("us", "S3")]
_MINUTES = np.array([f"T{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1440)], "S7")
_SECONDS = np.array([f"{second:02d}." for second in range(60)], "S3")
_THOUSANDTHS = np.array([f"{part:03d}" for part in range(1000)], "S3")


def time_bytes(times_us: npt.NDArray[np.int64], end: bytes = b"Z") -> npt.NDArray[Any]:
    """Return UTC microseconds as RFC 3339 text, an array of n records: 26 bytes and the `end`, which begins with Z.

    Right for the years 0001 to 9999; anything else, NULL_INT too, gives as many bytes without meaning. Three times as
    quick as numpy's own datetime_as_string, since only the day needs a calendar and neighbours mostly share it.
    """
    texts = np.empty(len(times_us), [*_PARTS, ("end", f"S{len(end)}")])
    if not len(times_us):
        return texts
    days, rest_us = _divided(times_us, _DAY_US)
    minutes, rest_us = _divided(rest_us, _MINUTE_US)
    seconds, rest_us = _divided(rest_us.astype(np.int32), _SECOND_US)
    thousandths, millionths = _divided(rest_us, np.int32(1000))
    texts["day"] = _day_texts(days)
    texts["minute"] = _MINUTES[minutes]
    texts["second"] = _SECONDS[seconds]
    texts["ms"] = _THOUSANDTHS[thousandths]
    texts["us"] = _THOUSANDTHS[millionths]
    texts["end"] = end
    return texts


def _divided(numbers: npt.NDArray[Any], by: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    quotients = numbers // by  # numpy has a quick way for this, and none for divmod
    return quotients, numbers - quotients * by


def _day_texts(days: npt.NDArray[np.int64]) -> npt.NDArray[np.bytes_]:
    begins = np.flatnonzero(np.diff(days, prepend=days[0] - 1))  # one run of equal days each
    texts = np.datetime_as_string(days[begins].view("M8[D]")).astype("S10")
    return np.repeat(texts, np.diff(begins, append=len(days)))


def time_texts(times_us: npt.NDArray[np.int64]) -> list[str]:
    """Return UTC microseconds as RFC 3339 text, a list of str; see time_bytes."""
    texts: list[str] = time_bytes(times_us).view(f"S{WIDTH}").astype(f"U{WIDTH}").tolist()
    return texts
