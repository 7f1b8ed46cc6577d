"""Dividends, splits and what else changes a share. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Dataset, Date, Maybe, Name, Symbol


class CorporateAction(Struct, kw_only=True):
    """A corporate action."""

    symbol: Symbol
    ex_date: Annotated[
        Date, Meta(description="first day on which a buyer has no part in it, on the exchange's calendar")
    ]
    action_type: Annotated[Name, Meta(description="what it is: dividend, split, rights, ... (word)")]
    amount: Annotated[Maybe[Amount], Meta(description="money paid for a share (currency)")] = UNSET
    ratio: Annotated[Maybe[Amount], Meta(description="new shares for an old one (ratio: 4 for a 4-for-1 split)")] = (
        UNSET
    )
    currency: Annotated[Maybe[Name], Meta(description="currency of amount (ISO 4217); absent: the symbol's")] = UNSET


DATASET = Dataset(
    name="corporate_actions",
    record=CorporateAction,
    key=("symbol", "ex_date", "action_type"),
    time="ex_date",
    policy="update",
    ahead=True,
    help="Corporate actions, by the day from which they count",
)
