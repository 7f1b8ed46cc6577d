"""Option chains."""

from __future__ import annotations

from datetime import date as Date
from functools import partial
from typing import Annotated, Literal

from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.errors import BadParameter, DatabaseNeeded, NotReady, QueryTimeout, UnknownSymbol
from app.market.options import Market
from app.option_chains import OptionChain, chain_answer
from app.reads import PAGE
from app.storage.option_reader import ChainQuery
from app.web.api import Endpoint, endpoint
from app.web.client import client_of
from app.web.server import runtime

blueprint = Blueprint("options", __name__)

MOST_DAYS = 100_000


class OptionParams(Struct, kw_only=True):
    """Parameters of /api/options."""

    date: Annotated[
        Date | None, Meta(description="UTC day of the quotes; default the newest that has any")
    ] = None
    option_type: Annotated[Literal["call", "put", "all"], Meta(description="which contracts")] = "all"
    strike_range_percent: (
        Annotated[
            float,
            Meta(gt=0, le=1_000_000, description="strikes so far from the underlying's price at most: 10 = ±10 %"),
        ]
        | None
    ) = None
    max_days_to_expiry: (
        Annotated[
            int,
            Meta(ge=0, le=MOST_DAYS, description="contracts that expire so many calendar days after `date` at most"),
        ]
        | None
    ) = None


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/options/{ticker}",
        "The newest quote of each option contract of a day",
        "market",
        description="Implied volatility and greeks that were not sent are computed with Black-Scholes-Merton from the "
        "middle of bid and ask (from last_price where neither was sent), the underlying's price at that time, and the "
        "settings option_rate and option_dividend_yield.",
        params=OptionParams,
        answer=OptionChain,
        errors=(BadParameter, UnknownSymbol, QueryTimeout, DatabaseNeeded, NotReady),
    ),
)
def options(ticker: str, params: OptionParams) -> Response:
    """Return the chain of an underlying, without a limit."""
    run = runtime()
    query = ChainQuery(params.date, params.option_type, params.strike_range_percent, params.max_days_to_expiry)
    market = Market(run.settings.option_rate, run.settings.option_dividend_yield)
    read = partial(chain_answer, ticker=ticker, query=query, market=market)
    return Response(run.reads.run(PAGE, read, client=client_of(request.environ)), mimetype="application/json")
