"""Strategies, as they are set. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Dataset, Maybe, Name


class Strategy(Struct, kw_only=True):
    """A strategy."""

    strategy_name: Annotated[Name, Meta(description="the strategy (name)")]
    parameters: Annotated[Maybe[dict[str, Any]], Meta(description="what it is set to (object)")] = UNSET


DATASET = Dataset(
    name="strategies",
    record=Strategy,
    key=("strategy_name",),
    time=None,
    policy="update",
    help="Strategies, as they are set",
)
