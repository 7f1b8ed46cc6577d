"""What /api/history answers as rows of a request: days, and records of datasets under names of their own. Lane side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from app.dataset_source import DatasetSource
from app.formats.table import Field, Table
from app.page_token import foreign_token
from app.row_stream import ALL, Page
from app.storage.daily_reader import DAYS, days_version, read_days
from app.storage.instruments import Known


@dataclass(frozen=True, slots=True)
class DaySource:
    """Days of [start_us, end_us) of an instrument."""

    start_us: int | None
    end_us: int | None
    fields: tuple[Field, ...] = DAYS
    list_name: str = "daily"
    kind: tuple[str, ...] = ("daily",)

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return [start_us, end_us)."""
        return self.start_us, self.end_us

    def head(self, instrument: Known) -> Mapping[str, str | None]:
        """Return the symbol."""
        return {"symbol": instrument.symbol}

    def version(self, cur: Cursor, instrument: Known) -> str:
        """Return the version of the days."""
        return days_version(cur, instrument.symbol_id)

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next days. Raises BadParameter for a place that is none."""
        try:
            found = read_days(
                cur,
                instrument.symbol_id,
                self.start_us,
                self.end_us,
                after=after,
                descending=descending,
                max_rows=max_rows,
            )
        except ValueError as error:
            raise foreign_token() from error
        return Page(found.table, found.last_key, found.more)

    def lasting(self, table: Table) -> bool:
        """Days are what they are."""
        return True


@dataclass(frozen=True, slots=True)
class HistorySource(DatasetSource):
    """Records of a dataset, under the name that /api/history has for them.

    subject: what they are of, where that is no instrument; None: the instrument, or all.
    """

    subject: str | None = None

    def head(self, instrument: Known) -> Mapping[str, str | None]:
        """Return what the records are of; null: all."""
        return {"symbol": self.subject if instrument == ALL else instrument.symbol}
