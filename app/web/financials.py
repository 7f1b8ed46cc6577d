"""Ratios of a company. Greenlet side."""

from __future__ import annotations

from datetime import date as Date
from functools import cache, partial
from typing import Annotated

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.datasets.declare import Dataset
from app.errors import BadParameter, DatabaseNeeded, NotReady, QueryTimeout, UnknownSymbol
from app.reads import PAGE
from app.stock_facts import FINANCIAL_INFO, read_financial_info
from app.web.api import Endpoint, endpoint
from app.web.client import client_of
from app.web.datasets import record_type
from app.web.errors import answer
from app.web.server import runtime

blueprint = Blueprint("financials", __name__)


@cache
def values_type(dataset: Dataset, *head: str) -> type[Struct]:
    """Return the type of a record without its symbol, all of it null where there is none; `head`: texts before it."""
    fields = [
        (field.encode_name, field.type | None)
        for field in msgspec.structs.fields(record_type(dataset))
        if field.encode_name != dataset.symbol
    ]
    name = f"{dataset.record.__name__}{'Answer' if head else 'Values'}"
    return msgspec.defstruct(name, [*((name, str) for name in head), *fields])


class FinancialParams(Struct, kw_only=True):
    """Parameters of /api/financial_info/{ticker}."""

    date: Annotated[
        Date | None,
        Meta(description="what was known on that day: the newest row of it or before; default the newest row"),
    ] = None


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/financial_info/{ticker}",
        "Ratios of a company",
        "market",
        description="`date` in the answer is that of the row; nulls where there is none.",
        params=FinancialParams,
        answer=values_type(FINANCIAL_INFO, "ticker"),
        errors=(BadParameter, UnknownSymbol, QueryTimeout, DatabaseNeeded, NotReady),
    ),
)
def financial_info(ticker: str, params: FinancialParams) -> Response:
    """Return the newest ratios, or those that were known on a day."""
    read = partial(read_financial_info, ticker=ticker, day=params.date)
    symbol, values = runtime().reads.run(PAGE, read, client=client_of(request.environ))
    return answer({"ticker": symbol, **values})
