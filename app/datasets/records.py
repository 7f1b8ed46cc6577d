"""Checked records of one request as columns, and their bytes in the journal. Pure, lane side.

The bytes are MessagePack: the policy that was promised, the number of rows, and of each field its values; of a field
that only some rows were sent, which ones; a field that no row was sent is not there. So a field that a dataset gets
later is absent in old bytes, and one that it has lost is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from app.datasets.declare import Dataset, Policy
from app.errors import TickhubError

LAYOUT = 1
"""Version of the bytes that `encode` writes. A new layout gets a new number; old ones stay readable."""


class _Payload(msgspec.Struct, array_like=True):
    policy: Policy
    rows: int
    columns: dict[str, list[Any]]
    sent: dict[str, bytes]


_DECODER = msgspec.msgpack.Decoder(_Payload)
_ENCODER = msgspec.msgpack.Encoder()


@dataclass(slots=True)
class Records:
    """n accepted records in the order in which they were sent, and what their request asked for duplicates.

    columns: a list of n values by field: symbols by their canonical names, times as UTC microseconds since 1970, dates
    as YYYY-MM-DD, objects as JSON text; None is null, UNSET what was not sent.
    """

    policy: Policy
    rows: int
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return self.rows

    def encode(self) -> bytes:
        """Return the bytes for the journal, in LAYOUT."""
        columns: dict[str, list[Any]] = {}
        sent: dict[str, bytes] = {}
        for name, values in self.columns.items():
            given = bytes(value is not msgspec.UNSET for value in values)
            if 1 not in given:
                continue
            if 0 in given:
                sent[name] = given
                values = [None if value is msgspec.UNSET else value for value in values]
            columns[name] = values
        return _ENCODER.encode(_Payload(self.policy, self.rows, columns, sent))

    @classmethod
    def decode(cls, dataset: Dataset, payload: bytes, layout: int) -> Records:
        """Read what `encode` wrote, with the columns that the dataset has now.

        Raises TickhubError for a layout that this version does not know.
        """
        if layout != LAYOUT:
            raise TickhubError(f"records of {dataset.name} in layout {layout}: written by a newer tickhub")
        found = _DECODER.decode(payload)
        columns: dict[str, list[Any]] = {}
        for column in dataset.columns:
            values = found.columns.get(column.name)
            if values is None:
                values = [msgspec.UNSET] * found.rows
            elif column.name in found.sent:
                given = found.sent[column.name]
                values = [value if is_sent else msgspec.UNSET for value, is_sent in zip(values, given, strict=True)]
            columns[column.name] = values
        return cls(found.policy, found.rows, columns)
