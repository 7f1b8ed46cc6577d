"""Types of the answers to TradingView; the OpenAPI document is made of them too."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from msgspec import UNSET, Meta, Struct, UnsetType

from app.web.openapi import Error

Column = list[float]


class UdfError(Error):
    """An error, with the members that UDF gives it."""

    s: Literal["error"]
    errmsg: Annotated[str, Meta(description="the message")]

    @classmethod
    def of(cls, code: str, message: str) -> Self:
        """Return the error with this code and message."""
        return cls("error", code, message, "error", message)


class UdfNamed(Struct):
    """A choice of the search dialogue."""

    name: str
    value: str


class UdfConfig(Struct):
    """What the feed can do."""

    supports_search: bool
    supports_group_request: bool
    supports_marks: bool
    supports_timescale_marks: bool
    supports_time: bool
    exchanges: list[UdfNamed]
    symbols_types: list[UdfNamed]
    supported_resolutions: list[str]


class UdfSymbol(Struct):
    """An instrument as charts need it."""

    name: str
    ticker: str
    full_name: str
    description: str
    type: str
    exchange: str
    listed_exchange: str
    session: str
    timezone: str
    format: str
    minmov: int
    pricescale: Annotated[int, Meta(ge=1, description="10^decimals of a price")]
    volume_precision: int
    has_seconds: bool
    seconds_multipliers: list[str]
    has_intraday: bool
    intraday_multipliers: list[str]
    has_daily: bool
    has_weekly_and_monthly: bool
    supported_resolutions: list[str]
    data_status: str
    currency_code: str | UnsetType = UNSET


class UdfFound(Struct):
    """A symbol that was searched for."""

    symbol: str
    full_name: str
    ticker: str
    description: str
    exchange: str
    type: str


class UdfBars(Struct, tag_field="s", tag="ok"):
    """Bars as columns of equal length, in ascending order."""

    t: Annotated[list[int], Meta(description="where each begins, epoch seconds")]
    o: Column
    h: Column
    l: Column  # noqa: E741 - the protocol's own name
    c: Column
    v: Column


class UdfNoBars(Struct, tag_field="s", tag="no_data", omit_defaults=True):
    """There are none in the range."""

    nextTime: Annotated[int | None, Meta(description="where the next older bar is, epoch seconds")] = None


class UdfValues(Struct):
    """A quote; what is not known is left out."""

    short_name: str
    description: str
    lp: Annotated[float | UnsetType, Meta(description="price")] = UNSET
    bid: float | UnsetType = UNSET
    ask: float | UnsetType = UNSET
    spread: float | UnsetType = UNSET
    volume: float | UnsetType = UNSET
    ch: Annotated[float | UnsetType, Meta(description="change")] = UNSET
    chp: Annotated[float | UnsetType, Meta(description="change in percent")] = UNSET
    prev_close_price: float | UnsetType = UNSET


class UdfQuote(Struct, tag_field="s", tag="ok"):
    """A symbol's newest quote."""

    n: Annotated[str, Meta(description="symbol")]
    v: UdfValues


class UdfNothing(Struct):
    """No values."""


class UdfNoQuote(Struct, tag_field="s", tag="error"):
    """A name that is no symbol's, or whose quote is not known because the database is away."""

    n: Annotated[str, Meta(description="symbol, as asked for")]
    v: UdfNothing


class UdfQuotes(Struct, tag_field="s", tag="ok"):
    """Newest quotes."""

    d: list[UdfQuote | UdfNoQuote]
