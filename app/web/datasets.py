"""POST /ingest/{dataset} and GET /api/{dataset}, of each declared dataset: made of its declaration. Greenlet side."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.dataset_source import DatasetSource
from app.datasets.accept import AcceptedRecords, accept_records, unknown_names
from app.datasets.declare import Column, Dataset, Policy
from app.datasets.decode import Decoded, SentAs, decode_records
from app.datasets.records import LAYOUT
from app.datasets.registry import DATASETS
from app.errors import (
    BadField,
    BadJson,
    BadParameter,
    BufferFull,
    MissingField,
    NotReady,
    TooLarge,
    UnsupportedEncoding,
)
from app.market.decode import Rejected
from app.runtime import Runtime
from app.web.answers import Timestamp, list_type
from app.web.api import FORMATS, Endpoint, endpoint
from app.web.batches import (
    CSV,
    NDJSON,
    BatchPartlyTaken,
    BatchTaken,
    answer_batch,
    register,
    sent_as,
    tell,
    unknown,
    untold,
    unusable,
)
from app.web.body import body_of
from app.web.current_metrics import current_figures
from app.web.market import READ_ERRORS
from app.web.params import RangeParams
from app.web.rows import answer_rows, range_of, rows_request
from app.web.server import runtime

blueprint = Blueprint("datasets", __name__)

INLINE_BYTES = 32 * 1024
"""Bodies up to this are decoded on the loop, in a millisecond or two; larger ones on a lane."""

LEAST_RECORD_BYTES = 32
"""Hardly a record is shorter; so a body of max_body_mb holds at most so many, and answers stay bounded."""

ERRORS = (BadJson, BadField, MissingField, TooLarge, UnsupportedEncoding, BufferFull, NotReady)
ROW_CODES = ("unknown_symbol", "too_old")
TAKEN = (
    "200 means that the accepted records are on disk. Each record is judged by itself: the bad ones are listed in "
    "`rejected`; when all are bad it is a 400. The body is a JSON array or one record, NDJSON or CSV (with a line of "
    "field names; an empty cell is a field that was not sent), plain or with `Content-Encoding: gzip`. NDJSON and CSV "
    "go by their Content-Type."
)

_KINDS: dict[str, Any] = {
    "symbol": str,
    "name": str,
    "time": Timestamp,
    "date": Annotated[str, Meta(extra_json_schema={"format": "date"})],
    "float": float,
    "int": int,
    "bool": bool,
    "text": str,
    "json": dict[str, Any],
}


class IngestParams(Struct, kw_only=True):
    """Parameters of /ingest."""

    on_duplicate: Annotated[
        Policy | None,
        Meta(
            description="what a second record of a key does: ignore: the first stays; update: fields that were sent "
            "replace; keep_newest: as update, if it is not older; error: it is set aside, unless it says the same"
        ),
    ] = None


def _declare(dataset: Dataset) -> None:
    """Make the endpoints of a dataset."""
    words = f"{dataset.help}. Key: {', '.join(dataset.key)}"

    @endpoint(
        blueprint,
        Endpoint(
            "POST",
            f"/ingest/{dataset.name}",
            f"Send {dataset.name}",
            "datasets",
            scope="ingest",
            description=f"{words}; without `on_duplicate`: {dataset.policy}. {TAKEN}",
            params=IngestParams,
            body=list[dataset.record],  # type: ignore[name-defined]  # a type made at run time
            body_formats=(NDJSON[0], CSV[0]),
            answer=BatchTaken | BatchPartlyTaken,
            errors=ERRORS,
            row_codes=ROW_CODES,
        ),
    )
    @_named(f"ingest_{dataset.name}")
    def ingest(params: IngestParams) -> Response:
        """Take records, row by row."""
        return _ingest(dataset, params)

    @endpoint(
        blueprint,
        Endpoint(
            "GET",
            f"/api/{dataset.name}",
            f"Stored {dataset.name}, in order",
            "datasets",
            description=words,
            params=params_type(dataset),
            answer=answer_type(dataset),
            formats=FORMATS,
            errors=READ_ERRORS,
        ),
    )
    @_named(f"read_{dataset.name}")
    def read(params: Any) -> Response:
        """Return records of a range, or the newest ones."""
        return _read(dataset, params)


def params_type(dataset: Dataset) -> type[Struct]:
    """Return the type of the parameters by which a dataset is read."""
    fields: list[tuple[str, Any, Any]] = []
    if dataset.symbol is not None:
        words = "the symbol's name or any of its aliases, in any case; without it: all"
        fields.append(("symbol", Annotated[str | None, Meta(description=words)], None))
    for column in dataset.filters:
        kind: Any = Literal[column.choices] if column.choices else str
        fields.append((column.name, Annotated[kind | None, Meta(description=f"only this one: {column.help}")], None))
    without = () if dataset.time is not None else ("start", "end")
    common = msgspec.structs.fields(RangeParams)
    fields += [(field.name, field.type, None) for field in common if field.name not in without]
    return msgspec.defstruct(
        f"{dataset.record.__name__}Params",
        fields,
        kw_only=True,
        namespace={"__doc__": f"Parameters of /api/{dataset.name}."},
    )


@cache
def record_type(dataset: Dataset) -> type[Struct]:
    """Return the type of a record in an answer, as JSON shows it."""
    rows = [
        (column.name, Annotated[_answered(dataset, column), Meta(description=column.help)])
        for column in dataset.columns
    ]
    return msgspec.defstruct(f"Stored{dataset.record.__name__}", rows)


def answer_type(dataset: Dataset) -> type[Struct]:
    """Return the type of the answer of records, as JSON shows it."""
    row = record_type(dataset)
    return list_type(f"{dataset.record.__name__}Page", [("dataset", Literal[dataset.name])], "records", row)


def _answered(dataset: Dataset, column: Column) -> Any:
    kind = _KINDS[column.kind]
    return kind if dataset.always(column) else kind | None


def _named(name: str) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Give a view the name that Flask knows it by."""

    def rename(view: Callable[..., Response]) -> Callable[..., Response]:
        view.__name__ = name
        return view

    return rename


def _ingest(dataset: Dataset, params: IngestParams) -> Response:
    run = runtime()
    max_bytes = run.settings.max_body_mb << 20
    with body_of(request, max_bytes, run.in_flight) as body:
        form = sent_as(request.content_type or "")
        accepted = take_records(run, dataset, body, params.on_duplicate or dataset.policy, form)
    return answer_batch(len(accepted.records), accepted.rejected)


def take_records(run: Runtime, dataset: Dataset, body: bytes, policy: Policy, form: SentAs) -> AcceptedRecords:
    """Decode, check and journal; returns when the accepted records are durable."""
    started = time.perf_counter()
    large = len(body) > INLINE_BYTES
    most = max(1000, (run.settings.max_body_mb << 20) // LEAST_RECORD_BYTES)

    def on_lane(work: Callable[..., Any], *args: Any) -> Any:
        return run.decoding.call(work, *args) if large else work(*args)

    decoded: Decoded = on_lane(decode_records, dataset, body, form, most)
    refused: Callable[[str], Rejected] = unknown
    if missing := on_lane(unknown_names, dataset, decoded, run.symbols.map):
        if run.settings.unknown_symbols == "register":
            register(run.symbols.map, missing)
            refused = unusable
        else:
            del decoded, missing  # several times what the body takes, which alone is counted: not while this waits
            if not run.symbols.know_better():
                refused = untold
            decoded = on_lane(decode_records, dataset, body, form, most)
    now_us = time.time_ns() // 1000
    accepted: AcceptedRecords = on_lane(
        accept_records, dataset, decoded, policy, run.symbols.map, run.clock, run.limits, now_us, refused
    )
    if len(accepted.records):
        payload = on_lane(accepted.records.encode)
        run.ingest.accept(dataset.name, LAYOUT, len(accepted.records), payload)
        tell(run.meters.acknowledged, time.perf_counter() - started)
        tell(current_figures().newest.accepted, dataset, accepted.records)
    tell(run.meters.records, dataset.name, len(accepted.records), len(accepted.rejected))
    return accepted


def _read(dataset: Dataset, params: Any) -> Response:
    chosen = {column.name: getattr(params, column.name) for column in dataset.filters}
    for name, value in chosen.items():
        if "\0" in (value or ""):
            raise BadParameter(f"{name}: a text cannot hold a NUL")
    source = DatasetSource(
        dataset,
        *range_of(getattr(params, "start", None), getattr(params, "end", None)),
        {name: value for name, value in chosen.items() if value is not None},
    )
    asked = rows_request(getattr(params, "symbol", None), source, params)
    return answer_rows(runtime(), asked, closed=False, cacheable=False)


for _dataset in DATASETS.values():
    _declare(_dataset)
