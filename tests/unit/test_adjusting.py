"""Adjusted closes, returns and volatility, against pandas and against what the papers printed."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.market.adjusting import Action, adjusted_closes, daily_returns, fill_absent, volatility
from tests.real_market import REAL, real_data

DAYS = np.arange(100, 104)
NAN = np.nan


def day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def real(symbol: str) -> pd.DataFrame:
    path = Path(str(REAL)) / "daily" / "us_daily_ohlcv_lean_unadjusted.csv.gz"
    frame = pd.read_csv(path, parse_dates=["date"])
    return frame[frame.symbol == symbol].reset_index(drop=True)


def days_of(frame: pd.DataFrame) -> np.ndarray:
    return frame.date.to_numpy().astype("datetime64[D]").astype(np.int64)


def walks(count: int, seed: int) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, count)))


def test_returns_and_volatility_are_those_of_pandas() -> None:
    closes = walks(400, 7)
    expected = pd.Series(closes).pct_change()
    returns = daily_returns(closes)
    np.testing.assert_allclose(returns, expected, rtol=1e-12)
    np.testing.assert_allclose(volatility(returns), expected.rolling(20).std() * math.sqrt(252), rtol=1e-12)


def test_a_volatility_needs_twenty_returns_and_so_twenty_one_closes() -> None:
    found = volatility(daily_returns(walks(30, 3)))
    assert np.isnan(found[:20]).all()
    assert not np.isnan(found[20:]).any()
    assert np.isnan(volatility(daily_returns(walks(20, 3)))).all()
    assert len(volatility(daily_returns(np.array([])))) == 0


def test_an_absent_close_spoils_the_returns_beside_it_and_the_volatilities_that_hold_them() -> None:
    closes = walks(60, 5)
    closes[30] = NAN
    expected = pd.Series(closes).pct_change(fill_method=None)
    np.testing.assert_allclose(daily_returns(closes), expected, rtol=1e-12)
    found = volatility(daily_returns(closes))
    np.testing.assert_allclose(found, expected.rolling(20).std() * math.sqrt(252), rtol=1e-12)
    assert np.isnan(found[30:51]).all()
    assert not np.isnan(found[51:]).any()


def test_one_wild_day_leaves_no_trace_in_later_volatilities() -> None:
    closes = walks(100, 9)
    closes[40] = 1e12
    calm = daily_returns(closes)[61:81]
    assert volatility(daily_returns(closes))[80] == pytest.approx(calm.std(ddof=1) * math.sqrt(252), rel=1e-12)


def test_a_close_that_is_not_positive_has_no_return() -> None:
    assert np.isnan(daily_returns(np.array([10.0, 0.0, 5.0, -1.0, 4.0]))).all()


def test_a_split_divides_the_closes_before_it() -> None:
    got = adjusted_closes(DAYS, np.array([700.0, 770.0, 105.0, 108.0]), [Action(102, "split", ratio=7)])
    np.testing.assert_allclose(got, [100, 110, 105, 108])


def test_a_reverse_split_multiplies_them() -> None:
    got = adjusted_closes(DAYS, np.array([1.0, 1.1, 12.0, 13.0]), [Action(102, "reverse_split", ratio=0.1)])
    np.testing.assert_allclose(got, [10, 11, 12, 13])


def test_a_cash_dividend_takes_its_share_of_the_last_close_before_it() -> None:
    # 0.50 on a close of 50: everything before is worth 99 percent (the example of CRSP's guide, in its numbers).
    got = adjusted_closes(DAYS, np.array([40.0, 50.0, 49.5, 51.0]), [Action(102, "dividend", amount=0.5)])
    np.testing.assert_allclose(got, [39.6, 49.5, 49.5, 51])
    assert daily_returns(got)[2] == pytest.approx(0)


def test_a_stock_dividend_counts_the_shares_that_come() -> None:
    got = adjusted_closes(DAYS, np.array([105.0, 105.0, 100.0, 100.0]), [Action(102, "stock_dividend", ratio=0.05)])
    np.testing.assert_allclose(got, [100, 100, 100, 100])


def test_actions_add_up_in_any_order() -> None:
    closes = np.array([200.0, 210.0, 104.0, 103.0])
    actions = [Action(102, "split", ratio=2), Action(103, "dividend", amount=1.04)]
    expected = [200 / 2 * 0.99, 210 / 2 * 0.99, 104 * 0.99, 103]
    np.testing.assert_allclose(adjusted_closes(DAYS, closes, actions), expected)
    np.testing.assert_allclose(adjusted_closes(DAYS, closes, actions[::-1]), expected)


@pytest.mark.parametrize("ex_day", [50, 100, 104, 900])
def test_an_action_without_a_day_on_either_side_changes_nothing(ex_day: int) -> None:
    closes = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(adjusted_closes(DAYS, closes, [Action(ex_day, "split", ratio=4)]), closes)


def test_an_ex_day_without_trading_counts_from_the_next_day() -> None:
    days = np.array([100, 101, 105, 106])
    got = adjusted_closes(days, np.array([20.0, 20.0, 10.0, 10.0]), [Action(103, "split", ratio=2)])
    np.testing.assert_allclose(got, 10)


def test_what_moves_no_price_is_left_out() -> None:
    closes = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(adjusted_closes(DAYS, closes, [Action(102, "merger")]), closes)


@pytest.mark.parametrize(
    "action",
    [
        Action(102, "split"),
        Action(102, "split", ratio=0),
        Action(102, "split", ratio=-2),
        Action(102, "stock_dividend", ratio=-1),
        Action(102, "dividend"),
        Action(102, "dividend", amount=2.0),
        Action(102, "dividend", amount=NAN),
    ],
)
def test_an_action_that_cannot_be_is_refused(action: Action) -> None:
    with pytest.raises(ValueError, match="of day 102"):
        adjusted_closes(DAYS, np.array([1.0, 2.0, 3.0, 4.0]), [action])


def test_days_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="rise"):
        adjusted_closes(np.array([3, 2]), np.array([1.0, 2.0]), [])


def test_what_was_given_is_never_replaced() -> None:
    closes = walks(60, 11)
    nothing = np.full(60, NAN)
    sent = nothing.copy()
    sent[40] = 0.5
    got = fill_absent(np.arange(60), closes, nothing, sent, sent, [])
    assert got.daily_return[40] == got.volatility[40] == 0.5
    assert not got.computed["daily_return"][40]
    assert got.computed["daily_return"][41]
    assert not got.computed["daily_return"][0], "nothing can be computed on the first day"
    np.testing.assert_array_equal(got.adj_close, closes)
    assert got.computed["adj_close"].all()
    # What follows from a given return follows from that one.
    returns = pd.Series(closes).pct_change()
    returns[40] = 0.5
    assert got.volatility[45] == pytest.approx(returns[26:46].std() * math.sqrt(252))


def test_a_vendors_adjustment_and_ours_make_no_jump_between_them() -> None:
    closes = np.array([700.0, 700.0, 100.0, 100.0])
    vendor = np.array([50.0, 50.0, NAN, NAN])
    nothing = np.full(4, NAN)
    got = fill_absent(DAYS, closes, vendor, nothing, nothing, [Action(102, "split", ratio=7)])
    np.testing.assert_allclose(got.adj_close, [50, 50, 100, 100])
    np.testing.assert_allclose(got.daily_return[1:], 0, atol=1e-12)


@real_data
def test_apple_is_worth_what_it_was_worth_after_all_its_splits() -> None:
    frame = real("AAPL")
    splits = [("2000-06-21", 2.0), ("2005-02-28", 2.0), ("2014-06-09", 7.0), ("2020-08-31", 4.0)]
    actions = [Action(day(ex), "split", ratio=ratio) for ex, ratio in splits]
    got = adjusted_closes(days_of(frame), frame.close.to_numpy(), actions)
    expected = frame.close.copy()
    for ex, ratio in splits:
        expected[frame.date < ex] /= ratio
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    returns = daily_returns(got)
    for ex, _ in splits:
        on = int(np.flatnonzero(frame.date >= ex)[0])
        assert abs(returns[on]) < 0.12, "a split is no fall"
    np.testing.assert_allclose(returns, expected.pct_change(), rtol=1e-9)
    np.testing.assert_allclose(volatility(returns), expected.pct_change().rolling(20).std() * math.sqrt(252), rtol=1e-9)
