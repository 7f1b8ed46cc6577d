"""Rows of a dataset on their way into its table; several of one key made one. Pure, lane side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from app.datasets.declare import Dataset, Policy


@dataclass(slots=True)
class Row:
    """A record with ids: `key` in the order of the dataset's key, `values` that were sent, by field.

    received_us: when it was accepted (UTC microseconds); of rows made one, the last. symbol: the name, for people.
    """

    key: tuple[Any, ...]
    values: dict[str, Any]
    symbol: str | None = None
    row_no: int = 0
    received_us: int = 0

    @classmethod
    def of(cls, dataset: Dataset, record: Mapping[str, Any], names: Mapping[str, int | str]) -> Row:
        """Make a row of a record; absent fields are UNSET. names: what stands for symbols in the table."""
        values = {name: value for name, value in record.items() if value is not UNSET}
        symbol = values.get(dataset.symbol) if dataset.symbol is not None else None
        if dataset.symbol is not None and symbol is not None:
            values[dataset.symbol] = names[symbol]
        key = tuple([values.pop(name, None) for name in dataset.key])
        return cls(key, values, symbol)


@dataclass(slots=True)
class Folded:
    """One row a key, in the order of keys' first rows, and what became of the others.

    later: rows that are to be held against what is stored of their key, once the first one has been (`error`).
    """

    rows: list[Row]
    stored: int = 0
    duplicates: int = 0
    later: list[Row] = field(default_factory=list)


def fold(dataset: Dataset, policy: Policy, rows: Sequence[Row]) -> Folded:
    """Make rows of one key one, as the policy would have left them had they come one by one."""
    by_key: dict[tuple[Any, ...], Row] = {}
    own: set[tuple[Any, ...]] = set()
    folded = Folded([])
    for row in rows:
        first = by_key.setdefault(row.key, row)
        if first is row:
            continue
        if policy in ("update", "keep_newest") and row.key not in own:
            # The rows themselves may be wanted again, in smaller parts.
            own.add(row.key)
            first = Row(first.key, dict(first.values), first.symbol, first.row_no, first.received_us)
            by_key[row.key] = first
        if policy == "ignore":
            folded.duplicates += 1
        elif policy == "error":
            folded.later.append(row)
        elif policy == "keep_newest" and _is_older(dataset, row, first):
            folded.duplicates += 1
        else:
            # Also where nothing changes: what was accepted before this must not count as newer when it comes.
            first.received_us = max(first.received_us, row.received_us)
            if row.values.items() <= first.values.items():
                folded.duplicates += 1
            else:
                folded.stored += 1
                first.values |= row.values
    folded.rows = list(by_key.values())
    return folded


def _is_older(dataset: Dataset, row: Row, first: Row) -> bool:
    """Tell whether the row is older by its own time; without one the order of arrival decides."""
    own = dataset.own_time
    ours, theirs = (None, None) if own is None else (row.values.get(own.name), first.values.get(own.name))
    return ours is not None and theirs is not None and ours < theirs
