"""Query parameters: from texts to the types that an endpoint declares. What they mean is in the types, so the OpenAPI
document says the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, reduce
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from app.errors import BadParameter
from app.formats.encoders import Format
from app.market.time_params import parse_time
from app.row_stream import PAGE_ROWS
from app.web.answers import NEXT_PAGE_HEADER

SHOWN_CHARS = 60

P = TypeVar("P", bound=Struct)


class Time:
    """A point in time, as a parameter gives it."""

    __slots__ = ("us",)

    def __init__(self, us: int) -> None:
        self.us = us


TIME_SCHEMA: dict[str, Any] = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"format": "date"}, {"pattern": r"^[0-9]{1,19}(\.[0-9]{1,9})?$"}],
    "examples": ["2026-01-13T17:54:43Z", "2026-01-13", "1768326883"],
}

Start = Annotated[
    Time | None,
    Meta(
        description="first time, inclusive: RFC 3339 with an offset, a date (midnight UTC), or epoch s, ms, us, ns",
        extra_json_schema=TIME_SCHEMA,
    ),
]
End = Annotated[
    Time | None,
    Meta(description="time before which rows end, exclusive; as `start`", extra_json_schema=TIME_SCHEMA),
]
Limit = (
    Annotated[
        int,
        Meta(
            ge=1,
            description="most rows; default 1000, at most 10000 in JSON and without a range. Headers leave before more "
            f"than {PAGE_ROWS} are read: of a larger answer there is no {NEXT_PAGE_HEADER}, though rows may follow",
        ),
    ]
    | None
)
AnswerFormat = Annotated[Format | None, Meta(description="format of the answer; without it the Accept header decides")]
Order = Annotated[
    Literal["asc", "desc"] | None,
    Meta(description="by time; default asc with a range, else the newest `limit` rows, answered in ascending time"),
]
PageToken = Annotated[
    str | None,
    Meta(
        description=f"`next_page_token` of the answer before, in other formats its {NEXT_PAGE_HEADER}; opaque",
        extra_json_schema={"pattern": "^[A-Za-z0-9_-]{8,}$"},
    ),
]


class RangeParams(Struct, kw_only=True):
    """Parameters of a range of rows."""

    start: Start = None
    end: End = None
    limit: Limit = None
    order: Order = None
    page_token: PageToken = None
    format: AnswerFormat = None


def parse(kind: type[P], given: Iterable[tuple[str, str]]) -> P:
    """Return the parameters as their type. Raises BadParameter, with the parameter's name, for the first bad one."""
    fields = _fields(kind)
    types = _given_types(kind)
    values: dict[str, Any] = {}
    for name, text in given:
        field = fields.get(name)
        if field is None:
            known = ", ".join(fields) or "none"
            raise BadParameter(f"{name[:SHOWN_CHARS]}: unknown parameter; there are: {known}")
        if field.name in values:
            raise BadParameter(f"{name}: given twice")
        try:
            values[field.name] = msgspec.convert(text, types[field.name], strict=False, dec_hook=_decode)
        except BadParameter as error:
            raise BadParameter(f"{name}: {error}") from error
        except msgspec.ValidationError as error:
            raise BadParameter(f"{name}: {text[:SHOWN_CHARS]!r} {_why(error, types[field.name])}") from error
    missing = [field.encode_name for field in fields.values() if field.required and field.name not in values]
    if missing:
        raise BadParameter(f"{missing[0]}: is required")
    return kind(**values)


def choices_of(kind: Any) -> tuple[Any, ...]:
    """Return the values of the Literal in a type; empty: there is none."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((found for part in get_args(kind) if (found := choices_of(part))), ())


def body_problem(error: msgspec.ValidationError, kind: type[Struct]) -> str:
    """Return what is wrong with a body that is to be one object, as a sentence that begins with the field's name."""
    what, _, path = str(error).replace("`", "").partition(" - at ")
    if unknown := re.search(r"unknown field (.*)", what):
        known = ", ".join(kind.__struct_encode_fields__)
        return f"{unknown[1][:SHOWN_CHARS]}: unknown field; there are: {known}"
    if missing := re.search(r"missing required field (.*)", what):
        return f"Missing required fields: {missing[1]}"
    found = re.match(r"\$\.(\w+)", path)
    if found is None:
        return f"the body: {what}"
    choices = choices_of(_fields(kind)[found[1]].type)
    if choices and "enum value" in what:
        return f"{found[1]}: {what.removeprefix('Invalid enum value ')} is none of {', '.join(choices)}"
    return f"{found[1]}: cannot be used: {what}"


def _why(error: msgspec.ValidationError, kind: Any) -> str:
    if choices := choices_of(kind):
        return f"is none of {', '.join(map(str, choices))}"
    reason = str(error).replace("`", "").removesuffix(", got str")
    if reason == "Invalid RFC3339 encoded date":
        return "is no day: write 2026-01-13"
    return f"cannot be used: {reason}"


@cache
def _fields(kind: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@cache
def _given_types(kind: type[Struct]) -> dict[str, Any]:
    """Return the fields' types without None: the text `null` is no absent parameter."""
    return {field.name: _never_none(field.type) for field in msgspec.structs.fields(kind)}


def _never_none(kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        inner, *meta = get_args(kind)
        return Annotated[(_never_none(inner), *meta)]
    if get_origin(kind) in (Union, UnionType):
        return reduce(or_, (part for part in get_args(kind) if part is not NoneType))
    return kind


def _decode(kind: type, value: Any) -> Any:
    assert kind is Time, kind  # the only type of a parameter that msgspec does not know
    return Time(parse_time(str(value)))
