"""POST /tick and /tick/batch: a 2xx means that the accepted ticks are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Blueprint, Response, request
from msgspec import Struct

from app.datasets.tick_bodies import batch_body
from app.errors import BadField, BadJson, BufferFull, MissingField, NotReady, TooLarge, UnsupportedEncoding
from app.market.accept import Accepted, accept, unknown_symbols
from app.market.columns import LAYOUT
from app.market.decode import Rows, decode_batch, decode_tick
from app.request_meters import source_of
from app.runtime import Runtime
from app.web.api import Endpoint, endpoint
from app.web.batches import (
    CSV,
    NDJSON,
    BatchPartlyTaken,
    BatchTaken,
    all_refused,
    answer_batch,
    register,
    sent_as,
    tell,
    unknown,
    untold,
    unusable,
)
from app.web.bodies import SentBatch, SentTick
from app.web.body import body_of
from app.web.errors import answer
from app.web.server import runtime

blueprint = Blueprint("ingest", __name__)

INLINE_BYTES = 256 * 1024
"""Bodies up to this are decoded on the loop, in a millisecond or two; larger ones on a lane, in slices."""

INLINE_COMMAS = 10_000
"""With more it goes to a lane too: rows too short to be ticks are many, and refusing each would hold the loop."""

LEAST_ROW_BYTES = 50
"""No tick is shorter; so a body of max_body_mb holds at most so many rows, and answers stay bounded."""

DATASET = "ticks"

ERRORS = (BadJson, BadField, MissingField, TooLarge, UnsupportedEncoding, BufferFull, NotReady)
ROW_CODES = ("unknown_symbol", "too_old")
SENT_AS = "The body is JSON whatever the Content-Type says, plain or with `Content-Encoding: gzip`."


class Taken(Struct, tag_field="status", tag="success"):
    """The tick is on disk."""


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
        accepted = take_ticks(run, body, decode_tick)
    if accepted.rejected:
        return all_refused(accepted.rejected, one=True)
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
        accepted = take_ticks(run, body, lambda data: decode_batch(data, most))
    return answer_batch(len(accepted.ticks), accepted.rejected)


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/ingest/ticks",
        "Send ticks, as other datasets are sent",
        "ingest",
        scope="ingest",
        description="As /tick/batch, but the body is a JSON array or one tick, NDJSON or CSV (with a line of field "
        "names; an empty cell is null). NDJSON and CSV go by their Content-Type.",
        body=list[SentTick],
        body_formats=(NDJSON[0], CSV[0]),
        answer=BatchTaken | BatchPartlyTaken,
        errors=ERRORS,
        row_codes=ROW_CODES,
    ),
)
def ingest_ticks() -> Response:
    """Take ticks in any format, row by row."""
    run = runtime()
    max_bytes = run.settings.max_body_mb << 20
    most = max(1000, max_bytes // LEAST_ROW_BYTES)
    form = sent_as(request.content_type or "")
    with body_of(request, max_bytes, run.in_flight) as body:
        accepted = take_ticks(run, body, lambda data: decode_batch(batch_body(data, form, most), most))
    return answer_batch(len(accepted.ticks), accepted.rejected)


def take_ticks(run: Runtime, body: bytes, decode: Callable[[bytes], Rows]) -> Accepted:
    """Decode, check and journal; returns when the accepted rows are durable."""
    started = time.perf_counter()
    large = len(body) > INLINE_BYTES or body.count(b",") > INLINE_COMMAS

    def decoded() -> Rows:
        return run.decoding.call(decode, body) if large else decode(body)

    rows, refused = decoded(), unknown
    if missing := unknown_symbols(rows, run.symbols.map):
        if run.settings.unknown_symbols == "register":
            register(run.symbols.map, missing)
            refused = unusable
        else:
            del rows, missing  # several times what the body takes, which alone is counted: not while this waits
            if not run.symbols.know_better():
                refused = untold
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
        tell(run.quotes.accepted, accepted.ticks, received_us)
        tell(run.fan_out.accepted, accepted.ticks, received_us, payload)
        tell(run.meters.acknowledged, time.perf_counter() - started)
        source = source_of(request.headers.get("X-Source", ""), request.headers.get("User-Agent", ""))
        tell(run.meters.requests.sent, source, int(accepted.ticks.time_us.max()))
    if accepted.ahead:
        tell(run.meters.ahead, accepted.ahead, accepted.most_ahead_us)
    if accepted.rejected:
        tell(run.meters.refused, len(accepted.rejected))
    return accepted
