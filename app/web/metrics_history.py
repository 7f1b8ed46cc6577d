"""Metrics by intervals, and what they come to: POST /api/metrics/history, GET /api/metrics/summary. Greenlet side."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, request
from msgspec import UNSET, Meta, Struct, UnsetType

from app.datasets.declare import Column, Dataset
from app.datasets.rollup import rollup_keys
from app.errors import (
    BadJson,
    BadParameter,
    BufferFull,
    DatabaseNeeded,
    NotReady,
    QueryTimeout,
    TooLarge,
    UnknownSymbol,
    UnsupportedEncoding,
)
from app.metrics_history import GROUPS, MOST_ROWS, Group, Interval, metrics_answer, summary_answer
from app.reads import PAGE
from app.web.answers import Timestamp
from app.web.api import Endpoint, endpoint
from app.web.body import body_of
from app.web.client import client_of
from app.web.metrics_asked import MetricsAsked, SummaryParams, check_fields, decode, wanted_of
from app.web.server import runtime

blueprint = Blueprint("metrics_history", __name__)


class UnknownSymbolAsked(UnknownSymbol):
    """The symbol that metrics are asked of is none."""

    status = 400


def _row_type(group: str, dataset: Dataset) -> type[Struct]:
    """Return the type of a group's intervals."""
    keys = [(column.name, Annotated[str, Meta(description=column.help)]) for column in rollup_keys(dataset)]
    begins = Annotated[Timestamp, Meta(description="where the interval begins")]
    values = [(column.name, Annotated[_type(column), Meta(description=_words(dataset, column))])
              for column in dataset.values]  # fmt: skip
    return msgspec.defstruct(f"{dataset.record.__name__}Interval", [*keys, ("timestamp", begins), *values])


def _type(column: Column) -> Any:
    return str | None if column.kind == "text" else float | None


def _words(dataset: Dataset, column: Column) -> str:
    return f"{column.help}; {dataset.aggregates.get(column.name, 'last')}, unless `aggregates` says other"


MetricsHistory = msgspec.defstruct(
    "MetricsHistory",
    [
        ("interval", Interval),
        ("start", Timestamp),
        ("end", Timestamp),
        *((group, list[_row_type(group, dataset)] | UnsetType, UNSET) for group, dataset in GROUPS.items()),  # type: ignore[misc]  # types made at run time
    ],
)


class FieldFigures(Struct):
    """A field's values in the range; null: no record has one."""

    min: float | None
    max: float | None
    avg: float | None
    last: Annotated[float | None, Meta(description="of the newest record that has one")]


class GroupFigures(Struct):
    """What a group's records come to."""

    rows: Annotated[int, Meta(description="records in the range")]
    first: Annotated[Timestamp | None, Meta(description="time of the oldest; null: there is none")]
    last: Annotated[Timestamp | None, Meta(description="time of the newest; null: there is none")]
    fields: Annotated[dict[str, FieldFigures], Meta(description="by field, of all numbers")]


class MetricsSummary(Struct):
    """What metrics come to in a range."""

    start: Timestamp
    end: Timestamp
    market_data: GroupFigures
    strategy: GroupFigures
    execution: GroupFigures
    system: GroupFigures


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/api/metrics/history",
        "Metrics by intervals",
        "stats",
        description="The range is [start, end): `time_range` up to now, or `start` with or without `end`. An interval "
        "is there where it has records; one that the range cuts has what lies inside. At most "
        f"{MOST_ROWS} intervals of all groups together.",
        body=MetricsAsked,
        answer=MetricsHistory,
        errors=(
            BadJson,
            BadParameter,
            UnknownSymbolAsked,
            TooLarge,
            UnsupportedEncoding,
            BufferFull,
            QueryTimeout,
            DatabaseNeeded,
            NotReady,
        ),
    ),
)
def metrics_history() -> Response:
    """Return the intervals of each group, by time and then by name."""
    run = runtime()
    with body_of(request, run.settings.max_body_mb << 20, run.in_flight) as body:
        asked = decode(body)
    groups: tuple[Group, ...] = tuple(dict.fromkeys(asked.metric_types))
    check_fields(groups, asked.aggregates)
    given = asked.symbol, asked.strategy_name, asked.host
    wanted = wanted_of(groups, asked.time_range, asked.start, asked.end, *given)
    return _answer(partial(metrics_answer, wanted=wanted, interval=asked.interval, aggregates=asked.aggregates))


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/metrics/summary",
        "What metrics come to",
        "stats",
        description="Of each group the records in [start, end): `time_range` up to now, or `start` with or without "
        "`end`; how many, and of each number the least, greatest, mean and newest value.",
        params=SummaryParams,
        answer=MetricsSummary,
        errors=(BadParameter, UnknownSymbolAsked, QueryTimeout, DatabaseNeeded, NotReady),
    ),
)
def metrics_summary(params: SummaryParams) -> Response:
    """Return the figures of all groups."""
    given = params.symbol, params.strategy_name, params.host
    return _answer(
        partial(summary_answer, wanted=wanted_of(tuple(GROUPS), params.time_range, params.start, params.end, *given))
    )


def _answer(read: Any) -> Response:
    try:
        made = runtime().reads.run(PAGE, read, client=client_of(request.environ))
    except UnknownSymbol as error:
        raise UnknownSymbolAsked(str(error)) from error
    return Response(made, mimetype="application/json")
