"""A day of ticks counted, in as many pieces as they are read in. Pure; may run on a lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from app.market.columns import F8, I4, I8
from app.market.flags import is_trade
from app.quality import gaps as gaps_of
from app.quality.days import Day
from app.quality.gaps import Span
from app.quality.outliers import differing, outliers

_EVER_US = 1 << 62
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something counts: a gap is longer, a tick later, an outlier's score greater."""

    gap_s: float = 60.0
    late_s: float = 60.0
    outlier_z: float = 20.0


class Piece(NamedTuple):
    """Consecutive ticks of a day by time; NaN: none was sent."""

    time_us: I8
    bid: F8
    ask: F8
    last: F8
    flags: I4 | I8
    received_us: I8


class Outlier(NamedTuple):
    """A change of price that is far from the day's others: from `before` to `price` at a time."""

    time_us: int
    before: float
    price: float
    score: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was found of a day. `outliers` None: too few changes to tell; `hourly`: ticks by the hours given."""

    day: Day
    ticks: int
    session_ticks: int
    gaps: list[Span]
    crossed: int
    nonpositive: int
    outliers: list[Outlier] | None
    late: int
    first_us: int | None
    last_us: int | None
    hourly: I8

    @property
    def gaps_us(self) -> int:
        """Return how long all gaps together are."""
        return sum(gap.us for gap in self.gaps)

    @property
    def covered(self) -> float:
        """Return the fraction of the sessions that is in no gap; NaN: there were none."""
        session_us = self.day.session_us
        return 1 - self.gaps_us / session_us if session_us else float("nan")


class _Prices:
    """The prices of a series that differ from the one before, and their times."""

    def __init__(self) -> None:
        self._times: list[I8] = []
        self._prices: list[F8] = []
        self._before = float("nan")

    def add(self, time_us: I8, prices: F8, rows: np.ndarray) -> None:
        time_us, prices = time_us[rows], prices[rows]
        if not len(prices):
            return
        moved = differing(prices, self._before)
        self._times.append(time_us[moved])
        self._prices.append(prices[moved])
        self._before = float(prices[-1])

    def __bool__(self) -> bool:
        return bool(self._prices)

    def outliers(self, beyond: float) -> list[Outlier] | None:
        if not self._prices:
            return None
        times, prices = np.concatenate(self._times), np.concatenate(self._prices)
        found = outliers(times, prices, beyond)
        if found is None:
            return None
        return [
            Outlier(int(times[row]), float(prices[row - 1]), float(prices[row]), float(score))
            for row, score in zip(*found, strict=True)
        ]


@dataclass(slots=True)
class Tally:
    """Counts the ticks of one day; `add` its pieces in order, then `result`.

    edges_us: rising; ticks are counted between one and the next (`Coverage.hourly`, one shorter).
    """

    day: Day
    limits: Limits
    edges_us: I8 = field(default_factory=lambda: np.zeros(0, np.int64))
    _ticks: int = 0
    _session_ticks: int = 0
    _crossed: int = 0
    _nonpositive: int = 0
    _late: int = 0
    _first_us: int | None = None
    _last_us: int | None = None
    _quiet: list[Span] = field(default_factory=list)
    _mids: _Prices = field(default_factory=_Prices)
    _lasts: _Prices = field(default_factory=_Prices)
    _hourly: I8 | None = None

    def add(self, piece: Piece) -> None:
        """Count ticks that are behind those before."""
        times = piece.time_us
        if not len(times):
            return
        self._ticks += len(times)
        self._session_ticks += _inside(times, self.day.open)
        self._quiet += gaps_of.silences(times, self._before_us, self._gap_us)
        self._first_us = int(times[0]) if self._first_us is None else self._first_us
        self._last_us = int(times[-1])
        trades = is_trade(piece.flags.astype(np.int32))
        self._crossed += int((piece.bid > piece.ask).sum())
        bad = (piece.bid <= 0) | (piece.ask <= 0) | (trades & (piece.last <= 0))
        self._nonpositive += int(bad.sum())
        self._late += int((piece.received_us - times > self.limits.late_s * _US).sum())
        two_sided = (piece.bid > 0) & (piece.ask > 0)
        self._mids.add(times, (piece.bid + piece.ask) / 2, two_sided)
        self._lasts.add(times, piece.last, trades & (piece.last > 0))
        if len(self.edges_us):
            counts = np.diff(np.searchsorted(times, self.edges_us))
            self._hourly = counts if self._hourly is None else self._hourly + counts

    def result(self) -> Coverage:
        """Return what was found; nothing is added any more."""
        quiet = [*self._quiet, Span(self._before_us, _EVER_US)]
        hours = max(len(self.edges_us) - 1, 0)
        return Coverage(
            day=self.day,
            ticks=self._ticks,
            session_ticks=self._session_ticks,
            gaps=gaps_of.gaps(quiet, self.day.open, self._gap_us),
            crossed=self._crossed,
            nonpositive=self._nonpositive,
            outliers=(self._mids or self._lasts).outliers(self.limits.outlier_z),
            late=self._late,
            first_us=self._first_us,
            last_us=self._last_us,
            hourly=np.zeros(hours, np.int64) if self._hourly is None else self._hourly,
        )

    @property
    def _before_us(self) -> int:
        return -_EVER_US if self._last_us is None else self._last_us

    @property
    def _gap_us(self) -> int:
        return round(self.limits.gap_s * _US)


def _inside(times_us: I8, sessions: Sequence[tuple[int, int]]) -> int:
    """Return how many times lie in a session."""
    edges = np.array(sessions, np.int64).reshape(-1)
    return int(np.diff(np.searchsorted(times_us, edges))[::2].sum())
