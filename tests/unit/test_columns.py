"""The bytes of a batch: what went in comes out, and the layout is frozen."""

from __future__ import annotations

import struct
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import TickhubError
from app.market.columns import LAYOUT, Ticks

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=64),
    min_size=1,
    max_size=5,
    unique=True,
)
_DTYPES = {"symbol": np.int32, "flags": np.int32, "time_us": np.int64, "seq": np.int64}

GOLDEN = bytes.fromhex(
    "02000000 0000 0a000000 4e61744761730056 4958"
    " 40e20100c02b0600 41e20100c02b0600"
    " 0000000000000000 ffffffffffffffff"
    " 1f85eb51b81e0940 000000000000f87f"
    " 6666666666660940 000000000000f87f"
    " 000000000000f87f f6285c8fc2f52f40"
    " 0000000000003540 000000000000f87f"
    " 0000000000000000 0000000000000840"
    " 06000000 18000000"
    " 00000000 01000000"
)
"""Two ticks in layout 1: journals of this layout must stay readable."""


@st.composite
def batches(draw: st.DrawFn) -> Ticks:
    names = draw(NAMES)
    n = draw(st.integers(0, 30))

    def column(values: st.SearchStrategy[int] | st.SearchStrategy[float], dtype: type) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=n, max_size=n)), dtype)

    kinds = {"symbol": st.integers(0, len(names) - 1), "flags": INT32, "time_us": INT64, "seq": INT64}
    found = {
        f.name: column(kinds.get(f.name, st.floats(allow_nan=True)), _DTYPES.get(f.name, np.float64))
        for f in fields(Ticks)
        if f.name != "names"
    }
    return Ticks(names=names, **found)


def same(one: Ticks, other: Ticks) -> bool:
    return one.names == other.names and all(
        getattr(one, f.name).tobytes() == getattr(other, f.name).tobytes()
        and getattr(one, f.name).dtype == getattr(other, f.name).dtype
        for f in fields(Ticks)
        if f.name != "names"
    )


@given(batches())
def test_what_is_encoded_is_decoded_bit_for_bit(ticks: Ticks) -> None:
    payload = ticks.encode()
    assert same(Ticks.decode(payload), ticks)
    assert same(Ticks.decode(memoryview(payload), LAYOUT), ticks)


def test_layout_1_stays_what_it_is() -> None:
    nan = float("nan")
    ticks = Ticks(
        names=["NatGas", "VIX"],
        symbol=np.array([0, 1], np.int32),
        time_us=np.array([0x00062BC00001E240, 0x00062BC00001E241]),
        seq=np.array([0, -1]),
        bid=np.array([3.14, nan]),
        ask=np.array([3.175, nan]),
        last=np.array([nan, 15.98]),
        spread=np.array([21.0, nan]),
        volume=np.array([0.0, 3.0]),
        flags=np.array([6, 24], np.int32),
    )
    encoded = ticks.encode()
    assert (encoded[:4] + b"\0\0" + encoded[6:]).hex() == GOLDEN.hex()
    assert same(Ticks.decode(GOLDEN), ticks)
    assert same(Ticks.decode(GOLDEN[:4] + b"\xff\xff" + GOLDEN[6:]), ticks), "nobody reads these two bytes"


def test_a_columns_dtype_is_that_of_the_layout_whatever_was_given() -> None:
    ones = np.ones(3)
    ticks = Ticks(["A"], *(np.zeros(3) for _ in range(3)), ones, ones, ones, ones, ones, ones)
    again = Ticks.decode(ticks.encode())
    assert again.symbol.dtype == again.flags.dtype == np.int32
    assert again.time_us.dtype == again.seq.dtype == np.int64
    assert again.flags.tolist() == [1, 1, 1]


def test_a_layout_of_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(TickhubError, match="layout 2"):
        Ticks.decode(GOLDEN, 2)


def test_a_payload_that_is_cut_is_no_shorter_batch() -> None:
    for cut in range(len(GOLDEN)):
        with pytest.raises((ValueError, struct.error)):
            Ticks.decode(GOLDEN[:cut])
