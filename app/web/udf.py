"""TradingView's UDF: what its charting library asks a data feed.

Protocol: https://www.tradingview.com/charting-library-docs/latest/connecting_data/UDF, as the library's own
udf-compatible-datafeed speaks it. Errors carry UDF's members beside ours. A chart shows what MetaTrader's would: last
where an instrument has trades, else bid.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, request
from msgspec import UNSET, Meta, Struct, UnsetType, field

from app.errors import BadParameter, DatabaseNeeded, NotReady, QueryTimeout, UnknownSymbol
from app.market.quotes import Quote
from app.reads import PAGE
from app.storage.symbols_store import SymbolRow, list_symbols
from app.web.api import Endpoint, endpoint
from app.web.client import client_of
from app.web.errors import answer, encode
from app.web.quotes import MOST_SYMBOLS, is_unknown, newest, resolve
from app.web.server import runtime
from app.web.udf_answers import (
    UdfBars,
    UdfConfig,
    UdfError,
    UdfFound,
    UdfNoBars,
    UdfNoQuote,
    UdfNothing,
    UdfQuote,
    UdfQuotes,
    UdfSymbol,
    UdfValues,
)
from app.web.udf_bars import MOST_BARS, read_history

blueprint = Blueprint("udf", __name__)

RESOLUTIONS = {
    "1S": "1s",
    "5S": "5s",
    "15S": "15s",
    "30S": "30s",
    "1": "1m",
    "3": "3m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "240": "4h",
    "1D": "1d",
    "1W": "1w",
    "1M": "1M",
}
"""UDF's names of the intervals; seconds have an S, minutes nothing."""

DEFAULT_DIGITS = 5
"""Decimals of an instrument that nobody has given any: what currency pairs have."""

Symbol = Annotated[str, Meta(description="name or alias, in any case")]
Epoch = Annotated[int, Meta(ge=-62_135_596_800, le=253_402_300_799, description="epoch seconds")]


class ConversionParams(Struct, kw_only=True):
    """What the library sends back of a symbol's description, for feeds that convert; this one does not."""

    currency_code: Annotated[str, Meta(description="ignored: prices are not converted")] = field(
        default="", name="currencyCode"
    )
    unit_id: Annotated[str, Meta(description="ignored: volumes are not converted")] = field(default="", name="unitId")


class SymbolParams(ConversionParams, kw_only=True):
    """Parameters of /udf/symbols."""

    symbol: Symbol


class SearchParams(Struct, kw_only=True):
    """Parameters of /udf/search."""

    query: Annotated[str, Meta(description="part of a name or of its description")] = ""
    type: Annotated[str, Meta(description="ignored: instruments have no type")] = ""
    exchange: Annotated[str, Meta(description="only those of this exchange; empty: of any")] = ""
    limit: Annotated[int, Meta(ge=1, le=1000, description="most symbols")] = 30


class HistoryParams(ConversionParams, kw_only=True):
    """Parameters of /udf/history."""

    symbol: Symbol
    resolution: Annotated[
        str,
        Meta(
            description="one of " + ", ".join(RESOLUTIONS),
            extra_json_schema={"enum": [*RESOLUTIONS, "S", "D", "W", "M"]},
        ),
    ]
    to: Annotated[Epoch, Meta(description="end, exclusive, epoch seconds")]
    from_: Annotated[Epoch | None, Meta(description="start, inclusive; ignored when countback is given")] = field(
        default=None, name="from"
    )
    countback: Annotated[int, Meta(ge=1, le=MOST_BARS, description="that many bars before `to`")] | None = None


class QuotesParams(Struct, kw_only=True):
    """Parameters of /udf/quotes."""

    symbols: Annotated[str, Meta(description="names, separated by commas")]


def _declared(
    path: str, summary: str, answer: Any, params: type[Struct] | None = None, *, mimetype: str = ""
) -> Endpoint:
    errors = (BadParameter, UnknownSymbol, QueryTimeout, DatabaseNeeded, NotReady) if params else ()
    return Endpoint(
        "GET", path, summary, "udf", params=params, answer=answer, mimetype=mimetype, errors=errors, error=UdfError
    )


@blueprint.after_app_request
def with_protocol_errors(response: Response) -> Response:
    """Add UDF's members to an error at any address below /udf."""
    if response.status_code >= 400 and request.path.startswith("/udf/") and response.mimetype == "application/json":
        error = msgspec.json.decode(response.get_data())
        response.set_data(encode(UdfError.of(error["code"], error["message"])))
    return response


@endpoint(blueprint, _declared("/udf/config", "What the feed can do", UdfConfig))
def udf_config() -> Response:
    """Return the feed's abilities."""
    return answer(
        {
            "supports_search": True,
            "supports_group_request": False,
            "supports_marks": False,
            "supports_timescale_marks": False,
            "supports_time": True,
            "exchanges": [{"value": "", "name": "All", "desc": ""}],
            "symbols_types": [{"name": "All", "value": ""}],
            "supported_resolutions": list(RESOLUTIONS),
        }
    )


@endpoint(blueprint, _declared("/udf/time", "The server's time, epoch seconds", None, mimetype="text/plain"))
def udf_time() -> Response:
    """Return the time as text."""
    return Response(str(int(time.time())), mimetype="text/plain")


@endpoint(blueprint, _declared("/udf/symbols", "What a symbol is", UdfSymbol, SymbolParams))
def udf_symbols(params: SymbolParams) -> Response:
    """Return one instrument as charts need it."""
    run = runtime()
    known, rejected = resolve(run, [params.symbol])
    if rejected:
        raise (UnknownSymbol if rejected[0].code == UnknownSymbol.code else DatabaseNeeded)(rejected[0].message)
    rows = run.reads.run(PAGE, list_symbols, client=client_of(request.environ))
    found = next((row for row in rows if row.symbol == known[0]), None)
    if found is None:
        raise UnknownSymbol(f"Unknown symbol: {params.symbol[:64]}")
    return answer(_symbol_info(found))


def _symbol_info(row: SymbolRow) -> UdfSymbol:
    return UdfSymbol(
        name=row.symbol,
        ticker=row.symbol,
        full_name=row.symbol,
        description=row.name or row.symbol,
        type="",
        exchange=row.exchange or "",
        listed_exchange=row.exchange or "",
        currency_code=row.currency or UNSET,
        session="24x7",
        timezone="Etc/UTC",
        format="price",
        minmov=1,
        pricescale=10 ** (DEFAULT_DIGITS if row.digits is None else row.digits),
        volume_precision=8,
        has_seconds=True,
        seconds_multipliers=["1", "5", "15", "30"],
        has_intraday=True,
        intraday_multipliers=["1", "3", "5", "15", "30", "60", "240"],
        has_daily=True,
        has_weekly_and_monthly=True,
        supported_resolutions=list(RESOLUTIONS),
        data_status="streaming",
    )


@endpoint(blueprint, _declared("/udf/search", "Find symbols", list[UdfFound], SearchParams))
def udf_search(params: SearchParams) -> Response:
    """Return the symbols whose name, alias or description holds the text, those that begin with it first."""
    rows = runtime().reads.run(PAGE, list_symbols, client=client_of(request.environ))
    wanted = params.query.strip().upper()
    found = [
        row
        for row in rows
        if any(wanted in text.upper() for text in (row.symbol, row.name or "", *row.aliases))
        and params.exchange.upper() in ("", (row.exchange or "").upper())
    ]
    found.sort(key=lambda row: (not row.symbol.upper().startswith(wanted), row.symbol))
    return answer(
        [
            {
                "symbol": row.symbol,
                "full_name": row.symbol,
                "ticker": row.symbol,
                "description": row.name or row.symbol,
                "exchange": row.exchange or "",
                "type": "",
            }
            for row in found[: params.limit]
        ]
    )


@endpoint(blueprint, _declared("/udf/history", "Bars as columns", UdfBars | UdfNoBars, HistoryParams))
def udf_history(params: HistoryParams) -> Response:
    """Return the bars in [from, to), or the `countback` bars before `to`."""
    interval = RESOLUTIONS.get(_resolution(params.resolution))
    if interval is None:
        raise BadParameter(f"resolution: {params.resolution[:60]!r} is none of {', '.join(RESOLUTIONS)}")
    if params.countback is None and params.from_ is None:
        raise BadParameter("from: is required without countback")
    body = runtime().reads.run(
        PAGE,
        read_history,
        params.symbol,
        interval,
        params.from_,
        params.to,
        params.countback,
        client=client_of(request.environ),
    )
    return Response(body, mimetype="application/json")


def _resolution(text: str) -> str:
    """Return a resolution as RESOLUTIONS writes it: D is 1D."""
    return f"1{text}" if text in ("D", "W", "M", "S") else text


@endpoint(blueprint, _declared("/udf/quotes", "Newest quotes", UdfQuotes, QuotesParams))
def udf_quotes(params: QuotesParams) -> Response:
    """Return a quote, or that there is none, for each name in the order of the request; repeated ones once."""
    run = runtime()
    names = list(dict.fromkeys(name for name in (text.strip() for text in params.symbols.split(",")) if name))
    if len(names) > MOST_SYMBOLS:
        raise BadParameter(f"symbols: at most {MOST_SYMBOLS} at once")
    known, _ = resolve(run, names)
    quotes = {quote.symbol: quote for quote in newest(run, known)} if known else {}
    symbols = run.symbols.map
    # Each under the name that the library knows it by.
    found: list[UdfQuote | UdfNoQuote] = []
    for name in names:
        index = symbols.index(name)
        quote = quotes.get(symbols.names[index]) if index >= 0 else None
        if quote is None or is_unknown(run, quote):
            found.append(UdfNoQuote(name, UdfNothing()))
        else:
            found.append(UdfQuote(name, _values(quote)))
    return answer(UdfQuotes(found))


def _values(quote: Quote) -> UdfValues:
    before = None
    if quote.price is not None and quote.change is not None:  # the difference of the numbers that people see
        before = float(Decimal(repr(quote.price)) - Decimal(repr(quote.change)))
    return UdfValues(
        short_name=quote.symbol,
        description=quote.symbol,
        lp=_known(quote.price),
        bid=_known(quote.bid),
        ask=_known(quote.ask),
        spread=_known(quote.spread),
        volume=_known(quote.volume),
        ch=_known(quote.change),
        chp=_known(quote.change_percent),
        prev_close_price=_known(before),
    )


def _known(value: float | None) -> float | UnsetType:
    """Return a value, or that there is none: for the library a null is a price."""
    return UNSET if value is None else value
