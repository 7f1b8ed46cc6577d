"""The channels of `/ws`. Pure."""

from __future__ import annotations

from typing import Literal, get_args

Channel = Literal["quotes", "trades", "bars", "alerts"]

CHANNELS: tuple[Channel, ...] = get_args(Channel)
