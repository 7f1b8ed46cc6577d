"""The records that the datasets bench sends: of any declared dataset, as the desk's symbols have them."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from app.datasets.declare import Column, Dataset
from tests.bench.rows import SYMBOLS
from tests.dataset_rows import key_value, value

FIRST = datetime.datetime(2026, 1, 13, 2, tzinfo=datetime.UTC)
LAST_DAY = datetime.date(2026, 1, 13)


def batches(dataset: Dataset, count: int, rows: int) -> Iterator[list[dict[str, Any]]]:
    """Yield `count` lists of `rows` records; no two share their key, but for symbols: those are changed each time."""
    rng = random.Random(dataset.name)
    for batch in range(count):
        first = 0 if dataset.adds_symbols else batch * rows
        yield [_record(dataset, number, rng) for number in range(first, first + rows)]


def encoded(dataset: Dataset, count: int, rows: int) -> list[bytes]:
    """Return the batches as bodies of POST /ingest/{dataset}."""
    return [msgspec.json.encode(batch) for batch in batches(dataset, count, rows)]


def _record(dataset: Dataset, number: int, rng: random.Random) -> dict[str, Any]:
    """Return a record with all its fields."""
    kinds = {column.kind for column in dataset.keys}
    named = len(kinds & {"time", "date"}) > 0 and len(dataset.keys) > 1
    turn, name = divmod(number, len(SYMBOLS)) if named else (number, 0)
    return {
        column.name: _key(column, number, turn, name) if column in dataset.keys else value(dataset, column, rng)
        for column in dataset.columns
    }


def _key(column: Column, number: int, turn: int, name: int) -> Any:
    """Return a key's field: what has names has as many as there are symbols, each at one moment after the other."""
    if column.kind == "symbol":
        return SYMBOLS[name]
    if column.kind == "time":
        return (FIRST + datetime.timedelta(seconds=turn)).isoformat(timespec="microseconds")
    if column.kind == "date":
        return (LAST_DAY - datetime.timedelta(days=turn)).isoformat()
    if column.kind == "text" and not column.choices and turn != number:
        return f"{column.name} {name}"
    return key_value(column, number)
