"""Exchange calendars: what is shipped, and that it is what the libraries say."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from app.market.calendars import CLOSING_US, DATA, find_calendar
from tests import write_calendars


def us(text: str, zone: str = "UTC") -> int:
    """UTC microseconds of a wall time in the zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 10**6)


@pytest.mark.parametrize(
    ("exchange", "moment", "is_open"),
    [
        ("XNYS", "2026-11-20T09:29:59", False),
        ("XNYS", "2026-11-20T09:30:00", True),
        ("XNYS", "2026-11-20T15:59:59", True),
        ("XNYS", "2026-11-20T16:00:00", False),
        ("XNYS", "2026-11-21T12:00:00", False),  # a Saturday
        ("XNYS", "2026-11-26T12:00:00", False),  # Thanksgiving
        ("XNYS", "2026-11-27T12:59:59", True),  # the day after, a short one
        ("XNYS", "2026-11-27T13:00:00", False),
        ("XNYS", "2026-04-03T12:00:00", False),  # Good Friday
        ("XNYS", "2001-09-13T12:00:00", False),
        ("XNYS", "2026-03-09T09:30:00", True),  # the day after clocks changed
        ("XHKG", "2026-11-20T11:59:59", True),
        ("XHKG", "2026-11-20T12:30:00", False),  # lunch
        ("XHKG", "2026-11-20T13:00:00", True),
        ("XHKG", "2026-12-24T11:59:59", True),  # half a day
        ("XHKG", "2026-12-24T13:00:00", False),
        ("CMES", "2026-11-22T16:59:59", False),  # Sunday evening
        ("CMES", "2026-11-22T17:00:00", True),
        ("CMES", "2026-11-23T15:59:59", True),
        ("CMES", "2026-11-23T16:30:00", False),  # the daily halt
        ("CMES", "2026-11-23T17:00:00", True),
        ("CMES", "2026-11-20T18:00:00", False),  # Friday evening
        ("CMES", "2026-11-26T11:59:59", True),  # Thanksgiving ends at noon
        ("CMES", "2026-11-26T12:00:00", False),
        ("FX", "2026-11-22T16:59:59", False),
        ("FX", "2026-11-22T17:00:00", True),
        ("FX", "2026-11-24T17:00:00", True),
        ("FX", "2026-11-20T16:59:59", True),
        ("FX", "2026-11-20T17:00:00", False),
        ("FX", "2026-12-25T12:00:00", False),
        ("CRYPTO", "2026-12-25T00:00:00", True),
        ("HOSE", "2026-11-20T10:00:00", True),
        ("HOSE", "2026-11-20T12:00:00", False),
        ("HOSE", "2026-11-20T14:40:00", True),
        ("HOSE", "2026-02-18T10:00:00", False),  # Tet
        ("HOSE", "2026-08-31T10:00:00", False),  # the Saturday before is worked instead, without a session
        ("HOSE", "2026-09-03T10:00:00", True),
        ("XNYS", "2044-06-15T12:00:00", True),  # where the library's knowledge has ended: the usual week
        ("XNYS", "2044-06-15T20:00:00", False),
        ("XNYS", "2044-06-18T12:00:00", False),
    ],
)
def test_an_exchange_is_open_when_its_calendar_says_so(exchange: str, moment: str, is_open: bool) -> None:
    calendar = find_calendar(exchange)
    assert calendar is not None
    assert calendar.is_open(us(moment, calendar.zone)) is is_open


@pytest.mark.parametrize(
    ("exchange", "name"),
    [
        ("XNYS", "XNYS"),
        ("nasdaq", "XNYS"),
        (" NYSE ", "XNYS"),
        ("LSE", "XLON"),
        ("Cme", "CMES"),
        ("NYMEX", "CMES"),
        ("hose", "XSTC"),
        ("Forex", "FX"),
        ("24/7", "CRYPTO"),
    ],
)
def test_an_exchange_is_known_by_its_usual_names_in_any_case(exchange: str, name: str) -> None:
    found = find_calendar(exchange)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("exchange", [None, "", "  ", "Bourse of Nowhere", "../names", "names", "XNYS\0"])
def test_of_another_exchange_no_calendar_is_known(exchange: str | None) -> None:
    assert find_calendar(exchange) is None


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.json") if path.stem != "names"))
def test_every_shipped_calendar_has_sessions_that_follow_each_other(name: str) -> None:
    calendar = find_calendar(name)
    assert calendar is not None
    for year in (2018, 2026, 2060):
        sessions = list(calendar.sessions(year))
        assert 200 < len(sessions) <= 366
        times = [moment for session in sessions for hours in session.open for moment in hours]
        assert times == sorted(times)
        for session in sessions[::50]:
            span = calendar.span(session.open[0][0])
            assert span is not None
            assert span.start_us <= session.open[0][0] < session.open[-1][1] <= span.end_us
            assert span.cut_us <= span.start_us
            assert span.close_us == min(session.open[-1][1] + CLOSING_US, span.end_us)


@pytest.mark.long
@pytest.mark.parametrize("name", ["XNYS", "XHKG", "XLON"])
def test_sessions_are_those_of_the_library(name: str) -> None:
    import exchange_calendars
    import pandas as pd

    schedule = exchange_calendars.get_calendar(name, start="2025-01-01", end="2026-12-31").schedule
    expected = []
    for day, row in zip(schedule.index, schedule.itertuples(index=False), strict=True):
        times = [row.open, row.break_start, row.break_end, row.close]
        expected.append((day.date(), [time.value // 1000 for time in times if not pd.isna(time)]))
    calendar = find_calendar(name)
    assert calendar is not None
    found = [session for year in (2025, 2026) for session in calendar.sessions(year)]
    assert [(session.date, [moment for hours in session.open for moment in hours]) for session in found] == expected


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_shipped_files_are_what_the_pinned_libraries_say() -> None:
    expected = write_calendars.files()
    assert {path.name: path.read_text() for path in DATA.glob("*.json")} == expected, (
        "python -m tests.write_calendars writes them anew"
    )


def test_a_session_of_a_date_is_found() -> None:
    calendar = find_calendar("XNYS")
    assert calendar is not None
    session = next(one for one in calendar.sessions(2026) if one.date == date(2026, 11, 27))
    opens, shuts = (datetime.fromtimestamp(moment / 1e6, UTC) for moment in session.open[0])
    assert (opens.hour, opens.minute, shuts.hour, shuts.minute) == (14, 30, 18, 0)
