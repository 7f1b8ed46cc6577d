"""The market reads that are many rows: ticks and bars."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from flask import Blueprint, Response
from msgspec import Meta

from app.errors import BadParameter, DatabaseNeeded, NotReady, QueryTimeout, UnknownSymbol
from app.market.intervals import Buckets, known_zone
from app.sources import BARS_END_US, TICK_RECORDS, BarSource, TickRecordSource, TickSource
from app.storage.bar_reader import BARS, BarQuery
from app.storage.tick_reader import TICKS
from app.web.answers import list_type, row_type
from app.web.api import FORMATS, Endpoint, endpoint
from app.web.params import RangeParams
from app.web.rows import answer_rows, range_of, rows_request
from app.web.server import runtime

blueprint = Blueprint("market", __name__)

Interval = Literal["1s", "5s", "15s", "30s", "1m", "3m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"]
PriceSide = Literal["bid", "ask", "mid", "last"]

READ_ERRORS = (BadParameter, UnknownSymbol, QueryTimeout, DatabaseNeeded, NotReady)


class TickRecordParams(RangeParams, kw_only=True):
    """Parameters of /api/ticks in the shape of datasets."""

    symbol: Annotated[str, Meta(description="the symbol's name or any of its aliases, in any case")]


class BarParams(RangeParams, kw_only=True):
    """Parameters of /api/bars."""

    interval: Annotated[Interval, Meta(description="length of a bar; weeks start on Monday")] = "1m"
    price: Annotated[
        PriceSide,
        Meta(description="whose prices; a bar that saw no bid has those of last, one without any price is left out"),
    ] = "bid"
    tz: Annotated[
        str, Meta(description="time zone in which days, weeks and months begin", examples=["America/New_York"])
    ] = "UTC"
    fill: Annotated[
        Literal["previous"] | None,
        Meta(description="previous: gaps hold the close before, volume 0 and ticks 0; else gaps are gaps"),
    ] = None


Tick = row_type("Tick", TICKS)
Ticks = list_type("Ticks", [("symbol", str)], "ticks", Tick)
TickRecord = row_type("TickRecord", TICK_RECORDS)
TickRecords = list_type("TickRecords", [("dataset", Literal["ticks"])], "records", TickRecord)
Bar = row_type("Bar", BARS)
Bars = list_type("Bars", [("symbol", str), ("interval", Interval), ("price", PriceSide)], "bars", Bar)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/ticks/{symbol}",
        "Stored ticks, in order",
        "market",
        params=RangeParams,
        answer=Ticks,
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def ticks(symbol: str, params: RangeParams) -> Response:
    """Return ticks of a range, or the newest ones."""
    return _ticks(symbol, TickSource(*range_of(params.start, params.end)), params)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/ticks",
        "Stored ticks, in order, in the shape of datasets",
        "datasets",
        description="As /api/ticks/{symbol}, which is the same ticks; those of one symbol at a time.",
        params=TickRecordParams,
        answer=TickRecords,
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def tick_records(params: TickRecordParams) -> Response:
    """Return ticks of a range, or the newest ones."""
    return _ticks(params.symbol, TickRecordSource(*range_of(params.start, params.end)), params)


def _ticks(symbol: str, source: TickSource, params: RangeParams) -> Response:
    asked = rows_request(symbol, source, params)
    closed = source.end_us is not None and source.end_us <= _now_us()
    return answer_rows(runtime(), asked, closed=closed)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/bars/{symbol}",
        "Bars, exact and current to the last commit",
        "market",
        params=BarParams,
        answer=Bars,
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def bars(symbol: str, params: BarParams) -> Response:
    """Return bars of a range, or the newest ones."""
    start_us, end_us = range_of(params.start, params.end)
    source = bar_source(params.interval, params.price, params.tz, start_us, end_us, fill=params.fill is not None)
    asked = rows_request(symbol, source, params)
    return answer_rows(runtime(), asked, closed=source.closed)


def bar_source(
    interval: str, price: str, tz: str, start_us: int | None, end_us: int | None, *, fill: bool = False
) -> BarSource:
    """Return the bars of [start_us, end_us) by their start. Raises BadParameter for a zone that is none."""
    if not known_zone(tz):
        raise BadParameter(f"tz: {tz[:60]!r} is no time zone: write one as America/New_York")
    query = BarQuery(
        buckets=Buckets(interval, tz),
        price=price,
        start_us=start_us if start_us is None else min(max(start_us, 0), BARS_END_US),
        end_us=end_us if end_us is None else min(max(end_us, 0), BARS_END_US),
        fill=fill,
        now_us=_now_us(),
    )
    return BarSource(query, {"interval": interval, "price": price}, ("bars", interval, price, tz, str(fill)))


def _now_us() -> int:
    return time.time_ns() // 1000
