"""Bars and newest values against a plain reading of what they are, tick by tick."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from app.market.bars import (
    RESOLUTIONS_S,
    SIDES,
    BarRows,
    CurrentRows,
    aggregate,
    in_order,
    newest,
    order_keys,
)
from tests.tick_sets import MIDNIGHT_US, NAN, Row, key_of, rows, stored


def _counts(price: float, row: Row) -> bool:
    return not math.isnan(price) and (price > 0 or row.nonpositive_ok)


def _prices(row: Row) -> dict[str, float]:
    found = {}
    if _counts(row.bid, row):
        found["bid"] = row.bid
    if _counts(row.ask, row):
        found["ask"] = row.ask
    if len(found) == 2:
        found["mid"] = (row.bid + row.ask) / 2
    if row.flags & 8 and _counts(row.last, row):
        found["last"] = row.last
    return found


def _units(volume: float) -> int:
    whole = math.floor(volume)
    return whole * 10**8 + round((Decimal(volume) - whole) * 10**8)


def _plain_bars(ticks: list[Row]) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Return the bars by (symbol, resolution, start), one tick at a time in order."""
    bars: dict[tuple[int, int, int], dict[str, Any]] = {}
    for row in sorted(ticks, key=key_of):
        for resolution_s in RESOLUTIONS_S:
            start = row.time_us - row.time_us % (resolution_s * 10**6)
            bar = bars.setdefault(
                (row.symbol_id, resolution_s, start),
                {"ticks": 0, "volume": 0, "buy_volume": 0, "sell_volume": 0},
            )
            bar["ticks"] += 1
            if row.flags & 8:
                bar["volume"] += _units(row.volume)
                bar["buy_volume"] += _units(row.volume) if row.flags & 32 else 0
                bar["sell_volume"] += _units(row.volume) if row.flags & 64 else 0
            prices = _prices(row)
            for side, price in prices.items():
                bar.setdefault(f"{side}_open", price)
                bar.setdefault(f"{side}_open_key", key_of(row))
                bar[f"{side}_high"] = max(bar.get(f"{side}_high", price), price)
                bar[f"{side}_low"] = min(bar.get(f"{side}_low", price), price)
                bar[f"{side}_close"] = price
                bar[f"{side}_close_key"] = key_of(row)
            if "mid" in prices:
                spread = row.ask - row.bid
                bar["spread_min"] = min(bar.get("spread_min", spread), spread)
                bar["spread_max"] = max(bar.get("spread_max", spread), spread)
    return bars


def _as_dicts(found: BarRows) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Return the computed bars in the shape of `_plain_bars`, absent values left out."""
    bars = {}
    for at in range(len(found)):
        bar: dict[str, Any] = {
            "ticks": int(found.ticks[at]),
            "volume": found.volume[at],
            "buy_volume": found.buy_volume[at],
            "sell_volume": found.sell_volume[at],
            "spread_min": float(found.spread_min[at]),
            "spread_max": float(found.spread_max[at]),
        }
        for name in SIDES:
            side = found.sides[name]
            for part in ("open", "high", "low", "close"):
                bar[f"{name}_{part}"] = float(getattr(side, part)[at])
            for part in ("open_key", "close_key"):
                bar[f"{name}_{part}"] = getattr(side, part)[at : at + 1].tobytes()
        absent = [key for key, value in bar.items() if value == bytes(20) or value != value]
        key = (int(found.symbol_id[at]), int(found.resolution_s[at]), int(found.time_us[at]))
        bars[key] = {name: value for name, value in bar.items() if name not in absent}
    return bars


def _plain_current(ticks: list[Row]) -> dict[int, dict[str, Any]]:
    current: dict[int, dict[str, Any]] = {}
    for row in sorted(ticks, key=key_of):
        entry = current.setdefault(row.symbol_id, {})
        for side, price in _prices(row).items():
            entry[side], entry[f"{side}_key"] = price, key_of(row)
        entry.update(
            spread=row.spread, volume=row.volume, flags=row.flags, time_us=row.time_us, key=key_of(row)
        )
        entry["buy_volume"] = row.volume if row.flags & 40 == 40 else 0.0
        entry["sell_volume"] = row.volume if row.flags & 72 == 72 else 0.0
    return current


@settings(deadline=None)
@given(rows())
def test_bars_equal_a_plain_reading_of_the_ticks_in_order(ticks: list[Row]) -> None:
    assert _as_dicts(aggregate(stored(ticks))) == _plain_bars(ticks)


@settings(deadline=None)
@given(rows())
def test_newest_values_equal_a_plain_reading_of_the_ticks_in_order(ticks: list[Row]) -> None:
    found: CurrentRows = newest(stored(ticks))
    expected = _plain_current(ticks)
    assert found.symbol_id.tolist() == sorted(expected)
    for at, symbol_id in enumerate(found.symbol_id.tolist()):
        entry = expected[symbol_id]
        for name in ("bid", "ask", "last"):
            assert float(getattr(found, name)[at]) == pytest.approx(
                entry.get(name, NAN), abs=0, rel=0, nan_ok=True
            )
            assert getattr(found, f"{name}_key")[at : at + 1].tobytes() == entry.get(f"{name}_key", bytes(20))
        for name in ("spread", "volume", "buy_volume", "sell_volume", "flags", "time_us"):
            assert getattr(found, name)[at] == pytest.approx(entry[name], abs=0, rel=0, nan_ok=True)
        assert found.key[at : at + 1].tobytes() == entry["key"]


@given(rows())
def test_order_keys_are_the_documented_bytes(ticks: list[Row]) -> None:
    assert [key.tobytes() for key in order_keys(stored(ticks))] == [key_of(row) for row in ticks]


@given(rows())
def test_ticks_are_put_in_the_order_of_their_keys(ticks: list[Row]) -> None:
    found = in_order(stored(ticks))
    expected = sorted(ticks, key=lambda row: (row.symbol_id, key_of(row)))
    assert found.symbol_id.tolist() == [row.symbol_id for row in expected]
    assert [key.tobytes() for key in order_keys(found)] == [key_of(row) for row in expected]


def test_ticks_that_are_in_order_are_not_copied() -> None:
    ticks = stored([Row(seq=seq) for seq in range(5)])
    assert in_order(ticks) is ticks


def test_bars_come_in_the_order_of_their_key() -> None:
    ticks = stored([Row(symbol_id=s, time_us=MIDNIGHT_US + m * 60_000_000) for s in (2, 1) for m in (70, 0)])
    bars = aggregate(ticks)
    keys = list(zip(bars.symbol_id.tolist(), bars.resolution_s.tolist(), bars.time_us.tolist(), strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 2 * (2 + 2 + 1)


def test_a_quote_volume_and_last_are_stale_repeats_and_count_for_nothing() -> None:
    bars = aggregate(stored([Row(bid=1.0, ask=2.0, last=9.0, volume=7.0, flags=6 | 32 | 64)]), [60])
    assert (bars.volume, bars.buy_volume, bars.sell_volume) == ([0], [0], [0])
    assert np.isnan(bars.sides["last"].open).all()
    assert bars.sides["mid"].close.tolist() == [1.5]


def test_ten_tenths_make_exactly_one() -> None:
    ticks = stored([Row(seq=seq, last=1.0, volume=0.1, flags=56) for seq in range(10)])
    bars = aggregate(ticks)
    assert bars.volume == [10**8] * 3
    assert bars.buy_volume == [10**8] * 3


def test_volumes_beyond_64_bits_are_summed_exactly() -> None:
    ticks = stored([Row(seq=seq, last=1.0, volume=2.0**62, flags=24) for seq in range(8)])
    assert aggregate(ticks, [60]).volume == [2**65 * 10**8]


def test_no_ticks_make_no_bars() -> None:
    assert len(aggregate(stored([]))) == 0
    assert len(newest(stored([]))) == 0
