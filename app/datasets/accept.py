"""From decoded rows to accepted records: symbols, clock, rules. Pure; may run on a lane."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from app.datasets.declare import KEY_BYTES, Dataset, Policy
from app.datasets.decode import Decoded
from app.datasets.records import Records
from app.market.accept import Limits
from app.market.clock import BrokerClock
from app.market.decode import Rejected
from app.market.symbols import VALID_SYMBOL, SymbolMap
from app.market.timestamps import numbers_to_us, parse_times

FIRST_US = -2_208_988_800_000_000
"""1900-01-01: prices of a day go back further than ticks do."""

LEAST_NUMBER_MS = 100_000_000_000
"""Numbers nearer to 1970 than this (March 1973) are taken for mistakes; texts may say such times."""

MOST_TEXT = 1 << 16
"""Characters of a text, or of an object as JSON: thousands of rows are one page."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)

Reason = tuple[str, str]
"""(code, message)."""


@dataclass(slots=True)
class AcceptedRecords:
    """The records that are taken, and the refused rows in order of their index."""

    records: Records
    rejected: list[Rejected]


def unknown_names(dataset: Dataset, decoded: Decoded, symbols: SymbolMap) -> list[str]:
    """Return the distinct symbols that the map does not know."""
    if dataset.symbol is None or dataset.adds_symbols:
        return []
    attribute = dataset.by_name[dataset.symbol].attribute
    names = {getattr(row, attribute) for row in decoded.rows} - {UNSET, None}
    return sorted(name for name in names if symbols.index(name) < 0)


def accept_records(
    dataset: Dataset,
    decoded: Decoded,
    policy: Policy,
    symbols: SymbolMap,
    clock: BrokerClock,
    limits: Limits,
    now_us: int,
    unknown: Callable[[str], Rejected],
) -> AcceptedRecords:
    """Check the rows and make columns of those that pass.

    `unknown(name)` says how a row of an unknown symbol is refused (its index is filled in here).
    """
    refused: dict[int, Reason] = {}
    columns: dict[str, list[Any]] = {}
    # Times first: a row without one is said to be that, and never to be sent again later.
    for column in sorted(dataset.columns, key=lambda column: column.kind != "time"):
        values = [getattr(row, column.attribute) for row in decoded.rows]
        if column.kind == "time":
            values = _times(column.name, values, dataset, clock, limits, now_us, refused)
        elif column.kind == "symbol":
            values = _symbols(values, symbols, unknown, refused)
        elif column.kind == "name":
            values = _names(column.name, values, symbols, refused)
        elif column.kind == "date":
            values = [value if value in (None, UNSET) else value.isoformat() for value in values]
        elif column.kind == "json":
            values = _objects(column.name, values, refused)
        if column.kind in ("text", "json"):
            _check_texts(column.name, values, refused, nul="\\u0000" if column.kind == "json" else "\0")
        elif column.kind == "float":
            _check_numbers(column.name, values, refused)
        columns[column.name] = values
    _check_key(dataset, columns, refused)
    columns = {column.name: columns[column.name] for column in dataset.columns}
    rejected = list(decoded.rejected)
    if refused:
        rejected += [Rejected(decoded.index[at], *reason) for at, reason in refused.items()]
        kept = [at for at in range(len(decoded.rows)) if at not in refused]
        columns = {name: [values[at] for at in kept] for name, values in columns.items()}
    rejected.sort(key=lambda found: found.index)
    if dataset.derive is not None:
        dataset.derive(columns)
    return AcceptedRecords(Records(policy, len(decoded.rows) - len(refused), columns), rejected)


def _times(
    name: str,
    values: list[Any],
    dataset: Dataset,
    clock: BrokerClock,
    limits: Limits,
    now_us: int,
    refused: dict[int, Reason],
) -> list[Any]:
    """Return UTC microseconds; refuse what is no time or out of bounds. None and UNSET stay."""
    given = [at for at, value in enumerate(values) if value is not None and value is not UNSET]
    us = np.zeros(len(given), np.int64)
    ok = np.ones(len(given), np.bool_)
    texts = [place for place, at in enumerate(given) if isinstance(values[at], str)]
    numbers = [place for place, at in enumerate(given) if not isinstance(values[at], str)]
    for place in texts:
        text = values[given[place]].strip()
        if _NUMBER.fullmatch(text):  # as CSV has them
            values[given[place]] = float(text) if "." in text else int(text)
            numbers.append(place)
        elif _DATE.fullmatch(text):
            values[given[place]] = f"{text}T00:00:00Z"
    texts = [place for place in texts if isinstance(values[given[place]], str)]
    if numbers:
        us[numbers], ok[numbers] = numbers_to_us([values[given[place]] for place in numbers], "ms")
        for place in numbers:
            # Seconds, or a day written as a number: as milliseconds they are in 1970, and nobody would see them again.
            if ok[place] and abs(us[place]) < LEAST_NUMBER_MS * 1000:
                said = str(values[given[place]])[:40]
                refused.setdefault(
                    given[place],
                    ("bad_field", f"{name}: numbers are milliseconds since 1970, {said} is not likely one"),
                )
    if texts:
        parsed = parse_times([values[given[place]] for place in texts])
        found, naive = parsed.us, parsed.naive
        if clock.spec != "UTC" and naive.any():
            found = np.where(naive, clock.to_utc_us(found, np.zeros(len(found), np.bool_)), found)
        us[texts], ok[texts] = found, parsed.ok
    last_us = now_us + limits.max_ahead_us
    for place, at in enumerate(given):
        if not ok[place]:
            refused.setdefault(at, ("bad_field", f"{name} is not a time: {str(values[at])[:40]!r}"))
        elif us[place] < FIRST_US:
            refused.setdefault(at, ("too_old", f"{name} is before 1900-01-01"))
        elif us[place] > last_us and not dataset.ahead:
            refused.setdefault(at, ("bad_field", f"{name} is too far ahead of this server's clock"))
    told = list(values)
    for at, value in zip(given, us.tolist(), strict=True):
        told[at] = value
    return told


def _symbols(
    values: Sequence[Any], symbols: SymbolMap, unknown: Callable[[str], Rejected], refused: dict[int, Reason]
) -> list[Any]:
    """Return canonical names; refuse unknown ones."""
    told: list[Any] = []
    for at, name in enumerate(values):
        found = name
        if name is not None and name is not UNSET:
            index = symbols.index(name)
            if index < 0:
                reason = unknown(name)
                refused.setdefault(at, (reason.code, reason.message))
            else:
                found = symbols.names[index]
        told.append(found)
    return told


def _names(name: str, values: Sequence[Any], symbols: SymbolMap, refused: dict[int, Reason]) -> list[Any]:
    """Return canonical names of known instruments, and names that may become one's; refuse others."""
    told: list[Any] = []
    for at, value in enumerate(values):
        text = value.strip()
        index = symbols.index(text)
        if index < 0 and not VALID_SYMBOL.fullmatch(text):
            refused.setdefault(at, ("bad_field", f"{name} is not a usable name: {value[:64]!r}"))
        told.append(symbols.names[index] if index >= 0 else text)
    return told


def _objects(name: str, values: Sequence[Any], refused: dict[int, Reason]) -> list[Any]:
    """Return objects as JSON texts, their members in order, so that equal ones are equal texts."""
    told: list[Any] = []
    for at, value in enumerate(values):
        text = value
        if value is not None and value is not UNSET:
            try:
                text = msgspec.json.encode(value, order="sorted").decode()
            except (RecursionError, UnicodeEncodeError):
                refused.setdefault(at, ("bad_field", f"{name} is nested too deeply, or holds half a character"))
        told.append(text)
    return told


def _check_texts(name: str, values: Sequence[Any], refused: dict[int, Reason], nul: str) -> None:
    """Refuse what PostgreSQL has no place for: NULs, and halves of surrogate pairs; and what no page could hold."""
    for at, text in enumerate(values):
        if not isinstance(text, str):
            continue
        if len(text) > MOST_TEXT:
            refused.setdefault(
                at, ("bad_field", f"{name} is too long: {len(text):,} characters, {MOST_TEXT:,} at most")
            )
        elif nul in text:
            refused.setdefault(at, ("bad_field", f"{name} must not hold a NUL"))
        elif not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                refused.setdefault(at, ("bad_field", f"{name} must be text: it holds half a character"))


def _check_numbers(name: str, values: Sequence[Any], refused: dict[int, Reason]) -> None:
    for at, number in enumerate(values):
        if isinstance(number, float) and not math.isfinite(number):
            refused.setdefault(at, ("bad_field", f"{name} must be a finite number"))


def _check_key(dataset: Dataset, columns: dict[str, list[Any]], refused: dict[int, Reason]) -> None:
    """Refuse keys whose texts are too long for an index."""
    texts = [columns[column.name] for column in dataset.key_texts]
    if not texts:
        return
    names = " and ".join(column.name for column in dataset.key_texts)
    for at, key in enumerate(zip(*texts, strict=True)):
        if sum(map(len, key)) * 4 > KEY_BYTES and sum(len(text.encode("utf-8", "replace")) for text in key) > KEY_BYTES:
            refused.setdefault(at, ("bad_field", f"{names} must be {KEY_BYTES} bytes at most"))
