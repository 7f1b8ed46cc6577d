"""Contract symbols of the OCC, made and taken apart."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.market.option_symbols import Contract, OptionType, contract_symbol, parse_contract_symbol

JULY = date(2014, 7, 19)


@pytest.mark.parametrize(
    ("contract", "symbol"),
    [
        (("AAPL", date(2024, 1, 19), "call", 150.0), "AAPL  240119C00150000"),
        (("SPY", date(2024, 6, 21), "put", 375.5), "SPY   240621P00375500"),
        (("NFLX", date(2026, 4, 24), "call", 90), "NFLX  260424C00090000"),
        (("AAPL7", JULY, "call", 72.86), "AAPL7 140719C00072860"),
        (("SPXW", date(2026, 12, 18), "put", 12500), "SPXW  261218P12500000"),
        (("f", JULY, "put", 0.5), "F     140719P00000500"),
        (("GOOGL1", JULY, "call", 99999.999), "GOOGL1140719C99999999"),
    ],
)
def test_a_contract_has_its_symbol(contract: tuple[str, date, OptionType, float], symbol: str) -> None:
    root, expiration, kind, strike = contract
    assert contract_symbol(*contract) == symbol
    assert parse_contract_symbol(symbol) == Contract(root.upper(), expiration, kind, strike)


@pytest.mark.parametrize("text", ["AAPL240119C00150000", "  AAPL  240119C00150000", "aapl 240119c00150000"])
def test_symbols_are_taken_as_vendors_write_them(text: str) -> None:
    assert parse_contract_symbol(text) == Contract("AAPL", date(2024, 1, 19), "call", 150.0)


@pytest.mark.parametrize(
    ("root", "expiration", "strike"),
    [
        ("", JULY, 100),
        ("TOOLONG", JULY, 100),
        ("BRK.B", JULY, 100),
        ("7UP", JULY, 100),
        ("ÄPFEL", JULY, 100),
        ("AAPL", date(1999, 7, 19), 100),
        ("AAPL", date(2100, 7, 19), 100),
        ("AAPL", JULY, 0),
        ("AAPL", JULY, -5),
        ("AAPL", JULY, 100_000),
        ("AAPL", JULY, 1e300),
        ("AAPL", JULY, 72.8571),
        ("AAPL", JULY, float("nan")),
        ("AAPL", JULY, float("inf")),
    ],
)
def test_what_has_no_symbol_gets_none(root: str, expiration: date, strike: float) -> None:
    assert contract_symbol(root, expiration, "call", strike) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAPL",
        "AAPL240119X00150000",
        "AAPL241319C00150000",
        "AAPL240230C00150000",
        "AAPL240119C0015000",
        "AAPL240119C001500000",
        "AAPL240119C00000000",
        "TOOLONG240119C00150000",
        "AAPL240119C0015000\u0660",
        "AAPL240119C00150000\nX",
    ],
)
def test_what_is_no_symbol_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no contract symbol|is no day|strike is zero"):
        parse_contract_symbol(text)


@given(
    st.from_regex(r"[A-Z][A-Z0-9]{0,5}", fullmatch=True),
    st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    st.sampled_from(["call", "put"]),
    st.integers(1, 99_999_999),
)
def test_every_contract_is_found_again(root: str, expiration: date, kind: OptionType, thousandths: int) -> None:
    symbol = contract_symbol(root, expiration, kind, thousandths / 1000)
    assert symbol is not None
    assert len(symbol) == 21
    assert parse_contract_symbol(symbol) == Contract(root, expiration, kind, thousandths / 1000)
    assert parse_contract_symbol(symbol.replace(" ", "")) == Contract(root, expiration, kind, thousandths / 1000)
