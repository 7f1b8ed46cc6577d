"""The writers of all datasets that a flush may hold, for one connection. Lane side."""

from __future__ import annotations

from app.datasets.registry import DATASETS
from app.storage.instruments import InstrumentIds
from app.storage.rows_writer import RowsWriter
from app.storage.sink import DatasetWriter
from app.storage.ticks_writer import TicksWriter


def writers() -> dict[str, DatasetWriter]:
    """Return a writer for each dataset, in the global order of locks: ticks first."""
    ids = InstrumentIds()
    return {"ticks": TicksWriter(), **{name: RowsWriter(dataset, ids) for name, dataset in sorted(DATASETS.items())}}
