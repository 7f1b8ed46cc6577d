"""What was: days of a symbol, trades, foreign trading, and futures against their spot. Greenlet side.

Alerts are in `alerts.py`.
"""

from __future__ import annotations

from datetime import date as Date
from functools import partial
from typing import Annotated

from flask import Blueprint, Response, request
from msgspec import Meta, Struct
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from app.errors import BadParameter, UnknownSymbol
from app.history_sources import DaySource, HistorySource
from app.market.sessions import day_of
from app.reads import PAGE
from app.row_stream import Source
from app.storage.daily_reader import DAYS
from app.storage.instruments import find, read_market
from app.web.answers import list_type, row_type
from app.web.api import FORMATS, Endpoint, endpoint
from app.web.client import client_of
from app.web.datasets import record_type
from app.web.market import READ_ERRORS
from app.web.params import RangeParams
from app.web.rows import answer_rows, range_of, rows_request
from app.web.server import runtime

blueprint = Blueprint("history", __name__)

FOREIGN, BASIS, TRADES = DATASETS["foreign_snapshots"], DATASETS["basis_history"], DATASETS["trades"]


class TradeHistoryParams(RangeParams, kw_only=True):
    """Parameters of /api/history/{symbol}/trades."""

    date: Annotated[
        Date | None,
        Meta(description="only this day, from midnight to midnight in the exchange's time; instead of start and end"),
    ] = None


class BasisParams(RangeParams, kw_only=True):
    """Parameters of /api/history/basis."""

    futures_symbol: Annotated[str | None, Meta(description="only this future; without it: all")] = None


def _answer_type(dataset: Dataset, list_name: str) -> type[Struct]:
    """Return the type of an answer of records, as JSON shows it."""
    symbol = Annotated[str | None, Meta(description="what the rows are of; null: all that there are")]
    return list_type(f"{list_name.capitalize()}History", [("symbol", symbol)], list_name, record_type(dataset))


DailyBar = row_type("DailyBar", DAYS)
DailyHistory = list_type("DailyHistory", [("symbol", str)], "daily", DailyBar)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/history/{symbol}/daily",
        "Daily bars: the vendor's, else made of the ticks of the day",
        "market",
        description="Days are chosen by `timestamp`, midnight UTC of the trading date, so a `start` that is a bare "
        "date is that trading date. Of several vendors that of the first name counts. A row's `daily_return` is "
        "counted from the row before, whoever made that.",
        params=RangeParams,
        answer=DailyHistory,
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def daily(symbol: str, params: RangeParams) -> Response:
    """Return days of a range, or the newest ones."""
    return _rows(symbol, DaySource(*range_of(params.start, params.end)), params)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/history/{symbol}/trades",
        "Trades of a symbol, in order",
        "market",
        params=TradeHistoryParams,
        answer=_answer_type(TRADES, "trades"),
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def trades(symbol: str, params: TradeHistoryParams) -> Response:
    """Return trades of a day or range, or the newest ones."""
    start_us, end_us = range_of(params.start, params.end)
    if params.date is not None:
        if (start_us, end_us) != (None, None):
            raise BadParameter("date: give either date, or start and end")
        run = runtime()
        read = partial(_day_of, symbol=symbol, day=params.date)
        start_us, end_us = run.reads.run(PAGE, read, client=client_of(request.environ))
    return _rows(symbol, HistorySource(TRADES, start_us, end_us, list_name="trades"), params)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/history/{symbol}/foreign",
        "What foreign investors bought and sold of a symbol",
        "market",
        params=RangeParams,
        answer=_answer_type(FOREIGN, "foreign"),
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def foreign(symbol: str, params: RangeParams) -> Response:
    """Return snapshots of a range, or the newest ones."""
    return _rows(symbol, HistorySource(FOREIGN, *range_of(params.start, params.end), list_name="foreign"), params)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/history/basis",
        "Futures against their spot",
        "market",
        params=BasisParams,
        answer=_answer_type(BASIS, "basis"),
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def basis(params: BasisParams) -> Response:
    """Return the basis of a range, or the newest one."""
    future = params.futures_symbol
    if future is not None and "\0" in future:
        raise BadParameter("futures_symbol: a text cannot hold a NUL")
    chosen = {} if future is None else {"futures_symbol": future}
    return _rows(
        None,
        HistorySource(BASIS, *range_of(params.start, params.end), chosen, list_name="basis", subject=future),
        params,
    )


def _rows(symbol: str | None, source: Source, params: RangeParams) -> Response:
    asked = rows_request(symbol, source, params)
    return answer_rows(runtime(), asked, closed=False, cacheable=False)


def _day_of(cur: Cursor, symbol: str, day: Date) -> tuple[int, int]:
    """Return where a day at the symbol's exchange begins, and where the next one does. Lane side."""
    found = find(cur, symbol)
    if found is None:
        raise UnknownSymbol(f"Unknown symbol: {symbol[:64]}")
    if not Date.min.year < day.year < Date.max.year:
        raise BadParameter("date: is beyond what can be stored")
    return day_of(day, read_market(cur, found.symbol_id))
