"""An option chain as its JSON answer: read, completed by the model, encoded. Lane side."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from psycopg2.extensions import cursor as Cursor

from app.errors import UnknownSymbol
from app.formats.times import time_texts
from app.market.option_chain import Chain, complete
from app.market.options import Market
from app.storage.instruments import find
from app.storage.option_reader import ChainQuery, read_chain

SLICE_ROWS = 500
"""Rows that are encoded in one call, which holds the interpreter: about 0.5 ms."""

Price = Annotated[float | None, Meta(description="a price in the underlying's currency")]


class OptionRow(Struct, gc=False):
    """The newest quote of a contract."""

    expiration_date: Annotated[str, Meta(extra_json_schema={"format": "date"})]
    strike_price: Annotated[float, Meta(description="a price in the underlying's currency")]
    option_type: Annotated[str, Meta(description="call or put")]
    bid: Price
    ask: Price
    last_price: Price
    volume: Annotated[float | None, Meta(description="contracts, of the day so far")]
    open_interest: Annotated[float | None, Meta(description="contracts")]
    implied_volatility: Annotated[float | None, Meta(description="a year; 0.25 = 25 %; null: there is none")]
    delta: Annotated[float | None, Meta(description="for 1 of the underlying")]
    gamma: Annotated[float | None, Meta(description="of delta, for 1 of the underlying")]
    theta: Annotated[float | None, Meta(description="for a calendar day that passes")]
    vega: Annotated[float | None, Meta(description="for a point of volatility, 0.01")]
    rho: Annotated[float | None, Meta(description="for a point of the rate, 0.01")]
    in_the_money: Annotated[bool | None, Meta(description="null: the underlying's price is not known")]
    contract_symbol: Annotated[
        str | None, Meta(description="as sent, else in OCC form; null: it has none", examples=["AAPL  140719C00645000"])
    ]
    greeks_source: Annotated[
        str | None,
        Meta(
            description="where volatility and greeks are from: sent (or what the sender says), computed "
            "(Black-Scholes-Merton), mixed; null: there are none"
        ),
    ]
    timestamp: Annotated[
        str, Meta(description="when it was quoted, UTC", extra_json_schema={"format": "date-time"})
    ]
    underlying_price: Annotated[
        float | None, Meta(description="what the underlying cost then, as sent, else by its ticks")
    ]


class OptionChain(Struct):
    """The chain of an underlying."""

    ticker: str
    date: Annotated[
        str | None,
        Meta(description="UTC day of the quotes; null: there are none", extra_json_schema={"format": "date"}),
    ]
    options: list[OptionRow]


_encoder = msgspec.json.Encoder()


def chain_answer(cur: Cursor, ticker: str, query: ChainQuery, market: Market) -> bytes:
    """Return the JSON of OptionChain. Raises UnknownSymbol, BadParameter."""
    found = find(cur, ticker)
    if found is None:
        raise UnknownSymbol(f"Unknown symbol: {ticker[:64]}")
    day, chain = read_chain(cur, found, query)
    return b"".join(_pieces(found.symbol, day, complete(chain, market)))


def _pieces(symbol: str, day: date | None, chain: Chain) -> Iterator[bytes]:
    empty = OptionChain(symbol, None if day is None else str(day), [])
    yield _encoder.encode(empty)[: -len(b"]}")]
    for start in range(0, len(chain), SLICE_ROWS):
        yield b"," if start else b""
        yield _encoder.encode(_rows(chain, slice(start, start + SLICE_ROWS)))[1:-1]
    yield b"]}"


def _rows(chain: Chain, part: slice) -> list[OptionRow]:
    floats = (
        chain.bid,
        chain.ask,
        chain.last_price,
        chain.volume,
        chain.open_interest,
        chain.implied_volatility,
        chain.delta,
        chain.gamma,
        chain.theta,
        chain.vega,
        chain.rho,
    )
    return list(
        map(
            OptionRow,
            chain.expirations[part].astype("M8[D]").astype(str).tolist(),
            chain.strikes[part].tolist(),
            ["call" if call else "put" for call in chain.calls[part].tolist()],
            *(values[part].tolist() for values in floats),  # msgspec writes NaN as null
            chain.in_the_money[part],
            chain.contract_symbols[part],
            chain.greeks_sources[part],
            time_texts(chain.times_us[part]),
            chain.underlyings[part].tolist(),
        )
    )
