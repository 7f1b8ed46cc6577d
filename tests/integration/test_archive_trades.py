"""Trades of archived ticks: the same ones, in the same pages, with the same quotes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection

from app.errors import ArchiveAway, Conflict
from app.market.flags import BUY, SELL
from app.market.positions import Positions
from app.storage import archive_trades, trade_reader, trades_reader
from app.storage.connection import Connection
from app.storage.partitions import WEEK_US
from app.storage.sink import DatabaseSink
from tests.batches import NAN, Feeder, Tick, execute, new_sink, rows_of, write_all
from tests.integration.archiving import MONDAY_US, bring_back, run, with_archiver, without_seq
from tests.integration.test_trades import HOUR_US, MINUTE_US, Row, read, send, sent, told

QUOTE = Tick(time_us=MONDAY_US, bid=10.0, ask=11.0)
TRADE = Tick(time_us=MONDAY_US, seq=1, bid=NAN, ask=NAN, last=10.7, volume=2.0, flags=24)


@pytest.fixture
def reader(database_url: str, tmp_path: Path) -> Iterator[Connection]:
    made = Connection(lambda: database_url, 5, 30, "read", tmp_path)
    yield made
    made.close()


def pages(reader: Connection) -> list[list[Row]]:
    """Return what can be asked of trades: of a symbol and of all, in both directions, in small pages and large ones."""
    found: list[list[Row]] = []
    for symbol in ("TSLA", None):
        for rows in (14, 1000):
            for descending in (False, True):
                found.append(whole(read(reader, symbol, rows=rows, descending=descending)))
        start_us, end_us = MONDAY_US + 30_000_000, MONDAY_US + WEEK_US + 61_000_000
        found.append(whole(read(reader, symbol, rows=5, start_us=start_us, end_us=end_us)))
    return found


def whole(trades: list[dict[str, Any]]) -> list[Row]:
    return told(trades, *trades[0]) if trades else []


def some_history(rng: random.Random) -> list[Tick]:
    rows: dict[tuple[str, int, int], Tick] = {}
    at_us = MONDAY_US
    for number in range(120):
        at_us += WEEK_US if number == 60 else rng.choice([0, 0, 1000, 20_000_000, MINUTE_US, HOUR_US, 6 * HOUR_US])
        price = [NAN, 0.0, -1.0, 10.0, 10.5, 11.0]
        tick = Tick(rng.choice(["NatGas", "TSLA"]), at_us, rng.choice([0, 1, 2, -3, -9]), rng.choice(price))
        tick = replace(tick, ask=rng.choice(price))
        if rng.random() < 0.5:
            flags = 24 | rng.choice([0, 0, BUY, SELL, BUY | SELL])
            tick = replace(tick, last=rng.choice([-0.5, 10.25, 10.5, 10.8]), volume=rng.choice([0.0, 3.0]), flags=flags)
        rows[tick.symbol, tick.time_us, tick.seq] = tick
    return list(rows.values())


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_trades_are_the_same_from_the_archive(
    conn: connection,
    database_url: str,
    sink: DatabaseSink,
    reader: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(trades_reader, "FIRST_MINUTES", rng.choice([1, 2, 64]))
    monkeypatch.setattr(trades_reader, "LEAST_OF_A_SYMBOL", rng.choice([1, 4]))
    monkeypatch.setattr(archive_trades, "MOST_TICKS", rng.choice([2, 10, 1000]))
    write_all(sink, Feeder(), [Tick("NatGas", MONDAY_US - 1)])
    execute(conn, "UPDATE instruments SET allow_nonpositive = true WHERE symbol = 'NatGas'")
    knowing = new_sink(database_url)
    ticks = some_history(rng)
    rng.shuffle(ticks)
    write_all(knowing, Feeder(), ticks[:50], ticks[50:], without_seq([MONDAY_US + 7] * 3))
    knowing.close()
    instead = next(tick for tick in ticks if tick.flags & 8 and tick.symbol == "TSLA" and tick.seq >= 0)
    send(
        sink,
        sent(instead.time_us, seq=instead.seq, price=10.2, volume=None, trade_type="buy"),
        *(sent(tick.time_us, seq=40 + at) for at, tick in enumerate(ticks[:5])),
        sent(MONDAY_US + WEEK_US - 1, value=5.0),
        sent(MONDAY_US + 2, seq=9, price=5e-324, volume=0.1, bid_price=5e-324, ask_price=0.0),
    )
    before = pages(reader)
    assert sum(len(page) for page in before) > 150
    run(database_url, tmp_path)
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(0,)]
    assert pages(reader) == before
    second_us = MONDAY_US + WEEK_US
    with_archiver(database_url, tmp_path, lambda archiver: archiver.bring_back(second_us, second_us + 1))
    assert pages(reader) == before, "hot and archived weeks in one page"


def test_trades_sent_later_for_an_archived_time_have_its_quotes(
    database_url: str, sink: DatabaseSink, reader: Connection, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), [QUOTE, TRADE])
    run(database_url, tmp_path)
    send(
        sink,
        sent(MONDAY_US, seq=0, price=10.1, bid_price=10.0, ask_price=11.0),
        sent(MONDAY_US + 1, seq=3),
        sent(MONDAY_US, seq=1, volume=9.0),
    )
    found = read(reader)
    assert told(found, "seq", "price", "volume", "trade_type") == [
        (0, 10.1, 2.0, "sell"),
        (1, 10.7, 9.0, "buy"),
        (3, 10.7, 2.0, "buy"),
    ]
    bring_back(database_url, tmp_path)
    assert whole(read(reader)) == whole(found)


def test_a_replay_by_time_refuses_archived_trades_and_does_not_leave_them_out(
    database_url: str, sink: DatabaseSink, reader: Connection, tmp_path: Path
) -> None:
    last_us = MONDAY_US + 3 * WEEK_US
    write_all(sink, Feeder(), [replace(TRADE, time_us=at) for at in (MONDAY_US, last_us)])
    run(database_url, tmp_path)
    with_archiver(database_url, tmp_path, lambda archiver: archiver.bring_back(last_us, last_us + 1))
    end_us = MONDAY_US + WEEK_US
    with reader.reading(30) as cur:
        plan = trade_reader.plan_behind(cur, Positions())
        with pytest.raises(Conflict, match="are in the archive: ask GET"):
            trade_reader.read_later(cur, plan, None, trade_reader.start_later(end_us - 1), 10)
    with reader.reading(30) as cur:
        page = trade_reader.read_later(cur, plan, None, trade_reader.start_later(end_us), 10)
        assert page.place is not None
        page = trade_reader.read_later(cur, plan, None, page.place, 10)
        assert page.trades.time_us.tolist() == [last_us]


def test_trades_whose_files_are_away_are_an_error_and_those_of_other_weeks_are_not(
    database_url: str, sink: DatabaseSink, reader: Connection, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), [TRADE, replace(TRADE, time_us=MONDAY_US + WEEK_US)])
    run(database_url, tmp_path)
    (path,) = tmp_path.glob("ticks/20260105-*/ticks-1.parquet")
    path.unlink()
    with pytest.raises(ArchiveAway):
        read(reader)
    assert told(read(reader, start_us=MONDAY_US + WEEK_US), "timestamp") == [MONDAY_US + WEEK_US]
    assert told(read(reader, end_us=MONDAY_US), "timestamp") == []
