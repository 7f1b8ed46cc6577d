"""Who gets what, and when: the hub and its readers on a clock of their own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import gevent
import pytest

from app.market.quotes import Quote
from app.stream import subscriber as subscribers
from app.stream.hub import MAX_STALL_S, Hub
from app.stream.messages import BarUpdate, TradeUpdate
from app.stream.schedule import SLOT_S
from app.stream.subscriber import Subscriber
from tests.outlet import Outlet
from tests.waiting import others_turn

NAMES = ["AAPL", "MSFT", "TSLA"]
TURN_S = 2 * SLOT_S
"""More than a slot: whoever is due by then has been served."""


class Reader(Outlet):
    """Knows what came in one send; stalls when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sends: list[list[Any]] = []
        self.stalls = False
        self.now = lambda: 0.0

    def send_texts(self, texts: list[bytes]) -> None:
        super().send_texts(texts)
        self.sends.append(self.got)
        self.got = []
        if self.stalls:
            self.stalled_since = self.now()

    def taken(self, kind: str = "quote") -> list[dict[str, Any]]:
        """Return what came since the last look, and forget it."""
        found = [one for send in self.sends for said in send for one in (said if isinstance(said, list) else [said])]
        self.sends.clear()
        return [one for one in found if one["type"] == kind]


class Market:
    """A hub, its clock and the quotes that it asks for."""

    def __init__(self, heartbeat_interval_s: float = 1e9) -> None:
        self.now_s = 1000.0
        self.names = list(NAMES)
        self.prices: dict[str, float] = {}
        self.asked: list[Sequence[str]] = []
        self.away = False
        self.hub = Hub(self._quotes, lambda: self.names, heartbeat_interval_s, lambda: self.now_s)

    def _quotes(self, names: Sequence[str]) -> list[Quote]:
        if self.away:
            raise RuntimeError("away")
        self.asked.append(names)
        return [
            Quote(
                name, bid := self.prices.get(name), bid, bid, None, 1.0, 1.0, None, None, 6,
                None if bid is None else "2026-01-13T17:54:43.000000Z", None, None, False,
            )
            for name in names
        ]  # fmt: skip

    def read(self, symbols: Sequence[str] | None, conflate_s: float = 0.1, batch: bool = False) -> Subscriber:
        reader = Reader()
        reader.now = lambda: self.now_s
        found = Subscriber(reader)
        found.conflate_s, found.batch = conflate_s, batch
        self.hub.attach(found)
        if symbols != []:
            self.hub.subscribe(found, symbols, ["quotes"])
        return found

    def tick(self, symbol: str, price: float, ticks: int = 1) -> None:
        self.prices[symbol] = price
        self.hub.quotes_changed({symbol: ticks})

    def pass_time(self, seconds: float) -> None:
        """Let time go by, with a turn whenever the hub asked for one."""
        until = self.now_s + seconds
        for _ in range(10_000):
            wait_s = self.hub.turn()
            if wait_s is None or self.now_s + wait_s > until:
                break
            self.now_s += max(wait_s, SLOT_S / 10)
        self.now_s = max(self.now_s, until)
        self.hub.turn()


@pytest.fixture
def market() -> Market:
    return Market()


def got(reader: Subscriber, kind: str = "quote") -> list[dict[str, Any]]:
    socket = reader.socket
    assert isinstance(socket, Reader)
    return socket.taken(kind)


def short(quotes: list[dict[str, Any]]) -> list[tuple[str, float, int, int]]:
    return [(one["symbol"], one["bid"], one["n"], one.get("skipped", 0)) for one in quotes]


def test_who_subscribes_gets_what_there_is_then_what_changes(market: Market) -> None:
    market.prices["AAPL"] = 10
    reader = market.read(["AAPL", "MSFT"])
    market.pass_time(TURN_S)
    (snapshot,) = got(reader)
    assert (snapshot["snapshot"], snapshot["n"], snapshot["bid"]) == (True, 1, 10)
    market.tick("AAPL", 11)
    market.tick("MSFT", 20)
    market.tick("TSLA", 30)
    market.pass_time(0.2)
    found = got(reader)
    assert short(found) == [("AAPL", 11, 2, 0), ("MSFT", 20, 1, 0)]
    assert not any("snapshot" in one for one in found)


def test_a_quote_has_the_fields_of_the_interface_and_no_others(market: Market) -> None:
    reader = market.read(["AAPL"])
    market.pass_time(0.2)
    market.tick("AAPL", 11)
    market.pass_time(0.2)
    (found,) = got(reader)
    assert list(found) == [
        "type", "symbol", "price", "bid", "ask", "last", "spread", "volume", "timestamp",
        "change", "change_percent", "n",
    ]  # fmt: skip


def test_the_newest_wins_and_what_was_left_out_is_counted(market: Market) -> None:
    reader = market.read(["AAPL"], conflate_s=1.0)
    market.tick("AAPL", 10)
    market.pass_time(TURN_S)
    assert short(got(reader)) == [("AAPL", 10, 1, 0)]
    for price in range(11, 16):
        market.tick("AAPL", price)
        market.pass_time(TURN_S)
    assert got(reader) == []
    market.pass_time(1.0)
    assert short(got(reader)) == [("AAPL", 15, 2, 4)]
    market.pass_time(2.0)
    assert got(reader) == []


def test_without_conflation_every_change_leaves(market: Market) -> None:
    reader = market.read(None, conflate_s=0)
    for price in range(10, 20):
        market.tick("AAPL", price)
        market.hub.turn()
    assert short(got(reader)) == [("AAPL", price, price - 9, 0) for price in range(10, 20)]


def test_a_tick_that_changes_nothing_is_no_update(market: Market) -> None:
    reader = market.read(["AAPL"], conflate_s=0)
    market.tick("AAPL", 10)
    market.pass_time(TURN_S)
    market.tick("AAPL", 10, ticks=7)
    market.pass_time(TURN_S)
    market.tick("AAPL", 11)
    market.pass_time(TURN_S)
    assert short(got(reader)) == [("AAPL", 10, 1, 0), ("AAPL", 11, 2, 0)]


def test_every_symbol_is_later_ones_too_less_those_unsubscribed_after_it(market: Market) -> None:
    reader = market.read(None, conflate_s=0)
    market.hub.unsubscribe(reader, ["MSFT"], ["quotes"])
    assert market.hub.symbols_of(reader) == ["AAPL", "TSLA"]
    market.names.append("ZM")
    for symbol in market.names:
        market.tick(symbol, 10)
    market.pass_time(TURN_S)
    assert sorted(one["symbol"] for one in got(reader)) == ["AAPL", "TSLA", "ZM"]
    assert market.hub.symbols_of(reader) == ["AAPL", "TSLA", "ZM"]
    market.hub.subscribe(reader, ["MSFT"], ["quotes"])
    market.pass_time(TURN_S)
    assert [one["symbol"] for one in got(reader)] == ["MSFT"]


def test_nothing_comes_of_what_was_unsubscribed(market: Market) -> None:
    reader = market.read(["AAPL", "MSFT"], conflate_s=1.0)
    market.tick("AAPL", 10)
    market.pass_time(TURN_S)
    got(reader)
    market.tick("AAPL", 11)
    market.hub.unsubscribe(reader, ["AAPL"], ["quotes", "trades", "bars", "alerts"])
    market.pass_time(3.0)
    assert got(reader) == []
    assert market.hub.symbols_of(reader) == ["MSFT"]


def test_a_stalled_reader_gets_nothing_until_it_reads_then_the_newest(market: Market) -> None:
    reader, other = market.read(None, conflate_s=0), market.read(None, conflate_s=0)
    socket = reader.socket
    assert isinstance(socket, Reader)
    socket.stalls = True
    for price in range(1, 101):
        market.tick("AAPL", price)
        market.tick("MSFT", price)
        market.pass_time(SLOT_S)
    assert short(got(reader)) == [("AAPL", 1, 1, 0), ("MSFT", 1, 1, 0)]
    assert len(got(other)) == 200
    socket.stalls, socket.stalled_since = False, None
    market.hub.drained(reader)
    market.pass_time(TURN_S)
    assert sorted(short(got(reader))) == [("AAPL", 100, 2, 98), ("MSFT", 100, 2, 98)]


def test_a_reader_that_an_answer_has_stalled_gets_nothing_either_until_it_reads(market: Market) -> None:
    reader = market.read(None, conflate_s=0)
    market.pass_time(TURN_S)
    socket = reader.socket
    assert isinstance(socket, Reader)
    socket.stalls = True
    for _ in range(3):
        reader.say(b'{"type":"pong"}')
    market.tick("AAPL", 1)
    market.pass_time(TURN_S)
    assert len(socket.sends) == 1
    socket.stalls, socket.stalled_since = False, None
    market.hub.drained(reader)
    market.pass_time(TURN_S)
    assert [said["type"] for send in socket.sends for said in send] == ["pong", "pong", "pong", "quote"]


def test_what_leaves_together_leaves_in_one_send_and_one_array(market: Market) -> None:
    reader = market.read(None, batch=True)
    for symbol in NAMES:
        market.tick(symbol, 10)
    market.pass_time(TURN_S)
    socket = reader.socket
    assert isinstance(socket, Reader)
    ((array,),) = socket.sends
    assert [one["symbol"] for one in array] == NAMES


def test_quotes_are_asked_for_once_for_all_readers(market: Market) -> None:
    for _ in range(50):
        market.read(None)
    market.pass_time(1.0)
    market.asked.clear()
    for symbol in NAMES:
        market.tick(symbol, 10)
    market.pass_time(TURN_S)
    assert market.asked == [NAMES]


def trade(symbol: str, price: float) -> TradeUpdate:
    return TradeUpdate(symbol, price, 1.0, "buy", "2026-01-13T17:54:43.000000Z", "c")


def bar(symbol: str, interval: str) -> BarUpdate:
    return BarUpdate(symbol, interval, "2026-01-13T17:54:00.000000Z", 1, 1, 1, 1, 1.0, 1, False)


def test_trades_come_all_and_in_order_to_those_who_watch_them(market: Market) -> None:
    reader, other = market.read([]), market.read(["AAPL"])
    assert not market.hub.wants_trades()
    market.hub.subscribe(reader, ["AAPL"], ["trades"])
    assert market.hub.wants_trades()
    for price in range(500):
        market.hub.trades([trade("AAPL", price), trade("MSFT", price)])
        if price % 7 == 0:
            market.pass_time(SLOT_S)
    market.pass_time(1.0)
    assert [one["price"] for one in got(reader, "trade")] == list(range(500))
    assert got(other, "trade") == []


def test_who_begins_to_watch_gets_what_others_get_already(market: Market) -> None:
    first, second = market.read([]), market.read([])
    market.hub.subscribe(first, ["AAPL"], ["trades"])
    market.hub.trades([trade("AAPL", 1)])
    market.hub.subscribe(second, ["AAPL"], ["trades"])
    market.hub.trades([trade("AAPL", 2)])
    market.hub.unsubscribe(first, None, ["trades"])
    market.hub.trades([trade("AAPL", 3)])
    market.hub.detach(second)
    market.hub.trades([trade("AAPL", 4)])
    assert (first.queued, second.queued) == (2, 2)


def test_bars_come_by_interval(market: Market) -> None:
    reader = market.read([])
    market.hub.subscribe(reader, ["AAPL"], ["bars"], "1m")
    market.hub.subscribe(reader, None, ["bars"], "1h")
    assert market.hub.bar_intervals() == {"AAPL": {"1m", "1h"}, "MSFT": {"1h"}, "TSLA": {"1h"}}
    market.hub.bars([bar(symbol, interval) for symbol in ("AAPL", "MSFT") for interval in ("1m", "1h", "1d")])
    market.pass_time(1.0)
    found = [(one["symbol"], one["interval"]) for one in got(reader, "bar")]
    assert found == [("AAPL", "1m"), ("AAPL", "1h"), ("MSFT", "1h")]
    market.hub.unsubscribe(reader, ["AAPL"], ["bars"], "1m")
    assert market.hub.bar_intervals()["AAPL"] == {"1h"}


def test_a_reader_that_does_not_take_its_trades_is_closed_not_cheated(market: Market) -> None:
    reader = market.read([])
    market.hub.subscribe(reader, None, ["trades"])
    socket = reader.socket
    assert isinstance(socket, Reader)
    socket.stalled_since = market.now_s
    market.hub.trades([trade("AAPL", n) for n in range(subscribers.MAX_QUEUED)])
    assert socket.closed_with is None
    market.hub.trades([trade("AAPL", 1)])
    assert socket.closed_with == 1013
    assert reader.queued == 0


def test_a_queue_is_bounded_in_bytes_too(market: Market) -> None:
    reader = market.read([])
    market.hub.subscribe(reader, None, ["trades"])
    socket = reader.socket
    assert isinstance(socket, Reader)
    socket.stalled_since = market.now_s
    for _ in range(subscribers.MAX_QUEUED_BYTES // 100_000 + 1):
        market.hub.trades([trade("A" * 100_000, 1)])
    assert socket.closed_with == 1013


@pytest.mark.long
def test_a_reader_that_takes_all_may_have_any_number(market: Market) -> None:
    reader = market.read([])
    market.hub.subscribe(reader, None, ["trades"])
    socket = reader.socket
    assert isinstance(socket, Reader)
    for part in range(5):
        market.hub.trades([trade("AAPL", n) for n in range(9_000)])
        market.pass_time(2.0)
        assert len(got(reader, "trade")) == 9_000, part
    assert socket.closed_with is None


def test_a_send_is_never_much_larger_than_it_may_be(market: Market) -> None:
    market.names = [f"S{n:05}" for n in range(5_000)]
    market.prices = dict.fromkeys(market.names, 1.0)
    reader = market.read(None, batch=True)
    market.pass_time(1.0)
    socket = reader.socket
    assert isinstance(socket, Reader)
    sizes = [len(json.dumps(send)) for send in socket.sends]
    assert max(sizes) < 2 * subscribers.SEND_BYTES
    assert len(sizes) > 5
    assert sorted(one["symbol"] for one in got(reader)) == market.names


def test_heartbeats_come_idle_or_not(market: Market) -> None:
    market = Market(heartbeat_interval_s=5.0)
    idle, busy = market.read([]), market.read(None, conflate_s=0)
    for n in range(21):
        market.tick("AAPL", n)
        market.pass_time(1.0)
    assert len(got(idle, "heartbeat")) == len(got(busy, "heartbeat")) == 4


def test_a_reader_that_reads_nothing_for_long_is_closed(market: Market) -> None:
    market = Market(heartbeat_interval_s=5.0)
    reader = market.read(None)
    socket = reader.socket
    assert isinstance(socket, Reader)
    market.pass_time(TURN_S)
    socket.stalled_since = market.now_s
    market.pass_time(MAX_STALL_S - 1)
    assert socket.closed_with is None
    market.pass_time(7)
    assert socket.closed_with == 1013


def test_who_left_is_forgotten(market: Market) -> None:
    reader = market.read(None)
    market.hub.detach(reader)
    market.hub.detach(reader)
    market.tick("AAPL", 1)
    market.hub.trades([trade("AAPL", 1)])
    market.pass_time(1.0)
    assert got(reader) == []
    assert len(market.hub) == 0


def test_quotes_that_cannot_be_had_now_come_later(market: Market) -> None:
    reader = market.read(["AAPL"], conflate_s=0)
    market.pass_time(TURN_S)
    market.away = True
    market.tick("AAPL", 1, ticks=2)
    with pytest.raises(RuntimeError):
        market.hub.turn()
    market.away = False
    market.tick("AAPL", 2)
    market.pass_time(1.0)
    assert short(got(reader)) == [("AAPL", 2, 1, 2)]


def test_who_subscribes_again_and_again_is_still_conflated(market: Market) -> None:
    reader, price = market.read(["AAPL"]), itertools.count(1)

    def trade_on(seconds: float) -> int:
        """Return how often something was sent meanwhile."""
        got(reader)
        sends, socket = 0, reader.socket
        assert isinstance(socket, Reader)
        for _ in range(round(seconds / SLOT_S)):
            market.tick("AAPL", next(price))
            market.pass_time(SLOT_S)
            sends += len(socket.sends)
            got(reader)
        return sends

    for n in range(6):
        trade_on(0.03)
        market.hub.subscribe(reader, [NAMES[n % 3]], ["quotes"])
    assert trade_on(SLOT_S) == 1, "the snapshot, at once"
    assert trade_on(2.0) == 20, "one every 100 ms"


def test_a_snapshot_says_so_even_if_its_reader_was_due_before_its_text_was_made(market: Market) -> None:
    reader = market.read(["AAPL"], conflate_s=0)
    market.pass_time(TURN_S)
    market.prices["MSFT"] = 20
    market.tick("AAPL", 10)
    read = market.hub._quotes._quotes

    def meanwhile(names: Sequence[str]) -> Sequence[Quote]:
        """The board lets others run while it settles: one of them subscribes."""
        market.hub._quotes._quotes = read
        market.hub.subscribe(reader, ["MSFT"], ["quotes"])
        return read(names)

    market.hub._quotes._quotes = meanwhile
    market.pass_time(TURN_S)
    found = {one["symbol"]: one for one in got(reader)}
    assert found["AAPL"]["bid"] == 10
    assert found["MSFT"]["snapshot"] is True


def test_a_reader_that_cannot_be_served_costs_nobody_else_anything(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    readers = [market.read(["AAPL"], conflate_s=0) for _ in range(5)]
    market.pass_time(TURN_S)
    broken = readers[2].socket
    assert isinstance(broken, Reader)
    broken.send_texts = None  # type: ignore[method-assign,assignment]  # calling it raises
    market.tick("AAPL", 10)
    market.pass_time(TURN_S)
    assert broken.ended
    assert [len(got(reader)) for reader in readers] == [1, 1, 0, 1, 1]
    assert len(caplog.records) == 1
    market.tick("AAPL", 11)
    market.pass_time(TURN_S)
    assert [len(got(reader)) for reader in readers] == [1, 1, 0, 1, 1]


def test_quotes_come_between_trades_however_many_of_these_wait(market: Market) -> None:
    reader = market.read(["AAPL"])
    market.hub.subscribe(reader, ["AAPL"], ["trades"])
    market.pass_time(1.0)
    market.hub.trades([trade("AAPL", n) for n in range(5_000)])
    market.tick("AAPL", 10)
    market.hub.turn()
    assert short(got(reader)) == [("AAPL", 10, 1, 0)]
    market.pass_time(1.0)
    assert reader.queued == 0


def test_what_fails_again_and_again_is_not_logged_at_the_rate_of_ticks(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    market.read(["AAPL"], conflate_s=0)
    bars = market.read([])
    market.hub.subscribe(bars, ["AAPL"], ["bars"])
    market.away = True
    serving = gevent.spawn(market.hub.run)
    for n in range(100):
        market.now_s += SLOT_S
        market.tick("AAPL", n)
        market.hub.bars([bar("AAPL", "1m")])
        others_turn()
    serving.kill()
    assert len(caplog.records) == 1


def test_the_hub_counts_what_left_what_was_jumped_over_and_whom_it_closed(market: Market) -> None:
    readers = [market.read(["AAPL"], conflate_s=1.0) for _ in range(3)]
    seen: list[dict[str, Any]] = []
    for price in range(10, 30):
        market.tick("AAPL", price)
        market.pass_time(0.3)
        seen += [one for reader in readers for one in got(reader)]
    market.pass_time(2.0)
    seen += [one for reader in readers for one in got(reader)]
    assert market.hub.skipped == sum(one.get("skipped", 0) for one in seen) > 0
    assert market.hub.sent == len(seen)
    slow = readers[0]
    for _ in range(subscribers.MAX_QUEUED + 1):
        slow.push(b"{}")
    assert market.hub.too_slow == 0, "not before it has left"
    for _ in range(2):
        market.hub.detach(slow)
    market.hub.detach(readers[1])
    assert market.hub.too_slow == 1
