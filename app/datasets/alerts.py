"""What somebody is to be told: given by rules of alerts, or sent by whoever watches something else. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Dataset, Maybe, Moment, Name, Number, Symbol

MAX_ID = 2**31 - 1


class Alert(Struct, kw_only=True):
    """An alert."""

    symbol: Annotated[
        Maybe[Symbol], Meta(description="the symbol's name or any of its aliases; null: it is about none")
    ] = UNSET
    timestamp: Annotated[Moment, Meta(description="when it came about: the time of the tick, or of the look")]
    alert_type: Annotated[Name, Meta(description="kind of alert (word)")]
    message: Annotated[str, Meta(min_length=1, max_length=1000, description="what is told, for people")]
    severity: Annotated[Maybe[Name], Meta(description="info, warning, critical, or what a sender says (word)")] = UNSET
    rule_id: Annotated[
        Maybe[Annotated[int, Meta(ge=1, le=MAX_ID)]],
        Meta(description="rule that gave it, which may be gone (number); null: it was sent from outside"),
    ] = UNSET
    value: Annotated[Maybe[Number], Meta(description="the value that gave it (unit of the rule)")] = UNSET


DATASET = Dataset(
    name="alerts",
    record=Alert,
    key=("symbol", "timestamp", "alert_type", "message"),
    also_by=("severity",),
    has_own_table=False,
    help="Alerts, of rules and from outside",
)
