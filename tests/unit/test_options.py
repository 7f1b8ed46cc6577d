"""Option arithmetic against published values, and at its edges."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.options import (
    EXPIRY_ZONE,
    YEAR_US,
    Greeks,
    Market,
    greeks,
    implied_volatilities,
    in_the_money,
    worth,
    years_to,
)

NAN = float("nan")


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def volatility(
    price: float, kind: str, spot: float, strike: float, years: float, rate: float = 0.0, dividends: float = 0.0
) -> float:
    return float(
        implied_volatilities(
            array(price), np.array([kind == "call"]), array(spot), array(strike), array(years), Market(rate, dividends)
        )[0]
    )


def sensitivities(
    sigma: float, kind: str, spot: float, strike: float, years: float, rate: float = 0.0, dividends: float = 0.0
) -> dict[str, float]:
    found = greeks(
        array(sigma), np.array([kind == "call"]), array(spot), array(strike), array(years), Market(rate, dividends)
    )
    return {name: float(getattr(found, name)[0]) for name in Greeks.__slots__}


# Prices that books print to the cent imply the volatility that they were made with, to what the cent allows.
PUBLISHED_PRICES = [
    # Hull, Options, Futures, and Other Derivatives, 8th ed., example 14.6 (15.6 in the 9th to 11th)
    ("call", 42, 40, 0.5, 0.10, 0.0, 0.20, 4.76),
    ("put", 42, 40, 0.5, 0.10, 0.0, 0.20, 0.81),
    # Hull, section 15.11 (9th ed.): the implied volatility of a call at 1.875 is 23.5 %
    ("call", 21, 20, 0.25, 0.10, 0.0, 0.235, 1.875),
    # Hull, example 17.1 (9th ed.): an index with a dividend yield of 3 %
    ("call", 930, 900, 2 / 12, 0.08, 0.03, 0.20, 51.83),
    # Hull, section 19.4 (9th ed.): the option that the chapter on the greeks hedges
    ("call", 49, 50, 0.3846, 0.05, 0.0, 0.20, 2.40),
    # Hull, problem 19.23 (17.23 in the 8th ed.), by DerivaGem
    ("call", 30, 30, 1.0, 0.05, 0.0, 0.25, 3.7008),
    # Haug, The Complete Guide to Option Pricing Formulas, as QuantLib's test-suite/europeanoption.cpp cites it
    ("call", 60, 65, 0.25, 0.08, 0.0, 0.30, 2.1334),
    ("put", 100, 95, 0.5, 0.10, 0.05, 0.20, 2.4648),
]


@pytest.mark.parametrize(("kind", "spot", "strike", "years", "rate", "dividends", "sigma", "price"), PUBLISHED_PRICES)
def test_published_prices_imply_their_volatilities(
    kind: str, spot: float, strike: float, years: float, rate: float, dividends: float, sigma: float, price: float
) -> None:
    vega = sensitivities(sigma, kind, spot, strike, years, rate, dividends)["vega"] * 100
    decimals = len(str(price).partition(".")[2])
    assert volatility(price, kind, spot, strike, years, rate, dividends) == pytest.approx(
        sigma, abs=0.6 * 10**-decimals / vega + (0.0005 if sigma == 0.235 else 0)
    )


PUBLISHED_GREEKS: list[tuple[tuple[Any, ...], dict[str, tuple[float, float]]]] = [
    # Hull, section 19.4 to 19.9 (9th ed.): theta a year, vega and rho for 1, here for a day and for a point
    (
        (0.20, "call", 49, 50, 0.3846, 0.05),
        {
            "delta": (0.522, 5e-4),
            "gamma": (0.066, 5e-4),
            "theta": (-4.31 / 365, 0.005 / 365),
            "vega": (0.121, 5e-4),
            "rho": (0.0891, 5e-5),
        },
    ),
    # Hull, problem 19.23 (17.23 in the 8th ed.), by DerivaGem, whose units these are
    (
        (0.25, "call", 30, 30, 1.0, 0.05),
        {
            "delta": (0.6274, 5e-5),
            "gamma": (0.050, 5e-4),
            "theta": (-0.00596, 5e-6),
            "vega": (0.1135, 5e-5),
            "rho": (0.1512, 5e-5),
        },
    ),
    # Haug, as QuantLib's test-suite/europeanoption.cpp cites it
    ((0.36, "call", 105, 100, 0.5, 0.10, 0.10), {"delta": (0.5946, 5e-5)}),
    ((0.36, "put", 105, 100, 0.5, 0.10, 0.10), {"delta": (-0.3566, 5e-5)}),
    ((0.30, "call", 55, 60, 0.75, 0.10), {"gamma": (0.0278, 5e-5), "vega": (0.189358, 5e-7)}),
    ((0.30, "put", 55, 60, 0.75, 0.10), {"gamma": (0.0278, 5e-5), "vega": (0.189358, 5e-7)}),
]


@pytest.mark.parametrize(("contract", "expected"), PUBLISHED_GREEKS)
def test_greeks_are_the_published_ones(contract: tuple[Any, ...], expected: dict[str, tuple[float, float]]) -> None:
    found = sensitivities(*contract)
    for name, (value, within) in expected.items():
        assert found[name] == pytest.approx(value, abs=within), name


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["call", "put"]),
    st.floats(1, 1000),
    st.floats(0.2, 5),
    st.floats(0.002, 3),
    st.floats(0.01, 3),
    st.floats(-0.02, 0.12),
    st.floats(0, 0.08),
)
def test_a_volatility_is_found_again_or_none_is_told(
    kind: str, spot: float, moneyness: float, years: float, sigma: float, rate: float, dividends: float
) -> None:
    strike = spot * moneyness
    price = _by_numbers(kind, spot, strike, years, rate, dividends, sigma)
    found = volatility(price, kind, spot, strike, years, rate, dividends)
    assert np.isnan(found) or found == pytest.approx(sigma, abs=2e-3)
    vega = sensitivities(sigma, kind, spot, strike, years, rate, dividends)["vega"]
    if vega > 1e-6 * max(spot, strike):
        assert not np.isnan(found)


@pytest.mark.parametrize("kind", ["call", "put"])
def test_greeks_are_the_slopes_of_the_price(kind: str) -> None:
    spot, strike, years, rate, dividends, sigma = 105.0, 100.0, 0.4, 0.03, 0.02, 0.27
    found = sensitivities(sigma, kind, spot, strike, years, rate, dividends)

    def price(**other: float) -> float:
        given = {"spot": spot, "years": years, "rate": rate, "sigma": sigma} | other
        return _by_numbers(kind, given["spot"], strike, given["years"], given["rate"], dividends, given["sigma"])

    day = 1 / 365
    assert found["delta"] == pytest.approx((price(spot=spot + 0.01) - price(spot=spot - 0.01)) / 0.02, rel=1e-6)
    assert found["gamma"] == pytest.approx(
        (price(spot=spot + 0.05) - 2 * price() + price(spot=spot - 0.05)) / 0.0025, rel=1e-4
    )
    assert found["theta"] == pytest.approx((price(years=years - day) - price(years=years + day)) / 2, rel=1e-3)
    assert found["vega"] == pytest.approx((price(sigma=sigma + 0.005) - price(sigma=sigma - 0.005)), rel=1e-3)
    assert found["rho"] == pytest.approx((price(rate=rate + 0.005) - price(rate=rate - 0.005)), rel=1e-3)


def _by_numbers(
    kind: str, spot: float, strike: float, years: float, rate: float, dividends: float, sigma: float
) -> float:
    """The price by the formula of the book, with the error function of the standard library."""
    from math import erf, exp, log, sqrt

    def normal(x: float) -> float:
        return (1 + erf(x / sqrt(2))) / 2

    spread = sigma * sqrt(years)
    d1 = (log(spot / strike) + (rate - dividends + sigma**2 / 2) * years) / spread
    sign = 1 if kind == "call" else -1
    return sign * (
        spot * exp(-dividends * years) * normal(sign * d1)
        - strike * exp(-rate * years) * normal(sign * (d1 - spread))
    )


@pytest.mark.parametrize(
    ("price", "kind", "spot", "strike", "years"),
    [
        (5, "call", 100, 100, 0),  # expires now
        (5, "call", 100, 100, -0.1),  # has expired
        (20, "call", 120, 100, 0.5),  # its intrinsic value, and no more
        (19, "call", 120, 100, 0.5),  # less than that
        (121, "call", 120, 100, 0.5),  # more than the underlying
        (101, "put", 120, 100, 0.5),  # more than the strike
        (0, "call", 100, 100, 0.5),
        (-1, "call", 100, 100, 0.5),
        (NAN, "call", 100, 100, 0.5),
        (float("inf"), "call", 100, 100, 0.5),
        (5, "call", NAN, 100, 0.5),
        (5, "call", 0, 100, 0.5),
        (5, "call", 100, 0, 0.5),
        (5, "call", 100, 100, NAN),
        (90 + 1e-13, "call", 100, 10, 0.5),  # deep in the money: all that is beyond its intrinsic value is rounding
    ],
)
def test_where_there_is_no_volatility_none_is_told(
    price: float, kind: str, spot: float, strike: float, years: float
) -> None:
    assert np.isnan(volatility(price, kind, spot, strike, years))


def test_one_without_a_solution_leaves_the_others_theirs() -> None:
    prices = array(4.76, NAN, 4.76, 1000, 4.76)
    same = np.ones(5)
    found = implied_volatilities(prices, same > 0, same * 42, same * 40, same * 0.5, Market(0.1, 0.0))
    assert np.isnan(found).tolist() == [False, True, False, True, False]
    assert found[0] == found[2] == found[4]


def test_many_are_as_one() -> None:
    rng = np.random.default_rng(7)
    rows = 5000  # beyond where the library begins to use several threads
    calls = rng.random(rows) < 0.5
    strikes, years, sigma = rng.uniform(80, 120, rows), rng.uniform(0.05, 2, rows), rng.uniform(0.1, 0.9, rows)
    market = Market(0.03, 0.01)
    prices = array(
        *(
            _by_numbers("call" if call else "put", 100, strike, year, 0.03, 0.01, vol)
            for call, strike, year, vol in zip(calls, strikes, years, sigma, strict=True)
        )
    )
    found = implied_volatilities(prices, calls, np.full(rows, 100.0), strikes, years, market)
    assert np.nanmax(np.abs(found - sigma)) < 1e-4
    assert not np.isnan(found).any()
    for place in (0, 1234, 4999):
        kind = "call" if calls[place] else "put"
        alone = volatility(prices[place], kind, 100, strikes[place], years[place], 0.03, 0.01)
        assert found[place] == alone


@pytest.mark.parametrize(("sigma", "years"), [(NAN, 1), (0, 1), (0.2, 0), (0.2, -1), (0.2, NAN)])
def test_what_has_expired_or_no_volatility_has_no_greeks(sigma: float, years: float) -> None:
    assert all(np.isnan(value) for value in sensitivities(sigma, "call", 100, 100, years).values())


def test_worth_is_the_middle_of_a_two_sided_quote_and_else_a_lonely_last_price() -> None:
    bid = array(1.0, 1.0, 0.0, NAN, NAN, 2.0, 1.0, NAN, NAN)
    ask = array(1.2, 1.0, 0.05, NAN, NAN, 1.9, NAN, 1.5, NAN)
    last = array(9.0, 9.0, 0.04, 1.3, NAN, 1.9, 1.1, 1.1, 0.0)
    assert worth(bid, ask, last) == pytest.approx(
        array(1.1, 1.0, NAN, 1.3, NAN, NAN, NAN, NAN, NAN), nan_ok=True
    )


def test_in_the_money_is_what_pays_if_exercised_now() -> None:
    calls = np.array([True, True, True, False, False, False, True])
    spots = array(101, 100, 99, 99, 100, 101, NAN)
    expected = [True, False, False, True, False, False, None]
    assert in_the_money(calls, spots, np.full(7, 100.0)) == expected


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("zone", "end"),
    [
        (None, "2014-07-18T20:00:00"),  # 16:00 in New York, in summer
        ("Nowhere/Land", "2014-07-18T20:00:00"),
        (EXPIRY_ZONE, "2014-07-18T20:00:00"),
        ("Asia/Ho_Chi_Minh", "2014-07-18T09:00:00"),
        ("UTC", "2014-07-18T16:00:00"),
    ],
)
def test_a_contract_lives_until_the_afternoon_of_its_exchange(zone: str | None, end: str) -> None:
    day = np.array(["2014-07-18"] * 3, "M8[D]")
    times = np.array([_us(end) - YEAR_US, _us(end), _us(end) + YEAR_US // 365], np.int64)
    assert years_to(day, times, zone).tolist() == [1.0, 0.0, -1 / 365]


def test_winter_time_counts() -> None:
    days = np.array(["2014-01-17", "2014-07-18"], "M8[D]")
    times = np.array([_us("2014-01-17T21:00:00"), _us("2014-07-18T20:00:00")], np.int64)
    assert years_to(days, times, None).tolist() == [0.0, 0.0]


def test_of_nothing_comes_nothing() -> None:
    none = np.zeros(0)
    assert len(implied_volatilities(none, none > 0, none, none, none, Market(0, 0))) == 0
    assert len(greeks(none, none > 0, none, none, none, Market(0, 0)).delta) == 0
    assert len(years_to(none.astype("M8[D]"), none.astype(np.int64), None)) == 0
