"""A future against its spot. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Dataset, Maybe, Moment, Name, Number


class Basis(Struct, kw_only=True):
    """A future and its spot at one moment."""

    futures_symbol: Annotated[Name, Meta(description="the future, as its exchange calls it (name)")]
    timestamp: Moment
    futures_price: Annotated[Maybe[Number], Meta(description="price of the future (price)")] = UNSET
    spot_value: Annotated[Maybe[Number], Meta(description="value of the spot or index (price)")] = UNSET
    basis: Annotated[
        Maybe[Number], Meta(description="futures_price - spot_value (price); computed when absent and both are there")
    ] = UNSET


DATASET = Dataset(
    name="basis_history",
    record=Basis,
    key=("futures_symbol", "timestamp"),
    computed={"basis": "t.futures_price - t.spot_value"},
    help="Futures against their spot",
)
