"""POST /db_command: tables of one symbol as programs that know DataFrames send them. Greenlet side.

They become ticks, or records of a dataset, and go the way of these.
"""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.datasets.commands import TICKS, Command, CommandName, read_command
from app.datasets.declare import Policy
from app.datasets.registry import DATASETS
from app.errors import UnknownCommand
from app.market.decode import Rejected, decode_batch
from app.runtime import Runtime
from app.web.api import Endpoint, endpoint
from app.web.batches import BatchPartlyTaken, BatchTaken, answer_batch
from app.web.body import body_of
from app.web.datasets import LEAST_RECORD_BYTES, take_records
from app.web.ingest import ERRORS, ROW_CODES, take_ticks
from app.web.server import runtime

blueprint = Blueprint("db_command", __name__)

INLINE_BYTES = 32 * 1024
"""Bodies up to this are read on the loop, in a millisecond or two; larger ones on a lane."""


class CommandParams(Struct, kw_only=True):
    """What is to be saved."""

    data: Annotated[
        list[dict[str, Any]] | dict[str, Any],
        Meta(description="records, as pandas' to_dict('records') makes them, or one; NaN is null"),
    ]
    ticker: Annotated[
        str | None, Meta(description="symbol of the records that name none (`symbol` or `ticker`): name or alias")
    ] = None
    data_type: Annotated[
        str | None,
        Meta(
            description="of save_realtime_data, required: quote (a tick with flags 6) or trade (flags 24); of "
            "save_options_data: call or put, for records without option_type"
        ),
    ] = None
    index_col: Annotated[
        str | None,
        Meta(
            description="field that holds a record's time; without it, or where a record does not have it: timestamp, "
            "date, index, time or datetime, in any case"
        ),
    ] = None
    on_duplicate: Annotated[
        Policy | None,
        Meta(description="what a second record of a key does; default the dataset's. Ticks are kept or are resends"),
    ] = None


class SentCommand(Struct, kw_only=True):
    """A command."""

    command: CommandName
    params: CommandParams


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/db_command",
        "Save quotes, trades, option quotes or ratios of a symbol",
        "ingest",
        scope="ingest",
        description="save_realtime_data saves ticks: `price` becomes `last`, and is what /api/stock_info answers; the "
        "spread is computed. save_options_data saves option_quotes, save_financial_info financial_info. 200 means that "
        "the accepted records are on disk. Each record is judged by itself: the bad ones are listed in `rejected`; "
        "when all are bad it is a 400. Sending them again changes nothing. The body is JSON whatever the Content-Type "
        "says, plain or with `Content-Encoding: gzip`.",
        body=SentCommand,
        answer=BatchTaken | BatchPartlyTaken,
        errors=(*ERRORS, UnknownCommand),
        row_codes=ROW_CODES,
    ),
)
def db_command() -> Response:
    """Do one command; it returns when the accepted records are durable."""
    run = runtime()
    max_bytes = run.settings.max_body_mb << 20
    most = max(1000, max_bytes // LEAST_RECORD_BYTES)
    with body_of(request, max_bytes, run.in_flight) as body:
        command = run.decoding.call(read_command, body, most) if len(body) > INLINE_BYTES else read_command(body, most)
        received, rejected = _save(run, command, most)
    told = [
        Rejected(one.index, *command.refused[one.index]) if one.index in command.refused else one for one in rejected
    ]
    return answer_batch(received, told)


def _save(run: Runtime, command: Command, most: int) -> tuple[int, list[Rejected]]:
    """Return how many records are durable, and the refused ones."""
    if command.target == TICKS:
        ticks = take_ticks(run, command.body, lambda data: decode_batch(data, most))
        return len(ticks.ticks), ticks.rejected
    dataset = DATASETS[command.target]
    taken = take_records(run, dataset, command.body, command.policy or dataset.policy, "json")
    return len(taken.records), taken.rejected
