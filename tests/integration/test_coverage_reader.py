"""Coverage of stored days against plain Python, on real ticks too: the same hot and archived, page by page."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from psycopg2.extensions import connection

from app.coverage_sources import CoverageSource, What
from app.errors import BadParameter
from app.formats.table import NULL_INT
from app.quality.days import days
from app.quality.tally import Limits
from app.row_stream import Page
from app.storage import retention
from app.storage.connection import Connection
from app.storage.coverage_reader import PIECE_ROWS, chosen_days
from app.storage.instruments import Known, find
from app.storage.sink import DatabaseSink
from tests.batches import NAN, NOON_US, Feeder, Tick, execute, rows_of, write_all
from tests.integration.archiving import MONDAY_US, run
from tests.plain_coverage import PlainTick, plain_day
from tests.real_market import real_data, real_path

S = 1_000_000
MIDNIGHT = date(2026, 1, 13)
NOW_US = NOON_US + 30 * 86_400 * S


@pytest.fixture
def reading(database_url: str, tmp_path: Path) -> Iterator[Connection]:
    """Yield a connection that reads archived ticks, too."""
    made = Connection(lambda: database_url, 5, 60, "test", tmp_path / "archive")
    yield made
    made.close()


def us(year: int, month: int, day: int, *time: int) -> int:
    return round(datetime(year, month, day, *time, tzinfo=UTC).timestamp()) * S


def rows(
    reading: Connection,
    what: What = "days",
    symbol: str = "TSLA",
    first: date | None = MIDNIGHT,
    end: date | None = MIDNIGHT + timedelta(1),
    *,
    now_us: int = NOW_US,
    page_rows: int = 1000,
    descending: bool = False,
    **limits: float,
) -> list[dict[str, Any]]:
    """Return all rows, read by pages, each behind the one before."""
    source = CoverageSource(what, first, end, now_us, Limits(**limits))
    found: list[dict[str, Any]] = []
    page: Page | None = None
    while page is None or page.more:
        with reading.reading(60) as cur:
            known = find(cur, symbol)
            assert isinstance(known, Known)
            after = None if page is None else page.place
            page = source.read(cur, known, after=after, descending=descending, max_rows=page_rows)
        assert len(page.table) <= page_rows
        names = [one.name for one in source.fields]
        for values in zip(*(np.asarray(column).tolist() for column in page.table.columns), strict=True):
            found.append(dict(zip(names, (None if value == NULL_INT else value for value in values), strict=True)))
    return found


def plain_of(ticks: Sequence[Tick], received_us: int) -> list[PlainTick]:
    """Return the ticks as they are stored, one request's after another."""

    def price(value: float) -> float | None:
        return None if value != value else value

    made = [
        PlainTick(one.time_us, price(one.bid), price(one.ask), price(one.last), one.flags, received_us + number)
        for number, one in enumerate(ticks)
    ]
    return sorted(made, key=lambda one: one.time_us)


def assert_days_are_those_of_plain_python(
    found: list[dict[str, Any]], ticks: list[PlainTick], first: date, market: tuple[str | None, str | None]
) -> None:
    assert len(found) > 1
    for row, day in zip(found, days(first, first + timedelta(len(found)), market), strict=True):
        wanted = plain_day([one for one in ticks if day.start_us <= one.time_us < day.end_us], day.open)
        wanted["gaps"] = len(wanted["gaps"])
        wanted["outliers"] = None if wanted["outliers"] is None else len(wanted["outliers"])
        assert row["timestamp"] == day.stamp_us
        coverage = float("nan") if wanted["coverage"] is None else wanted["coverage"]
        wanted["coverage"] = pytest.approx(coverage, nan_ok=True)
        assert {name: row[name] for name in wanted} == wanted


def real_ticks(file: str, zone: str, symbol: str, count: int) -> list[Tick]:
    """Return real ticks as the file has them, what is blank as absent."""

    def price(text: str) -> float:
        return float(text) if text else NAN

    found = []
    with gzip.open(real_path("ticks", file), "rt", newline="") as lines:
        for number, row in enumerate(islice(csv.DictReader(lines, delimiter="\t"), count)):
            text = f"{row['<DATE>']} {row['<TIME>']}"
            at = datetime.strptime(text, "%Y.%m.%d %H:%M:%S.%f").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
            at_us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            prices = {name: price(row[f"<{name.upper()}>"]) for name in ("bid", "ask", "last")}
            volume = float(row["<VOLUME>"] or 0)
            found.append(Tick(symbol, at_us, number, volume=volume, flags=int(row["<FLAGS>"]), **prices))
    return found


@pytest.mark.long
@real_data
@pytest.mark.parametrize(
    ("file", "zone", "exchange", "first"),
    [
        ("IBM_20131008-10.tsv.gz", "America/New_York", "XNYS", date(2013, 10, 7)),
        ("EURUSD_oanda_20140506-09.tsv.gz", "UTC", "FX", date(2014, 5, 5)),
        ("GCZ13_trades_20131007-09.tsv.gz", "UTC", None, date(2013, 10, 6)),
    ],
)
def test_real_days_are_those_of_plain_python_hot_and_archived(
    conn: connection,
    sink: DatabaseSink,
    reading: Connection,
    database_url: str,
    tmp_path: Path,
    file: str,
    zone: str,
    exchange: str | None,
    first: date,
) -> None:
    ticks = real_ticks(file, zone, "REAL", 70_000)
    assert len(ticks) > 2 * PIECE_ROWS
    received_us = ticks[len(ticks) // 2].time_us
    feeder = Feeder(received_us)
    for start in range(0, len(ticks), 35_000):
        write_all(sink, feeder, ticks[start : start + 35_000])
    execute(conn, f"UPDATE instruments SET exchange = {repr(exchange) if exchange else 'NULL'} WHERE symbol = 'REAL'")

    def read(what: What = "days") -> list[dict[str, Any]]:
        return rows(reading, what, "REAL", first, first + timedelta(5))

    hot = {what: repr(read(what)) for what in ("days", "hours", "gaps", "outliers")}
    assert_days_are_those_of_plain_python(read(), plain_of(ticks, received_us), first, (exchange, None))
    assert any(row["late"] for row in read())

    run(database_url, tmp_path / "archive")
    assert rows_of(conn, "SELECT count(*) FROM tick_ranges WHERE state = 'archived'") != [(0,)]
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(0,)]
    assert {what: repr(read(what)) for what in ("days", "hours", "gaps", "outliers")} == hot


def test_ticks_that_come_again_count_on_their_day_whoever_sends_them(
    conn: connection, sink: DatabaseSink, reading: Connection
) -> None:
    ticks = [Tick(time_us=NOON_US + at * 600 * S, seq=at) for at in range(100)]  # into the next day
    other = [replace(one, symbol="NVDA") for one in ticks[:7]]
    first, second = Feeder(), Feeder()
    write_all(sink, first, [*ticks, *other])
    write_all(sink, first, ticks[:80], other)
    write_all(sink, second, ticks[70:75], ticks[70:75])
    found = rows(reading, end=MIDNIGHT + timedelta(2))
    assert [(row["ticks"], row["duplicates"]) for row in found] == [(72, 72 + 4), (28, 8 + 6)]
    assert [row["duplicates"] for row in rows(reading, symbol="NVDA")] == [7]
    ledgers = rows_of(conn, "SELECT sum(duplicates)::bigint FROM ingest_log")
    assert rows_of(conn, "SELECT sum(ticks)::bigint FROM resent_ticks") == ledgers == [(97,)]


def test_what_comes_again_is_not_counted_when_it_is_not_committed(
    conn: connection, sink: DatabaseSink, reading: Connection
) -> None:
    feeder = Feeder()
    ticks = [Tick(time_us=NOON_US + at, seq=at) for at in range(10)]
    entry = write_all(sink, feeder, ticks)
    batch = feeder.batch(ticks)
    with pytest.raises(Exception, match="no longer at row"):
        sink.write(feeder.journal_id, replace(entry, next_row=entry.next_row + 1), batch)
    assert rows_of(conn, "SELECT count(*) FROM resent_ticks") == [(0,)]
    sink.write(feeder.journal_id, entry, batch)
    assert [row["duplicates"] for row in rows(reading)] == [10]


def test_ticks_that_wait_for_the_archive_or_are_rejected_are_told(
    conn: connection, sink: DatabaseSink, reading: Connection, database_url: str, tmp_path: Path
) -> None:
    monday = datetime.fromtimestamp(MONDAY_US / S, UTC).date()
    feeder = Feeder()
    ticks = [Tick(time_us=MONDAY_US + at * S, seq=at) for at in range(10)]
    write_all(sink, feeder, ticks)
    run(database_url, tmp_path / "archive")
    late = [Tick(time_us=MONDAY_US + at * S, seq=at) for at in range(8, 13)]
    write_all(sink, feeder, late)
    write_all(sink, feeder, [replace(late[-1], bid=3.0)])

    def told() -> list[int]:
        (row,) = rows(reading, first=monday, end=monday + timedelta(1))
        return [row[name] for name in ("ticks", "duplicates", "waiting", "rejected")]

    assert told() == [10, 0, 5, 1]
    run(database_url, tmp_path / "archive")
    assert told() == [13, 2, 0, 1]


def test_what_came_again_is_forgotten_with_the_weeks_that_retention_drops(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    ticks = [Tick(time_us=NOON_US + week * 7 * 86_400 * S) for week in range(3)]
    feeder = Feeder()
    write_all(sink, feeder, ticks)
    write_all(sink, feeder, ticks)
    now = datetime.fromtimestamp(ticks[-1].time_us / S, UTC)
    list(retention.run(own, {"ticks": 8}, "me", now))
    kept = rows_of(conn, "SELECT (extract(epoch FROM time) * 1000000)::bigint FROM resent_ticks ORDER BY 1")
    assert kept == [(one.time_us,) for one in ticks[1:]]


def test_a_day_of_which_a_part_is_archived_is_one_day(
    conn: connection, sink: DatabaseSink, reading: Connection, database_url: str, tmp_path: Path
) -> None:
    boundary_us = MONDAY_US + 7 * 86_400 * S
    ticks = [Tick(time_us=boundary_us + at * 40 * S, seq=0, bid=10 + at % 7 / 8) for at in range(-300, 300) if at % 50]
    feeder = Feeder(boundary_us)
    archived = [one for one in ticks if one.time_us < boundary_us]
    write_all(sink, feeder, archived)
    execute(conn, "UPDATE instruments SET timezone = 'America/New_York'")
    run(database_url, tmp_path / "archive")
    write_all(sink, feeder, ticks[len(archived) :])
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(len(ticks) - len(archived),)]
    sunday = datetime.fromtimestamp(boundary_us / S, UTC).date() - timedelta(1)
    found = rows(reading, first=sunday - timedelta(1), end=sunday + timedelta(1))
    assert found[-1]["ticks"] == len(ticks)
    plain = plain_of(ticks, boundary_us)
    assert_days_are_those_of_plain_python(found, plain, sunday - timedelta(1), (None, "America/New_York"))


def some_days(sink: DatabaseSink) -> None:
    """Store ticks of three days: an hour each of them, with holes; none on the second."""
    at = [NOON_US + day * 86_400 * S + minute * 100 * S for day in (0, 2) for minute in range(36) if minute % 7]
    write_all(sink, Feeder(), [Tick(time_us=one, seq=0, bid=10 + number % 5) for number, one in enumerate(at)])


@pytest.mark.parametrize("what", ["days", "hours", "gaps", "outliers"])
@pytest.mark.parametrize("page_rows", [1, 3, 7])
def test_pages_in_either_order_have_the_rows_of_all(
    sink: DatabaseSink, reading: Connection, what: What, page_rows: int
) -> None:
    some_days(sink)

    def read(**more: Any) -> list[str]:
        return list(map(repr, rows(reading, what, end=MIDNIGHT + timedelta(4), outlier_z=1, **more)))

    whole = read()
    assert len(whole) > 3
    assert read(page_rows=page_rows) == whole
    assert read(page_rows=page_rows, descending=True) == whole[::-1]


def test_without_a_range_the_newest_days_come_and_the_last_is_as_far_as_it_has_come(
    sink: DatabaseSink, reading: Connection
) -> None:
    some_days(sink)
    now_us = NOON_US + 2 * 86_400 * S + 60 * S
    found = rows(reading, first=None, end=None, now_us=now_us)
    assert len(found) == 30
    assert found[-1]["timestamp"] == us(2026, 1, 15)
    assert found[-1]["session_s"] == 12 * 3600 + 60
    assert rows(reading, first=MIDNIGHT, end=None, now_us=now_us) == found[-3:]


@pytest.mark.parametrize("end", [date.min, date(1, 1, 15), date(1970, 1, 1)])
def test_before_the_first_day_there_is_none(end: date) -> None:
    assert chosen_days((None, None), None, end, NOW_US) == []


def test_a_range_is_bounded_and_the_future_is_left_out() -> None:
    market = (None, None)
    assert len(chosen_days(market, date(2025, 1, 1), date(2026, 1, 2), NOW_US)) == 366
    with pytest.raises(BadParameter, match="at most 366 days"):
        chosen_days(market, date(2025, 1, 1), date(2026, 1, 3), NOW_US)
    with pytest.raises(BadParameter, match="at most 366 days"):
        chosen_days(market, date(2020, 1, 1), None, NOW_US)
    with pytest.raises(BadParameter, match="end: is before start"):
        chosen_days(market, date(2025, 1, 2), date(2025, 1, 1), NOW_US)
    assert chosen_days(market, date(2027, 1, 1), date(9999, 12, 31), NOW_US) == []
    assert chosen_days(market, date(1, 1, 1), date(1970, 1, 3), NOW_US)[0].date == date(1970, 1, 1)
    assert chosen_days(market, date(2025, 1, 1), date(2025, 1, 1), NOW_US) == []


def test_a_session_that_has_begun_on_its_eve_is_the_newest_day() -> None:
    sunday_evening_us = us(2026, 1, 11, 23)
    assert chosen_days(("FX", None), None, None, sunday_evening_us)[-1].date == date(2026, 1, 12)
    assert chosen_days(("FX", None), None, None, sunday_evening_us - 3600 * S - 1)[-1].date == date(2026, 1, 11)
