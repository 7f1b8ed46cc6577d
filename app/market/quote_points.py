"""A price of many instruments, each with the order key of the tick that made it. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.market.columns import F8, I4, I8, Mask
from app.market.quotes import Key, Point

EARLY = int(np.iinfo(np.int64).min)
LATE = int(np.iinfo(np.int64).max)

Rows = npt.NDArray[np.intp]


class Points:
    """A point for each instrument: its order key and, where it is a price's, the price."""

    def __init__(self, none_us: int) -> None:
        self._none_us = none_us
        self.time_us: I8 = np.zeros(0, np.int64)
        self.order_no: I8 = np.zeros(0, np.int64)
        self.price: F8 = np.zeros(0)

    def grow(self, size: int) -> None:
        """Have room for so many instruments."""
        more = size - len(self.time_us)
        self.time_us = np.append(self.time_us, np.full(more, self._none_us))
        self.order_no = np.append(self.order_no, np.full(more, self._none_us))
        self.price = np.append(self.price, np.full(more, np.nan))

    def newer(self, at: Rows | I4, time_us: I8, order_no: I8, *, or_equal: bool = False) -> Mask:
        """Return which keys are newer than the instruments' own; no instrument twice."""
        own_us = self.time_us[at]
        order = order_no >= self.order_no[at] if or_equal else order_no > self.order_no[at]
        return np.asarray((time_us > own_us) | ((time_us == own_us) & order))

    def put(self, at: Rows | I4, time_us: I8, order_no: I8, price: F8 | None = None) -> None:
        """Put keys and prices; no instrument twice."""
        self.time_us[at], self.order_no[at] = time_us, order_no
        if price is not None:
            self.price[at] = price

    def take_one(self, at: int, point: Point) -> bool:
        """Put a point; return whether it is another one than was there."""
        time_us, order_no = point.key.time_us, point.key.order_no
        if self.time_us[at] == time_us and self.order_no[at] == order_no and self.price[at] == point.price:
            return False
        self.time_us[at], self.order_no[at], self.price[at] = time_us, order_no, point.price
        return True

    def put_from(self, at: int, other: Points) -> None:
        """Put what another one has of the instrument."""
        self.time_us[at], self.order_no[at], self.price[at] = other.time_us[at], other.order_no[at], other.price[at]

    def clear(self, at: int) -> None:
        """Have none of the instrument."""
        self.time_us[at] = self.order_no[at] = self._none_us
        self.price[at] = np.nan

    def has(self, at: int) -> bool:
        """Tell whether there is one of the instrument."""
        return bool(self.time_us[at] != self._none_us)

    def point(self, at: int) -> Point | None:
        """Return that of the instrument, None where there is none."""
        return Point(self.key(at), float(self.price[at])) if self.has(at) else None

    def key(self, at: int) -> Key:
        """Return its key."""
        return Key(int(self.time_us[at]), int(self.order_no[at]))
