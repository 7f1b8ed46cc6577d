"""What all ingest endpoints share: answers to batches, and how rows of unknown symbols are refused. Greenlet side."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

from flask import Response
from msgspec import Meta, Struct

from app.datasets.decode import SentAs
from app.errors import BadField, NotReady
from app.market.decode import Rejected
from app.market.symbols import VALID_SYMBOL, SymbolMap
from app.web.errors import answer, error_answer

_failed: set[str] = set()
"""Listeners that have failed before: what a log says of each request would fill it."""

P = ParamSpec("P")

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CSV = ("text/csv",)

log = logging.getLogger("tickhub")


class BatchTaken(Struct, tag_field="status", tag="success"):
    """All rows are on disk."""

    received: Annotated[int, Meta(ge=0, description="accepted rows, duplicates included")]


class BatchPartlyTaken(Struct, tag_field="status", tag="partial"):
    """Some rows are on disk, the others are refused."""

    received: Annotated[int, Meta(ge=1, description="accepted rows, duplicates included")]
    rejected: list[Rejected]


def sent_as(content_type: str) -> SentAs:
    """Return the format of a body by its Content-Type; JSON is what it is unless it says otherwise."""
    mimetype = content_type.split(";")[0].strip().lower()
    return "csv" if mimetype in CSV else "ndjson" if mimetype in NDJSON else "json"


def answer_batch(received: int, rejected: list[Rejected]) -> Response:
    """Return the answer to a batch of which `received` rows are on disk."""
    if not rejected:
        return answer(BatchTaken(received))
    if received:
        return answer(BatchPartlyTaken(received, rejected))
    return all_refused(rejected, one=False)


def tell(listener: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
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


def register(symbols: SymbolMap, names: list[str]) -> None:
    """Add the usable ones of unknown names to the map."""
    for name in names:
        if VALID_SYMBOL.fullmatch(name) and symbols.index(name) < 0:
            symbols.register(name)


def unknown(name: str) -> Rejected:
    """Refuse a row of a symbol that there is not."""
    return Rejected(0, "unknown_symbol", f"Unknown symbol: {name[:64]}")


def unusable(name: str) -> Rejected:
    """Refuse a row of a symbol that cannot be one."""
    return Rejected(0, "bad_field", f"symbol is not a usable name: {name[:64]!r}")


def untold(name: str) -> Rejected:
    """Refuse a row of a symbol of which only the database knows."""
    message = f"whether {name[:64]} is a symbol cannot be told while the database is away"
    return Rejected(0, "not_ready", message)


def all_refused(rejected: list[Rejected], *, one: bool) -> Response:
    """Nothing was accepted: 400, or 503 when sending it again later may help."""
    first = rejected[0]
    later = next((found for found in rejected if found.code == NotReady.code), None)
    body: dict[str, Any] = {} if one else {"rejected": rejected}
    if later is not None:
        return error_answer(later.code, later.message, NotReady.status, more=body)
    return error_answer(first.code, first.message, BadField.status, more=body)
