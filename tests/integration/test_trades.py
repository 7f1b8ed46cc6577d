"""Trades as they are read: those of ticks with the quote at them, those that were sent, both in one order."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from psycopg2.extensions import connection, cursor

from app.cli import main
from app.dataset_source import DatasetSource
from app.datasets.registry import DATASETS
from app.market.flags import BUY, SELL
from app.row_stream import ALL
from app.storage import trades_reader
from app.storage.connection import Connection
from app.storage.instruments import find
from app.storage.sink import DatabaseSink
from app.storage.writers import writers
from tests.batches import NAN, NOON_US, Feeder, Tick, execute, rows_of, write_all
from tests.dataset_rows import RecordFeeder
from tests.integration.test_import import one_by_one, real

TRADES = DATASETS["trades"]
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
QUOTE = Tick(bid=10.0, ask=11.0, flags=6)
TRADE = Tick(bid=NAN, ask=NAN, last=10.7, volume=2.0, flags=24)
Row = tuple[Any, ...]


def send(sink: DatabaseSink, *records: dict[str, Any], policy: Any = "ignore") -> None:
    feeder = RecordFeeder(NOON_US)
    entry = sink.ledger(feeder.journal_id)
    moved = sink.write(feeder.journal_id, entry, feeder.records((TRADES, policy, records)))[0]
    assert moved.set_aside == 0


def sent(time_us: int = NOON_US, **fields: Any) -> dict[str, Any]:
    return {"symbol": "TSLA", "timestamp": time_us / 1000, "price": 10.7, "volume": 2.0} | fields


def read(
    own: Connection,
    symbol: str | None = "TSLA",
    *,
    rows: int = 1000,
    descending: bool = False,
    start_us: int | None = None,
    end_us: int | None = None,
) -> list[dict[str, Any]]:
    """Return trades page by page."""
    source, after, found = DatasetSource(TRADES, start_us, end_us), None, []
    for _ in range(10_000):
        with own.reading(30) as cur:
            known = ALL if symbol is None else find(cur, symbol)
            assert known is not None
            page = source.read(cur, known, after=after, descending=descending, max_rows=rows)
        names = [field.name for field in page.table.fields]
        columns = [values if isinstance(values, list) else values.tolist() for values in page.table.columns]
        found += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        after = page.place
        if not page.more:
            return found
        assert len(page.table) == rows
    raise AssertionError("pages without end")


def told(trades: Sequence[dict[str, Any]], *names: str) -> list[Any]:
    """Return some of their fields; NaN as None."""
    rows = [tuple(None if trade[name] != trade[name] else trade[name] for name in names) for trade in trades]
    return [row[0] for row in rows] if len(names) == 1 else rows


def of_view(conn: connection, condition: str = "TRUE", columns: str = "trade_type, bid_price, ask_price") -> list[Row]:
    return rows_of(conn, f"SELECT {columns} FROM trades WHERE {condition} ORDER BY time, seq, symbol_id")


@pytest.mark.parametrize(
    ("price", "flags", "side"),
    [
        (10.6, 24, "buy"),
        (10.4, 24, "sell"),
        (10.5, 24, "neutral"),
        (10.4, 24 | BUY, "buy"),
        (10.6, 24 | SELL, "sell"),
        (10.6, 24 | BUY | SELL, "neutral"),
    ],
)
def test_flags_tell_the_aggressor_and_else_the_quote_does(
    conn: connection, sink: DatabaseSink, own: Connection, price: float, flags: int, side: str
) -> None:
    write_all(sink, Feeder(), [QUOTE, replace(TRADE, seq=1, last=price, flags=flags)])
    expected = [(side, 10.0, 11.0)]
    assert told(read(own), "trade_type", "bid_price", "ask_price") == expected == of_view(conn)


def test_a_trade_is_told_whole(sink: DatabaseSink, own: Connection) -> None:
    write_all(sink, Feeder(), [QUOTE, replace(TRADE, seq=7)])
    assert read(own) == [
        {
            "symbol": "TSLA",
            "timestamp": NOON_US,
            "seq": 7,
            "price": 10.7,
            "volume": 2.0,
            "value": 21.4,
            "trade_type": "buy",
            "bid_price": 10.0,
            "ask_price": 11.0,
        }
    ]


def test_the_quote_is_the_newest_before_the_trade_side_by_side(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    rows = [
        replace(QUOTE, time_us=NOON_US - 9 * DAY_US, bid=1.0, ask=2.0),  # too old
        replace(TRADE, time_us=NOON_US - DAY_US - 12 * HOUR_US - 1),
        replace(QUOTE, time_us=NOON_US - 5 * DAY_US, ask=NAN, flags=2),
        replace(TRADE, time_us=NOON_US - 2 * HOUR_US),
        replace(QUOTE, time_us=NOON_US - HOUR_US, bid=NAN, ask=12.0, flags=4),
        replace(TRADE, time_us=NOON_US - 1),
        replace(QUOTE, time_us=NOON_US, seq=3, bid=0.0, ask=13.0),  # zero is no price
        replace(TRADE, time_us=NOON_US, seq=4),
        replace(TRADE, time_us=NOON_US, seq=5, bid=10.5, ask=10.6),  # its own
        replace(TRADE, time_us=NOON_US, seq=2),  # before the quote of its own moment
        replace(TRADE, time_us=NOON_US + MINUTE_US),
        replace(QUOTE, time_us=NOON_US + MINUTE_US, seq=1, bid=99.0),
    ]
    expected = [
        ("neutral", 10.0, None),
        ("neutral", 10.0, None),
        ("sell", 10.0, 12.0),
        ("sell", 10.0, 12.0),
        ("sell", 10.0, 13.0),
        ("buy", 10.5, 10.6),
        ("buy", 10.5, 10.6),
    ]
    random.Random(3).shuffle(rows)
    write_all(sink, Feeder(), rows[:5], rows[5:])
    found = read(own)
    assert told(found, "trade_type", "bid_price", "ask_price")[1:] == expected[1:]
    assert told(found, "trade_type", "bid_price", "ask_price") == of_view(conn)


def test_a_future_may_cost_less_than_nothing(
    database_url: str, conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    rows = [replace(QUOTE, bid=-2.0, ask=-1.0), replace(TRADE, seq=1, last=-1.2), replace(TRADE, seq=2, last=0.0)]
    write_all(sink, Feeder(), rows)
    assert read(own) == of_view(conn) == []  # prices that count nowhere else either
    execute(conn, "UPDATE instruments SET allow_nonpositive = true WHERE symbol = 'TSLA'", "DELETE FROM ticks")
    execute(conn, "DELETE FROM bars")
    later = DatabaseSink(Connection(lambda: database_url, 5, 30, "later"), writers())
    write_all(later, Feeder(), rows)
    later.close()
    assert told(read(own), "price", "trade_type") == [(-1.2, "buy"), (0.0, "buy")]
    assert of_view(conn) == [("buy", -2.0, -1.0)] * 2


def test_numbers_that_are_hardly_any_can_be_read(conn: connection, sink: DatabaseSink, own: Connection) -> None:
    least = 5e-324
    tiny = sent(seq=1, price=least, volume=0.1, bid_price=least, ask_price=0.0)
    send(sink, tiny, sent(seq=2, price=least, volume=None))
    found = told(read(own), "price", "value", "trade_type")
    assert found == [(least, 0.0, "buy"), (least, None, "neutral")]
    assert found == of_view(conn, columns="price, value, trade_type")


def test_a_sent_trade_stands_for_the_tick_of_its_key(conn: connection, sink: DatabaseSink, own: Connection) -> None:
    write_all(sink, Feeder(), [QUOTE, replace(TRADE, seq=1), replace(TRADE, seq=2)])
    send(sink, sent(seq=2, price=10.2, volume=None, trade_type="buy"), sent(seq=3), sent(NOON_US - 1, seq=0, value=5.0))
    names = ("seq", "price", "volume", "value", "trade_type", "bid_price")
    expected = [
        (0, 10.7, 2.0, 5.0, "neutral", None),
        (1, 10.7, 2.0, 21.4, "buy", 10.0),
        (2, 10.2, None, None, "buy", 10.0),
        (3, 10.7, 2.0, 21.4, "buy", 10.0),
    ]
    assert told(read(own), *names) == expected == of_view(conn, columns=", ".join(names))
    assert told(read(own, rows=1), *names) == expected
    assert told(read(own, rows=3, descending=True), *names) == expected[::-1]
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(3,)]


def test_a_trade_without_seq_gets_the_one_that_its_tick_would_have(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    from app.market.identity import derive_seq
    from tests.batches import ticks

    tick = replace(TRADE, bid=10.0, ask=11.0, flags=24 | BUY)
    columns = ticks([tick, tick])
    seqs = derive_seq(
        columns.names,
        columns.symbol,
        columns.time_us,
        columns.bid,
        columns.ask,
        columns.last,
        columns.volume,
        columns.flags,
    ).tolist()
    trade = sent(bid_price=10.0, ask_price=11.0, trade_type="buy")
    write_all(sink, Feeder(), [replace(tick, seq=seq) for seq in seqs])
    send(sink, trade, trade)
    assert sorted(told(read(own), "seq")) == sorted(seqs)
    send(sink, trade, trade)
    send(sink, sent(seq=seqs[0]), trade)
    assert rows_of(conn, "SELECT count(*) FROM trades_sent") == [(2,)]
    send(sink, sent(trade_type="sell"), sent())
    assert rows_of(conn, "SELECT count(*) FROM trades_sent") == [(4,)]
    assert len(read(own)) == 4


def test_trades_are_found_among_years_of_quotes(sink: DatabaseSink, own: Connection) -> None:
    rows = [replace(QUOTE, time_us=NOON_US - day * DAY_US) for day in range(0, 700, 3)]
    at = [0, 1, 299 * DAY_US, 299 * DAY_US + 3 * HOUR_US, 300 * DAY_US + 1, 690 * DAY_US]
    rows += [replace(TRADE, time_us=NOON_US - us, seq=1) for us in at]
    write_all(sink, Feeder(), rows)
    expected = sorted(NOON_US - us for us in at)
    for size in (1, 2, 1000):
        assert told(read(own, rows=size), "timestamp") == expected
        assert told(read(own, rows=size, descending=True), "timestamp") == expected[::-1]
    assert told(read(own, start_us=expected[1], end_us=expected[4]), "timestamp") == expected[1:4]
    assert told(read(own, start_us=expected[1] + 1, end_us=expected[4] + 1), "timestamp") == expected[2:5]
    assert told(read(own, start_us=expected[4], end_us=expected[5], descending=True), "timestamp") == [expected[4]]


def _order(tick: Tick) -> tuple[int, bool, int]:
    return tick.time_us, tick.seq < 0, max(tick.seq, 0)


def plainly(rows: Sequence[Tick], ids: dict[str, int]) -> list[Row]:
    """Return (symbol, time, seq, side, bid, ask) of trades, in the order of pages, by looking at every tick before."""
    found = []
    for trade in rows:
        if not (trade.flags & 8 and trade.last > 0):
            continue
        day = trade.time_us // DAY_US - 7
        quote = []
        for side in ("bid", "ask"):
            before = [t for t in rows if t.symbol == trade.symbol and _order(t) <= _order(trade)]
            known = [t for t in before if getattr(t, side) > 0 and t.time_us // DAY_US >= day]
            quote.append(getattr(max(known, key=_order), side) if known else None)
        middle = None if None in quote else sum(quote) / 2
        kind = {BUY: "buy", SELL: "sell", BUY | SELL: "neutral"}.get(trade.flags & (BUY | SELL))
        if kind is None:
            kind = "neutral" if middle in (None, trade.last) else "buy" if trade.last > middle else "sell"
        found.append((trade.symbol, trade.time_us, trade.seq, kind, *quote))
    return sorted(found, key=lambda row: (row[1], row[2], ids[row[0]]))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_pages_of_any_size_hold_what_a_look_at_every_tick_finds(
    conn: connection, sink: DatabaseSink, own: Connection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(trades_reader, "FIRST_MINUTES", rng.choice([1, 2, 64]))
    monkeypatch.setattr(trades_reader, "LEAST_OF_A_SYMBOL", 1)
    rows, time_us = {}, NOON_US
    prices = [NAN, 0.0, 10.0, 10.5, 11.0]
    for _ in range(150):
        time_us += rng.choice([0, 0, 1000, 20_000_000, MINUTE_US, HOUR_US, 5 * DAY_US])
        tick = Tick(rng.choice(["AAPL", "TSLA"]), time_us, rng.randrange(5), rng.choice(prices), rng.choice(prices))
        if rng.random() < 0.5:
            flags = 24 | rng.choice([0, 0, BUY, SELL, BUY | SELL])
            tick = replace(tick, last=rng.choice([10.25, 10.5, 10.8]), volume=1.0, flags=flags)
        rows[tick.symbol, tick.time_us, tick.seq] = tick
    ticks = list(rows.values())
    rng.shuffle(ticks)
    feeder = Feeder()
    write_all(sink, feeder, ticks[:50])
    write_all(sink, feeder, ticks[50:120], ticks[120:])
    names = ("symbol", "timestamp", "seq", "trade_type", "bid_price", "ask_price")
    expected = plainly(ticks, dict(rows_of(conn, "SELECT symbol, symbol_id FROM instruments")))
    for symbol in (None, "AAPL", "TSLA"):
        chosen = [row for row in expected if symbol in (None, row[0])]
        for size in (1, 7, 1000):
            assert told(read(own, symbol, rows=size), *names) == chosen
            assert told(read(own, symbol, rows=size, descending=True), *names) == chosen[::-1]
    columns = "symbol, (extract(epoch FROM time) * 1000000)::bigint, seq, trade_type, bid_price, ask_price"
    assert of_view(conn, columns=columns) == expected


class Listening(cursor):
    """A cursor that remembers what it was asked."""

    asked: list[bytes]

    def execute(self, query: Any, values: Any = None) -> None:
        type(self).asked.append(self.mogrify(query, values))
        super().execute(query, values)


def touched(plan: dict[str, Any]) -> Counter[str]:
    """Return how many rows a plan looked at, by relation."""
    seen: Counter[str] = Counter()
    if "Relation Name" in plan:
        rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        seen[plan["Relation Name"]] += round(rows * plan["Actual Loops"])
    for part in plan.get("Plans", []):
        seen += touched(part)
    return seen


def load(database_url: str, monkeypatch: pytest.MonkeyPatch, name: str, symbol: str) -> list[Row]:
    """Import a real file; return its rows: (time_us, seq, bid, ask, last, volume, flags)."""
    path = real(name)
    for variable in [variable for variable in os.environ if variable.startswith("TICKHUB_")]:
        monkeypatch.delenv(variable)
    told_so = ["--symbol", symbol, "--add-symbol", "--timezone", "America/New_York", "--database-url", database_url]
    assert main(["import", str(path), *told_so]) == 0
    return list(one_by_one(path, hours_ahead=-4))


@pytest.mark.long
def test_real_trades_have_the_side_that_a_plain_reading_finds(
    database_url: str, conn: connection, own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bid = ask = None
    expected = []
    for time_us, seq, new_bid, new_ask, last, volume, flags in load(
        database_url, monkeypatch, "IBM_20131008-10.tsv.gz", "IBM"
    ):
        bid, ask = new_bid or bid, new_ask or ask
        if flags & 8:
            middle = (bid + ask) / 2
            side = "buy" if last > middle else "sell" if last < middle else "neutral"
            expected.append((time_us, seq, last, volume, side, bid, ask))
    names = ("timestamp", "seq", "price", "volume", "trade_type", "bid_price", "ask_price")
    found = told(read(own, "IBM", rows=20_000), *names)
    assert len(found) == 82_838
    assert found == expected
    shares = {side: count / len(found) for side, count in Counter(row[4] for row in found).items()}
    assert shares == pytest.approx({"buy": 0.457, "sell": 0.452, "neutral": 0.091}, abs=0.001)
    end_us = expected[-9000][0]
    backwards = told(read(own, "IBM", rows=1000, descending=True, start_us=end_us - HOUR_US, end_us=end_us), *names)
    assert backwards == [row for row in expected if end_us - HOUR_US <= row[0] < end_us][::-1]
    counted = rows_of(conn, "SELECT trade_type, count(*) FROM trades WHERE symbol = 'IBM' GROUP BY 1 ORDER BY 1")
    assert dict(counted) == Counter(row[4] for row in expected)

    # A page of 1,000 looks at its own ticks, a few for each trade's quote, and some bars; nothing else of the table.
    execute(conn, "ANALYZE")
    Listening.asked = []
    middle_us = expected[40_000][0]
    with conn.cursor(cursor_factory=Listening) as cur:
        known = find(cur, "IBM")
        assert known is not None
        page = DatasetSource(TRADES, middle_us, None).read(cur, known, after=None, descending=False, max_rows=1000)
    assert len(page.table) == 1000
    seen: Counter[str] = Counter()
    for query in Listening.asked:
        with conn.cursor() as cur:
            cur.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query)
            (plan,) = cur.fetchone()[0]
        seen += touched(plan["Plan"])
    assert 1000 < seen["ticks_20131007"] < 40_000, seen
    assert seen["bars"] < 10_000, seen


@pytest.mark.long
def test_real_trades_without_quotes_are_neutral(
    database_url: str, own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load(database_url, monkeypatch, "SPY_trades_20131008.tsv.gz", "SPY")
    first_us, last_us = rows[100_000][0], rows[130_000][0]
    expected = [
        (time_us, seq, last, volume, "neutral", None, None)
        for time_us, seq, _, _, last, volume, _ in rows
        if first_us <= time_us < last_us
    ]
    names = ("timestamp", "seq", "price", "volume", "trade_type", "bid_price", "ask_price")
    assert told(read(own, "SPY", rows=10_000, start_us=first_us, end_us=last_us), *names) == expected
