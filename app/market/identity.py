"""The identity of a tick that was sent without `seq`: a negative number derived from its content.

FROZEN: the numbers are in databases. Every constant and step here decides them, and another number for the
same tick would store a resent tick twice. The golden values of the tests hold it in place.

The derivation of one tick, in 64-bit unsigned arithmetic:

    words = symbol, time_us, bid, ask, last, volume, flags
    h     = mix(sum of mix(word ^ its key) + occurrence * 0x9E3779B97F4A7C15)
    seq   = -(h >> 1) - 1

symbol: blake2b, 8 bytes, little-endian, of the upper-cased name in UTF-8. Prices and volume: the bits of the
float64, -0.0 as 0.0, every NaN (absent) as one. time_us and flags: two's complement. mix: the finaliser of
splitmix64 (Steele, Lea, Flood 2014). It is a bijection, so ticks that differ in one field never share `h`.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from app.market.columns import F8, I4, I8

U8 = npt.NDArray[np.uint64]

# The first digits of pi's fraction: numbers with no pattern in them, chosen by nobody.
_KEYS: U8 = np.array(
    [
        [0x243F6A8885A308D3],
        [0x13198A2E03707344],
        [0xA4093822299F31D0],
        [0x082EFA98EC4E6C89],
        [0x452821E638D01377],
        [0xBE5466CF34E90C6C],
        [0xC0AC29B7C97C50DD],
    ],
    np.uint64,
)
_OCCURRENCE = np.uint64(0x9E3779B97F4A7C15)
_ABSENT = np.uint64(0x7FF8000000000000)

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S1, _S2, _S3, _ONE = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(1)


def derive_seq(
    names: list[str], symbol: I4, time_us: I8, bid: F8, ask: F8, last: F8, volume: F8, flags: I4
) -> I8:
    """Return the derived `seq` of each tick of one batch: int64[n], all negative.

    names: canonical symbol names; symbol: int32[n], index into names. time_us: int64[n], UTC microseconds.
    bid, ask, last, volume: float64[n], NaN where absent. flags: int32[n].

    Ticks equal in all of these are told apart by their occurrence in the batch: 0 for the first, 1 for the
    next. So a tick's number depends on the tick and the equal ones before it, on nothing else in the batch.
    A batch sent again gets the same numbers. A part of it gets numbers that the whole got: of k equal ticks,
    a part with j of them gets those of the first j. Equal ticks split over two batches get one number and
    count as a resend; who wants both kept gives `seq`.
    """
    words = _words(names, symbol, time_us, bid, ask, last, volume, flags)
    sums = _mix(words ^ _KEYS).sum(axis=0, dtype=np.uint64)
    _add_occurrences(sums, words)
    hashed = _mix(sums)
    hashed >>= _ONE
    return np.invert(hashed.view(np.int64))


def seq_of(
    names: list[str], symbol: I4, time_us: I8, bid: F8, ask: F8, last: F8, volume: F8, flags: I4, occurrence: I8
) -> I8:
    """Return the derived `seq` of ticks whose occurrence among equal ones is known: int64[n], from 0.

    The rest as in `derive_seq`, whose numbers these are.
    """
    sums = _mix(_words(names, symbol, time_us, bid, ask, last, volume, flags) ^ _KEYS).sum(axis=0, dtype=np.uint64)
    sums += occurrence.astype(np.uint64) * _OCCURRENCE
    hashed = _mix(sums)
    hashed >>= _ONE
    return np.invert(hashed.view(np.int64))


def _words(
    names: list[str], symbol: I4, time_us: I8, bid: F8, ask: F8, last: F8, volume: F8, flags: I4
) -> U8:
    """Return the fields as uint64[7, n], equal exactly where the fields are equal."""
    words = np.empty((len(_KEYS), len(time_us)), np.uint64)
    words[0] = np.array([_symbol_word(name) for name in names], np.uint64)[symbol]
    words.view(np.int64)[1] = time_us
    numbers = words[2:6].view(np.float64)
    for row, column in enumerate((bid, ask, last, volume)):
        np.add(column, 0.0, out=numbers[row])  # -0.0 + 0.0 is 0.0
    words[2:6][np.isnan(numbers)] = _ABSENT
    words.view(np.int64)[6] = flags
    return words


@lru_cache(maxsize=4096)  # a batch names the same few symbols again and again
def _symbol_word(name: str) -> int:
    return int.from_bytes(blake2b(name.upper().encode(), digest_size=8).digest(), "little")


def _mix(x: U8) -> U8:
    """Mix in place, and return it."""
    x ^= x >> _S1
    x *= _M1
    x ^= x >> _S2
    x *= _M2
    x ^= x >> _S3
    return x


def _add_occurrences(sums: U8, words: U8) -> None:
    """Add to each sum what its tick's occurrence among equal ticks is worth; nothing where ticks differ."""
    ranked = np.sort(sums)
    repeated = ranked[1:][ranked[1:] == ranked[:-1]]
    if not len(repeated):
        return
    # Equal ticks have equal sums. The few rows that share one are compared in full, for two different ticks
    # that share a sum must both be the first of their kind. lexsort is stable, so occurrences count in order.
    rows = np.flatnonzero(np.isin(sums, repeated))
    rows = rows[np.lexsort(words[:, rows])]
    ordered = words[:, rows]
    place = np.arange(len(rows))
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    occurrence = place - np.maximum.accumulate(np.where(begins, place, 0))
    sums[rows] += occurrence.astype(np.uint64) * _OCCURRENCE
