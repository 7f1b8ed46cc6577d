"""Types of answers, for the OpenAPI document: made from the fields of the rows themselves. Names of their headers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from app.formats.table import Field

NEXT_PAGE_HEADER = "X-Next-Page-Token"
"""Carries what `next_page_token` is in JSON, for formats that have no place for it."""

Timestamp = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        extra_json_schema={"format": "date-time", "examples": ["2026-01-13T17:54:43.000000Z"]},
    ),
]
_TYPES: dict[str, Any] = {"time": Timestamp, "float": float | None, "int": int, "bool": bool, "text": str | None}


def row_type(name: str, fields: Sequence[Field], nullable: Collection[str] = ()) -> type[Struct]:
    """Return the type of a row with these fields, as JSON shows it. nullable: integers and times that may be null."""
    kinds = {one.name: _TYPES[one.kind] | None if one.name in nullable else _TYPES[one.kind] for one in fields}
    return msgspec.defstruct(
        name, [(field.name, Annotated[kinds[field.name], Meta(description=field.help)]) for field in fields]
    )


def list_type(name: str, head: Sequence[tuple[str, Any]], list_name: str, row: type[Struct]) -> type[Struct]:
    """Return the type of an answer that is a list of rows with a page token."""
    token = Annotated[str | None, Meta(description="where the next page begins; null at the end")]
    return msgspec.defstruct(
        name,
        [*head, (list_name, list[row]), ("next_page_token", token)],  # type: ignore[valid-type]  # a type made at run time
    )
