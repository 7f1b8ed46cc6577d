"""Sets of ticks for tests: few values, so that everything that can coincide does."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from hypothesis import strategies as st

from app.market.columns import StoredTicks

NAN = float("nan")
MIDNIGHT_US = 1_700_006_400_000_000
"""A midnight UTC, so of a minute, an hour and a day."""


@dataclass(frozen=True)
class Row:
    """One stored tick."""

    symbol_id: int = 1
    time_us: int = MIDNIGHT_US
    seq: int = 0
    bid: float = NAN
    ask: float = NAN
    last: float = NAN
    spread: float = NAN
    volume: float = 0.0
    flags: int = 6
    journal_no: int = 1
    received_us: int = MIDNIGHT_US
    row_no: int = 0
    nonpositive_ok: bool = False


_DTYPES = {
    "symbol_id": np.int32,
    "flags": np.int32,
    "journal_no": np.int32,
    "time_us": np.int64,
    "seq": np.int64,
    "received_us": np.int64,
    "row_no": np.int64,
    "nonpositive_ok": np.bool_,
}


def stored(rows: list[Row]) -> StoredTicks:
    """Return the rows as columns."""
    return StoredTicks(
        **{
            f.name: np.array([getattr(row, f.name) for row in rows], _DTYPES.get(f.name, np.float64))
            for f in fields(Row)
        }
    )


_OFFSETS_US = [
    second * 1_000_000 + us for second in (-86_401, -3_600, -60, -1, 0, 59, 60, 3_599, 86_399) for us in (0, 999_999)
]
_PRICES = st.sampled_from([NAN, -1.5, -0.0, 0.0, 0.1, 1.0, 1.1, 2.5, 1e12])
_VOLUMES = st.sampled_from([0.0, 1e-8, 0.1, 0.29999999, 3.0, 12345.678, 1e10, 1e15, 5e17])


@st.composite
def rows(draw: st.DrawFn, max_size: int = 40) -> list[Row]:
    """Draw ticks of distinct identities and order keys; symbol 3 allows prices that are not positive."""
    found = draw(
        st.lists(
            st.builds(
                Row,
                symbol_id=st.integers(1, 3),
                time_us=st.sampled_from(_OFFSETS_US).map(lambda offset: MIDNIGHT_US + offset),
                seq=st.integers(-3, 3),
                bid=_PRICES,
                ask=_PRICES,
                last=_PRICES,
                spread=_PRICES,
                volume=_VOLUMES,
                flags=st.sampled_from([0, 2, 4, 6, 8, 24, 56, 88, 98, 120, 1112]),
                journal_no=st.integers(1, 2),
                received_us=st.integers(0, 3).map(lambda offset: MIDNIGHT_US + offset),
            ),
            max_size=max_size,
            unique_by=(
                lambda row: (row.symbol_id, row.time_us, row.seq),
                lambda row: (row.symbol_id, row.time_us, key_of(row)),
            ),
        )
    )
    return [Row(**{**vars(row), "nonpositive_ok": row.symbol_id == 3}) for row in found]


def key_of(row: Row) -> bytes:
    """Return the order key as the documentation defines it."""
    number, journal_no = (row.seq, 0) if row.seq >= 0 else (2**60 + row.received_us, row.journal_no)
    return row.time_us.to_bytes(8, "big") + number.to_bytes(8, "big") + journal_no.to_bytes(4, "big")


def us_of(day: int, second: float = 0) -> int:
    """Return a time by its day and second since MIDNIGHT_US."""
    return MIDNIGHT_US + round((day * 86_400 + second) * 1_000_000)


def ticks_of_two_symbols(seed: int, seconds: range, count: int = 400) -> list[Row]:
    """Return ticks of symbols 1 and 2 at these seconds of six days, many at one time, given seqs and derived ones."""
    random = np.random.default_rng(seed)
    identities = {
        (
            int(random.integers(1, 3)),
            us_of(int(random.integers(-3, 3)), seconds[int(random.integers(0, len(seconds)))]),
            int(seq),
        )
        for seq in random.integers(-5, 20, count)
    }
    return [
        Row(
            symbol_id=symbol_id,
            time_us=time_us,
            seq=seq,
            bid=float(random.choice([NAN, 0.0, 1.5, 2.5, 3.25])),
            ask=float(random.choice([NAN, 0.0, 1.75, 2.25])),
            last=float(random.choice([NAN, 2.0, 1.0])),
            spread=float(random.choice([NAN, 25.0])),
            volume=float(random.choice([0.0, 0.1, 7.0])),
            flags=int(random.choice([0, 6, 24, 56, 88])),
            journal_no=seed + 1,
            received_us=MIDNIGHT_US + seed * 10**6 + number,
        )
        for number, (symbol_id, time_us, seq) in enumerate(sorted(identities))
    ]
