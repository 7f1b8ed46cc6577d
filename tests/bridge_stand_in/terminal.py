"""A MetaTrader 5 terminal as its Python package documents it, over ticks that a test gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

TICK = np.dtype(
    [
        ("time", "<i8"),
        ("bid", "<f8"),
        ("ask", "<f8"),
        ("last", "<f8"),
        ("volume", "<u8"),
        ("time_msc", "<i8"),
        ("flags", "<u4"),
        ("volume_real", "<f8"),
    ]
)

Ticks = npt.NDArray[Any]


@dataclass
class Symbol:
    """A symbol's whole history in the order of arrival, and its point."""

    ticks: Ticks
    point: float = 0.01


class StandInTerminal:
    """The module's functions as methods.

    answers: change the next answers to copy_ticks_*: each takes the whole answer and returns what the terminal
    gives instead (fewer ticks, or None for a failure) and last_error. sorted_history: how ticks of an hour that
    the clock ran through twice lie in the history; not documented, so the bridge must bear both.
    """

    COPY_TICKS_ALL = -1
    RES_S_OK = 1

    def __init__(self) -> None:
        self.symbols: dict[str, Symbol] = {}
        self.running = True
        self.answers: list[Callable[[Ticks], tuple[Ticks | None, tuple[int, str]]]] = []
        self.calls: list[tuple[str, int, int]] = []
        self.sorted_history = False
        self._error = (1, "Success")

    def arrive(self, symbol: str, *ticks: tuple[Any, ...], point: float = 0.01) -> None:
        """Append ticks: (time_msc, bid, ask, flags[, last, volume, volume_real])."""
        known = self.symbols.setdefault(symbol, Symbol(np.empty(0, TICK), point))
        rows = [
            (
                ms // 1000,
                bid,
                ask,
                *(rest[:1] or (0.0,)),
                *(rest[1:2] or (0,)),
                ms,
                flags,
                *(rest[2:] or (0.0,)),
            )
            for ms, bid, ask, flags, *rest in ticks
        ]
        known.ticks = np.concatenate([known.ticks, np.array(rows, TICK)])

    def initialize(self, *path: str) -> bool:
        self._error = (1, "Success") if self.running else (-10005, "IPC timeout")
        return self.running

    def shutdown(self) -> None:
        pass

    def last_error(self) -> tuple[int, str]:
        return self._error

    def terminal_info(self) -> object | None:
        return SimpleNamespace(connected=True) if self.running else None

    def symbol_select(self, symbol: str, enable: bool) -> bool:
        return symbol in self.symbols

    def symbol_info(self, symbol: str) -> object | None:
        known = self.symbols.get(symbol)
        return SimpleNamespace(point=known.point) if known else None

    def symbol_info_tick(self, symbol: str) -> object | None:
        known = self.symbols.get(symbol)
        if known is None or not len(known.ticks):
            return None
        newest = known.ticks[-1]
        return SimpleNamespace(**{name: newest[name].item() for name in TICK.names or ()})

    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int) -> Ticks | None:
        """The oldest `count` ticks from a whole second on: milliseconds cannot be asked for."""
        assert isinstance(date_from, int), "seconds since 1970, else a naive datetime means local time"
        assert date_from < 10**11, "seconds, not milliseconds"
        return self._copy(symbol, date_from, None, count)

    def copy_ticks_range(self, symbol: str, date_from: int, date_to: int, flags: int) -> Ticks | None:
        """The ticks of a range that holds both its ends."""
        return self._copy(symbol, date_from, date_to, None)

    def _copy(self, symbol: str, from_s: int, to_s: int | None, count: int | None) -> Ticks | None:
        self.calls.append((symbol, from_s, count or 0))
        if not self.running:
            self._error = (-10004, "No IPC connection")
            return None
        known = self.symbols.get(symbol)
        if known is None:
            self._error = (-4, "Terminal: Not found")
            return None
        ticks = known.ticks
        if self.sorted_history:
            ticks = ticks[np.argsort(ticks["time_msc"], kind="stable")]
        chosen = ticks["time_msc"] >= from_s * 1000
        if to_s is not None:
            chosen &= ticks["time_msc"] <= to_s * 1000
        found: Ticks | None = ticks[chosen][:count]
        self._error = (1, "Success")
        if self.answers and found is not None:
            found, self._error = self.answers.pop(0)(found)
        return found


def load(rows: Iterable[str]) -> Ticks:
    """Read rows of a CSV of copy_ticks: number, time, bid, ask, last, volume, time_msc, flags, volume_real."""
    split = (row.strip().split(",") for row in rows)
    return np.array(
        [
            (int(t), float(b), float(a), float(la), int(v), int(ms), int(f), float(r))
            for _, t, b, a, la, v, ms, f, r in split
        ],
        TICK,
    )
