"""Quotes as the database has them, against a plain reading of all ticks; and the board beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from random import Random
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from psycopg2.extensions import connection as PgConnection

from app import quote_board
from app.market.quotes import Quote, QuoteRow, quotes_of
from app.market.symbols import SymbolMap
from app.quote_board import QuoteBoard
from app.storage.connection import Connection
from app.storage.instruments import read_instruments
from app.storage.quote_reader import QuoteReader
from app.storage.sink import DatabaseSink
from tests.batches import NAN, NOON_US, Feeder, Tick, execute, ticks, write_all
from tests.quote_model import arrivals, quote

DAY_US = 86_400_000_000
NOW_US = 1 << 60
"""Beyond all calendars, so always in market hours."""


READER = QuoteReader()
"""Of all tests: what it remembers of one database is wrong for the next."""


def rows_of(own: Connection, symbols: Sequence[str] | None) -> list[QuoteRow]:
    with own.looking(10.0) as cur:
        return READER.read(cur, symbols)


def read(own: Connection, symbols: Sequence[str] | None = None, now_us: int = NOW_US) -> list[Quote]:
    return quotes_of(rows_of(own, symbols), now_us, 60.0)


def zone(conn: PgConnection, name: str, symbol: str = "TSLA") -> None:
    execute(conn, f"UPDATE instruments SET timezone = '{name}' WHERE symbol = '{symbol}'")


def exchange(conn: PgConnection, name: str, symbol: str = "TSLA") -> None:
    execute(conn, f"UPDATE instruments SET exchange = '{name}' WHERE symbol = '{symbol}'")


def at(text: str, name: str) -> int:
    """UTC microseconds of a wall time; of a repeated one the first."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp()) * 10**6


def test_all_are_read_by_name_and_some_in_the_order_asked_for(own: Connection, sink: DatabaseSink) -> None:
    write_all(sink, Feeder(), [Tick()])
    everything = read(own)
    assert [one.symbol for one in everything] == sorted(one.symbol for one in read_instruments(own))
    assert [one.symbol for one in everything if one.bid is not None] == ["TSLA"]
    some = read(own, ["TSLA", "NO SUCH", "AAPL"])
    assert [(one.symbol, one.price) for one in some] == [("TSLA", 10.0), ("AAPL", None)]
    assert read(own, []) == []


def test_without_ticks_a_quote_is_nulls(own: Connection) -> None:
    assert read(own, ["TSLA"]) == [Quote("TSLA", *[None] * 12, True)]


def test_a_first_session_counts_from_its_first_price(own: Connection, sink: DatabaseSink) -> None:
    rows = [Tick(time_us=NOON_US + minute * 60_000_000, bid=10.0 + minute) for minute in range(5)]
    write_all(sink, Feeder(), rows)
    (found,) = read(own, ["TSLA"])
    assert (found.price, found.change, found.change_percent) == (14.0, 4.0, 40.0)


@pytest.mark.parametrize("days", [1, 3, 200])
def test_a_session_counts_from_the_last_price_before_it_however_long_ago(
    own: Connection, sink: DatabaseSink, days: int
) -> None:
    old = NOON_US - days * DAY_US
    write_all(sink, Feeder(), [Tick(time_us=old, bid=8.0), Tick(time_us=old + 1, bid=9.0), Tick()])
    (found,) = read(own, ["TSLA"])
    assert (found.change, found.change_percent) == (1.0, 11.111111)


# Each with the last instant of the session before, and the first of the newest one.
EDGES = [
    ("America/New_York", "2026-01-12T23:59:59", "2026-01-13T00:00:00"),
    ("Asia/Kolkata", "2026-01-12T23:59:59", "2026-01-13T00:00:00"),
    ("Asia/Kathmandu", "2026-01-12T23:59:59", "2026-01-13T00:00:00"),
    ("America/New_York", "2026-03-07T23:59:59", "2026-03-08T00:00:00"),  # 23 hours
    ("America/New_York", "2026-03-08T23:59:59", "2026-03-09T00:00:00"),
    ("America/New_York", "2026-11-01T23:59:59", "2026-11-02T00:00:00"),  # after 25 hours
    ("Australia/Lord_Howe", "2026-04-05T23:59:59", "2026-04-06T00:00:00"),
    ("America/Havana", "2026-10-31T23:59:59", "2026-11-01T00:00:00"),  # midnight comes twice
    ("Asia/Beirut", "2026-03-28T23:59:59", "2026-03-29T01:00:00"),  # there is no midnight
]


@pytest.mark.parametrize(("name", "end", "start"), EDGES)
def test_a_session_is_a_calendar_day_of_the_exchange(
    own: Connection, conn: PgConnection, sink: DatabaseSink, name: str, end: str, start: str
) -> None:
    zone(conn, name)
    end_us, start_us = at(end, name), at(start, name)
    assert start_us - end_us == 1_000_000
    feeder = Feeder()
    write_all(sink, feeder, [Tick(time_us=end_us - 3_600_000_000, bid=7.0), Tick(time_us=end_us, bid=8.0)])
    write_all(sink, feeder, [Tick(time_us=start_us, bid=10.0)])
    assert read(own, ["TSLA"])[0].change == 2.0
    write_all(sink, feeder, [Tick(time_us=start_us + 20 * 3_600_000_000, bid=11.0)])
    assert read(own, ["TSLA"])[0].change == 3.0


NEW_YORK, CHICAGO = "America/New_York", "America/Chicago"

# Each with prices in order, and the change at each of them.
SESSIONS = [
    (
        "XNYS",
        NEW_YORK,
        [
            ("2026-11-19T15:00:00", 90.0, 0.0),
            ("2026-11-20T15:59:59", 100.0, 10.0),
            ("2026-11-20T16:00:05", 101.0, 11.0),  # the closing auction
            ("2026-11-20T17:30:00", 105.0, 15.0),  # after hours: still against Thursday
            ("2026-11-22T12:00:00", 106.0, 16.0),  # a Sunday is of the session before it
            ("2026-11-23T07:00:00", 107.0, 6.0),  # before hours: against Friday's auction
            ("2026-11-23T09:31:00", 110.0, 9.0),
            ("2026-11-25T15:00:00", 120.0, 10.0),  # no price on Tuesday
            ("2026-11-26T15:00:00", 121.0, 11.0),  # a holiday
            ("2026-11-27T13:00:30", 125.0, 5.0),  # a short session, at its bell
            ("2026-11-27T14:00:00", 130.0, 10.0),
            ("2026-11-30T10:00:00", 131.0, 6.0),
        ],
    ),
    (
        "CME",
        CHICAGO,
        [
            ("2026-11-20T15:59:59", 100.0, 0.0),
            ("2026-11-22T17:00:00", 102.0, 2.0),  # Sunday evening
            ("2026-11-22T18:00:00", 103.0, 3.0),  # midnight of UTC
            ("2026-11-23T00:00:00", 104.0, 4.0),
            ("2026-11-23T15:59:00", 105.0, 5.0),
            ("2026-11-23T17:00:00", 107.0, 2.0),
        ],
    ),
    (
        "FX",
        NEW_YORK,
        [
            ("2026-10-30T16:59:59", 1.10, 0.0),
            ("2026-11-01T17:00:00", 1.11, 0.01),  # the day on which clocks change
            ("2026-11-01T19:00:00", 1.12, 0.02),  # midnight of UTC
            ("2026-11-02T16:59:59", 1.13, 0.03),
            ("2026-11-02T17:00:00", 1.15, 0.02),
        ],
    ),
    (
        "XHKG",
        "Asia/Hong_Kong",
        [
            ("2026-11-19T15:59:00", 50.0, 0.0),
            ("2026-11-20T11:59:00", 51.0, 1.0),
            ("2026-11-20T13:01:00", 52.0, 2.0),  # lunch is no end
            ("2026-11-23T09:31:00", 53.0, 1.0),
        ],
    ),
]


@pytest.mark.parametrize(("name", "local", "prices"), SESSIONS, ids=[one[0] for one in SESSIONS])
def test_a_change_counts_from_the_close_of_the_exchanges_session_before(
    own: Connection,
    conn: PgConnection,
    sink: DatabaseSink,
    name: str,
    local: str,
    prices: list[tuple[str, float, float]],
) -> None:
    exchange(conn, name)
    zone(conn, "Asia/Tokyo")  # the exchange's calendar goes first
    feeder = Feeder()
    instruments = SymbolMap(read_instruments(own))
    told = QuoteBoard(lambda: instruments, 60.0)
    for text, price, change in prices:
        write_all(sink, feeder, [Tick(time_us=at(text, local), bid=price)])
        assert read(own, ["TSLA"])[0].change == change, text
        told.loaded(rows_of(own, ["TSLA"]))
        assert told.get(["TSLA"])[0].change == change, text
    # Whoever read one row alone knows what the tick after it counts from.
    written = [Tick(time_us=at(text, local), bid=price) for text, price, _ in prices]
    for number, (text, _, change) in enumerate(prices[1:], 1):
        execute(conn, "DELETE FROM bars", "DELETE FROM current", "DELETE FROM ticks")
        write_all(sink, Feeder(), written[:number])
        fresh = QuoteBoard(lambda: instruments, 60.0)
        fresh.loaded(rows_of(own, ["TSLA"]))
        fresh.accepted(ticks([written[number]]), feeder.received_us)
        assert fresh.get(["TSLA"])[0].change == change, text


def test_an_exchange_that_is_not_known_takes_no_quote_away(
    own: Connection, conn: PgConnection, sink: DatabaseSink
) -> None:
    exchange(conn, "Bourse of Nowhere")
    midnight = NOON_US // DAY_US * DAY_US
    write_all(sink, Feeder(), [Tick(time_us=midnight - 1, bid=9.0), Tick(time_us=midnight, bid=10.0)])
    assert read(own, ["TSLA"])[0].change == 1.0


def test_a_time_zone_that_is_none_counts_as_utc_and_takes_no_quote_away(
    own: Connection, conn: PgConnection, sink: DatabaseSink
) -> None:
    zone(conn, "Mars/Olympus")
    midnight = NOON_US // DAY_US * DAY_US
    write_all(sink, Feeder(), [Tick(time_us=midnight - 1, bid=9.0), Tick(time_us=midnight, bid=10.0)])
    assert read(own, ["TSLA"])[0].change == 1.0


def test_trades_count_from_trades_and_quotes_from_bids(own: Connection, sink: DatabaseSink) -> None:
    trade = Tick(bid=NAN, ask=NAN, last=20.0, volume=3.0, flags=56)
    day_before = NOON_US - DAY_US
    write_all(
        sink,
        Feeder(),
        [
            replace(trade, time_us=day_before, last=18.0),
            # Bids after the last trade, of its hour, its day and the next: bars without a trade.
            *(Tick(time_us=day_before + gap * 60_000_000, bid=5.0) for gap in (1, 2, 70, 700)),
            Tick(time_us=NOON_US - 60_000_000, bid=6.0),
            trade,
            Tick("NVDA", NOON_US - DAY_US, bid=9.0),
            Tick("NVDA", last=3.0),
        ],
    )
    tsla, nvda = read(own, ["TSLA", "NVDA"])
    assert (tsla.price, tsla.bid, tsla.last, tsla.change) == (20.0, 6.0, 20.0, 2.0)
    assert (tsla.volume, tsla.buy_volume, tsla.sell_volume, tsla.flags) == (3.0, 3.0, 0.0, 56)
    assert (nvda.price, nvda.last, nvda.change) == (10.0, None, 1.0)


def test_an_instrument_without_bids_and_trades_has_no_price(own: Connection, sink: DatabaseSink) -> None:
    write_all(sink, Feeder(), [Tick(bid=NAN)])
    (found,) = read(own, ["TSLA"])
    assert (found.price, found.ask, found.change, found.change_percent) == (None, 10.5, None, None)


def test_bars_that_are_missing_take_the_change_away_and_nothing_else(
    own: Connection, conn: PgConnection, sink: DatabaseSink
) -> None:
    write_all(sink, Feeder(), [Tick()])
    execute(conn, "DELETE FROM bars")
    (found,) = read(own, ["TSLA"])
    assert (found.price, found.change) == (10.0, None)


def random_ticks(seed: int, count: int) -> list[Tick]:
    """Ticks of some days around midnights, many at one time, in no order."""
    random = Random(seed)
    identities = {
        (
            random.choice(["TSLA", "NVDA", "SpotCrude"]),
            NOON_US
            + random.randint(-3, 2) * DAY_US
            + random.choice(
                [-43_200_000_001, -43_200_000_000, 0, 18_900_000_000, 18_899_999_999, 32_400_000_000, 32_460_000_000]
            ),
            random.randint(-3, 3),
        )
        for _ in range(count)
    }
    rows = [
        Tick(
            *identity,
            bid=random.choice([NAN, 0.0, -1.25, 9.9, 10.1, 10.3]),
            ask=random.choice([NAN, 0.0, 10.4]),
            last=random.choice([NAN, -2.5, 10.2]),
            spread=random.choice([NAN, 3.0]),
            volume=random.choice([0.0, 2.5]),
            flags=random.choice([0, 6, 6, 56, 88]) if identity[0] != "NVDA" else 6,
        )
        for identity in sorted(identities)
    ]
    random.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_the_database_and_the_board_say_what_a_plain_reading_of_all_ticks_says(
    own: Connection, conn: PgConnection, sink: DatabaseSink, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    # Friday in all their hours, between two of Globex's days, Saturday, and a time that no calendar is asked for.
    now_us = random.choice([at(f"2026-01-{text}", "UTC") for text in ("16T15:00", "16T22:30", "17T15:00")] + [NOW_US])
    monkeypatch.setattr(quote_board, "time", SimpleNamespace(time_ns=lambda: now_us * 1000))
    execute(conn, "UPDATE instruments SET allow_nonpositive = true, digits = 2 WHERE symbol = 'SpotCrude'")
    zones = {name: random.choice(["UTC", "Asia/Kathmandu", "America/New_York"]) for name in ("TSLA", "SpotCrude")}
    exchanges = {name: random.choice([None, "XNYS", "CMES", "FX"]) for name in zones}
    for symbol, name in zones.items():
        zone(conn, name, symbol)
        exchange(conn, exchanges[symbol] or "", symbol)
    instruments = SymbolMap(read_instruments(own))
    board = QuoteBoard(lambda: instruments, 60.0)
    rows = random_ticks(seed, random.choice([3, 20, 80]))
    batches = [rows[start : start + 7] for start in range(0, len(rows), 7)]
    batches.insert(random.randint(0, len(batches)), rows[:5])  # a resend
    names = ["TSLA", "NVDA", "SpotCrude"]
    feeder, begin_us = Feeder(NOON_US + 9 * DAY_US), NOON_US + 9 * DAY_US
    for batch in batches:
        received_us = feeder.received_us
        if random.random() < 0.3:
            board.loaded(rows_of(own, random.choice([None, names])))
        board.accepted(ticks(batch), received_us)
        write_all(sink, feeder, batch)
        if random.random() < 0.2:
            board.loaded(rows_of(own, None))
    arrived = arrivals(batches, begin_us)
    expected = [
        quote(
            name,
            arrived,
            zones.get(name),
            *((2, True) if name == "SpotCrude" else (None, False)),
            now_us=now_us,
            exchange=exchanges.get(name),
        )
        for name in names
    ]
    assert read(own, names, now_us) == expected
    board.loaded(rows_of(own, names))
    assert board.get(names) == expected
    unaware = QuoteBoard(lambda: instruments, 60.0)
    unaware.loaded(rows_of(own, None))
    assert unaware.get(names) == expected
