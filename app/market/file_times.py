"""The times of tick files, by columns of Arrow arrays. Pure.

Each function returns time_us, int64[n] in microseconds: true UTC where `utc`, else the broker's wall clock
written as if it were UTC; and ok, bool[n], False where the value is missing or no time.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import numpy as np

from app.market.columns import I8, Mask
from app.market.timestamps import parse_times

DAY_US = 86_400_000_000
_DATE = re.compile(r"(\d{4})([.\-/])(\d\d)\2(\d\d)", re.ASCII)
_INTEGER = re.compile(r"\s*-?\d{1,19}\s*", re.ASCII)
_FLOAT = re.compile(r"\s*-?\d{1,18}\.\d*\s*", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()


def dates_and_times(dates: Any, times: Any) -> tuple[I8, Mask]:
    """Join MetaTrader 5's DATE (dictionary of strings) and TIME (time64[us]) columns to wall times."""
    import pyarrow as pa

    days = [_day(text) for text in dates.dictionary.to_pylist()]
    starts = np.array([*(0 if day is None else day for day in days), 0], np.int64) * DAY_US
    known = np.array([*(day is not None for day in days), False], np.bool_)
    index = dates.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    of_day = times.cast(pa.int64())
    ok = known[index] & ~of_day.is_null().to_numpy(zero_copy_only=False)
    return starts[index] + of_day.fill_null(0).to_numpy(zero_copy_only=False), ok


def epoch_or_text(values: Any, name: str) -> tuple[I8, Mask, Mask]:
    """Read a column of strings: epoch numbers, or date-times with or without an offset.

    name: `time_msc` (milliseconds), `time` or `timestamp` (unit by magnitude). Numbers are the wall clock, as
    MetaTrader 5 gives them, but for `timestamp`, where they are UTC.
    """
    import pyarrow as pa

    absent = values.is_null().to_numpy(zero_copy_only=False)
    try:
        numbers = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return _one_by_one(values.fill_null("").to_pylist(), name)
    time_us, ok = _epoch_us(numbers, name)
    return time_us, np.full(len(values), name == "timestamp"), ok & ~absent


def timestamps(values: Any, name: str) -> tuple[I8, Mask, Mask]:
    """Read a typed column: timestamps with a zone are UTC, those without wall times; numbers as above."""
    import pyarrow as pa

    absent = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(values.type):
        utc = np.full(len(values), values.type.tz is not None)
        naive = pa.timestamp(values.type.unit)
        in_us = values.cast(naive).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return in_us.fill_null(0).to_numpy(zero_copy_only=False), utc, ~absent
    utc = np.full(len(values), name == "timestamp")
    if pa.types.is_floating(values.type):
        time_us, ok = _float_epoch_us(
            values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False), name
        )
    else:
        time_us, ok = _epoch_us(values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), name)
    return time_us, utc, ok & ~absent


def _one_by_one(texts: list[str], name: str) -> tuple[I8, Mask, Mask]:
    parsed = parse_times(texts)
    time_us, utc, ok = parsed.us.copy(), ~parsed.naive, parsed.ok.copy()
    if name == "time_msc":
        ok[:] = False
    for i in np.flatnonzero(~ok):
        text = texts[i]
        if _INTEGER.fullmatch(text) and abs(int(text)) < 2**63:
            us, fits = _epoch_us(np.array([int(text)], np.int64), name)
        elif _FLOAT.fullmatch(text):
            us, fits = _float_epoch_us(np.array([float(text)]), name)
        else:
            continue
        time_us[i], ok[i], utc[i] = us[0], fits[0], name == "timestamp"
    return time_us, utc, ok


def _scale(size: Any, name: str) -> Any:
    """Return the microseconds (float: nanoseconds are 0.001) in the unit that the magnitude tells."""
    if name == "time_msc":
        return np.full(size.shape, 1000.0)
    return np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)


def _epoch_us(numbers: I8, name: str) -> tuple[I8, Mask]:
    scale = _scale(np.abs(numbers.astype(np.float64)), name)
    fits = np.abs(numbers * scale) < 2.5e17
    safe = np.where(fits, numbers, 0)
    return np.where(scale < 1, safe // 1000, safe * np.maximum(scale, 1).astype(np.int64)), fits


def _float_epoch_us(numbers: Any, name: str) -> tuple[I8, Mask]:
    scale = _scale(np.abs(numbers), name)
    fits = np.isfinite(numbers) & (np.abs(numbers) < 2.5e20)
    fits &= np.abs(np.where(fits, numbers, 0.0) * scale) < 2.5e17
    return np.rint(np.where(fits, numbers, 0.0) * scale).astype(np.int64), fits


def _day(text: str | None) -> int | None:
    """Return the days since 1970 of `2013.10.08`, or None."""
    found = _DATE.fullmatch((text or "").strip())
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[3]), int(found[4])).toordinal() - _EPOCH
    except ValueError:
        return None
