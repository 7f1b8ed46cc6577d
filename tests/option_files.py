"""Real option chains, of REAL_MARKET_DATA, as records of the dataset option_quotes."""

from __future__ import annotations

import csv
import gzip
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.real_market import REAL

CHAINS = {date(2014, 6, 3): 4532, date(2014, 6, 11): 4360}
"""Days that there is a file of, and its contracts."""

ROW_FIELDS = (
    "expiration_date",
    "strike_price",
    "option_type",
    "bid",
    "ask",
    "last_price",
    "volume",
    "open_interest",
    "implied_volatility",
    "delta",
    "gamma",
    "theta",
    "vega",
    "rho",
    "in_the_money",
    "contract_symbol",
    "greeks_source",
    "timestamp",
    "underlying_price",
)
"""Fields of a contract in a chain, in the order of the answer."""

_NEW_YORK = ZoneInfo("America/New_York")
_GREEKS = ("implied_volatility", "delta", "gamma", "vega", "theta", "rho")


def real_chain(day: date, *, with_greeks: bool = True) -> tuple[float, list[dict[str, Any]]]:
    """Return the underlying's close and a record a contract, as quoted at 16:00 in New York.

    Fields that a file leaves empty are not in the record. with_greeks: as the file has them, volatilities of 0 too.
    """
    path = Path(str(REAL)) / "options" / f"aapl_{day:%Y%m%d}.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        underlying, *rows = csv.DictReader(file)
    assert underlying["#expiry"] == ""
    close = float(underlying["close"])
    moment = datetime.combine(day, time(16), _NEW_YORK).isoformat()
    return close, [_record(row, moment, close, with_greeks) for row in rows]


def _record(row: dict[str, str], moment: str, close: float, with_greeks: bool) -> dict[str, Any]:
    expiry = row["#expiry"]
    numbers = {
        "last_price": row["close"],
        "volume": row["volume"],
        "open_interest": row["open_interest"],
        **({name: row[name] for name in _GREEKS} if with_greeks else {}),
    }
    return {
        "symbol": "AAPL",
        "expiration_date": f"{expiry[:4]}-{expiry[4:6]}-{expiry[6:]}",
        "strike_price": float(row["strike"]),
        "option_type": {"C": "call", "P": "put"}[row["right"]],
        "timestamp": moment,
        "underlying_price": close,
        **{name: float(text) for name, text in numbers.items() if text != ""},
    }
