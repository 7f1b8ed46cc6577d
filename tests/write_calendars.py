"""Write app/market/calendar_data: what exchange calendar libraries say, as the server reads it without them.

    python -m tests.write_calendars

exchange_calendars needs pandas, which costs a worker some 60 MB and a second at its first use; what it says of an
exchange are a few kilobytes. So it is asked here, and a test fails when the files say something else than it does.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

FOLDER = Path(__file__).resolve().parents[1] / "app" / "market" / "calendar_data"
FIRST_YEAR, LAST_YEAR = 2000, 2035

HALT = {"CMES": 16 * 60}
"""Calendars whose sessions end earlier than the library says (minutes of the local day): it has Globex trade for 24
hours, which rests from 16:00 to 17:00 Chicago (https://www.cmegroup.com/trading-hours.html)."""

VIETNAM_CLOSED = {dt.date(2025, 5, 2), dt.date(2026, 8, 31), dt.date(2026, 9, 1)}
"""Days that HOSE's notices name and its library does not: working days that were exchanged for a Saturday
(https://cafef.vn/chung-khoan-viet-nam-se-nghi-giao-dich-12-phien-188251209150402243.chn)."""

VIETNAM_FIRST, VIETNAM_LAST = dt.date(2018, 1, 2), dt.date(2027, 12, 31)
"""Before and after, its library knows no holidays."""

LEFT_OUT = {"24/5", "us_futures", "XTAE"}
"""Calendars of the library that are no exchange's; and Tel Aviv's, which this release of it cannot make."""

NAMES = {"24/7": "CRYPTO"}
MORE_NAMES = {
    "CMES": ["XCME", "XCBT", "XCEC", "XNYM", "GLOBEX"],
    "CRYPTO": ["24/7"],
    "FX": ["FOREX"],
    "XFRA": ["FRANKFURT"],
    "XETR": ["XETRA"],
    "XHKG": ["SEHK"],
    "XNYS": ["NYSEARCA", "ARCA", "AMEX", "IEX", "NMS", "US"],
    "XSTC": ["HOSE", "HSX", "HSTC", "HNX", "UPCOM"],
    "XTKS": ["TSE"],
}

_ON_ONE_LINE = re.compile(r"\s+")

Hours = tuple[int, ...]
"""Opening and closing, or two of each around a break: minutes since the local midnight of the session's date."""


def calendars() -> dict[str, dict[str, Any]]:
    """Return the contents of the files by name."""
    import exchange_calendars
    from exchange_calendars.pandas_extensions.offsets import OrthodoxEaster

    # Its own offset overrides what pandas called before 3.1: without this, exchanges with an Orthodox Easter fail.
    OrthodoxEaster._add_datetime = OrthodoxEaster._apply
    found: dict[str, dict[str, Any]] = {}
    for name in exchange_calendars.get_calendar_names(include_aliases=False):
        if name not in LEFT_OUT:
            ours = NAMES.get(name, name)
            found[ours] = _contents(*_of_library(name), f"exchange_calendars {version('exchange_calendars')}")
    found["XSTC"] = _contents("Asia/Ho_Chi_Minh", _vietnam(), f"vn-market-calendar {version('vn-market-calendar')}")
    found["FX"] = _contents("America/New_York", _fx(), "the week of currencies: Sunday 17:00 to Friday 17:00 New York")
    return found


def names(found: Mapping[str, Any]) -> dict[str, str]:
    """Return under which names an exchange is known, in upper case: what calendar is meant."""
    from exchange_calendars.calendar_utils import _default_calendar_aliases as aliases

    known = {alias.upper(): NAMES.get(name, name) for alias, name in aliases.items()}
    known |= {more: name for name, others in MORE_NAMES.items() for more in others}
    known |= {name: name for name in found}
    return dict(sorted((alias, name) for alias, name in known.items() if name in found))


def text(contents: Mapping[str, Any]) -> str:
    """Return the contents as JSON, a line for each entry, so that a change can be read."""
    lines = json.dumps(contents, indent=1, sort_keys=True)
    return re.sub(r"\[[^\[\]]*\]", lambda found: _ON_ONE_LINE.sub("", found[0]).replace(",", ", "), lines) + "\n"


def files() -> dict[str, str]:
    """Return all files by name."""
    found = calendars()
    return {f"{name}.json": text(contents) for name, contents in found.items()} | {"names.json": text(names(found))}


def _of_library(name: str) -> tuple[str, dict[dt.date, Hours]]:
    import exchange_calendars
    import pandas as pd

    kind = exchange_calendars.calendar_utils._default_calendar_factories[name]
    first, last = dt.date(FIRST_YEAR, 1, 1), dt.date(LAST_YEAR, 12, 31)
    low, high = kind.bound_min(), kind.bound_max()
    start = max(first, low.date()) if low is not None else first
    end = min(last, high.date()) if high is not None else last
    calendar = exchange_calendars.get_calendar(name, start=start.isoformat(), end=end.isoformat())
    zone = ZoneInfo(str(calendar.tz))
    days: dict[dt.date, Hours] = {}
    for at, row in zip(calendar.schedule.index, calendar.schedule.itertuples(index=False), strict=True):
        times = [row.open, row.close]
        if not pd.isna(row.break_start):
            times[1:1] = [row.break_start, row.break_end]
        midnight = dt.datetime.combine(at.date(), dt.time())
        wall = [time.to_pydatetime().astimezone(zone).replace(tzinfo=None) for time in times]
        hours = [int((moment - midnight).total_seconds()) // 60 for moment in wall]
        hours[-1] = min(hours[-1], HALT.get(name, hours[-1]))
        days[at.date()] = tuple(hours)
    return str(zone), days


def _vietnam() -> dict[dt.date, Hours]:
    """HOSE's: its opening auction to the end of its closing auction and after-hours deals, with the lunch break."""
    from vn_market_calendar import HOSE

    hose = HOSE()
    days = {}
    day = VIETNAM_FIRST
    while day <= VIETNAM_LAST:
        if hose.is_trading_day(day.isoformat()) and day not in VIETNAM_CLOSED:
            days[day] = (9 * 60, 11 * 60 + 30, 13 * 60, 15 * 60)
        day += dt.timedelta(1)
    return days


def _fx() -> dict[dt.date, Hours]:
    first = dt.date(FIRST_YEAR, 1, 1)
    days = (first + dt.timedelta(number) for number in range((dt.date(LAST_YEAR + 1, 1, 1) - first).days))
    rest = {(12, 25), (1, 1)}
    return {day: (-7 * 60, 17 * 60) for day in days if day.weekday() < 5 and (day.month, day.day) not in rest}


def _contents(zone: str, days: Mapping[dt.date, Hours], source: str) -> dict[str, Any]:
    first, last = min(days), max(days)
    regular: dict[str, dict[str, Hours]] = {}
    closed: list[str] = []
    special: dict[str, Hours] = {}
    before: dict[str, Hours] = {}
    for year in range(first.year, last.year + 1):
        start, end = max(first, dt.date(year, 1, 1)), min(last, dt.date(year, 12, 31))
        dates = [start + dt.timedelta(number) for number in range((end - start).days + 1)]
        usual = dict(before) if len(dates) < 30 else _usual(dates, days)
        if usual != before:
            regular[str(year)] = before = usual
        for day in dates:
            hours, expected = days.get(day), usual.get(str(day.isoweekday()))
            if hours is None and expected is not None:
                closed.append(day.isoformat())
            elif hours is not None and hours != expected:
                special[day.isoformat()] = hours
    return {
        "source": source,
        "zone": zone,
        "holidays": [first.isoformat(), last.isoformat()],
        "regular": regular,
        "closed": closed,
        "special": special,
    }


def _usual(dates: list[dt.date], days: Mapping[dt.date, Hours]) -> dict[str, Hours]:
    """Return the most frequent hours of each weekday (1: Monday) on which there mostly is a session."""
    usual = {}
    for weekday in range(1, 8):
        of_it = [days.get(day) for day in dates if day.isoweekday() == weekday]
        ((most, _),) = Counter(of_it).most_common(1)
        if most is not None:
            usual[str(weekday)] = most
    return usual


def main() -> None:
    """Replace the files."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, content in files().items():
        (FOLDER / name).write_text(content)


if __name__ == "__main__":
    main()
