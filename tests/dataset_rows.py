"""Records of any declared dataset, made of its declaration: what the tests that every dataset must pass are fed."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from app.datasets.accept import accept_records
from app.datasets.declare import Column, Dataset, Policy
from app.datasets.decode import decode_records
from app.datasets.records import LAYOUT, Records
from app.market.accept import Limits
from app.market.batches import Batch, Record
from app.market.clock import BrokerClock
from app.market.decode import Rejected
from app.market.symbols import SEED, SymbolMap
from app.market.timestamps import MAX_US
from tests.batches import Feeder

FIRST = datetime.datetime(2026, 1, 13, 2, tzinfo=datetime.UTC)
SYMBOLS = ["AAPL", "TSLA", "NatGas"]
TEXTS = ["plain", 'quo"ted, comma', "tab\there", "back\\slash", "line\nbreak", "Việt Nam ₫ 🙂", "\\N", "null", "'); --"]
FLOATS = [0.0, 0.1 + 0.2, 1 / 3, 1e-7, 123456.789, 1e15, 5e-324, 440.0]
LIMITS = Limits(oldest_us=631_152_000_000_000, oldest="1990-01-01", max_ahead_us=86_400_000_000)


def key_value(column: Column, number: int) -> Any:
    """Return the value of a key's field of the `number`th record; no two records share all of them."""
    if column.kind == "symbol":
        return None if number % 5 == 4 and not column.required else SYMBOLS[number % len(SYMBOLS)]
    if column.kind == "time":
        return (FIRST + datetime.timedelta(seconds=number)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if column.kind == "date":
        return (FIRST.date() + datetime.timedelta(days=number)).isoformat()
    if column.kind == "float":
        return 100.0 + number
    if column.kind == "int":
        return number
    return column.choices[number % len(column.choices)] if column.choices else f"{column.name} {number:04}"


def value(dataset: Dataset, column: Column, rng: random.Random) -> Any:
    """Return a value that a field of this kind may have, and that is hard to keep."""
    if column.choices or column.examples:
        return rng.choice(column.choices or column.examples)
    if column.kind == "float":
        return rng.choice([number for number in FLOATS if _fits(dataset, column.attribute, number)])
    if column.kind == "int":
        return rng.choice([number for number in (0, 1, 7, 15, 1 << 53) if _fits(dataset, column.attribute, number)])
    if column.kind == "bool":
        return rng.random() < 0.5
    if column.kind == "json":
        return {"fast": rng.randrange(100), "name": rng.choice(TEXTS)}
    if column.kind == "text":
        return rng.choice(TEXTS)
    return key_value(column, rng.randrange(1000))


@cache
def _fits(dataset: Dataset, name: str, number: float) -> bool:
    kind = next(info.type for info in msgspec.structs.fields(dataset.record) if info.name == name)
    try:
        msgspec.convert(number, kind)
    except msgspec.ValidationError:
        return False
    return True


def records(dataset: Dataset, count: int, seed: int = 1, first: int = 0) -> list[dict[str, Any]]:
    """Return records of distinct keys; some of their fields are null, and some absent."""
    rng = random.Random(seed)
    made = []
    for number in range(first, first + count):
        record = {column.name: key_value(column, number) for column in dataset.keys}
        for column in dataset.values:
            chance = rng.random()
            if column.required or chance < 0.7:
                record[column.name] = value(dataset, column, rng)
            elif chance < 0.85:
                record[column.name] = None
        made.append({column.name: record[column.name] for column in dataset.columns if column.name in record})
    return made


def accepted(dataset: Dataset, sent: Sequence[dict[str, Any]], policy: Policy) -> Records:
    """Return the records as the journal takes them; none may be bad."""

    def unknown(name: str) -> Rejected:
        return Rejected(0, "unknown_symbol", name)

    decoded = decode_records(dataset, json.dumps(list(sent)).encode(), "json", 1_000_000)
    found = accept_records(dataset, decoded, policy, SymbolMap(SEED), BrokerClock("UTC"), LIMITS, MAX_US // 2, unknown)
    assert not found.rejected
    return found.records


class RecordFeeder(Feeder):
    """A journal without files, of records."""

    def records(self, *requests: tuple[Dataset, Policy, Sequence[dict[str, Any]]]) -> Batch:
        """Return the next batch: a journal's record for each request."""
        batch = Batch(first_row=self.row)
        for dataset, policy, sent in requests:
            payload = accepted(dataset, sent, policy).encode()
            batch.records.append(Record(dataset.name, LAYOUT, len(sent), self.row, self.received_us, payload))
            self.row += len(sent)
            self.received_us += len(sent)
            batch.rows += len(sent)
        batch.end_row = self.row
        return batch
