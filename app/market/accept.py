"""From decoded rows to accepted columns: symbols, clock, rules, identity. Pure; may run on a lane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.market.clock import BrokerClock
from app.market.columns import F8, I4, I8, Mask, Ticks
from app.market.decode import Rejected, Row, Rows, Unset
from app.market.flags import ASK, BID
from app.market.identity import derive_seq
from app.market.symbols import SymbolMap
from app.market.timestamps import MAX_US, MIN_US, numbers_to_us, parse_times

MAX_PRICE = 1e15
MAX_VOLUME = 1e12
"""Beyond these a sender's units are wrong. With volumes up to here, sums over millions of ticks are exact in int64."""

MAX_SEQ = 1 << 52
"""Order keys keep derived ticks behind given ones from here on (docs/receive.md)."""

MAX_FLAGS = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1
WARN_AHEAD_US = 60_000_000

# Bounds of bid, ask, last, spread, volume.
_MOST = np.array([[MAX_PRICE]] * 4 + [[MAX_VOLUME]])
_LEAST = np.array([[-MAX_PRICE]] * 4 + [[0.0]])


@dataclass(slots=True, frozen=True)
class Limits:
    """Which times are taken, UTC microseconds; `oldest` is how the lower one reads in messages."""

    oldest_us: int
    oldest: str
    max_ahead_us: int


@dataclass(slots=True)
class Accepted:
    """The ticks that are taken, the refused rows in order of their index, and rows more than a minute ahead."""

    ticks: Ticks
    rejected: list[Rejected]
    ahead: int
    most_ahead_us: int


def unknown_symbols(rows: Rows, symbols: SymbolMap) -> list[str]:
    """Return the distinct names that the map does not know."""
    return sorted(name for name in {row.symbol for row in rows.rows} if symbols.index(name) < 0)


def accept(
    rows: Rows,
    symbols: SymbolMap,
    clock: BrokerClock,
    limits: Limits,
    now_us: int,
    unknown: Callable[[str], Rejected],
) -> Accepted:
    """Check the rows and make columns of those that pass.

    `unknown(name)` says how a row of an unknown symbol is refused (its index is filled in here).
    """
    refusals = _Refusals(rows)
    kept = rows.rows
    # Times first: a row without one is said to be that, however it was decoded, and never to be sent again later.
    time_us = _times(kept, clock, limits, now_us, refusals)
    names, symbol, nameless = _symbols(kept, symbols)
    if nameless is not None:
        refusals.where(symbol == nameless, lambda row: unknown(row.symbol))
    numbers = np.array(
        [
            [row.bid for row in kept],
            [row.ask for row in kept],
            [row.last for row in kept],
            [row.spread for row in kept],
            [row.volume for row in kept],
        ],
        np.float64,  # None becomes NaN
    )
    flags = _integers([row.flags for row in kept])
    seq, has_seq = _sequence([row.seq for row in kept])
    _check(names, symbol, numbers, flags, seq, symbols, refusals)

    bid, ask, last, spread, volume = numbers
    ticks = Ticks(names, symbol, time_us, seq, bid, ask, last, spread, volume, flags.astype(np.int32))
    if refusals.refused is not None:
        passed = ~refusals.refused
        ticks = _take(ticks, passed)
        has_seq = has_seq[passed] if has_seq is not None else None
    if has_seq is not None:
        # Among themselves: what is derived depends on no row that has its own, or a resend of a part would differ.
        rest = ~has_seq
        columns = (ticks.symbol, ticks.time_us, ticks.bid, ticks.ask, ticks.last, ticks.volume, ticks.flags)
        derived = derive_seq(ticks.names, *(column[rest] for column in columns))  # type: ignore[arg-type]  # of many types
        ticks.seq[rest] = derived
    most_ahead_us = int(ticks.time_us.max(initial=0)) - now_us
    ahead = int((ticks.time_us > now_us + WARN_AHEAD_US).sum()) if most_ahead_us > WARN_AHEAD_US else 0
    return Accepted(ticks, refusals.all(), ahead, most_ahead_us)


def _check(
    names: list[str], symbol: I4, numbers: F8, flags: I8, seq: I8, symbols: SymbolMap, refusals: _Refusals
) -> None:
    """Refuse rows with numbers out of range; one look at all of them first, since nearly all batches are sound."""
    bid, ask, last, spread, volume = numbers
    if ((numbers > _MOST) | (numbers < _LEAST)).any():
        for name, values in (("bid", bid), ("ask", ask), ("last", last), ("spread", spread)):
            refusals.field(np.abs(values) > MAX_PRICE, f"{name} is out of range")
        refusals.field(volume < 0, "volume must not be negative")
        refusals.field(volume > MAX_VOLUME, "volume is out of range")
    if len(flags) and not (flags.min() >= 0 and flags.max() <= MAX_FLAGS):
        refusals.field((flags < 0) | (flags > MAX_FLAGS), "flags is out of range")
    if len(seq) and not (seq.min() >= 0 and seq.max() < MAX_SEQ):
        refusals.field((seq < 0) | (seq >= MAX_SEQ), "seq is out of range")
    if (numbers[:2] <= 0).any():
        allowed = [bool(name) and symbols.instruments[symbols.index(name)].nonpositive_ok for name in names]
        forbidden = ~np.array(allowed, np.bool_)[symbol]
        for name, bit, values in (("bid", BID, bid), ("ask", ASK, ask)):
            wrong = (flags & bit != 0) & (values <= 0) & forbidden
            refusals.field(wrong, f"{name} must be above 0: flags say that it is set")


class _Refusals:
    """Collects refused rows; the first reason of a row counts."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._found = list(rows.rejected)
        self.refused: Mask | None = None
        """bool[n], or None while no row is refused."""

    def where(self, wrong: Mask, reason: Callable[[Row], Rejected]) -> None:
        """Refuse the marked rows, with a reason made of the row."""
        if not wrong.any():
            return
        if self.refused is None:
            self.refused = np.zeros(len(wrong), np.bool_)
        for i in np.flatnonzero(wrong & ~self.refused).tolist():
            found = reason(self._rows.rows[i])
            self._found.append(Rejected(self._rows.index[i], found.code, found.message))
        self.refused |= wrong

    def field(self, wrong: Mask, message: str) -> None:
        """Refuse the marked rows as bad_field."""
        self.where(wrong, lambda _: Rejected(0, "bad_field", message))

    def all(self) -> list[Rejected]:
        return sorted(self._found, key=lambda found: found.index)


def _times(rows: Sequence[Row], clock: BrokerClock, limits: Limits, now_us: int, refusals: _Refusals) -> I8:
    """Return UTC microseconds; refuse what is no time or out of bounds."""
    n = len(rows)
    clocks = [row.time_msc for row in rows]
    plain = _plain_milliseconds(clocks)
    if plain is not None:  # every row on the sender's wall clock, as bridges send it
        us, naive = plain, None
    else:
        us, naive, ok = _mixed_times(rows)
        if not ok.all():
            refusals.where(~ok, _no_time)
    if clock.spec != "UTC" and (naive is None or naive.any()):
        utc_us = clock.to_utc_us(us, np.array([bool(row.fold) for row in rows], np.bool_))
        us = utc_us if naive is None else np.where(naive, utc_us, us)
    if n and (us.min() < limits.oldest_us or us.max() > now_us + limits.max_ahead_us):
        refusals.where(us < limits.oldest_us, lambda _: Rejected(0, "too_old", f"timestamp is before {limits.oldest}"))
        refusals.field(
            us > now_us + limits.max_ahead_us,
            f"timestamp is too far ahead of this server's clock: is tick_timezone ({clock.spec}) the broker's?",
        )
    return us


def _plain_milliseconds(values: list[Any]) -> I8 | None:
    """Return the microseconds of milliseconds that are all integers of the years 1 to 9999, else None."""
    if set(map(type, values)) != {int}:
        return None
    milliseconds = _integers(values)
    if milliseconds.min() < MIN_US // 1000 or milliseconds.max() > MAX_US // 1000:
        return None
    return milliseconds * 1000


def _mixed_times(rows: Sequence[Row]) -> tuple[I8, Mask, Mask]:
    """Return (microseconds, whether on the sender's wall clock, whether it is a time) of rows of any kind."""
    n = len(rows)
    us = np.zeros(n, np.int64)
    naive = np.zeros(n, np.bool_)
    ok = np.ones(n, np.bool_)
    by_msc = np.array([row.time_msc is not Unset and row.time_msc is not None for row in rows], np.bool_)
    texts = np.array([isinstance(row.timestamp, str) for row in rows], np.bool_) & ~by_msc
    numbers = ~by_msc & ~texts
    if by_msc.any():
        us[by_msc], ok[by_msc] = numbers_to_us(_picked(rows, by_msc, "time_msc"), "ms")
        naive |= by_msc
    if texts.any():
        parsed = parse_times(_picked(rows, texts, "timestamp"))
        us[texts], ok[texts], naive[texts] = parsed.us, parsed.ok, parsed.naive
    if numbers.any():
        values = [value if _is_number(value) else np.nan for value in _picked(rows, numbers, "timestamp")]
        us[numbers], ok[numbers] = numbers_to_us(values, "ms")
    return us, naive, ok


def _no_time(row: Row) -> Rejected:
    if row.time_msc is not Unset and row.time_msc is not None:
        return Rejected(0, "bad_field", "time_msc is out of range")
    if row.timestamp is Unset:
        return Rejected(0, "missing_field", "Missing required fields: timestamp")
    if row.timestamp is None:
        return Rejected(0, "bad_field", "timestamp must be a string or a number (milliseconds)")
    return Rejected(0, "bad_field", f"timestamp is not a time: {str(row.timestamp)[:40]!r}")


def _picked(rows: Sequence[Row], mask: Mask, name: str) -> list[Any]:
    if mask.all():
        return [getattr(row, name) for row in rows]
    return [getattr(rows[i], name) for i in np.flatnonzero(mask).tolist()]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _symbols(rows: Sequence[Row], symbols: SymbolMap) -> tuple[list[str], I4, int | None]:
    """Return the canonical names in the batch, each row's index into them, and the index of the unknown ones."""
    sent = [row.symbol for row in rows]
    names: list[str] = []
    position: dict[str, int] = {}
    of_instrument: dict[int, int] = {}
    for spelling in set(sent):
        found = symbols.index(spelling)
        if found not in of_instrument:
            of_instrument[found] = len(names)
            names.append(symbols.names[found] if found >= 0 else "")
        position[spelling] = of_instrument[found]
    return names, np.array([position[name] for name in sent], np.int32), of_instrument.get(-1)


def _sequence(given: list[int | None]) -> tuple[I8, Mask | None]:
    """Return seq, 0 where there is none, and where there is one; None for everywhere."""
    if None not in given:
        return _integers(given), None  # type: ignore[arg-type]  # no None is in it
    has_seq = np.array([value is not None for value in given], np.bool_)
    return _integers([0 if value is None else value for value in given]), has_seq


def _integers(values: list[int]) -> I8:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array([min(max(value, -1), _INT64_MAX) for value in values], np.int64)


def _take(ticks: Ticks, rows: Mask) -> Ticks:
    used, local = np.unique(ticks.symbol[rows], return_inverse=True)
    return Ticks(
        [ticks.names[i] for i in used],
        local.astype(np.int32),
        *(getattr(ticks, name)[rows] for name in ("time_us", "seq", "bid", "ask", "last", "spread", "volume", "flags")),
    )
