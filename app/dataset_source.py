"""Records of a dataset as rows of a request. Lane side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset
from app.formats.table import Field, Table
from app.page_token import foreign_token
from app.row_stream import ALL, Page
from app.storage.instruments import Known
from app.storage.rows_reader import fields_of, read_rows, rows_version
from app.storage.trades_reader import read_trades, trades_version


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Records of [start_us, end_us). chosen: values that fields of the key must have."""

    dataset: Dataset
    start_us: int | None
    end_us: int | None
    chosen: Mapping[str, str] = field(default_factory=dict)
    list_name: str = "records"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return the fields of the records."""
        return fields_of(self.dataset)

    @property
    def kind(self) -> tuple[str, ...]:
        """Return what tells these records from others."""
        return ("records", self.dataset.name, *(part for pair in sorted(self.chosen.items()) for part in pair))

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return [start_us, end_us)."""
        return self.start_us, self.end_us

    def head(self, instrument: Known) -> Mapping[str, str | None]:
        """Return the dataset's name."""
        return {"dataset": self.dataset.name}

    def version(self, cur: Cursor, instrument: Known) -> str:
        """Return the version of the records in the range."""
        version = rows_version if self.dataset.stored_in is None else trades_version
        return version(cur, self.dataset, _symbol_id(instrument), self.start_us, self.end_us)

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next records. Raises BadParameter for a place that is none."""
        read = partial(read_rows, chosen=self.chosen) if self.dataset.stored_in is None else read_trades
        try:
            found = read(
                cur,
                self.dataset,
                symbol_id=_symbol_id(instrument),
                start_us=self.start_us,
                end_us=self.end_us,
                after=after,
                descending=descending,
                max_rows=max_rows,
            )
        except ValueError as error:
            raise foreign_token() from error
        return Page(found.table, found.last_key, found.more)

    def lasting(self, table: Table) -> bool:
        """Records are what they are."""
        return True


def _symbol_id(instrument: Known) -> int | None:
    return None if instrument == ALL else instrument.symbol_id
