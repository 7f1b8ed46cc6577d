"""What may be asked of metrics' history and summary, checked: from a body or from parameters to one query."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from app.datasets.declare import Aggregate
from app.errors import BadJson, BadParameter
from app.market.time_params import parse_time
from app.metrics_history import GROUPS, Group, Interval, Wanted
from app.web.params import SHOWN_CHARS, End, Start, Time, body_problem

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


assert set(RANGES_S) == set(get_args(TimeRange))


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


def decode(body: bytes) -> MetricsAsked:
    """Return what a body asks for. Raises BadJson, BadParameter, which names the field."""
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise BadParameter(body_problem(error, MetricsAsked)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"the body is not JSON: {error}") from error


def check_fields(groups: tuple[Group, ...], aggregates: Mapping[str, Aggregate]) -> None:
    """Raise BadParameter for a field that none of the groups has, or whose values cannot become one so."""
    columns = {column.name: column for group in groups for column in GROUPS[group].values}
    for name, of in aggregates.items():
        if name not in columns:
            known = ", ".join(columns)
            raise BadParameter(
                f"aggregates: {name[:SHOWN_CHARS]} is no field of {', '.join(groups)}; there are: {known}"
            )
        if columns[name].kind == "text" and of != "last":
            raise BadParameter(f"aggregates: {name} is a text, of which there is only the last")


def wanted_of(
    groups: tuple[Group, ...],
    time_range: TimeRange | None,
    start: Time | None,
    end: Time | None,
    symbol: str | None,
    strategy_name: str | None,
    host: str | None,
) -> Wanted:
    """Return what is asked, with its defaults. Raises BadParameter for what does not go together."""
    if time_range is not None and (start is not None or end is not None):
        raise BadParameter("time_range: goes up to now; give either it, or start and end")
    if end is not None and start is None:
        raise BadParameter("start: is required where there is an end")
    now_us = time.time_ns() // 1000
    start_us = now_us - RANGES_S[time_range or DEFAULT_RANGE] * 1_000_000 if start is None else start.us
    end_us = now_us if end is None else end.us
    if end_us < start_us:
        raise BadParameter("start: is in the future" if end is None else "end: is before start")
    texts = {name: text for name, text in (("strategy_name", strategy_name), ("host", host)) if text is not None}
    for name, text in texts.items():
        if "\0" in text:
            raise BadParameter(f"{name}: a text cannot hold a NUL")
    return Wanted(groups, start_us, end_us, symbol, texts)
