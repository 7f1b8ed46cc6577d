"""Instruments: what is known of each symbol. A record of one that there is not adds it. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Dataset, Maybe, Name
from app.market.intervals import known_zone

Label = Annotated[Name, Meta(examples=["Apple Inc.", "Energy, & more", "Việt Nam"])]


class Instrument(Struct, kw_only=True):
    """What is known of a symbol."""

    symbol: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="name or alias, in any case, of one that is there; else the name of the one that is added",
            extra={"kind": "name"},
            extra_json_schema={"examples": ["AAPL"]},
        ),
    ]
    name: Annotated[Maybe[Label], Meta(description="name for people")] = UNSET
    sector: Annotated[Maybe[Label], Meta(description="sector of the economy, as Technology (name)")] = UNSET
    industry: Annotated[Maybe[Label], Meta(description="industry within the sector (name)")] = UNSET
    market_cap: Annotated[
        Maybe[Annotated[float, Meta(ge=0, le=1e18)]], Meta(description="market capitalisation (its currency)")
    ] = UNSET
    exchange: Annotated[
        Maybe[Label],
        Meta(
            description="where it is traded, a MIC or a usual name: its calendar gives sessions and market hours",
            examples=["XNYS"],
        ),
    ] = UNSET
    currency: Annotated[
        Maybe[Annotated[str, Meta(pattern="^[A-Za-z0-9]{3,8}$", examples=["USD", "GBp"])]],
        Meta(description="currency of its prices (ISO 4217)"),
    ] = UNSET
    timezone: Annotated[
        Maybe[Annotated[Name, Meta(examples=["America/New_York", "Asia/Ho_Chi_Minh"])]],
        Meta(description="time zone of its exchange (IANA name)"),
    ] = UNSET
    digits: Annotated[
        Maybe[Annotated[int, Meta(ge=0, le=15)]],
        Meta(description="decimals of a price: one point is 10^-digits (count)"),
    ] = UNSET

    def __post_init__(self) -> None:
        """Raise ValueError for what the commands would not take either."""
        texts: dict[str, Any] = {name: getattr(self, name) for name in ("name", "sector", "industry", "exchange")}
        for name, text in texts.items():
            if isinstance(text, str) and not (text.isprintable() and text.strip()):
                raise ValueError(f"{name} holds characters that cannot be printed, or nothing")
        if isinstance(self.timezone, str) and not known_zone(self.timezone):
            raise ValueError(
                f"timezone: no time zone is called {self.timezone[:64]!r}: give an IANA name, as America/New_York"
            )


DATASET = Dataset(
    name="instruments",
    record=Instrument,
    key=("symbol",),
    time=None,
    policy="update",
    has_own_table=False,
    help="What is known of each symbol",
)
