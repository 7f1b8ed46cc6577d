"""Metrics by intervals, and what they come to: POST /api/metrics/history, GET /api/metrics/summary. Greenlet side."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, get_args

import msgspec
from flask import Blueprint, Response, request
from msgspec import UNSET, Meta, Struct, UnsetType

from app.datasets.declare import Aggregate, Column, Dataset
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
from app.market.time_params import parse_time
from app.metrics_history import GROUPS, MOST_ROWS, Group, Interval, Wanted, metrics_answer, summary_answer
from app.reads import PAGE
from app.web.answers import Timestamp
from app.web.api import Endpoint, endpoint
from app.web.body import body_of
from app.web.client import client_of
from app.web.params import SHOWN_CHARS, End, Start, Time, choices_of
from app.web.server import runtime

blueprint = Blueprint("metrics_history", __name__)

TimeRange = Literal["MINUTE_5", "MINUTE_15", "HOUR_1", "HOUR_4", "DAY_1", "WEEK_1", "MONTH_1"]
RANGES_S: Mapping[TimeRange, int] = {
    "MINUTE_5": 300,
    "MINUTE_15": 900,
    "HOUR_1": 3600,
    "HOUR_4": 4 * 3600,
    "DAY_1": 86_400,
    "WEEK_1": 7 * 86_400,
    "MONTH_1": 30 * 86_400,
}
DEFAULT_RANGE: TimeRange = "HOUR_1"

MOST_NUMBER = 9 * 10**18
"""Nanoseconds up to the year 2255."""

Moment = Annotated[Time, Meta(extra_json_schema={"type": ["string", "number"], "minimum": 0, "maximum": MOST_NUMBER})]
Chosen = Annotated[str, Meta(max_length=500)] | None
_Range = Annotated[
    TimeRange | None,
    Meta(description=f"up to now; default {DEFAULT_RANGE} where there is no start. A month has 30 days here"),
]
_Symbol = Annotated[Chosen, Meta(description="of market_data only this one: name or alias, in any case; default all")]
_Strategy = Annotated[Chosen, Meta(description="of strategy only this one; default all")]
_Host = Annotated[Chosen, Meta(description="of system only this one; default all")]


class UnknownSymbolAsked(UnknownSymbol):
    """The symbol that metrics are asked of is none."""

    status = 400


class MetricsAsked(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which metrics, and how."""

    time_range: _Range = None
    start: Annotated[
        Moment | None,
        Meta(description="first time, inclusive: RFC 3339 with an offset, a date (midnight UTC), or epoch"),
    ] = None
    end: Annotated[Moment | None, Meta(description="time before which records end, as `start`; default now")] = None
    metric_types: Annotated[
        list[Group], Meta(min_length=1, max_length=len(GROUPS), description="the groups of the answer; default all")
    ] = msgspec.field(default_factory=lambda: list(GROUPS))
    interval: Annotated[Interval, Meta(description="each begins at a multiple of its length since 1970, UTC")] = "5m"
    symbol: _Symbol = None
    strategy_name: _Strategy = None
    host: _Host = None
    aggregates: Annotated[
        dict[str, Aggregate],
        Meta(description="what the values of an interval become, by field, instead of what is usual for it"),
    ] = msgspec.field(default_factory=dict)


class SummaryParams(Struct, kw_only=True):
    """Parameters of /api/metrics/summary."""

    time_range: _Range = None
    start: Start = None
    end: End = None
    symbol: _Symbol = None
    strategy_name: _Strategy = None
    host: _Host = None


def _time(kind: type, value: Any) -> Any:
    if kind is not Time or isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a time is a text or a number")
    if not isinstance(value, str) and not 0 <= value <= MOST_NUMBER:
        raise ValueError("as a number a time is one of seconds, milliseconds, microseconds or nanoseconds since 1970")
    try:
        return Time(parse_time(f"{value:f}" if isinstance(value, float) else str(value)))
    except BadParameter as error:
        raise ValueError(str(error)) from error


_DECODER = msgspec.json.Decoder(MetricsAsked, dec_hook=_time)


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
    _check_fields(groups, asked.aggregates)
    given = asked.symbol, asked.strategy_name, asked.host
    wanted = _wanted(groups, asked.time_range, asked.start, asked.end, *given)
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
        partial(summary_answer, wanted=_wanted(tuple(GROUPS), params.time_range, params.start, params.end, *given))
    )


def decode(body: bytes) -> MetricsAsked:
    """Return what a body asks for. Raises BadJson, BadParameter, which names the field."""
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise BadParameter(_why(str(error).replace("`", ""))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"the body is not JSON: {error}") from error


def _why(text: str) -> str:
    """Return a validation error as a sentence that begins with the field's name."""
    what, _, path = text.partition(" - at ")
    if unknown := re.search(r"unknown field (.*)", what):
        known = ", ".join(MetricsAsked.__struct_fields__)
        return f"{unknown[1][:SHOWN_CHARS]}: unknown field; there are: {known}"
    found = re.match(r"\$\.(\w+)", path)
    if found is None:
        return f"the body: {what}"
    kind = next(info.type for info in msgspec.structs.fields(MetricsAsked) if info.encode_name == found[1])
    choices = choices_of(kind)
    if choices and "enum value" in what:
        return f"{found[1]}: {what.removeprefix('Invalid enum value ')} is none of {', '.join(choices)}"
    return f"{found[1]}: cannot be used: {what}"


def _check_fields(groups: tuple[Group, ...], aggregates: Mapping[str, Aggregate]) -> None:
    columns = {column.name: column for group in groups for column in GROUPS[group].values}
    for name, of in aggregates.items():
        if name not in columns:
            known = ", ".join(columns)
            raise BadParameter(
                f"aggregates: {name[:SHOWN_CHARS]} is no field of {', '.join(groups)}; there are: {known}"
            )
        if columns[name].kind == "text" and of != "last":
            raise BadParameter(f"aggregates: {name} is a text, of which there is only the last")


def _wanted(
    groups: tuple[Group, ...],
    time_range: TimeRange | None,
    start: Time | None,
    end: Time | None,
    symbol: str | None,
    strategy_name: str | None,
    host: str | None,
) -> Wanted:
    if time_range is not None and (start is not None or end is not None):
        raise BadParameter("time_range: goes up to now; give either it, or start and end")
    if end is not None and start is None:
        raise BadParameter("start: is required where there is an end")
    now_us = time.time_ns() // 1000
    start_us = now_us - RANGES_S[time_range or DEFAULT_RANGE] * 1_000_000 if start is None else start.us
    end_us = now_us if end is None else end.us
    if end_us < start_us:
        raise BadParameter("end: is before start")
    texts = {name: text for name, text in (("strategy_name", strategy_name), ("host", host)) if text is not None}
    for name, text in texts.items():
        if "\0" in text:
            raise BadParameter(f"{name}: a text cannot hold a NUL")
    return Wanted(groups, start_us, end_us, symbol, texts)


def _answer(read: Any) -> Response:
    try:
        made = runtime().reads.run(PAGE, read, client=client_of(request.environ))
    except UnknownSymbol as error:
        raise UnknownSymbolAsked(str(error)) from error
    return Response(made, mimetype="application/json")


assert set(RANGES_S) == set(get_args(TimeRange))
