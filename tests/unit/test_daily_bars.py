"""Daily bars out of what vendors write."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from app.market.daily_bars import BadBar, DailyBar, daily_bar, fields_of, read_day

SPEC = {
    "symbol": "SSI",
    "market": "HOSE",
    "tradingdate": "04/05/2020",
    "time": "",
    "open": "12900",
    "high": "13000",
    "low": "12700",
    "close": "12700",
    "volume": "2180310",
    "value": "27943000000",
}


def bar(**changed: object) -> DailyBar:
    cells = SPEC | changed
    return daily_bar(cells, fields_of(cells))


def refusal(**changed: object) -> str:
    with pytest.raises(BadBar) as caught:
        bar(**changed)
    return str(caught.value)


def test_the_sample_of_the_fastconnect_specification_is_read() -> None:
    got = bar()
    assert got == DailyBar("SSI", date(2020, 5, 4), 12900, 13000, 12700, 12700, 2180310, None, 27943000000)
    assert got.time_us == int(datetime(2020, 5, 4, tzinfo=UTC).timestamp()) * 1_000_000


def test_names_are_known_in_any_case_and_with_any_signs_between_their_letters() -> None:
    names = ["Symbol", "TradingDate", "<OPEN>", "High", "LOW", "Close", "Adj Close", "Total_Volume", "Time"]
    assert fields_of(names) == {
        "symbol": "Symbol",
        "day": "TradingDate",
        "open": "<OPEN>",
        "high": "High",
        "low": "LOW",
        "close": "Close",
        "adj_close": "Adj Close",
        "volume": "Total_Volume",
    }


def test_missing_columns_are_named() -> None:
    with pytest.raises(BadBar, match="no column for day, close"):
        fields_of(["symbol", "open", "high", "low", "volume"])


@pytest.mark.parametrize(
    ("value", "order", "expected"),
    [
        ("2020-05-04", "dmy", (2020, 5, 4)),
        ("20200504", "mdy", (2020, 5, 4)),
        (20200504, "dmy", (2020, 5, 4)),
        ("2020-05-04 00:00:00", "dmy", (2020, 5, 4)),
        ("2020-05-04T16:00:00-04:00", "dmy", (2020, 5, 4)),
        ("04/05/2020", "dmy", (2020, 5, 4)),
        ("4/5/2020", "mdy", (2020, 4, 5)),
        ("04.05.2020", "dmy", (2020, 5, 4)),
        (date(2020, 5, 4), "dmy", (2020, 5, 4)),
        (datetime(2020, 5, 4, 23, tzinfo=UTC), "dmy", (2020, 5, 4)),
    ],
)
def test_days_are_read_in_all_their_forms(value: object, order: str, expected: tuple[int, int, int]) -> None:
    assert read_day(value, order) == date(*expected)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "it has no day"),
        (None, "it has no day"),
        ("yesterday", "no date"),
        ("13/31/2020", "no such day: '13/31/2020' when read as d m y"),
        ("31/02/2020", "no such day"),
        ("2020-13-01", "no such day: '2020-13-01'"),
        ("1588550400", "no date"),
        ("٠٤/٠٥/2020", "no date"),
        ("0001-01-01", "before 1800"),
    ],
)
def test_what_is_no_day_is_refused(value: object, why: str) -> None:
    with pytest.raises(BadBar, match=why):
        read_day(value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"symbol": " "}, "it has no symbol"),
        ({"open": ""}, "open is missing"),
        ({"close": "0"}, "close is not above zero: 0"),
        ({"low": "-1"}, "low is not above zero: -1"),
        ({"high": "12800"}, "high 12800 is below another price"),
        ({"low": "12800"}, "low 12800 is above another price"),
        ({"open": "12,900"}, "open is no number: '12,900'"),
        ({"open": "1_2900"}, "open is no number"),
        ({"open": "inf"}, "open is no number"),
        ({"open": float("inf")}, "open is out of range"),
        ({"open": True}, "open is no number"),
        ({"volume": "-5"}, "volume is negative"),
        ({"volume": "1e300"}, "volume is out of range"),
    ],
)
def test_a_row_that_is_no_bar_is_refused_with_what_is_wrong(changed: dict[str, object], why: str) -> None:
    assert why in refusal(**changed)


def test_absent_volumes_and_adjusted_closes_are_absent_and_no_zeros() -> None:
    for nothing in ("", "null", None, float("nan"), " NaN "):
        got = bar(volume=nothing, value=nothing, adjclose=nothing)
        assert got.volume is got.trading_value is got.adj_close is None
    assert bar(volume="0").volume == 0


def test_numbers_of_any_type_are_read_exactly() -> None:
    got = bar(open=12900, high=Decimal("13000.25"), close="1.27e4", adjclose="0.1")
    assert (got.open, got.high, got.close, got.adj_close) == (12900.0, 13000.25, 12700.0, 0.1)


def test_prices_of_zero_and_less_are_for_instruments_that_have_them() -> None:
    cells = SPEC | {"open": "1", "high": "2", "low": "-37.63", "close": "0"}
    got = daily_bar(cells, fields_of(cells), nonpositive=True)
    assert (got.low, got.close) == (-37.63, 0.0)
