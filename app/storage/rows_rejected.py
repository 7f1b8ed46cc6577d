"""Records that cannot be stored are kept in `rejected_records` with the reason, once. Lane side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from app.datasets.declare import Dataset
from app.storage.rows_folding import Row
from app.storage.tick_reader import timestamp

_INSERT = """
    INSERT INTO rejected_records (journal_no, row_no, dataset, code, message, payload, received_at)
    VALUES %s ON CONFLICT DO NOTHING
"""


@dataclass(slots=True)
class Refused:
    """A row that cannot be stored, and why."""

    row: Row
    code: str
    message: str

    @property
    def reason(self) -> tuple[str, str]:
        """Return code and message."""
        return self.code, self.message


def set_aside(cur: Cursor, dataset: Dataset, journal_no: int, refused: Sequence[Refused]) -> None:
    """Keep the rows with the reason; keyed by journal and row, so twice is once."""
    rows = [
        (
            journal_no,
            one.row.row_no,
            dataset.name,
            one.code,
            one.message,
            msgspec.json.encode(_record(dataset, one.row)).decode(),
            timestamp(one.row.received_us),
        )
        for one in refused
    ]
    if rows:
        execute_values(cur, _INSERT, rows, page_size=1000)


def _record(dataset: Dataset, row: Row) -> dict[str, Any]:
    """Return the row as it was accepted, with names and texts where the table has ids and numbers."""
    told = dict(zip(dataset.key, row.key, strict=True)) | row.values
    for column in dataset.columns:
        value = told.get(column.name)
        if column.kind == "symbol" and value is not None:
            told[column.name] = row.symbol
        elif column.kind == "time" and value is not None:
            told[column.name] = timestamp(value)
        elif column.kind == "json" and value is not None:
            told[column.name] = msgspec.Raw(value.encode())
    return told
