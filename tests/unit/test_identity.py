"""The identity of ticks sent without seq: frozen, repeatable, and never shared by two different ticks."""

from __future__ import annotations

import struct
from hashlib import blake2b
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.identity import _add_occurrences, derive_seq

NOON = 1_768_305_600_000_000
EVENING = 1_768_326_883_123_000

GOLDEN: list[tuple[str, int, float, float, float, float, int, int, int]] = [
    ("AAPL", NOON, 261.05, 261.07, nan, 0.0, 6, 0, -2_932_505_977_360_851_880),
    ("AAPL", NOON, 261.05, 261.07, nan, 0.0, 6, 1, -5_541_044_537_173_693_299),
    ("AAPL", NOON, 261.05, 261.07, nan, 0.0, 6, 2, -5_027_695_614_795_936_443),
    ("AAPL", NOON, 261.05, 261.07, nan, 0.0, 6, 100, -4_271_972_503_491_777_309),
    ("AAPL", NOON + 1, 261.05, 261.07, nan, 0.0, 6, 0, -7_181_361_583_436_503_164),
    ("AAPL", NOON, 261.06, 261.07, nan, 0.0, 6, 0, -2_264_518_916_573_004_010),
    ("AAPL", NOON, 261.05, 261.08, nan, 0.0, 6, 0, -8_877_580_802_849_897_546),
    ("AAPL", NOON, 261.05, 261.07, 0.0, 0.0, 6, 0, -7_221_236_156_843_993_927),
    ("AAPL", NOON, 261.05, 261.07, nan, nan, 6, 0, -3_893_195_638_934_993_821),
    ("AAPL", NOON, 261.05, 261.07, nan, 1.0, 6, 0, -6_790_473_274_491_407_543),
    ("AAPL", NOON, 261.05, 261.07, nan, 0.0, 2, 0, -6_584_778_146_556_308_412),
    ("AAPL", NOON, 261.07, 261.05, nan, 0.0, 6, 0, -1_548_363_755_387_599_562),
    ("TSLA", NOON, 261.05, 261.07, nan, 0.0, 6, 0, -8_251_042_451_232_331_045),
    ("tsla", NOON + 1, 261.05, 261.07, nan, 0.0, 6, 0, -4_300_659_366_130_131_211),
    ("NatGas", EVENING, 3.141, 3.144, nan, 0.0, 6, 0, -8_220_808_814_568_874_146),
    ("SpotCrude", EVENING, -37.63, -37.6, nan, 0.0, 134, 0, -7_506_127_575_224_450_713),
    ("NAS100", 1_768_326_883_123_456, 25741.3, nan, nan, 0.0, 2, 0, -2_236_038_161_000_477_129),
    ("NAS100", 1_768_326_883_123_456, nan, 25742.8, nan, 0.0, 4, 0, -8_098_457_986_154_712_275),
    ("VIX", 1_768_326_883_000_000, nan, nan, 15.98, 0.0, 8, 0, -5_027_964_441_092_181_387),
    ("SPY", 1_381_239_000_000_000, nan, nan, 167.42, 100.0, 24, 0, -3_086_335_301_326_910_389),
    ("SPY", 1_381_239_000_000_000, nan, nan, 167.42, 100.0, 24, 1, -437_264_643_799_604_333),
    ("SPY", 1_381_239_000_000_000, nan, nan, 167.42, 100.0, 56, 0, -4_277_828_096_867_899_895),
    ("SPY", 1_381_239_000_000_000, nan, nan, 167.42, 100.0, 88, 0, -2_961_300_002_769_377_890),
    ("WINJ26", EVENING, 131250.0, 131255.0, 131255.0, 3.0, 1_112, 0, -1_566_320_585_720_058_605),
    ("BTCUSD", EVENING, 91234.56, 91234.57, 91234.57, 0.00012345, 120, 0, -3_624_945_599_795_944_779),
    ("XAUUSD", 0, 0.0, 0.0, 0.0, 0.0, 0, 0, -4_100_676_306_791_071_784),
    ("XAUUSD", -1, nan, nan, nan, nan, 0, 0, -1_357_141_885_006_890_322),
    (
        "XAUUSD",
        253_402_300_799_999_999,
        1e308,
        5e-324,
        -1e308,
        9007199254740992.0,
        2_147_483_647,
        0,
        -9_143_263_317_239_714_675,
    ),
    ("XAUUSD", -62_135_596_800_000_000, inf, -inf, nan, inf, -2_147_483_648, 0, -3_193_230_976_229_205_598),
    ("XAUUSD", NOON, -0.0, -0.0, -0.0, -0.0, -1, 0, -6_795_312_163_379_415_899),
    ("ÖL.DE", NOON, 71.5, 71.52, nan, 0.0, 6, 0, -8_210_343_298_751_946_340),
    ("", NOON, 1.0, 1.0, 1.0, 1.0, 1, 0, -4_253_833_246_346_672_652),
]
"""name, time_us, bid, ask, last, volume, flags, occurrence, and the seq that this tick has for ever.

These values may never change. They are the identity under which ticks are stored: were the derivation to give
another number for one of them, a sender that repeats a batch after an upgrade would have its ticks stored
twice. A derivation that must differ needs a new name beside this one, and stored rows keep the old. So a red
test here means: undo the change, never edit the table.
"""

FIELDS = ("bid", "ask", "last", "volume")


def columns(rows):
    """The arguments of derive_seq for rows of (name, time_us, bid, ask, last, volume, flags)."""
    names = list(dict.fromkeys(row[0] for row in rows))
    return {
        "names": names,
        "symbol": np.array([names.index(row[0]) for row in rows], np.int32),
        "time_us": np.array([row[1] for row in rows], np.int64),
        **{field: np.array([row[2 + k] for row in rows], np.float64) for k, field in enumerate(FIELDS)},
        "flags": np.array([row[6] for row in rows], np.int32),
    }


def seqs(rows):
    return derive_seq(**columns(rows)).tolist()


def by_hand(name, time_us, bid, ask, last, volume, flags, occurrence=0):
    """The derivation written a second time: one tick, Python's own integers."""
    keys = (
        0x243F6A8885A308D3,
        0x13198A2E03707344,
        0xA4093822299F31D0,
        0x082EFA98EC4E6C89,
        0x452821E638D01377,
        0xBE5466CF34E90C6C,
        0xC0AC29B7C97C50DD,
    )
    full = (1 << 64) - 1

    def mix(x):
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & full
        x = (x ^ x >> 27) * 0x94D049BB133111EB & full
        return x ^ x >> 31

    def bits(x):
        return 0x7FF8000000000000 if isnan(x) else struct.unpack("<Q", struct.pack("<d", x or 0.0))[0]

    symbol = int.from_bytes(blake2b(name.upper().encode(), digest_size=8).digest(), "little")
    words = (symbol, time_us & full, bits(bid), bits(ask), bits(last), bits(volume), flags & full)
    total = sum(mix(word ^ key) for word, key in zip(words, keys, strict=True))
    return -(mix((total + occurrence * 0x9E3779B97F4A7C15) & full) >> 1) - 1


PRICE = st.one_of(st.just(nan), st.just(-0.0), st.integers(1, 40).map(lambda x: 100 + x / 100), st.floats())
TICK = st.tuples(
    st.sampled_from(["AAPL", "NAS100", "NatGas", "ÖL"]),
    st.integers(NOON, NOON + 3) | st.integers(-(2**62), 2**62),
    *[PRICE] * 4,
    st.sampled_from([0, 2, 4, 6, 56, 1112, -1]),
)
BATCH = st.lists(TICK, max_size=12).flatmap(
    lambda ticks: st.lists(st.sampled_from(ticks), max_size=24) if ticks else st.just([])
)


def content(row):
    """What makes two ticks equal: NaN equals NaN, -0.0 equals 0.0."""
    return tuple("absent" if isinstance(x, float) and isnan(x) else x for x in row)


def with_occurrences(rows):
    seen: dict[tuple, int] = {}
    for row in rows:
        key = content(row)
        yield row, seen.setdefault(key, 0)
        seen[key] += 1


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case[0]}-{case[-1]}")
def test_the_identity_of_a_tick_never_changes(case):
    *tick, occurrence, seq = case
    assert seqs([tuple(tick)] * (occurrence + 1))[occurrence] == seq


def test_the_frozen_ticks_keep_their_identity_in_one_batch_in_any_order():
    rows = [tuple(case[:7]) for case in GOLDEN if case[7] == 0]
    expected = [case[8] for case in GOLDEN if case[7] == 0]
    assert seqs(rows) == expected
    assert seqs(rows[::-1]) == expected[::-1]


@settings(max_examples=300, deadline=None)
@given(BATCH)
def test_a_batch_is_identified_as_its_ticks_are_one_by_one(rows):
    expected = [by_hand(*row, occurrence) for row, occurrence in with_occurrences(rows)]
    answer = seqs(rows)
    assert answer == expected
    assert all(-(2**63) <= seq < 0 for seq in answer)


@settings(max_examples=300, deadline=None)
@given(BATCH)
def test_all_ticks_of_a_batch_have_seqs_of_their_own(rows):
    assert len(set(seqs(rows))) == len(rows)


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(BATCH, st.randoms(use_true_random=False))
def test_another_order_gives_each_tick_what_it_had(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)

    def by_content(batch):
        answer: dict[tuple, list[int]] = {}
        for row, seq in zip(batch, seqs(batch), strict=True):
            answer.setdefault(content(row), []).append(seq)
        return answer

    assert by_content(shuffled) == by_content(rows)


@settings(max_examples=300, deadline=None)
@given(BATCH, st.data())
def test_a_part_of_a_batch_sent_again_brings_nothing_new(rows, data):
    part = [row for row in rows if data.draw(st.booleans())]
    assert set(seqs(part)) <= set(seqs(rows))
    assert seqs(rows) == seqs(rows)


@settings(max_examples=300, deadline=None)
@given(TICK, TICK, st.integers(0, 6))
def test_a_difference_in_any_field_is_another_identity(tick, other, field):
    changed = tuple(other[field] if k == field else value for k, value in enumerate(tick))
    same = content(changed) == content(tick)
    assert (seqs([tick]) == seqs([changed])) == same
    swapped = (*tick[:2], tick[3], tick[2], *tick[4:])
    assert (seqs([tick]) == seqs([swapped])) == (content(swapped) == content(tick))


def test_case_zero_signs_and_kinds_of_nan_are_no_differences():
    tick = ("NatGas", NOON, 0.0, nan, nan, 0.0, 6)
    odd_nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_1234))[0]
    assert seqs([tick]) == seqs([("NATGAS", NOON, -0.0, odd_nan, -nan, -0.0, 6)])
    assert seqs([tick]) != seqs([("NatGas", NOON, nan, nan, nan, 0.0, 6)])


def test_one_symbol_under_two_indices_is_one_symbol():
    arguments = columns([("AAPL", NOON, 1.0, 2.0, nan, 0.0, 6)] * 2)
    twice = {**arguments, "names": ["AAPL", "aapl"], "symbol": np.array([0, 1], np.int32)}
    assert derive_seq(**twice).tolist() == derive_seq(**arguments).tolist()


def test_an_empty_batch_has_no_seqs():
    answer = derive_seq(**columns([]))
    assert answer.dtype == np.int64
    assert len(answer) == 0


def test_the_columns_of_the_caller_stay_as_they_were():
    arguments = columns([("AAPL", NOON, -0.0, nan, nan, 0.0, 6)] * 3)
    for column in arguments.values():
        if isinstance(column, np.ndarray):
            column.setflags(write=False)
    assert np.signbit(arguments["bid"]).all()
    derive_seq(**arguments)


def test_two_ticks_that_share_a_sum_are_both_the_first_of_their_kind():
    words = np.zeros((7, 6), np.uint64)
    words[2] = [1, 2, 1, 2, 1, 3]
    sums = np.array([50, 50, 50, 50, 50, 60], np.uint64)
    _add_occurrences(sums, words)
    assert sums.tolist() == [
        (start + n * 0x9E3779B97F4A7C15) % 2**64
        for start, n in [(50, 0), (50, 0), (50, 1), (50, 1), (50, 2), (60, 0)]
    ]


@pytest.mark.long
def test_a_million_neighbours_on_a_grid_have_a_million_identities():
    n = 1_000_000
    row = np.arange(n)
    arguments = {
        "names": ["XAUUSD", "XAUEUR"],
        "symbol": (row % 2).astype(np.int32),
        "time_us": NOON + row // 1000 * 1000,
        "bid": np.round(1300 + (row // 2 % 25) * 0.01, 2),
        "ask": np.round(1300.1 + (row // 50 % 20) * 0.01, 2),
        "last": np.full(n, nan),
        "volume": np.zeros(n),
        "flags": np.full(n, 6, np.int32),
    }
    answer = derive_seq(**arguments)
    assert len(np.unique(answer)) == n
    # Every bit is set in about half of them: 6 standard deviations of a fair coin are 0.3 %.
    share = np.unpackbits(answer.view(np.uint8).reshape(n, 8), axis=1).mean(axis=0)
    sign = 56  # little-endian: the first bit of the last byte, set in all
    assert share[sign] == 1
    assert np.abs(np.delete(share, sign) - 0.5).max() < 0.003
