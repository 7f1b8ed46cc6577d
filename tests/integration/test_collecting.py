"""Samples of the market: every committed tick is counted once, whoever is elected and whenever it dies."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from psycopg2.extensions import connection

from app.storage.collecting import LATE_US, MOST_WINDOW_US, Collected, NoMoreElected, Sample, collect
from app.storage.connection import Connection
from app.storage.lease import Term, claim
from app.storage.sink import DatabaseSink
from tests.batches import NOON_US, Feeder, Tick, execute, new_sink, rows_of, write_all

TINY_US = 1
"""An interval that is always over."""

LONG_US = 10**15
"""An interval of 32 years: no test sees one end before 2033."""

HOUR_US = 3_600_000_000
TRADE, QUOTE = 24, 6


class Desk:
    """A process that may be elected: its term, and what it knows to have sent."""

    def __init__(self, connection: Connection, holder: str) -> None:
        self._connection = connection
        self.sent_us: int | None = None
        with connection.transaction() as cur:
            cur.execute("UPDATE leases SET held_until = now() - interval '1 second'")
            term = claim(cur, "desk", holder, 60)
        assert term is not None
        self.term: Term = term

    def collect(self, interval_us: int = TINY_US, window_us: int = MOST_WINDOW_US) -> Collected:
        with self._connection.transaction() as cur:
            return collect(cur, self.term, interval_us, window_us, self.sent_us)

    def take(self, **asked: int) -> Sample:
        """Take the sample that is due, and send it."""
        found = self.collect(**asked)
        assert found.sample is not None
        assert found.active_alerts is not None
        self.sent_us = found.sample.moment_us
        return found.sample


def now_us(conn: connection) -> int:
    return int(rows_of(conn, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0])


def test_a_sample_has_prices_and_what_was_traded_since_the_one_before(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    at_us = now_us(conn)
    feeder, desk = Feeder(at_us), Desk(own, "one")
    write_all(sink, feeder, [Tick(time_us=at_us, flags=TRADE, last=9.0, volume=5.0)])
    assert desk.take().rows == []  # it begins here
    trade = Tick(time_us=at_us + 1, bid=10.0, ask=10.5, last=10.25, volume=0.1, flags=TRADE)
    quote = Tick("AAPL", at_us + 2, bid=99.0, ask=101.0, volume=7.0, flags=QUOTE)
    write_all(sink, feeder, [trade, replace(trade, seq=1, volume=0.2), replace(quote, flags=QUOTE)])
    found = desk.take().rows
    assert [(one.symbol, one.last_price, one.bid, one.ask, one.volume, one.trades) for one in found] == [
        ("AAPL", 99.0, 99.0, 101.0, 0.0, 0),
        ("TSLA", 10.25, 10.0, 10.5, 0.3, 2),
    ]
    assert [one.spread_bps for one in found] == [200.0, round(20_000 * 0.5 / 20.5, 4)]
    assert desk.take().rows == []
    write_all(sink, feeder, [replace(quote, time_us=at_us + 3, bid=98.0)])
    assert [(one.symbol, one.bid) for one in desk.take().rows] == [("AAPL", 98.0)]


def test_every_tick_is_counted_once_whoever_commits_and_whoever_is_elected(
    conn: connection, database_url: str, own: Connection
) -> None:
    """Workers commit, and the elected one is replaced, in any order; some samples die with their process."""
    rng, at_us = random.Random(5), now_us(conn)
    sinks = [new_sink(database_url) for _ in range(3)]
    feeders = [Feeder(at_us + 1000 * number) for number in range(3)]
    desk, seq, sent, samples = Desk(own, "first"), 0, {"TSLA": 0, "AAPL": 0}, dict[int, Sample]()
    desk.take()
    try:
        for round_ in range(60):
            number = rng.randrange(3)
            symbol = rng.choice(list(sent))
            ticks = []
            for _ in range(rng.randrange(1, 5)):
                seq += 1
                late_us = rng.choice([0, 0, LATE_US // 2])
                ticks.append(Tick(symbol, at_us - late_us, seq=seq, last=5.0, volume=1.0, flags=TRADE))
            sent[symbol] += len(ticks)
            write_all(sinks[number], feeders[number], ticks, ticks)  # twice, which counts once
            becomes = rng.choice(["goes on", "waits", "dies behind sending", "dies before sending"])
            if becomes == "waits":
                continue
            found = desk.collect().sample
            assert found is not None
            if becomes != "dies before sending":
                assert samples.setdefault(found.moment_us, found) == found
            if becomes == "goes on":
                desk.sent_us = found.moment_us
            else:
                desk = Desk(own, f"next {round_}")
        for _ in range(2):  # what may not have been sent, then what there is since
            found = desk.collect().sample
            assert found is not None
            assert samples.setdefault(found.moment_us, found) == found
            desk.sent_us = found.moment_us
    finally:
        for one in sinks:
            one.close()
    rows = [row for sample in samples.values() for row in sample.rows]
    for symbol, count in sent.items():
        assert sum(row.trades for row in rows if row.symbol == symbol) == count
        assert sum(row.volume for row in rows if row.symbol == symbol) == count


def test_who_is_no_more_elected_writes_nothing(conn: connection, sink: DatabaseSink, own: Connection) -> None:
    first = Desk(own, "first")
    first.take()
    before = rows_of(conn, "SELECT * FROM collected")
    second = Desk(own, "second")
    with pytest.raises(NoMoreElected):
        first.collect()
    assert rows_of(conn, "SELECT * FROM collected") == before
    second.sent_us = first.sent_us
    second.take()


def test_moments_are_multiples_of_the_interval_and_come_once(conn: connection, own: Connection) -> None:
    desk = Desk(own, "one")
    moment_us = desk.take(interval_us=LONG_US).moment_us
    assert moment_us == now_us(conn) // LONG_US * LONG_US
    assert desk.collect(interval_us=LONG_US).sample is None
    assert Desk(own, "two").collect(interval_us=LONG_US).sample is None


def test_a_backlog_is_counted_piece_by_piece(conn: connection, sink: DatabaseSink, own: Connection) -> None:
    at_us = now_us(conn)
    feeder, desk = Feeder(at_us), Desk(own, "one")
    write_all(sink, feeder, [Tick(time_us=at_us)])
    desk.take()
    write_all(sink, feeder, [Tick(time_us=at_us, seq=1 + seq, flags=TRADE, last=1.0, volume=1.0) for seq in range(100)])
    counts = [sum(row.trades for row in desk.take(window_us=30).rows) for _ in range(5)]
    assert counts == [30, 30, 30, 10, 0]


def test_a_journal_that_was_idle_for_hours_holds_up_nothing(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    at_us = now_us(conn)
    idle, busy, desk = Feeder(at_us - 9 * HOUR_US), Feeder(at_us - 9 * HOUR_US), Desk(own, "one")
    for feeder in (idle, busy):
        write_all(sink, feeder, [Tick(time_us=at_us - 9 * HOUR_US)])
    desk.take()
    trade = Tick(time_us=at_us, last=1.0, volume=1.0, flags=TRADE)
    busy.received_us = at_us
    write_all(sink, busy, [trade])
    assert [row.trades for row in desk.take().rows] == [1]
    idle.received_us = busy.received_us = at_us + 1000
    write_all(sink, idle, [replace(trade, seq=1)])
    write_all(sink, busy, [replace(trade, seq=2)])
    assert [row.trades for row in desk.take().rows] == [2]


def test_what_waited_for_the_database_is_counted_however_long_it_takes(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    at_us = now_us(conn)
    feeder, desk = Feeder(at_us - HOUR_US), Desk(own, "one")
    write_all(sink, feeder, [Tick(time_us=at_us - HOUR_US)])
    desk.take()
    for minute in range(50):  # the database comes back, and samples are taken while workers still catch up
        feeder.received_us = at_us - HOUR_US // 2 + minute * HOUR_US // 200
        write_all(sink, feeder, [Tick(time_us=feeder.received_us, last=1.0, volume=1.0, flags=TRADE)])
    trades = [sum(row.trades for row in desk.take().rows) for _ in range(20)]
    assert sum(trades) == 50
    assert max(trades) < 10  # a window's


def test_what_happened_long_before_the_interval_is_not_of_it(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    at_us = now_us(conn)
    feeder, desk = Feeder(at_us), Desk(own, "one")
    write_all(sink, feeder, [Tick(time_us=at_us)])
    desk.take()
    write_all(sink, feeder, [Tick(time_us=NOON_US, seq=4, flags=TRADE, last=1.0, volume=1e6)])
    assert desk.take().rows == []


def test_alerts_that_hold_are_counted(conn: connection, own: Connection) -> None:
    desk = Desk(own, "one")
    desk.take()
    for state in ('{"watches": {"above": {"armed": false, "fired_us": 7}}}', '{"watches": {"above": {"armed": true}}}'):
        execute(
            conn,
            "INSERT INTO alert_rules (alert_type, symbol_id, direction, threshold, hysteresis, cooldown_s, severity,"
            f" state) VALUES ('price_crosses', 1, 'above', 1, 0, 0, 'info', '{state}')",
        )
    assert desk.collect().active_alerts == 1
