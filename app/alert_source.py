"""Stored alerts as rows of a request. Lane side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from app.datasets.registry import DATASETS
from app.formats.table import Field, Table
from app.page_token import foreign_token
from app.row_stream import ALL, Page
from app.storage.alert_reader import ALERTS, AlertFilter, read_alerts
from app.storage.instruments import Known
from app.storage.rows_reader import rows_version


@dataclass(frozen=True, slots=True)
class AlertSource:
    """Alerts of a filter. list_name: of the list in JSON."""

    asked: AlertFilter
    list_name: str = "alerts"
    fields: tuple[Field, ...] = ALERTS

    @property
    def kind(self) -> tuple[str, ...]:
        """Return what tells these alerts from others."""
        return ("alerts", self.list_name, self.asked.alert_type or "", self.asked.severity or "")

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return [start_us, end_us)."""
        return self.asked.start_us, self.asked.end_us

    def head(self, instrument: Known) -> Mapping[str, str | None]:
        """Return what stands before the list; a symbol that is null: alerts of all, and of none."""
        return {"symbol": None if instrument == ALL else instrument.symbol}

    def version(self, cur: Cursor, instrument: Known) -> str:
        """Return the version of the alerts in the range: one may be changed, or commit behind a later one."""
        symbol_id = None if instrument == ALL else instrument.symbol_id
        return rows_version(cur, DATASETS["alerts"], symbol_id, *self.range)

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next alerts. Raises BadParameter for a place that is none."""
        symbol_id = None if instrument == ALL else instrument.symbol_id
        try:
            found = read_alerts(cur, symbol_id, self.asked, after=after, descending=descending, max_rows=max_rows)
        except ValueError as error:
            raise foreign_token() from error
        return Page(found.table, found.last_key, found.more)

    def lasting(self, table: Table) -> bool:
        """Alerts are what they are."""
        return True
