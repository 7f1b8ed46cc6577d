"""What a dataset is: a record type, and where and how its records are kept. Pure, lane side.

A record type is a msgspec Struct. Its fields are of the types below; `Meta(description=...)` says what a field is, with
its unit, and becomes the column's comment. A field that may be absent is `Maybe[...]` with the default UNSET, so that
what was not sent is told apart from null.
"""

from __future__ import annotations

import datetime
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, UnsetType

T = TypeVar("T")

Maybe = Union[T, None, UnsetType]  # noqa: UP007 - an alias with a parameter, which `|` of a TypeVar is none to mypy

MAX_NUMBER = 1e15
"""Beyond it a sender's units are wrong."""

MAX_COUNT = 1 << 53
"""Integers up to here are exact in JSON readers that know only floats."""

KEY_BYTES = 2000
"""Most bytes of the texts of a key together: an entry of PostgreSQL's index has 2,700."""

Symbol = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="the symbol's name or any of its aliases, in any case",
        extra={"kind": "symbol"},
        extra_json_schema={"examples": ["AAPL"]},
    ),
]
Moment = Annotated[
    int | float | str,
    Meta(
        description="RFC 3339 with an offset, epoch milliseconds, or a date (midnight UTC); a text without offset is "
        "on the broker's clock (tick_timezone)",
        extra={"kind": "time"},
        extra_json_schema={"examples": ["2026-01-13T17:54:43.250Z"]},
    ),
]
Date = datetime.date
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Amount = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]

Policy = Literal["ignore", "update", "keep_newest", "error"]
"""What a second row of a key does: ignore: the first stays; update: fields that were sent replace; keep_newest: as
update, if it is not older; error: it is set aside, unless it says the same."""

Kind = Literal["symbol", "name", "time", "date", "float", "int", "bool", "text", "json"]
"""symbol: an instrument's, kept as its id; name: of an instrument that is there or is added by the record itself."""

Retention = Literal["kept", "metrics"]

Aggregate = Literal["avg", "sum", "min", "max", "last"]
"""How several values become one; values that are not known do not count."""

_KINDS: Mapping[Any, Kind] = {float: "float", int: "int", bool: "bool", str: "text", Date: "date", dict: "json"}


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a record, and its column: `name` in records, `attribute` of the type, `column` in the table."""

    name: str
    attribute: str
    column: str
    kind: Kind
    required: bool
    help: str
    choices: tuple[str, ...] = ()
    examples: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset. Names of fields are those of the record type.

    key: what a row is known by; all required, or derived; only a symbol may be absent, which is a key, too. policy:
    what a second row of a key does, unless the request says other. time: what `start` and `end` choose by, and rows are
    ordered by; required, of the key or not; None: there is none. computed: SQL by field, for where nothing was sent:
    `t` is the table. joined: SQL joins that computed fields are taken from; `page` is the rows of the table that are
    read, `t` too. computed_of: tables whose rows of the symbol, of whatever time, say what is computed, where the
    record alone does not. ahead: whether its times may lie in the future. aggregates: of metrics, what the values of an
    interval become, by field; of all its numbers. partitions: tables of a month each, made as they are needed. rollup:
    whether counts, sums, least, greatest and last values by minute, five minutes and hour are kept with it
    (`rollup.py`). indexes: those of the table beside its key's and the one by time, as fields. also_by:
    texts that are not of the key, and that rows can be chosen by all the same. has_own_table: False where others write
    the table, too: it has columns beside these, its key may be a UNIQUE of another one, and a person writes its
    migration. derive: fills in the key's fields that were not sent, before the journal; it gets and changes the values
    of n rows by field. stored_in: the table of what is sent, where `name` is a view that shows more
    (`storage/trades_reader.py`): `t` is the view then.
    """

    name: str
    record: type[msgspec.Struct]
    key: tuple[str, ...]
    help: str
    policy: Policy = "ignore"
    time: str | None = "timestamp"
    retention: Retention = "kept"
    computed: Mapping[str, str] = field(default_factory=dict)
    joined: str = ""
    computed_of: tuple[str, ...] = ()
    ahead: bool = False
    aggregates: Mapping[str, Aggregate] = field(default_factory=dict)
    partitions: Literal["month"] | None = None
    rollup: bool = False
    indexes: tuple[tuple[str, ...], ...] = ()
    also_by: tuple[str, ...] = ()
    has_own_table: bool = True
    derive: Callable[[dict[str, list[Any]]], None] | None = None
    stored_in: str | None = None

    @property
    def table(self) -> str:
        """Return the name of its table."""
        return self.stored_in or self.name

    def always(self, column: Column) -> bool:
        """Tell whether every stored record has a value there."""
        return column.required or (column.name in self.key and column.kind != "symbol")

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Return its columns in the order of the record's fields. Raises TypeError for a field that cannot be kept."""
        return tuple(_columns(self.record))

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Return its columns by the names of the fields."""
        return {column.name: column for column in self.columns}

    @cached_property
    def symbol(self) -> str | None:
        """Return the field that names an instrument, None where there is none."""
        return next((column.name for column in self.columns if column.kind in ("symbol", "name")), None)

    @cached_property
    def adds_symbols(self) -> bool:
        """Tell whether its records are instruments: an unknown symbol is no trouble, but one more."""
        return self.symbol is not None and self.by_name[self.symbol].kind == "name"

    @cached_property
    def keys(self) -> tuple[Column, ...]:
        """Return the columns of the key, in its order."""
        return tuple(self.by_name[name] for name in self.key)

    @cached_property
    def values(self) -> tuple[Column, ...]:
        """Return the columns that are not of the key."""
        return tuple(column for column in self.columns if column.name not in self.key)

    @cached_property
    def own_time(self) -> Column | None:
        """Return the time of a record where it is not of its key: what `keep_newest` goes by; None: it is, or none."""
        return None if self.time is None or self.time in self.key else self.by_name[self.time]

    @cached_property
    def filters(self) -> tuple[Column, ...]:
        """Return what rows can be chosen by, beside symbol and time: the texts of the key, and of `also_by`."""
        return (*self.key_texts, *(self.by_name[name] for name in self.also_by))

    @cached_property
    def key_texts(self) -> tuple[Column, ...]:
        """Return the texts of the key."""
        return tuple(column for column in self.keys if column.kind == "text")

    @cached_property
    def order(self) -> tuple[Column, ...]:
        """Return the fields that rows are ordered by as they leave: time first, the key's others, the symbol last."""
        rank = {"time": 0, "date": 0, "symbol": 2}
        keys = {self.by_name[name]: None for name in (*([] if self.time is None else [self.time]), *self.key)}
        return tuple(sorted(keys, key=lambda column: -1 if column.name == self.time else rank.get(column.kind, 1)))

    def check(self) -> None:
        """Raise ValueError where the declaration does not hold together."""
        known = {
            column.name
            for column in self.columns
            if column.required or column.kind == "symbol" or self.derive is not None
        }
        wrong = [name for name in self.key if name not in known]
        wrong += [name for name in self.also_by if name not in self.by_name or self.by_name[name].kind != "text"]
        wrong += [name for name in self.computed if name not in self.by_name or self.by_name[name].required]
        time = None if self.time is None else self.by_name.get(self.time)
        if self.time is not None and (time is None or not time.required or time.kind not in ("time", "date")):
            wrong.append(self.time)
        if (self.partitions or self.rollup) and (self.time not in self.key or time is None or time.kind != "time"):
            wrong.append(f"{self.time}, which is no time of its key")
        wrong += [column.name for column in self.columns if not column.help]
        if self.aggregates:
            wrong += self.aggregates.keys() ^ {one.name for one in self.values if one.kind in ("float", "int")}
        if wrong or len(self.columns) > 60:
            raise ValueError(f"dataset {self.name}: {', '.join(wrong) or 'too many fields'}")


def _columns(record: type[msgspec.Struct]) -> Iterator[Column]:
    hints = get_type_hints(record, include_extras=True)
    for info in msgspec.structs.fields(record):
        members, metas = _members(hints[info.name])
        told = {name: value for meta in metas for name, value in (meta.extra or {}).items()}
        kinds = {_KINDS[member] for member in members if member in _KINDS}
        choices = tuple(value for member in members if get_origin(member) is Literal for value in get_args(member))
        kind = cast(Kind, told.get("kind") or ("text" if choices else next(iter(kinds), "json")))
        if not told and not choices and len(kinds) != 1:
            raise TypeError(f"{record.__name__}.{info.name}: {hints[info.name]} cannot be kept")
        words = [meta.description for meta in metas if meta.description]
        name = info.encode_name
        column = "symbol_id" if kind == "symbol" else "time" if name == "timestamp" else name
        examples = tuple(value for meta in metas for value in meta.examples or ())
        yield Column(name, info.name, column, kind, info.required, words[-1] if words else "", choices, examples)


def _members(kind: Any) -> tuple[list[Any], list[Meta]]:
    """Return the types in an annotation without None and UNSET, and all that is said of them, the outermost last."""
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        members, found = _members(inner)
        return members, [*found, *(meta for meta in metas if isinstance(meta, Meta))]
    if get_origin(kind) in (Union, types.UnionType):
        members, found = [], []
        for part in get_args(kind):
            if part not in (types.NoneType, UnsetType):
                more, metas = _members(part)
                members += more
                found += metas
        return members, found
    return [dict if get_origin(kind) is dict else kind], []
