"""Symbols, and the newest quote of each. Quotes are answered from memory while the database is away."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.errors import (
    BadField,
    BadJson,
    BadParameter,
    Conflict,
    DatabaseAway,
    DatabaseNeeded,
    MissingField,
    NotReady,
    QueryTimeout,
    TooLarge,
    UnknownSymbol,
    UnsupportedEncoding,
)
from app.market.quotes import Quote
from app.reads import PAGE, QUOTE
from app.runtime import Runtime
from app.storage.symbols_store import NewSymbol, SymbolRow, list_symbols
from app.upstream import HOP_HEADER
from app.web.api import Endpoint, endpoint
from app.web.body import body_of
from app.web.client import client_of
from app.web.errors import answer
from app.web.read_through import read_through
from app.web.server import runtime

blueprint = Blueprint("quotes", __name__)

MOST_SYMBOLS = 10_000


class RejectedSymbol(Struct):
    """A symbol that cannot be answered, and why."""

    symbol: str
    code: str
    message: str


class Quotes(Struct):
    """Newest quotes."""

    quotes: list[Quote]
    rejected: list[RejectedSymbol]


class Symbols(Struct):
    """All instruments."""

    symbols: list[SymbolRow]


class QuotesParams(Struct, kw_only=True):
    """Parameters of /api/quotes."""

    symbols: Annotated[str | None, Meta(description="names or aliases, separated by commas; without it: all")] = None


@endpoint(
    blueprint,
    Endpoint("GET", "/api/quotes", "Newest quotes", "market", params=QuotesParams, answer=Quotes, errors=(NotReady,)),
)
def quotes(params: QuotesParams) -> Response:
    """Return the quotes of the named symbols in that order, or of all that there are."""
    run = runtime()
    if params.symbols is None:
        return answer(_told_apart(run, newest(run, None), []))
    names = [name for name in (text.strip() for text in params.symbols.split(",")) if name]
    if len(names) > MOST_SYMBOLS:
        raise BadParameter(f"symbols: at most {MOST_SYMBOLS} at once")
    known, rejected = resolve(run, names)
    return answer(_told_apart(run, newest(run, known) if known else [], rejected))


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/quotes/{symbol}",
        "The newest quote of a symbol",
        "market",
        answer=Quote,
        errors=(UnknownSymbol, DatabaseNeeded, NotReady),
    ),
)
def quote(symbol: str) -> Response:
    """Return one quote; its prices are null while there is none."""
    run = runtime()
    known, rejected = resolve(run, [symbol])
    if rejected:
        raise (UnknownSymbol if rejected[0].code == UnknownSymbol.code else DatabaseNeeded)(rejected[0].message)
    (found,) = newest(run, known)
    if is_unknown(run, found):
        raise DatabaseNeeded
    return answer(found)


def resolve(run: Runtime, names: list[str]) -> tuple[list[str], list[RejectedSymbol]]:
    """Return the canonical names, each once, and the names that are none."""
    symbols = run.symbols.map
    fresh = True
    if symbols.missing(names):
        fresh = run.symbols.know_better()
        symbols = run.symbols.map
    known: dict[str, None] = {}
    rejected = []
    for name in names:
        index = symbols.index(name)
        if index >= 0:
            known[symbols.names[index]] = None
        elif fresh:
            rejected.append(RejectedSymbol(name, UnknownSymbol.code, f"Unknown symbol: {name[:64]}"))
        else:
            why = f"whether {name[:64]} is a symbol cannot be told while the database is away"
            rejected.append(RejectedSymbol(name, DatabaseNeeded.code, why))
    return list(known), rejected


def newest(run: Runtime, names: list[str] | None) -> list[Quote]:
    """Return the quotes (names: canonical; None: of all that have one), those not yet committed included.

    Those that are stale are read through from upstream, if there is one, and stored.
    """
    with suppress(DatabaseAway, QueryTimeout):  # what is in memory is no older than the moment the database was lost
        run.quotes.loaded(run.reads.run(QUOTE, run.quote_reader.read, names, client=client_of(request.environ)))
    found = _in_memory(run, names)
    if run.upstream is not None and HOP_HEADER not in request.headers:
        stale = {one.symbol: one.timestamp for one in found if one.stale}
        if stale and read_through(run, run.upstream, stale):
            return _in_memory(run, names)
    return found


def _in_memory(run: Runtime, names: list[str] | None) -> list[Quote]:
    return [
        found
        if run.quotes.was_read(found.symbol)
        else msgspec.structs.replace(found, change=None, change_percent=None)  # yesterday's price is in the database
        for found in run.quotes.get(names)
    ]


def is_unknown(run: Runtime, found: Quote) -> bool:
    """Tell whether a quote has no values only because this worker was begun while the database was away."""
    return found.timestamp is None and not run.quotes.was_read(found.symbol)


def _told_apart(run: Runtime, found: list[Quote], rejected: list[RejectedSymbol]) -> Quotes:
    """Return the quotes, those that are unknown among the rejected."""
    unknown = [
        RejectedSymbol(one.symbol, DatabaseNeeded.code, f"the quote of {one.symbol} is in the database, which is away")
        for one in found
        if is_unknown(run, one)
    ]
    return Quotes([one for one in found if not is_unknown(run, one)] if unknown else found, rejected + unknown)


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/symbols",
        "All instruments",
        "market",
        answer=Symbols,
        errors=(QueryTimeout, DatabaseNeeded, NotReady),
    ),
)
def symbols() -> Response:
    """Return the instruments by name."""
    return answer(Symbols(runtime().reads.run(PAGE, list_symbols, client=client_of(request.environ))))


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/api/symbols",
        "Add an instrument",
        "market",
        scope="admin",
        body=NewSymbol,
        answer=SymbolRow,
        status=201,
        errors=(
            BadJson,
            BadField,
            MissingField,
            Conflict,
            TooLarge,
            UnsupportedEncoding,
            QueryTimeout,
            DatabaseNeeded,
        ),
    ),
)
def add_symbol() -> Response:
    """Add one instrument; its ticks are taken from then on, by every worker."""
    run = runtime()
    with body_of(request, run.settings.max_body_mb << 20, run.in_flight) as body:
        try:
            new = msgspec.json.decode(body, type=NewSymbol)
        except msgspec.ValidationError as error:
            text = str(error).replace("`", "")
            raise (MissingField if "missing required" in text else BadField)(text) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadJson(f"the body is not JSON: {error}") from error
    return answer(run.add_symbol(new), 201)
