"""What /api/coverage answers as rows of a request: days, their hours, gaps and outliers. Lane side.

Each read is one day, made as a whole; a page that begins within a day leaves out what is before it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, NamedTuple

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.formats.table import NULL_INT, Field, Table, empty
from app.page_token import foreign_token
from app.quality.days import Day
from app.quality.hours import hours, quarters
from app.quality.tally import Limits
from app.row_stream import Page
from app.storage.coverage_reader import Found, chosen_days, clock_of, read_coverage
from app.storage.instruments import Known, read_market

What = Literal["days", "hours", "gaps", "outliers"]

_DATE = Field("timestamp", "time", "midnight UTC of the date at the exchange")
_TICKS = Field("ticks", "int", "ticks, quotes and trades")
_SESSION = Field("session_s", "float", "how long the exchange was open, by now (s); of no known calendar: all the time")
_GAPS = Field("gaps_s", "float", "how long all gaps together are (s)")
_COVERAGE = Field("coverage", "float", "1 - gaps_s / session_s; null: it was not open")

DAYS: tuple[Field, ...] = (
    _DATE,
    _TICKS,
    Field("session_ticks", "int", "those of them while the exchange was open"),
    _SESSION,
    _COVERAGE,
    Field("gaps", "int", "stretches of a session without a tick that are longer than the parameter gap_s"),
    _GAPS,
    Field("longest_gap_s", "float", "how long the longest of them is (s); 0: there is none"),
    Field("crossed", "int", "ticks whose bid is above their ask"),
    Field("nonpositive", "int", "ticks with a bid or ask of zero or less, and trades with such a last"),
    Field("outliers", "int", "changes of price whose score is beyond the parameter outlier_z; null: too few changes"),
    Field("duplicates", "int", "ticks that came again, equal in all, and were left out"),
    Field("late", "int", "ticks accepted later than the parameter late_s after their time; all of an import"),
    Field("waiting", "int", "accepted for a range that is archived, and not merged yet: in none of the other figures"),
    Field("rejected", "int", "accepted, and set aside in rejected_ticks"),
    Field("first", "time", "first tick; null: there is none"),
    Field("last", "time", "last tick; null: there is none"),
)
HOURS: tuple[Field, ...] = (
    _DATE,
    Field("hour", "int", "hour of the exchange's clocks, 0 to 23; of an evening before the date: of its session"),
    _TICKS,
    _SESSION,
    _COVERAGE,
    _GAPS,
)
GAPS: tuple[Field, ...] = (
    _DATE,
    Field("start", "time", "the tick before, or the opening"),
    Field("end", "time", "the tick after, or the end of the session, or now"),
    Field("seconds", "float", "length (s)"),
)
OUTLIERS: tuple[Field, ...] = (
    _DATE,
    Field("time", "time", "when the price came"),
    Field("before", "float", "the price before it that differs: mid, of days without a two-sided quote last"),
    Field("price", "float", "the price"),
    Field("score", "float", "modified z-score of the logarithm of price / before, among the day's"),
)

_PLACE = struct.Struct(">iq")
_LAST_ROW = (1 << 63) - 1
_US = 1e6


class _Kind(NamedTuple):
    """Rows of a kind: their fields, and how a day becomes (row's place in the day, row's values)."""

    fields: tuple[Field, ...]
    rows: Callable[[Found, str], list[tuple[int, tuple[Any, ...]]]]


@dataclass(frozen=True, slots=True)
class CoverageSource:
    """Rows about the days of [first, end) of an instrument; None: the newest ones."""

    what: What
    first: date | None
    end: date | None
    now_us: int
    limits: Limits = field(default_factory=Limits)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return the columns."""
        return KINDS[self.what].fields

    @property
    def list_name(self) -> str:
        """Return what the rows are."""
        return self.what

    @property
    def kind(self) -> tuple[str, ...]:
        """Return what tells these rows from others."""
        limits = self.limits
        return "coverage", self.what, *(str(number) for number in (limits.gap_s, limits.late_s, limits.outlier_z))

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return the last moment that is looked at: there is always a range."""
        return None, self.now_us

    def head(self, instrument: Known) -> Mapping[str, str | None]:
        """Return the symbol."""
        return {"symbol": instrument.symbol}

    def version(self, cur: Cursor, instrument: Known) -> None:
        """Return None: what comes again or is rejected changes these rows, too, and nothing cheap tells of it."""

    def lasting(self, table: Table) -> bool:
        """Rows change without a tick: what came again, what is rejected."""
        return False

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next rows of a day, none where it has none. Raises BadParameter, ArchiveAway."""
        market = read_market(cur, instrument.symbol_id)
        zone = clock_of(market)
        left = chosen_days(market, self.first, self.end, self.now_us)
        ordinal, place = _place(after, descending)
        if descending:
            left = [day for day in reversed(left) if day.date.toordinal() <= ordinal]
        else:
            left = [day for day in left if day.date.toordinal() >= ordinal]
        if not left:
            return Page(empty(self.fields), None, False)
        day = left[0]
        edges = {"edges_us": quarters(day)} if self.what == "hours" else {}
        found = read_coverage(cur, instrument, day, self.limits, **edges)
        rows = KINDS[self.what].rows(found, zone)
        if descending:
            rows.reverse()
        if day.date.toordinal() == ordinal:
            rows = [row for row in rows if (row[0] < place if descending else row[0] > place)]
        shown = rows[:max_rows]
        table = _table(self.fields, day, [values for _, values in shown])
        if len(rows) > len(shown):
            return Page(table, _PLACE.pack(day.date.toordinal(), shown[-1][0]), True)
        further = -1 if descending else 1
        return Page(table, _PLACE.pack(day.date.toordinal() + further, -further * _LAST_ROW), len(left) > 1)


def _place(after: bytes | None, descending: bool) -> tuple[int, int]:
    """Return the number of the day to go on in, and the place in it that is done. Raises BadParameter."""
    if after is None:
        return (1 << 30, 0) if descending else (-1, 0)
    try:
        ordinal, place = _PLACE.unpack(after)
    except struct.error as error:
        raise foreign_token() from error
    return ordinal, place


def table_of(what: What, found: Found, zone: str) -> Table:
    """Return all rows of a kind about a day; zone: of the exchange's clocks."""
    kind = KINDS[what]
    return _table(kind.fields, found.coverage.day, [values for _, values in kind.rows(found, zone)])


def _table(fields: tuple[Field, ...], day: Day, rows: list[tuple[Any, ...]]) -> Table:
    if not rows:
        return empty(fields)
    types = {"float": np.float64}
    columns = [[day.stamp_us] * len(rows), *zip(*rows, strict=True)]
    return Table(
        fields,
        [np.array(values, types.get(one.kind, np.int64)) for one, values in zip(fields, columns, strict=True)],
    )


def _day(found: Found, zone: str) -> list[tuple[int, tuple[Any, ...]]]:
    one = found.coverage
    null = NULL_INT
    row = (
        one.ticks,
        one.session_ticks,
        one.day.session_us / _US,
        one.covered,
        len(one.gaps),
        one.gaps_us / _US,
        max((gap.us for gap in one.gaps), default=0) / _US,
        one.crossed,
        one.nonpositive,
        null if one.outliers is None else len(one.outliers),
        found.duplicates,
        one.late,
        found.waiting,
        found.rejected,
        null if one.first_us is None else one.first_us,
        null if one.last_us is None else one.last_us,
    )
    return [(0, row)]


def _hours(found: Found, zone: str) -> list[tuple[int, tuple[Any, ...]]]:
    return [
        (
            one.hour,
            (
                one.hour,
                one.ticks,
                one.session_us / _US,
                1 - one.gaps_us / one.session_us if one.session_us else np.nan,
                one.gaps_us / _US,
            ),
        )
        for one in hours(found.coverage, zone)
    ]


def _gaps(found: Found, zone: str) -> list[tuple[int, tuple[Any, ...]]]:
    return [(gap.start_us, (*gap, gap.us / _US)) for gap in found.coverage.gaps]


def _outliers(found: Found, zone: str) -> list[tuple[int, tuple[Any, ...]]]:
    # By number: several changes may be at one time.
    return list(enumerate(map(tuple, found.coverage.outliers or [])))


KINDS: dict[What, _Kind] = {
    "days": _Kind(DAYS, _day),
    "hours": _Kind(HOURS, _hours),
    "gaps": _Kind(GAPS, _gaps),
    "outliers": _Kind(OUTLIERS, _outliers),
}
