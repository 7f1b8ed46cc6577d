"""The one shape in which rows leave: named columns of a few kinds. Pure, lane side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["time", "float", "int", "bool", "text", "date", "json", "truth"]

NULL_INT = np.iinfo(np.int64).min
"""What stands for null in a column of times or integers."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column's name, kind and meaning.

    Its values: time: int64, UTC microseconds; int: int64; both NULL_INT for null. float: float64, NaN for null.
    bool: bool, never null. text: a list of str or None. date: the same, as YYYY-MM-DD;
    json: the same, as JSON. truth: a list of bool or None.
    """

    name: str
    kind: Kind
    help: str = ""


Values = npt.NDArray[Any] | list[str | None] | list[bool | None]


@dataclass(slots=True)
class Table:
    """n rows as columns, in the order of the fields."""

    fields: tuple[Field, ...]
    columns: list[Values]

    def __len__(self) -> int:
        return len(self.columns[0])

    def slice(self, start: int, stop: int) -> Table:
        """Return the rows from `start` to before `stop`, sharing memory."""
        return Table(self.fields, [values[start:stop] for values in self.columns])

    def backwards(self) -> Table:
        """Return the rows in the opposite order."""
        return Table(self.fields, [values[::-1] for values in self.columns])


def empty(fields: Sequence[Field]) -> Table:
    """Return a table without rows."""
    dtypes = {"time": np.int64, "int": np.int64, "float": np.float64, "bool": np.bool_}
    columns: list[Values] = [
        [] if field.kind in ("text", "date", "json", "truth") else np.zeros(0, dtypes[field.kind]) for field in fields
    ]
    return Table(tuple(fields), columns)
