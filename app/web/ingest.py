"""POST /tick and /tick/batch: a 2xx means that the accepted ticks are on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.errors import BadField, BadJson, BufferFull, MissingField, NotReady, TooLarge, UnsupportedEncoding
from app.market.accept import Accepted, accept, unknown_symbols
from app.market.columns import LAYOUT
from app.market.decode import Rejected, Rows, decode_batch, decode_tick
from app.market.symbols import VALID_SYMBOL, SymbolMap
from app.runtime import Runtime
from app.web.api import Endpoint, endpoint
from app.web.bodies import SentBatch, SentTick
from app.web.body import body_of
from app.web.errors import answer, error_answer
from app.web.server import runtime

blueprint = Blueprint("ingest", __name__)

INLINE_BYTES = 256 * 1024
"""Bodies up to this are decoded on the loop, in a millisecond or two; larger ones on a lane, in slices."""

INLINE_COMMAS = 10_000
"""With more it goes to a lane too: rows too short to be ticks are many, and refusing each would hold the loop."""

LEAST_ROW_BYTES = 50
"""No tick is shorter; so a body of max_body_mb holds at most so many rows, and answers stay bounded."""

DATASET = "ticks"

_failed: set[str] = set()
"""Listeners that have failed before: what a log says of each request would fill it."""

P = ParamSpec("P")

log = logging.getLogger("tickhub")

ERRORS = (BadJson, BadField, MissingField, TooLarge, UnsupportedEncoding, BufferFull, NotReady)
ROW_CODES = ("unknown_symbol", "too_old")
SENT_AS = "The body is JSON whatever the Content-Type says, plain or with `Content-Encoding: gzip`."


class Taken(Struct, tag_field="status", tag="success"):
    """The tick is on disk."""


class BatchTaken(Struct, tag_field="status", tag="success"):
    """All rows are on disk."""

    received: Annotated[int, Meta(ge=0, description="accepted rows, duplicates included")]


class BatchPartlyTaken(Struct, tag_field="status", tag="partial"):
    """Some rows are on disk, the others are refused."""

    received: Annotated[int, Meta(ge=1, description="accepted rows, duplicates included")]
    rejected: list[Rejected]


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/tick",
        "Send one tick",
        "ingest",
        scope="ingest",
        description=f"200 means that it is on disk. Sending it again changes nothing. {SENT_AS}",
        body=SentTick,
        answer=Taken,
        errors=ERRORS,
        row_codes=ROW_CODES,
    ),
)
def tick() -> Response:
    """Take one tick."""
    run = runtime()
    with body_of(request, run.settings.max_body_mb << 20, run.in_flight) as body:
        accepted = _take(run, body, decode_tick)
    if accepted.rejected:
        return _all_refused(accepted.rejected, one=True)
    return answer(Taken())


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/tick/batch",
        "Send a batch of ticks",
        "ingest",
        scope="ingest",
        description="200 means that the accepted rows are on disk. Each row is judged by itself: the bad ones are "
        f"listed in `rejected`; when all are bad it is a 400. Sending a batch again changes nothing. {SENT_AS}",
        body=SentBatch,
        answer=BatchTaken | BatchPartlyTaken,
        errors=ERRORS,
        row_codes=ROW_CODES,
    ),
)
def tick_batch() -> Response:
    """Take a batch, row by row."""
    run = runtime()
    max_bytes = run.settings.max_body_mb << 20
    most = max(1000, max_bytes // LEAST_ROW_BYTES)
    with body_of(request, max_bytes, run.in_flight) as body:
        accepted = _take(run, body, lambda data: decode_batch(data, most))
    received, rejected = len(accepted.ticks), accepted.rejected
    if not rejected:
        return answer(BatchTaken(received))
    if received:
        return answer(BatchPartlyTaken(received, rejected))
    return _all_refused(rejected, one=False)


def _take(run: Runtime, body: bytes, decode: Callable[[bytes], Rows]) -> Accepted:
    """Decode, check and journal; returns when the accepted rows are durable."""
    started = time.perf_counter()
    large = len(body) > INLINE_BYTES or body.count(b",") > INLINE_COMMAS

    def decoded() -> Rows:
        return run.decoding.call(decode, body) if large else decode(body)

    rows, refused = decoded(), _unknown
    if missing := unknown_symbols(rows, run.symbols.map):
        if run.settings.unknown_symbols == "register":
            _register(run.symbols.map, missing)
            refused = _unusable
        else:
            del rows, missing  # several times what the body takes, which alone is counted: not while this waits
            if not run.symbols.know_better():
                refused = _untold
            rows = decoded()
    symbols = run.symbols.map
    now_us = time.time_ns() // 1000
    if large:
        accepted = run.decoding.call(accept, rows, symbols, run.clock, run.limits, now_us, refused)
    else:
        accepted = accept(rows, symbols, run.clock, run.limits, now_us, refused)
    if len(accepted.ticks):
        payload = accepted.ticks.encode()
        received_us = run.ingest.accept(DATASET, LAYOUT, len(accepted.ticks), payload)
        _tell(run.quotes.accepted, accepted.ticks, received_us)
        _tell(run.fan_out.accepted, accepted.ticks, received_us, payload)
        _tell(run.meters.acknowledged, time.perf_counter() - started)
    if accepted.ahead:
        _tell(run.meters.ahead, accepted.ahead, accepted.most_ahead_us)
    if accepted.rejected:
        _tell(run.meters.refused, len(accepted.rejected))
    return accepted


def _tell(listener: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Tell of a request whose rows are on disk; a listener that fails is logged, the first time as an error.

    They are on disk all the same: a 500 would only have them sent again, and again.
    """
    try:
        listener(*args, **kwargs)
    except Exception:
        name = getattr(listener, "__qualname__", repr(listener))
        level = logging.DEBUG if name in _failed else logging.ERROR
        _failed.add(name)
        log.log(level, "[ERROR] %s failed; the ticks are stored all the same", name, exc_info=True)


def _register(symbols: SymbolMap, names: list[str]) -> None:
    for name in names:
        if VALID_SYMBOL.fullmatch(name) and symbols.index(name) < 0:
            symbols.register(name)


def _unknown(name: str) -> Rejected:
    return Rejected(0, "unknown_symbol", f"Unknown symbol: {name[:64]}")


def _unusable(name: str) -> Rejected:
    return Rejected(0, "bad_field", f"symbol is not a usable name: {name[:64]!r}")


def _untold(name: str) -> Rejected:
    message = f"whether {name[:64]} is a symbol cannot be told while the database is away"
    return Rejected(0, "not_ready", message)


def _all_refused(rejected: list[Rejected], *, one: bool) -> Response:
    """Nothing was accepted: 400, or 503 when sending it again later may help."""
    first = rejected[0]
    later = next((found for found in rejected if found.code == NotReady.code), None)
    body: dict[str, Any] = {} if one else {"rejected": rejected}
    if later is not None:
        return error_answer(later.code, later.message, NotReady.status, more=body)
    return error_answer(first.code, first.message, BadField.status, more=body)
