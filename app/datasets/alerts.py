"""What somebody is to be told: given by rules of alerts, or sent by whoever watches something else. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Dataset, Maybe, Moment, Name, Number, Symbol


class Alert(Struct, kw_only=True):
    """An alert."""

    symbol: Annotated[
        Maybe[Symbol], Meta(description="the symbol's name or any of its aliases; null: it is about none")
    ] = UNSET
    timestamp: Annotated[Moment, Meta(description="when it came about: the time of the tick, or of the look")]
    alert_type: Annotated[Name, Meta(description="kind of alert (word)")]
    message: Annotated[str, Meta(min_length=1, max_length=1000, description="what is told, for people")]
    severity: Annotated[Maybe[Name], Meta(description="info, warning, critical, or what a sender says (word)")] = UNSET
    value: Annotated[Maybe[Number], Meta(description="the value that gave it (unit of the rule)")] = UNSET


# Without rule_id: alerts that have one are written by the elected process alone, which tells them by their numbers.
DATASET = Dataset(
    name="alerts",
    record=Alert,
    key=("symbol", "timestamp", "alert_type", "message"),
    also_by=("severity",),
    has_own_table=False,
    help="Alerts, of rules and from outside",
)
