"""What is added to a chain where it was not sent, and that nothing else is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from app.market.option_chain import GREEKS, MODELLED, Chain, complete, underlying_at
from app.market.options import Market, greeks, implied_volatilities, years_to

NAN = float("nan")
NOON_US = round(datetime(2014, 6, 3, 16, tzinfo=UTC).timestamp() * 1_000_000)
MARKET = Market(0.02, 0.01)
PRICES = ("bid", "ask", "last_price", "volume", "open_interest")


def chain(*rows: dict[str, Any], symbol: str = "AAPL", zone: str | None = None) -> Chain:
    """Contracts of July 2014; absent values are NaN or None."""

    def floats(name: str, default: float = NAN) -> np.ndarray:
        return np.array([row.get(name, default) for row in rows], np.float64)

    return Chain(
        symbol,
        zone,
        np.array([row.get("expiration", "2014-07-18") for row in rows], "M8[D]"),
        floats("strike", 90),
        np.array([row.get("kind", "call") == "call" for row in rows], np.bool_),
        np.full(len(rows), NOON_US),
        *(floats(name) for name in PRICES),
        *(floats(name) for name in MODELLED),
        underlyings=floats("underlying", 92.0),
        in_the_money=[row.get("in_the_money") for row in rows],
        contract_symbols=[row.get("contract_symbol") for row in rows],
        greeks_sources=[row.get("greeks_source") for row in rows],
    )


def values(of: Chain, name: str) -> list[float]:
    return getattr(of, name).tolist()


def test_a_quote_with_prices_alone_gets_all_of_the_model() -> None:
    sent = chain({"bid": 3.9, "ask": 4.1, "last_price": 9})
    found = complete(sent, MARKET)
    years = years_to(sent.expirations, sent.times_us, None)
    volatility = implied_volatilities(np.array([4.0]), sent.calls, sent.underlyings, sent.strikes, years, MARKET)
    assert found.implied_volatility == pytest.approx(volatility)
    assert 0.1 < found.implied_volatility[0] < 0.4
    expected = greeks(volatility, sent.calls, sent.underlyings, sent.strikes, years, MARKET)
    for name in GREEKS:
        assert values(found, name) == values(expected, name), name
    assert found.greeks_sources == ["computed"]
    assert found.contract_symbols == ["AAPL  140718C00090000"]
    assert found.in_the_money == [True]


def test_what_was_sent_stays_and_is_told_apart() -> None:
    all_sent = {"implied_volatility": 0.5, "delta": 0.1, "gamma": 0.2, "theta": -0.3, "vega": 0.4, "rho": 0.6}
    rows = [
        all_sent,
        all_sent | {"greeks_source": "orats"},
        all_sent | {"delta": NAN, "greeks_source": "orats", "bid": 3.9, "ask": 4.1},
        {"greeks_source": "orats", "bid": 3.9, "ask": 4.1},
        {"implied_volatility": 0.5, "bid": 3.9, "ask": 4.1},
        {"delta": 0.1},
        {"greeks_source": "orats"},
        {},
    ]
    found = complete(chain(*rows), MARKET)
    assert found.greeks_sources == ["sent", "orats", "mixed", "computed", "mixed", "sent", "orats", None]
    for name, value in all_sent.items():
        assert values(found, name)[:2] == [value, value], name
    assert values(found, "rho")[2] == 0.6
    # Greeks that are missing are of the volatility that was sent, not of the one that the price implies.
    own = complete(chain({"implied_volatility": 0.5}), MARKET)
    assert values(found, "delta")[2] == values(found, "delta")[4] == own.delta[0]
    assert values(found, "implied_volatility")[2] == 0.5
    assert found.implied_volatility[3] < 0.4
    assert values(found, "delta")[5] == 0.1
    assert np.isnan(found.implied_volatility[5])


def test_a_volatility_of_zero_is_none() -> None:
    found = complete(chain({"implied_volatility": 0, "bid": 3.9, "ask": 4.1}, {"implied_volatility": 0}), MARKET)
    assert 0.1 < found.implied_volatility[0] < 0.4
    assert np.isnan(found.implied_volatility[1])
    assert found.greeks_sources == ["computed", None]


@pytest.mark.parametrize(
    "row",
    [
        {"bid": 0.0, "ask": 0.05, "last_price": 0.03, "strike": 200},
        {"bid": 4.2, "ask": 4.1, "last_price": 4.15},
        {"bid": 1.0, "ask": 1.1},  # less than exercise pays
        {"bid": 3.9, "ask": 4.1, "expiration": "2014-06-02"},
        {"bid": 3.9, "ask": 4.1, "underlying": NAN},
        {},
    ],
)
def test_where_the_model_has_no_answer_there_is_none(row: dict[str, Any]) -> None:
    found = complete(chain(row), MARKET)
    assert all(np.isnan(values(found, name)[0]) for name in MODELLED)
    assert found.greeks_sources == [None]


def test_rate_and_yield_count() -> None:
    sent = chain({"implied_volatility": 0.3, "expiration": "2016-01-15"})
    cheap, dear = complete(sent, Market(0.0, 0.0)), complete(sent, Market(0.05, 0.0))
    paying = complete(sent, Market(0.0, 0.05))
    assert paying.delta[0] < cheap.delta[0] < dear.delta[0]


def test_what_says_whether_it_pays_is_what_was_sent_or_else_the_underlyings_price() -> None:
    rows = [{}, {"strike": 95}, {"kind": "put"}, {"in_the_money": False}, {"underlying": NAN}]
    assert complete(chain(*rows), MARKET).in_the_money == [True, False, False, False, None]


def test_a_name_that_was_sent_stays_and_what_has_none_gets_none() -> None:
    rows = [{"contract_symbol": "AAPL7 140718C00090000"}, {"strike": 72.8571}]
    assert complete(chain(*rows), MARKET).contract_symbols == ["AAPL7 140718C00090000", None]
    assert complete(chain({}, symbol="VN30F2506"), MARKET).contract_symbols == [None]


def test_completing_changes_nothing_in_what_it_was_given() -> None:
    sent = chain({"bid": 3.9, "ask": 4.1}, {"implied_volatility": 0})
    before = replace(sent, **{name: getattr(sent, name).copy() for name in MODELLED})
    complete(sent, MARKET)
    for name in MODELLED:
        assert np.array_equal(getattr(sent, name), getattr(before, name), equal_nan=True)
    assert sent.contract_symbols == [None, None]


def test_an_empty_chain_is_complete() -> None:
    assert len(complete(chain(), MARKET)) == 0


def test_the_underlying_costs_what_it_cost_before() -> None:
    times, prices = np.array([10, 20, 30]), np.array([1.0, 2.0, 3.0])
    assert underlying_at(np.array([10, 19, 20, 99]), times, prices).tolist() == [1.0, 1.0, 2.0, 3.0]
    assert np.isnan(underlying_at(np.array([9]), times, prices)).all()
    assert np.isnan(underlying_at(np.array([9, 10]), times[:0], prices[:0])).all()
