"""Headlines about a symbol. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import KEY_BYTES, Dataset, Maybe, Moment, Symbol


class News(Struct, kw_only=True):
    """A piece of news about a symbol."""

    symbol: Symbol
    timestamp: Moment
    url: Annotated[str, Meta(min_length=1, max_length=KEY_BYTES, description="where it can be read (URL)")]
    headline: Annotated[Maybe[str], Meta(description="headline (text)")] = UNSET
    summary: Annotated[Maybe[str], Meta(description="what it says, in short (text)")] = UNSET
    source: Annotated[Maybe[str], Meta(description="who wrote it (text)")] = UNSET


DATASET = Dataset(
    name="news",
    record=News,
    key=("symbol", "timestamp", "url"),
    policy="update",
    help="News by symbol; one address may be about several symbols",
)
