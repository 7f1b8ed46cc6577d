"""A stock's price, days, ratios and news in one answer. Greenlet side.

The price is the newest one that somebody saved with a tick (`last` of the tick: what /db_command calls `price`), be it
a trade or a quote; where none of the newest ticks has one, the quote's.
"""

from __future__ import annotations

from datetime import date as Date
from functools import partial
from typing import Annotated, Literal

from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.errors import BadParameter, DatabaseNeeded, NotReady, QueryTimeout, UnknownSymbol
from app.market.quotes import Quote
from app.market.rfc3339 import rfc3339
from app.reads import PAGE
from app.runtime import Runtime
from app.stock_facts import FINANCIAL_INFO, MOST_DAYS, MOST_NEWS, NEWS, StockFacts, StockQuery, read_price, read_stock
from app.web.answers import Timestamp
from app.web.api import Endpoint, endpoint
from app.web.client import client_of
from app.web.datasets import record_type
from app.web.errors import answer
from app.web.financials import values_type
from app.web.history import DailyBar
from app.web.quotes import newest, resolve
from app.web.server import runtime

blueprint = Blueprint("stock_info", __name__)

PriceSource = Literal["realtime", "stale", "upstream", "history"]
SOURCE = (
    "realtime: the quote is fresh; stale: it is older than stale_data_timeout_s, in market hours; upstream: it was "
    "read from there; history: there is no quote, so it is the newest daily close; null: there is no price at all"
)


class PriceInfo(Struct):
    """What a stock costs."""

    current_price: Annotated[float | None, Meta(description="the newest saved `price`, else the quote's")]
    timestamp: Annotated[Timestamp | None, Meta(description="when it was; of a daily close, the day's midnight UTC")]
    source: Annotated[PriceSource | None, Meta(description=SOURCE)]


class StockInfo(Struct):
    """What is known of a stock."""

    ticker: str
    price_info: PriceInfo
    price_data: list[DailyBar]  # type: ignore[valid-type]  # a type made at run time
    financial_info: values_type(FINANCIAL_INFO)  # type: ignore[valid-type]
    news: list[record_type(NEWS)]  # type: ignore[valid-type]


class LatestPrice(Struct):
    """What a stock costs."""

    ticker: str
    price: float | None
    timestamp: Timestamp | None
    source: Annotated[PriceSource | None, Meta(description=SOURCE)]


class StockParams(Struct, kw_only=True):
    """Parameters of /api/stock_info."""

    start_date: Annotated[
        Date | None,
        Meta(
            description="first trading date of `price_data`, inclusive; default a year before end_date, or before the "
            "newest day"
        ),
    ] = None
    end_date: Annotated[
        Date | None,
        Meta(description="last trading date of `price_data`, inclusive (unlike `end` elsewhere); default the newest"),
    ] = None
    show_price_history: Annotated[bool, Meta(description="false: `price_data` is empty")] = True
    latest: Annotated[bool, Meta(description="true: of `price_data` and `news` the newest one only")] = False


ERRORS = (UnknownSymbol, QueryTimeout, DatabaseNeeded, NotReady)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/stock_info/{ticker}",
        "Price, daily bars, ratios and news of a stock",
        "market",
        description=f"`price_data` is in ascending order, {MOST_DAYS} days at most; `financial_info` is the newest "
        f"row, nulls where there is none; `news` are the newest {MOST_NEWS}, the newest first.",
        params=StockParams,
        answer=StockInfo,
        errors=(BadParameter, *ERRORS),
    ),
)
def stock_info(ticker: str, params: StockParams) -> Response:
    """Return what is known of a stock."""
    if params.start_date is not None and params.end_date is not None and params.end_date < params.start_date:
        raise BadParameter("end_date: is before start_date")
    query = StockQuery(params.start_date, params.end_date, params.show_price_history, params.latest)
    run = runtime()
    quote = _quote(run, ticker)
    read = partial(read_stock, ticker=quote.symbol, query=query)
    facts = run.reads.run(PAGE, read, client=client_of(request.environ))
    found = {
        "ticker": facts.symbol,
        "price_info": _price(run, quote, facts),
        "price_data": facts.days,
        "financial_info": facts.financial_info,
        "news": facts.news,
    }
    return answer(found)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/stock_info/{ticker}/latest",
        "The price of a stock",
        "market",
        answer=LatestPrice,
        errors=ERRORS,
    ),
)
def latest_price(ticker: str) -> Response:
    """Return what a stock costs."""
    run = runtime()
    quote = _quote(run, ticker)
    facts = run.reads.run(PAGE, partial(read_price, ticker=quote.symbol), client=client_of(request.environ))
    price = _price(run, quote, facts)
    return answer(LatestPrice(facts.symbol, price.current_price, price.timestamp, price.source))


def _quote(run: Runtime, ticker: str) -> Quote:
    """Return the quote as /api/quotes does, read through where it is stale. Raises UnknownSymbol, DatabaseNeeded."""
    known, rejected = resolve(run, [ticker])
    if rejected:
        raise (UnknownSymbol if rejected[0].code == UnknownSymbol.code else DatabaseNeeded)(rejected[0].message)
    (found,) = newest(run, known)
    return found


def _price(run: Runtime, quote: Quote, facts: StockFacts) -> PriceInfo:
    """Return the price, by the quote and what the ticks said."""
    said = facts.said
    fresh = run.quotes.said(quote.symbol)  # what is not committed yet is in memory only
    if fresh is not None and fresh.time_us > (facts.tick_us or 0):
        said = fresh
    if quote.timestamp is None or (said is None and quote.price is None):
        if facts.close is None:
            return PriceInfo(None, None, None)
        return PriceInfo(facts.close.price, rfc3339(facts.close.time_us), "history")
    given = run.upstream is not None and run.upstream.gave(quote.symbol, quote.timestamp)
    source: PriceSource = "stale" if quote.stale else "upstream" if given else "realtime"
    if said is None or (given and rfc3339(said.time_us) < quote.timestamp):
        return PriceInfo(quote.price, quote.timestamp, source)
    return PriceInfo(said.price, rfc3339(said.time_us), source)
