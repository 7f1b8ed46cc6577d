"""The board of newest quotes against a plain reading of all ticks, whatever order they come in."""

from __future__ import annotations

import math
import time
from datetime import datetime
from random import Random
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import quote_board
from app.market.quotes import Key, Point, Quote, QuoteRow
from app.market.sessions import Market
from app.market.symbols import Instrument, SymbolMap
from app.quote_board import QuoteBoard
from tests.batches import NAN, Tick, ticks
from tests.quote_model import arrivals, quote

DAY_US = 86_400_000_000
START_US = 1_774_742_400_000_000
"""2026-03-29 00:00 UTC: the night in which the clocks of Europe change."""

INSTRUMENTS = [Instrument("A", digits=2), Instrument("B"), Instrument("OIL", digits=3, nonpositive_ok=True)]
ZONES = [None, "Europe/London", "America/New_York", "Asia/Kathmandu", "America/Havana", "Nowhere/Land"]
MARKETS = [(None, zone) for zone in ZONES] + [("XNYS", None), ("CMES", "Asia/Tokyo"), ("FX", None), ("XHKG", None)]
RECEIVED_US = START_US + 10 * DAY_US
NOWS = ["2026-04-09T15:00", "2026-04-09T21:30", "2026-04-10T02:00", "2026-04-11T15:00"]
"""In hours of New York, between two days of Globex, in hours of Hong Kong, on a Saturday."""


def board(stale_after_s: float = 60.0) -> QuoteBoard:
    known = SymbolMap(INSTRUMENTS)
    return QuoteBoard(lambda: known, stale_after_s)


def accept(found: QuoteBoard, *batches: list[Tick], received_us: int = RECEIVED_US) -> None:
    for batch in batches:
        found.accepted(ticks(batch), received_us)
        received_us += len(batch)


def tick(symbol: str, time_us: int, seq: int) -> Tick:
    """The tick of this identity: a resend is equal in everything."""
    random = Random(f"{symbol} {time_us} {seq}")
    prices = [NAN, NAN, 0.0, -1.5, 9.99, 10.0, 10.01, 10.3]
    return Tick(
        symbol,
        time_us,
        seq,
        bid=random.choice(prices),
        ask=random.choice(prices),
        last=random.choice(prices),
        spread=random.choice([NAN, 7.0]),
        volume=random.choice([0.0, 1.5]),
        flags=random.choice([0, 6, 6, 8, 24, 56, 88, 120]),
    )


TICKS = st.builds(
    tick,
    st.sampled_from(["A", "B", "OIL"]),
    st.sampled_from(
        [
            START_US + day * DAY_US + hour * 3_600_000_000 + us
            for day in (-2, -1, 0, 1)
            for hour in (0, 4, 5, 20, 21, 23)
            for us in (0, 1, 60_000_000)
        ]
    ),
    st.sampled_from([-3, -2, -1, 0, 1]),
)
BATCHES = st.lists(st.lists(TICKS, min_size=1, max_size=4), max_size=8)


@pytest.mark.long
@settings(deadline=None, max_examples=400)
@given(BATCHES, st.sampled_from(MARKETS), st.sets(st.integers(0, 8)), st.integers(1, 9), st.sampled_from(NOWS))
def test_quotes_equal_a_plain_reading_of_all_ticks_in_whatever_order_and_portions_they_come(
    batches: list[list[Tick]], market: Market, read_after: set[int], slice_rows: int, now: str
) -> None:
    exchange, zone = market
    now_us = at(now, "UTC")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quote_board, "time", SimpleNamespace(time_ns=lambda: now_us * 1000))
        patch.setattr(quote_board, "SLICE_ROWS", slice_rows)
        found = board()
        found.loaded([QuoteRow(one.symbol, exchange=exchange, timezone=zone) for one in INSTRUMENTS])
        received_us = RECEIVED_US
        for number, batch in enumerate(batches):
            accept(found, batch, received_us=received_us)
            received_us += len(batch)
            if number in read_after:
                found.get()
        quotes = found.get()
    arrived = arrivals(batches, RECEIVED_US)
    zone = None if zone == "Nowhere/Land" else zone
    expected = [
        quote(one.symbol, arrived, zone, one.digits, one.nonpositive_ok, now_us=now_us, exchange=exchange)
        for one in INSTRUMENTS
    ]
    assert quotes == expected


def test_no_symbol_is_left_out_and_one_without_ticks_has_nulls() -> None:
    found = board()
    nulls = [Quote(name, *[None] * 12, True) for name in ("A", "B", "OIL")]
    assert found.get() == nulls
    accept(found, [Tick("B", START_US, 0)])
    assert [one.bid for one in found.get()] == [None, 10.0, None]
    assert found.get(["OIL", "A"]) == [nulls[2], nulls[0]]
    assert found.get(["NEVER HEARD OF"]) == [Quote("NEVER HEARD OF", *[None] * 12, True)]


def test_the_price_is_the_last_of_an_instrument_that_has_trades_else_the_bid() -> None:
    found = board()
    accept(found, [Tick("A", START_US, 0, bid=10.0, ask=10.5)])
    assert found.get(["A"])[0].price == 10.0
    accept(found, [Tick("A", START_US + 1, 0, bid=10.0, ask=10.5, last=10.2, flags=56, volume=2.0)])
    accept(found, [Tick("A", START_US + 2, 0, bid=11.0, ask=11.5, last=9.0)])  # a stale repeat, of a quote
    (one,) = found.get(["A"])
    assert (one.price, one.bid, one.last, one.flags, one.spread) == (10.2, 11.0, 10.2, 6, 50.0)


def test_a_change_is_that_of_the_decimal_numbers() -> None:
    found = board()
    accept(found, [Tick("A", START_US - 1, 0, bid=10.2)], [Tick("A", START_US, 0, bid=10.3)])
    (one,) = found.get(["A"])
    assert (one.change, one.change_percent) == (0.1, 0.980392)


def test_a_new_day_counts_from_the_last_price_of_the_one_before_also_when_that_comes_late() -> None:
    found = board()
    accept(found, [Tick("A", START_US - 5, 0, bid=10.0)])
    assert found.get(["A"])[0].change == 0.0
    accept(found, [Tick("A", START_US, 0, bid=12.0), Tick("A", START_US + 1, 0, bid=12.5)])
    assert found.get(["A"])[0].change == 2.5
    accept(found, [Tick("A", START_US - 1, 0, bid=11.0)])
    assert found.get(["A"])[0].change == 1.5


def test_of_a_first_day_the_change_counts_from_its_first_price_also_when_that_comes_late() -> None:
    found = board()
    accept(found, [Tick("A", START_US + 5, 0, bid=12.0), Tick("A", START_US + 6, 0, bid=13.0)])
    assert found.get(["A"])[0].change == 1.0
    accept(found, [Tick("A", START_US + 4, 0, bid=11.5)])
    assert found.get(["A"])[0].change == 1.5


def test_a_reference_that_is_not_above_zero_has_no_percentage() -> None:
    found = board()
    accept(found, [Tick("OIL", START_US, 0, bid=-2.0), Tick("OIL", START_US + 1, 0, bid=1.0)])
    (one,) = found.get(["OIL"])
    assert (one.change, one.change_percent) == (3.0, None)


def test_a_resend_of_ticks_without_seq_does_not_move_a_quote_back() -> None:
    first, second = (Tick("A", START_US, seq, bid=bid) for seq, bid in ((-1, 10.0), (-2, 11.0)))
    found = board()
    accept(found, [first], [second])
    assert found.get(["A"])[0].bid == 11.0
    accept(found, [first], received_us=RECEIVED_US + 2)
    assert found.get(["A"])[0].bid == 11.0


def test_a_resend_of_yesterdays_ticks_does_not_move_the_reference_back() -> None:
    first, second = (Tick("A", START_US - 1, seq, bid=bid) for seq, bid in ((-1, 10.0), (-2, 11.0)))
    found = board()
    accept(found, [first, second], [Tick("A", START_US, 0, bid=12.0)])
    assert found.get(["A"])[0].change == 1.0
    accept(found, [first], received_us=RECEIVED_US + 3)
    assert found.get(["A"])[0].change == 1.0


def test_a_quote_is_stale_from_the_timeout_on() -> None:
    now_us = time.time_ns() // 1000
    found = board(stale_after_s=3600)
    accept(found, [Tick("A", now_us - 3000_000_000, 0), Tick("B", now_us - 4000_000_000, 0)])
    assert [one.stale for one in found.get(["A", "B"])] == [False, True]


def point(time_us: int, price: float, order_no: int = 0) -> Point:
    return Point(Key(time_us, order_no), price)


def row(time_us: int, price: float, before: Point | None = None, **changes: Any) -> QuoteRow:
    bid = point(time_us, price)
    values = {"volume": 0.0, "buy_volume": 0.0, "sell_volume": 0.0, "flags": 6}
    return QuoteRow("A", bid=bid, key=bid.key, before=before, **values | changes)


def test_what_the_database_has_and_what_was_accepted_make_one_quote_whichever_comes_first() -> None:
    stored = row(START_US + 5, 10.0, before=point(START_US - 1, 9.5), ask=point(START_US + 5, 10.2))
    newer = Tick("A", START_US + 6, 0, bid=10.5, ask=NAN)
    older = Tick("A", START_US + 4, 0, bid=8.0)
    for batch in ([newer], [newer, older], [older, newer]):
        for load_first in (True, False):
            found = board()
            if load_first:
                found.loaded([stored])
            accept(found, batch)
            if not load_first:
                found.loaded([stored])
            (one,) = found.get(["A"])
            assert (one.bid, one.ask, one.change) == (10.5, 10.2, 1.0)


def test_a_database_that_is_behind_moves_nothing_back() -> None:
    found = board()
    found.loaded([row(START_US + DAY_US, 12.0, before=point(START_US + 5, 10.0))])
    kept = found.get(["A"])
    found.loaded([row(START_US + 5, 10.0, before=point(START_US - 1, 9.0))])
    assert found.get(["A"]) == kept
    found.loaded([QuoteRow("A")])
    assert found.get(["A"]) == kept


def test_a_day_that_the_database_has_not_begun_counts_from_its_last_price() -> None:
    found = board()
    accept(found, [Tick("A", START_US + DAY_US, 0, bid=12.0)])
    found.loaded([row(START_US + 5, 10.0, before=point(START_US - 1, 9.0))])
    assert found.get(["A"])[0].change == 2.0


def test_a_first_day_counts_from_the_first_price_of_the_database() -> None:
    found = board()
    accept(found, [Tick("A", START_US + 6, 0, bid=12.0)])
    found.loaded([row(START_US + 5, 10.0, open=point(START_US + 1, 9.0))])
    assert found.get(["A"])[0].change == 3.0


def test_another_time_zone_makes_other_sessions() -> None:
    found = board()
    at = START_US + 3_600_000_000  # still the day before in New York
    found.loaded([row(at, 12.0, before=point(START_US - 1, 10.0))])
    assert found.get(["A"])[0].change == 2.0
    found.loaded([row(at, 12.0, timezone="America/New_York", before=point(START_US - DAY_US, 9.0))])
    assert found.get(["A"])[0].change == 3.0


def at(text: str, zone: str = "America/New_York") -> int:
    """UTC microseconds of a wall time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**6


def traded_on(exchange: str, zone: str | None = None) -> QuoteBoard:
    """A board that knows where A is traded."""
    found = board()
    found.loaded([QuoteRow("A", exchange=exchange, timezone=zone)])
    return found


def test_a_change_counts_from_the_bell_and_its_auction_not_from_what_is_traded_after_hours() -> None:
    prices = {
        "2026-11-19T15:00:00": 90.0,
        "2026-11-20T15:59:59": 100.0,
        "2026-11-20T16:00:05": 101.0,  # the closing auction
        "2026-11-20T17:30:00": 105.0,  # after hours
        "2026-11-23T07:00:00": 107.0,  # before hours of the next session
        "2026-11-23T09:31:00": 110.0,
    }
    changes = []
    found = traded_on("XNYS")
    for text, price in prices.items():
        accept(found, [Tick("A", at(text), 0, bid=price)])
        changes.append(found.get(["A"])[0].change)
    assert changes == [0.0, 10.0, 11.0, 15.0, 6.0, 9.0]
    # In one batch, and in any order, it is the same.
    for order in (list(prices), list(prices)[::-1]):
        for batches in ([order], [[text] for text in order]):
            found = traded_on("XNYS")
            accept(found, *[[Tick("A", at(text), 0, bid=prices[text]) for text in batch] for batch in batches])
            assert found.get(["A"])[0].change == 9.0


def test_a_week_of_currencies_begins_on_sunday_evening_and_midnight_of_utc_is_nothing() -> None:
    found = traded_on("FX", "Asia/Tokyo")
    changes = []
    for text, price in {
        "2026-11-20T16:59:59": 1.10,
        "2026-11-22T17:00:01": 1.11,
        "2026-11-22T18:59:59": 1.12,
        "2026-11-22T19:00:00": 1.13,  # midnight of UTC
        "2026-11-23T16:59:59": 1.14,
        "2026-11-23T17:00:00": 1.15,
    }.items():
        accept(found, [Tick("A", at(text), 0, bid=price)])
        changes.append(found.get(["A"])[0].change)
    assert changes == [0.0, 0.01, 0.02, 0.03, 0.04, 0.01]


def test_a_row_read_after_hours_says_what_the_next_session_counts_from() -> None:
    evening, morning = at("2026-11-20T17:30:00"), at("2026-11-23T09:31:00")
    closing = point(at("2026-11-20T16:00:05"), 101.0)
    stored = row(evening, 105.0, before=point(at("2026-11-19T15:59:00"), 90.0), exchange="XNYS", closing=closing)
    for load_first in (True, False):
        found = board()
        if load_first:
            found.loaded([stored])
            assert found.get(["A"])[0].change == 15.0
        accept(found, [Tick("A", morning, 0, bid=110.0)])
        if not load_first:
            found.loaded([stored])
        assert found.get(["A"])[0].change == 9.0
    # A price at the bell that the database has not got yet counts.
    found = board()
    found.loaded([QuoteRow("A", exchange="XNYS")])
    accept(found, [Tick("A", at("2026-11-20T16:00:06"), 0, bid=102.0)])
    found.loaded([stored])
    accept(found, [Tick("A", morning, 0, bid=110.0)])
    assert found.get(["A"])[0].change == 8.0
    # Handed on to the next worker it is the same.
    first, second = board(), board()
    first.loaded([stored])
    second.loaded(first.rows(), of_database=False)
    accept(second, [Tick("A", morning, 0, bid=110.0)])
    assert second.get(["A"])[0].change == 9.0


def test_a_quote_is_stale_in_market_hours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = board()
    found.loaded([QuoteRow("A", exchange="XNYS"), QuoteRow("B", exchange="Nowhere"), QuoteRow("OIL", exchange="XNYS")])
    begin_us = at("2026-11-20T09:00:00")
    accept(found, [Tick("A", begin_us, 0), Tick("B", begin_us, 0)])
    stale = {}
    for text in ("2026-11-20T09:00:30", "2026-11-20T09:29:59", "2026-11-20T09:30:00", "2026-11-20T16:00:00"):
        monkeypatch.setattr(quote_board.time, "time_ns", lambda text=text: at(text) * 1000)
        stale[text[11:]] = [one.stale for one in found.get(["A", "B", "OIL"])]
    # OIL never had a quote, which is as stale as can be.
    assert stale == {
        "09:00:30": [False, False, True],
        "09:29:59": [False, True, True],
        "09:30:00": [True, True, True],
        "16:00:00": [False, True, True],
    }


def test_of_one_tick_with_two_contents_the_one_that_the_database_kept_counts() -> None:
    found = board()
    accept(found, [Tick("A", START_US, 5, bid=10.0), Tick("A", START_US, 5, bid=10.4)])
    assert found.get(["A"])[0].bid == 10.0
    accept(found, [Tick("A", START_US, 5, bid=10.5)])
    assert found.get(["A"])[0].bid == 10.0
    stored = row(START_US, 10.2, open=point(START_US, 10.2, 5))
    stored.bid = point(START_US, 10.2, 5)
    stored.key = stored.bid.key
    found.loaded([stored])
    assert found.get(["A"])[0].bid == 10.2


@pytest.mark.long
def test_what_waits_is_bounded_whatever_is_sent() -> None:
    found = board()
    for number in range(3):
        accept(found, [Tick("A", START_US + number * DAY_US + i, 0, bid=10 + i / 1e4) for i in range(2500)])
        assert found._waiting_rows <= quote_board.SLICE_ROWS
    big = [Tick("B", START_US + i, 0, bid=10 + i / 1e4) for i in range(3 * quote_board.SLICE_ROWS + 1)]
    accept(found, big)
    assert found._waiting_rows <= quote_board.SLICE_ROWS
    assert found.get(["B"])[0].bid == big[-1].bid
    assert not math.isnan(found.get(["A"])[0].bid or NAN)


def test_a_symbol_map_that_knows_more_counts_from_then_on() -> None:
    maps = [SymbolMap([Instrument("A")])]
    found = QuoteBoard(lambda: maps[-1], 60.0)
    accept(found, [Tick("A", START_US, 0)])
    assert found.get()[0].spread is None
    maps.append(SymbolMap([Instrument("A", digits=1, nonpositive_ok=True), Instrument("B")]))
    accept(found, [Tick("A", START_US + 1, 0, bid=-1.0)])
    assert [(one.symbol, one.bid, one.spread) for one in found.get()] == [("A", -1.0, 115.0), ("B", None, None)]


def test_what_is_forgotten_comes_back_as_it_is_loaded_and_others_stay() -> None:
    found = board()
    accept(found, [Tick("A", START_US + 9, 0, bid=99.0, ask=99.5), Tick("B", START_US, 0, bid=7.0, ask=7.5)])
    found.forget(["A", "NOBODY"])
    gone, other = found.get(["A", "B"])
    assert (gone.price, gone.bid, gone.flags, other.bid) == (None, None, None, 7.0)
    row = QuoteRow("A", bid=Point(Key(START_US, 0), 10.0), key=Key(START_US, 0), flags=6)
    found.loaded([row])
    assert found.get(["A"])[0].bid == 10.0
