"""Read what there is to tell of a symbol's days: ticks, gaps, odd prices, what came again or late. Lane side.

A day is read in pieces, through the reader of ticks, so archived ones count as hot ones do. What it takes in memory is
a piece, and the prices of the day that differ from the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.errors import BadParameter
from app.market.calendars import find_calendar
from app.market.columns import I8
from app.market.sessions import Market, date_of, zone_of
from app.quality.days import FIRST_DAY, Day, days
from app.quality.tally import Coverage, Limits, Piece, Tally
from app.storage.instruments import Known
from app.storage.resent import resent
from app.storage.tick_reader import TickKey, read_ticks, timestamp

MOST_DAYS = 366
USUAL_DAYS = 30
PIECE_ROWS = 20_000
"""Ticks that are read at a time, as by an export: some 30 ms of a lane, 2 MB."""

_WAITING = """
    SELECT count(*) FROM late_ticks
    WHERE symbol_id = %s AND time >= %s::timestamptz AND time < %s::timestamptz
"""
_REJECTED = """
    SELECT count(*) FROM rejected_ticks
    WHERE symbol = %s AND time >= %s::timestamptz AND time < %s::timestamptz
"""
_NO_EDGES = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a day, and what is stored beside its ticks.

    duplicates: ticks that came again, equal in all. waiting: accepted, for a range that is archived, and not merged
    yet. rejected: accepted, and not stored.
    """

    coverage: Coverage
    duplicates: int
    waiting: int
    rejected: int


def clock_of(market: Market) -> str:
    """Return the time zone in which the days of a market are: its calendar's, else its own."""
    calendar = find_calendar(market[0])
    return zone_of(market) if calendar is None else calendar.zone


def chosen_days(market: Market, first: date | None, end: date | None, now_us: int) -> list[Day]:
    """Return the days of [first, end) that have begun, as far as they have come; without bounds the newest USUAL_DAYS.

    Raises BadParameter when they are more than MOST_DAYS, or end before they begin.
    """
    today = date_of(now_us, (None, clock_of(market)))
    around = days(today - timedelta(1), today + timedelta(2), market)  # a session may begin on its eve
    tomorrow = max(day.date for day in around if day.start_us <= now_us) + timedelta(1)
    if first is not None and end is not None and end < first:
        raise BadParameter("end: is before start")
    end = tomorrow if end is None else max(min(end, tomorrow), FIRST_DAY)
    first = max(end - timedelta(USUAL_DAYS) if first is None else first, FIRST_DAY)
    if (end - first).days > MOST_DAYS:
        raise BadParameter(f"start: at most {MOST_DAYS} days at a time; `end` says before which one they end")
    return [day.until(now_us) for day in days(first, end, market)] if first < end else []


def read_coverage(cur: Cursor, instrument: Known, day: Day, limits: Limits, edges_us: I8 = _NO_EDGES) -> Found:
    """Return what there is to tell of a day; ticks are counted by `edges_us`, too. Raises ArchiveAway."""
    tally = Tally(day, limits, edges_us)
    for piece in _pieces(cur, instrument.symbol_id, day):
        tally.add(piece)
    bounds = timestamp(day.start_us), timestamp(day.end_us)
    return Found(
        coverage=tally.result(),
        duplicates=resent(cur, instrument.symbol_id, day.start_us, day.end_us),
        waiting=_count(cur, _WAITING, (instrument.symbol_id, *bounds)),
        rejected=_count(cur, _REJECTED, (instrument.symbol, *bounds)),
    )


def _pieces(cur: Cursor, symbol_id: int, day: Day) -> Iterator[Piece]:
    after: TickKey | None = None
    while True:
        page = read_ticks(
            cur,
            symbol_id,
            day.start_us,
            day.end_us,
            after=after,
            descending=False,
            max_rows=PIECE_ROWS,
            with_arrival=True,
        )
        times, bid, ask, last, *_, flags, _ = (np.asarray(values) for values in page.table.columns)
        assert page.received_us is not None
        yield Piece(times, bid, ask, last, flags, page.received_us)
        if not page.more:
            return
        after = page.last_key


def _count(cur: Cursor, query: str, parameters: tuple[object, ...]) -> int:
    cur.execute(query, parameters)
    row = cur.fetchone()
    assert row is not None
    return int(row[0])
