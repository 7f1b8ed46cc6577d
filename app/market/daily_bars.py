"""Daily bars as vendors write them: cells under names of every kind, to checked bars. Pure.

Numbers may come as text, days as YYYY-MM-DD, YYYYMMDD or DD/MM/YYYY (MM/DD/YYYY where the reader is told so).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

NAMES: dict[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "stock", "code", "stockcode"),
    "day": ("tradingdate", "tradedate", "date", "day", "timestamp", "datetime", "time"),
    "open": ("open", "openprice", "o"),
    "high": ("high", "highprice", "highest", "h"),
    "low": ("low", "lowprice", "lowest", "l"),
    "close": ("close", "closeprice", "c"),
    "adj_close": ("adjclose", "adjustedclose", "closeadj", "adjcloseprice"),
    "volume": ("volume", "vol", "totalvolume", "v"),
    "trading_value": ("tradingvalue", "value", "turnover", "totalvalue"),
}
"""field -> names under which it is found, the surest first; compared as lower-case letters only."""

REQUIRED = ("day", "open", "high", "low", "close")
DAY_ORDERS = ("dmy", "mdy")
"""How 04/05/2020 is read: 4 May (as exchanges outside America write, FastConnect among them), or April 5."""

FIRST_DAY = date(1800, 1, 1)
MAX_NUMBER = 1e15
"""Beyond it a price, a volume or a value in any currency is a slip."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_YMD = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:[T ].*)?", re.ASCII | re.DOTALL)
_SLASHED = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4})(?: .*)?", re.ASCII | re.DOTALL)
_NOTHING = frozenset({"", "-", "null", "none", "nan", "n/a", "na"})
_MIDNIGHT = datetime.min.time()


class BadBar(ValueError):
    """A row is no daily bar; its text says why."""


@dataclass(slots=True, frozen=True)
class DailyBar:
    """One trading day of one symbol. Prices and trading_value in the instrument's currency, volume in its units.

    None: the vendor does not say.
    """

    symbol: str
    day: date
    open: float
    high: float
    low: float
    close: float
    volume: float | None = None
    adj_close: float | None = None
    trading_value: float | None = None

    @property
    def time_us(self) -> int:
        """Return the bar's time: midnight UTC of its day, in microseconds."""
        return round(datetime.combine(self.day, _MIDNIGHT, UTC).timestamp()) * 1_000_000


def fields_of(names: Iterable[str]) -> dict[str, str]:
    """Return which of these column names holds which field. Raises BadBar when a required one is missing.

    Two columns for one field are no trouble: the surer name wins (tradingdate before time).
    """
    by_letters: dict[str, str] = {}
    for name in names:
        by_letters.setdefault(re.sub(r"[^a-z]", "", name.lower()), name)
    found = {
        field: by_letters[known[0]]
        for field, aliases in NAMES.items()
        if (known := [alias for alias in aliases if alias in by_letters])
    }
    if missing := [field for field in REQUIRED if field not in found]:
        raise BadBar(f"no column for {', '.join(missing)}")
    return found


def daily_bar(
    cells: Mapping[str, object], fields: Mapping[str, str], *, symbol: str = "", day_order: str = "dmy",
    nonpositive: bool = False,
) -> DailyBar:
    """Return the bar in these cells, by name of their column. Raises BadBar.

    symbol: of rows that have none. nonpositive: prices of zero and less are real (a future's may be).
    """
    named = str(cells.get(fields.get("symbol", ""), "") or "").strip() or symbol
    if not named:
        raise BadBar("it has no symbol")
    day = read_day(cells.get(fields["day"]), day_order)
    prices = [_price(cells.get(fields[name]), name, nonpositive) for name in ("open", "high", "low", "close")]
    opened, high, low, close = prices
    if high < max(prices):
        raise BadBar(f"high {high:g} is below another price ({max(prices):g})")
    if low > min(prices):
        raise BadBar(f"low {low:g} is above another price ({min(prices):g})")
    more = {name: _number(cells.get(fields[name]), name) for name in ("volume", "trading_value") if name in fields}
    for name, value in more.items():
        if value is not None and value < 0:
            raise BadBar(f"{name} is negative: {value:g}")
    adjusted = cells.get(fields.get("adj_close", ""))
    adj_close = None if _is_nothing(adjusted) else _price(adjusted, "adj_close", nonpositive)
    return DailyBar(named, day, opened, high, low, close, adj_close=adj_close, **more)


def read_day(value: object, day_order: str = "dmy") -> date:
    """Return the day that a cell names; a time of day beside it does not matter. Raises BadBar."""
    if isinstance(value, datetime):
        found = value.date()
    elif isinstance(value, date):
        found = value
    else:
        text = "" if value is None else str(value).strip()
        if matched := _YMD.fullmatch(text):
            year, month, day = matched.groups()
        elif matched := _SLASHED.fullmatch(text):
            first, second, year = matched.groups()
            day, month = (first, second) if day_order == "dmy" else (second, first)
        else:
            raise BadBar(f"the day is no date: {text[:40]!r}" if text else "it has no day")
        try:
            found = date(int(year), int(month), int(day))
        except ValueError:
            order = "" if _YMD.fullmatch(text) else f" when read as {' '.join(day_order)}"
            raise BadBar(f"there is no such day: {text[:40]!r}{order}") from None
    if found < FIRST_DAY:
        raise BadBar(f"the day is before {FIRST_DAY}: {found}")
    return found


def _price(value: object, name: str, nonpositive: bool) -> float:
    number = _number(value, name)
    if number is None:
        raise BadBar(f"{name} is missing")
    if number <= 0 and not nonpositive:
        raise BadBar(f"{name} is not above zero: {number:g}")
    return number


def _number(value: object, name: str) -> float | None:
    if _is_nothing(value):
        return None
    if isinstance(value, bool):
        raise BadBar(f"{name} is no number: {value}")
    text = str(value).strip()
    if not isinstance(value, int | float) and not _NUMBER.fullmatch(text):
        raise BadBar(f"{name} is no number: {text[:40]!r}")
    number = float(text)
    if not math.isfinite(number) or abs(number) > MAX_NUMBER:
        raise BadBar(f"{name} is out of range: {text[:40]}")
    return number


def _is_nothing(value: object) -> bool:
    """Tell whether a cell says nothing; a NaN in a column of numbers is how tables leave one empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _NOTHING
