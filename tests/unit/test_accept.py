"""Rows to accepted columns: every rule at its boundary, and what the columns hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app.market.accept import (
    MAX_FLAGS,
    MAX_PRICE,
    MAX_SEQ,
    MAX_VOLUME,
    Accepted,
    Limits,
    accept,
    unknown_symbols,
)
from app.market.clock import BrokerClock
from app.market.columns import Ticks
from app.market.decode import Rejected, Row, Rows, decode_batch
from app.market.identity import derive_seq
from app.market.symbols import SEED, Instrument, SymbolMap

NOW_US = 1_768_327_200_000_000  # 2026-01-13T18:00:00Z
NOW_MS = NOW_US // 1000
OLDEST_US = 631_152_000_000_000  # 1990-01-01
LIMITS = Limits(OLDEST_US, "1990-01-01", 86_400_000_000)
SYMBOLS = SymbolMap([*SEED, Instrument("OIL", nonpositive_ok=True)])
GOOD = {
    "symbol": "AAPL",
    "bid": 190.1,
    "ask": 190.2,
    "spread": 10,
    "volume": 0,
    "flags": 6,
    "timestamp": NOW_MS,
}


def row(**changes):
    return GOOD | changes


def take(*rows, clock="UTC", limits=LIMITS, unknown=None) -> Accepted:
    def refuse(name: str) -> Rejected:
        return Rejected(0, "unknown_symbol", f"Unknown symbol: {name}")

    decoded = decode_batch(json.dumps({"ticks": rows}).encode(), 1000)
    return accept(decoded, SYMBOLS, BrokerClock(clock), limits, NOW_US, unknown or refuse)


def refusals(taken: Accepted) -> list[tuple[int, str, str]]:
    return [(found.index, found.code, found.message) for found in taken.rejected]


def test_columns_hold_what_was_sent():
    taken = take(
        row(symbol="tsla.us", last=3.5, seq=4, volume=7, flags=56),
        row(bid=None, ask=None, spread=None, seq=0),
        row(symbol="NatGas", seq=1),
    )
    ticks = taken.ticks
    assert taken.rejected == []
    assert [ticks.names[i] for i in ticks.symbol] == ["TSLA", "AAPL", "NatGas"]
    assert ticks.time_us.tolist() == [NOW_US] * 3
    assert ticks.seq.tolist() == [4, 0, 1]
    assert ticks.volume.tolist() == [7, 0, 0]
    assert ticks.flags.tolist() == [56, 6, 6]
    np.testing.assert_array_equal(ticks.bid, [190.1, np.nan, 190.1])
    np.testing.assert_array_equal(ticks.ask, [190.2, np.nan, 190.2])
    np.testing.assert_array_equal(ticks.spread, [10, np.nan, 10])
    np.testing.assert_array_equal(ticks.last, [3.5, np.nan, np.nan])
    dtypes = [getattr(ticks, name).dtype for name in ("symbol", "time_us", "seq", "bid", "volume", "flags")]
    assert dtypes == [np.int32, np.int64, np.int64, np.float64, np.float64, np.int32]


def test_nothing_makes_empty_columns():
    assert (len(take().ticks), take().rejected) == (0, [])
    all_bad = take(row(symbol="FOO"), row(volume=-1))
    assert (len(all_bad.ticks), len(all_bad.rejected), all_bad.ticks.names) == (0, 2, [])


@pytest.mark.parametrize("spelling", ["AAPL", "aapl", "AAPL.US", "aapl.us", "Aapl.Us"])
def test_an_alias_in_any_case_is_the_name(spelling):
    assert take(row(symbol=spelling)).ticks.names == ["AAPL"]


def test_unknown_symbols_are_refused_and_asked_for_once_each():
    rows = [row(symbol="FOO"), row(), row(symbol="BAR"), row(symbol="FOO")]
    decoded = decode_batch(json.dumps({"ticks": rows}).encode(), 1000)
    assert unknown_symbols(decoded, SYMBOLS) == ["BAR", "FOO"]
    taken = take(*rows)
    assert refusals(taken) == [
        (0, "unknown_symbol", "Unknown symbol: FOO"),
        (2, "unknown_symbol", "Unknown symbol: BAR"),
        (3, "unknown_symbol", "Unknown symbol: FOO"),
    ]
    assert (len(taken.ticks), taken.ticks.names, taken.ticks.symbol.tolist()) == (1, ["AAPL"], [0])


def test_refusals_come_in_the_order_of_the_rows_and_a_row_has_one():
    taken = take(
        row(volume=-1), row(symbol="FOO", volume=-1, flags=-1), row(bid="x"), row(), row(flags=-1, seq=-1), 5
    )
    assert [found[:2] for found in refusals(taken)] == [
        (0, "bad_field"),
        (1, "unknown_symbol"),
        (2, "bad_field"),
        (4, "bad_field"),
        (5, "bad_field"),
    ]
    assert len(taken.ticks) == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("volume", -1e-9, "volume must not be negative"),
        ("volume", MAX_VOLUME * 1.01, "volume is out of range"),
        ("seq", -1, "seq is out of range"),
        ("seq", MAX_SEQ, "seq is out of range"),
        ("seq", 1 << 63, "seq is out of range"),
        ("seq", 1 << 64, "seq is out of range"),
        ("seq", -(1 << 80), "seq is out of range"),
        ("flags", -1, "flags is out of range"),
        ("flags", MAX_FLAGS + 1, "flags is out of range"),
        ("flags", 1 << 70, "flags is out of range"),
        ("bid", MAX_PRICE * 1.01, "bid is out of range"),
        ("ask", -MAX_PRICE * 1.01, "ask is out of range"),
        ("last", 1e300, "last is out of range"),
        ("spread", -1e300, "spread is out of range"),
        ("timestamp", "yesterday", "timestamp is not a time: 'yesterday'"),
        ("timestamp", "2026-02-30T00:00:00Z", "timestamp is not a time: '2026-02-30T00:00:00Z'"),
        ("timestamp", "", "timestamp is not a time: ''"),
        ("timestamp", None, "timestamp must be a string or a number (milliseconds)"),
        ("timestamp", 1e300, "timestamp is not a time: '1e+300'"),
        ("timestamp", 1 << 80, "timestamp is not a time: '1208925819614629174706176'"),
        ("time_msc", 1 << 80, "time_msc is out of range"),
        ("time_msc", 1e300, "time_msc is out of range"),
    ],
)
def test_a_value_out_of_range_costs_its_row_only(field, value, message):
    taken = take(row(seq=1), row(seq=2) | {field: value}, row(seq=3))
    assert refusals(taken) == [(1, "bad_field", message)]
    assert taken.ticks.seq.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volume", 0),
        ("volume", MAX_VOLUME),
        ("seq", 0),
        ("seq", MAX_SEQ - 1),
        ("flags", 0),
        ("flags", 1112),
        ("flags", MAX_FLAGS),
        ("bid", MAX_PRICE),
        ("last", -MAX_PRICE),
        ("last", 0),
        ("spread", -5),
        ("spread", 0),
    ],
)
def test_a_value_at_the_bound_is_taken_as_it_is(field, value):
    taken = take(row() | {field: value})
    assert taken.rejected == []
    assert getattr(taken.ticks, field)[0] == value


def test_a_price_that_flags_say_is_set_must_be_above_zero():
    for name, bit in (("bid", 2), ("ask", 4)):
        message = f"{name} must be above 0: flags say that it is set"
        for flags in (bit, 6, bit | 1024):
            for value in (0, -0.01):
                taken = take(row(flags=flags) | {name: value}, row())
                assert refusals(taken) == [(0, "bad_field", message)]
        assert take(row(flags=6 - bit) | {name: 0}).rejected == []
        assert take(row(flags=bit) | {name: None}).rejected == []


def test_a_row_of_zeros_without_flags_and_a_crossed_quote_are_taken():
    assert take(row(bid=0, ask=0, spread=0, last=0, flags=0)).rejected == []
    assert take(row(bid=0, ask=0, flags=56, last=5, volume=1)).rejected == []
    assert take(row(bid=191, ask=190, spread=-100)).rejected == []


def test_an_instrument_may_allow_prices_of_zero_and_below():
    taken = take(row(symbol="oil", bid=-37.6, ask=0), row(bid=-37.6), row(symbol="FOO", bid=-1))
    assert [(index, code) for index, code, _ in refusals(taken)] == [(1, "bad_field"), (2, "unknown_symbol")]
    assert taken.ticks.names == ["OIL"]


def test_time_is_taken_from_oldest_time_to_the_skew_ahead():
    day_ms = 86_400_000
    taken = take(
        row(timestamp=OLDEST_US // 1000),
        row(timestamp=OLDEST_US // 1000 - 1),
        row(timestamp=NOW_MS + day_ms),
        row(timestamp=NOW_MS + day_ms + 1),
        row(timestamp="0001-01-01T00:00:00Z"),
        row(timestamp="9999-12-31T23:59:59Z"),
    )
    ahead = "timestamp is too far ahead of this server's clock: is tick_timezone (UTC) the broker's?"
    assert refusals(taken) == [
        (1, "too_old", "timestamp is before 1990-01-01"),
        (3, "bad_field", ahead),
        (4, "too_old", "timestamp is before 1990-01-01"),
        (5, "bad_field", ahead),
    ]


def test_rows_more_than_a_minute_ahead_are_counted_where_they_are_taken():
    hours = [row(timestamp=NOW_MS + ms) for ms in (-5000, 60_000, 60_001, 7_200_000)]
    taken = take(*hours, row(timestamp=NOW_MS + 3_600_000, volume=-1), row(timestamp=NOW_MS + 10**9))
    assert (taken.ahead, taken.most_ahead_us) == (2, 7_200_000_000)
    assert len(taken.rejected) == 2


# New York + 7 h: until 8 March 2026 two hours ahead of UTC, then three; back on 1 November at 09:00 on its clock.
@pytest.mark.parametrize(
    ("wall", "fold", "utc"),
    [
        ("2025-03-09T08:59:59.999999", 0, "2025-03-09T06:59:59.999999"),
        ("2025-03-09T09:30:00", 0, "2025-03-09T07:30:00"),  # skipped: the offset before the change
        ("2025-03-09T10:00:00", 0, "2025-03-09T07:00:00"),
        ("2025-11-02T07:59:59.999999", 0, "2025-11-02T04:59:59.999999"),
        ("2025-11-02T08:30:00", 0, "2025-11-02T05:30:00"),
        ("2025-11-02T08:30:00", 1, "2025-11-02T06:30:00"),
        ("2025-11-02T09:00:00", 0, "2025-11-02T07:00:00"),
        ("2025-11-02T09:00:00", 1, "2025-11-02T07:00:00"),
    ],
)
def test_the_brokers_clock_reads_naive_strings_and_time_msc_alike(wall, fold, utc):
    def us(text):
        return np.datetime64(text, "us").astype(int)

    by_string = take(row(timestamp=wall, fold=fold), clock="America/New_York+7h")
    assert by_string.ticks.time_us.tolist() == [us(utc)]
    by_msc = take(row(time_msc=int(us(wall)) // 1000, fold=fold), clock="America/New_York+7h")
    assert by_msc.ticks.time_us.tolist() == [us(utc) // 1000 * 1000]


def test_only_naive_strings_and_time_msc_are_on_the_brokers_clock():
    local, ms = "2026-01-13T12:00:00", 1_768_305_600_000
    taken = take(
        row(timestamp=local),
        row(timestamp=f"{local}Z"),
        row(timestamp=f"{local}+07:00"),
        row(timestamp=ms),
        row(timestamp=ms + 0.5),
        row(time_msc=ms),
        row(time_msc=ms, timestamp="what the sender likes"),
        row(time_msc=None, timestamp=f"{local}Z"),
        row(timestamp=local.replace("-", ".").replace("T", " ")),
        row(timestamp=f"{local}Z", fold=1),
        clock="America/New_York+7h",
    )
    assert taken.rejected == []
    hours = [(us - ms * 1000) / 3.6e9 for us in taken.ticks.time_us.tolist()]
    assert hours == [-2, 0, -7, 0, 500 / 3.6e9, -2, -2, 0, -2, 0]


def test_time_msc_counts_where_both_are_given():
    taken = take(row(time_msc=NOW_MS - 5, timestamp=NOW_MS))
    assert taken.ticks.time_us.tolist() == [NOW_US - 5000]


def test_rows_without_seq_get_a_derived_one_and_the_others_keep_theirs():
    taken = take(row(seq=9), row(), row(), row(bid=191), row(seq=None), row(seq=0))
    seq = taken.ticks.seq.tolist()
    assert (seq[0], seq[5]) == (9, 0)
    assert all(value < 0 for value in seq[1:5])
    assert len(set(seq)) == 6, "equal ticks of one request are told apart by how often they came"
    assert take(row()).ticks.seq[0] == seq[1]
    names = ("symbol", "time_us", "bid", "ask", "last", "volume", "flags")
    columns = (getattr(taken.ticks, name)[1:5] for name in names)
    assert seq[1:5] == derive_seq(taken.ticks.names, *columns).tolist()


def test_a_derived_seq_depends_on_no_refused_row_and_no_spelling():
    alone = take(row(), row(bid=191)).ticks.seq.tolist()
    assert take(row(volume=-1), row(symbol="FOO"), row(), row(bid=191)).ticks.seq.tolist() == alone
    assert take(row(symbol="aapl.us"), row(symbol="AAPL", bid=191)).ticks.seq.tolist() == alone
    assert take(row(symbol="TSLA"), row(), row(bid=191)).ticks.seq.tolist()[1:] == alone


def test_more_names_than_sixteen_bits_count_travel_through_the_journal():
    names = [f"N{number}" for number in range(70_000)]
    rows = [Row(name, 1.0, 2.0, None, 0.0, 6, NOW_MS) for name in names]
    symbols = SymbolMap([Instrument(name) for name in names])
    decoded = Rows(rows, list(range(len(rows))), [], len(rows))
    taken = accept(decoded, symbols, BrokerClock("UTC"), LIMITS, NOW_US, lambda name: Rejected(0, "", name))
    read = Ticks.decode(taken.ticks.encode())
    assert [read.names[i] for i in read.symbol] == names


def test_what_is_said_of_an_unknown_symbol_is_the_callers():
    taken = take(
        row(symbol="FOO"), row(), unknown=lambda name: Rejected(0, "not_ready", f"ask later: {name}")
    )
    assert refusals(taken) == [(0, "not_ready", "ask later: FOO")]
