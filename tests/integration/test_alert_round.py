"""Rules of alerts on committed data: every commit is looked at once, whoever is elected, and alerts are stored once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from app.alert_round import NoMoreElected, Round, look
from app.alerts.rules import NewRule, Rule
from app.errors import BadField, Conflict, DatabaseAway, NotFound, UnknownSymbol
from app.storage import alert_facts, alert_rules
from app.storage.alert_outbox import post_later, posted, pushed, unposted, unpushed
from app.storage.alert_rules import add_rule, list_rules, remove_rule
from app.storage.connection import Connection
from app.storage.lease import Term, claim
from tests.batches import NAN, NOON_US, Feeder, Tick, new_sink, write_all

S = 1_000_000


class World:
    """A database that several workers flush into, and processes that may be elected."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sink = new_sink(url)
        now_us = time.time_ns() // 1000 + S  # later than the rules, however quick this is
        self.workers = [Feeder(now_us + 7 * number) for number in range(2)]
        self.connection = Connection(lambda: url, 5, 10, "look")
        self.seq = 0
        self.term = self.elect("a")

    def elect(self, holder: str) -> Term:
        self.run("UPDATE leases SET held_until = now() - interval '1 s'")
        with self.connection.transaction() as cur:
            term = claim(cur, "desk", holder, 60)
        assert term is not None
        return term

    def add(self, alert_type: str = "price_crosses", threshold: float = 100.0, **fields: Any) -> Rule:
        if alert_type in ("price_crosses", "spread_above", "no_tick", "volume_spike"):
            fields.setdefault("symbol", "TSLA")
        with self.connection.transaction() as cur:
            return add_rule(cur, NewRule(alert_type, threshold, **{"hysteresis": 0.5, "cooldown_s": 0, **fields}))

    def flush(self, worker: int, *bids: float, at_s: float = 0, **fields: Any) -> None:
        """Commit a quote a second, from at_s after noon on."""
        rows = []
        for number, bid in enumerate(bids):
            self.seq += 1
            at_us = NOON_US + round((at_s + number) * S)
            rows.append(Tick(time_us=at_us, seq=self.seq, **{"bid": bid, "ask": bid + 0.1, **fields}))
        write_all(self.sink, self.workers[worker], rows)

    def look(self, term: Term | None = None) -> Round:
        return look(self.connection, term or self.term, has_webhook=True)

    def stored(self) -> list[tuple[float, float]]:
        """Return the second after noon and the value of each alert."""
        return [
            (float(at_s), value)
            for at_s, value in self.run(
                f"SELECT extract(epoch FROM time) - {NOON_US // S}, value FROM alerts ORDER BY alert_id"
            )
        ]

    def run(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.url)) as conn, conn, conn.cursor() as cur:
            cur.execute(query, parameters or None)
            return cur.fetchall() if cur.description else []


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    yield made
    made.sink.close()
    made.connection.close()


def test_a_price_that_crosses_alerts_once_though_two_workers_flush_its_noise(world: World) -> None:
    world.flush(0, 99.0)
    world.add(direction="above")
    for number in range(20):
        world.flush(number % 2, 99.7 + 0.3 * (number % 3), at_s=1 + number)
        world.look()
        world.look()
    assert world.stored() == [(2.0, 100.0)]
    world.flush(0, 99.5, 100.0, at_s=30)
    world.look()
    assert world.stored() == [(2.0, 100.0), (31.0, 100.0)]


def test_what_a_worker_flushes_late_is_looked_at_too(world: World) -> None:
    world.add(direction="above")
    world.flush(0, 99.0)
    world.flush(0, 99.0, at_s=10)
    world.look()
    world.flush(1, 101.0, at_s=5)
    world.look()
    world.flush(1, 101.0, at_s=6)
    world.look()
    assert world.stored() == [(5.0, 101.0)]


def test_a_price_is_compared_with_what_it_was_when_the_rule_was_made(world: World) -> None:
    world.flush(0, 99.0)
    world.add(direction="above")
    world.add(direction="below")
    world.flush(0, 101.0, at_s=1)  # before anybody looked
    world.look()
    assert world.stored() == [(1.0, 101.0)]


def test_a_rule_does_not_look_at_what_was_before_it(world: World) -> None:
    world.flush(0, 99.0, 101.0, 99.0)
    world.add(direction="above")
    world.look()
    assert world.stored() == []


def test_trades_make_the_price_of_what_has_any(world: World) -> None:
    world.flush(0, 99.0, last=99.0, volume=1.0, flags=24)
    world.add(direction="above")
    world.add(direction="above", field="ask", threshold=150.0)
    world.flush(0, 200.0, at_s=1)
    world.flush(0, NAN, ask=NAN, last=101.0, volume=1.0, flags=24, at_s=2)
    world.look()
    # The stale repeat of a quote is no price, and neither is the bid.
    assert world.stored() == [(2.0, 101.0), (1.0, 200.1)] or world.stored() == [(1.0, 200.1), (2.0, 101.0)]


def test_the_next_one_elected_goes_on_where_the_last_one_was(world: World) -> None:
    world.flush(0, 99.0)
    world.add(direction="above")
    world.flush(0, 101.0, at_s=1)
    world.look()
    second = world.elect("b")
    world.flush(1, 101.5, at_s=2)
    world.look(second)
    world.flush(1, 99.0, 102.0, at_s=3)
    third = world.elect("c")
    world.look(third)
    assert world.stored() == [(1.0, 101.0), (4.0, 102.0)]


def test_one_that_is_elected_no_more_writes_nothing(world: World) -> None:
    world.flush(0, 99.0)
    world.add(direction="above")
    world.look()
    world.flush(0, 101.0, at_s=1)
    second = world.elect("b")
    before = world.run("SELECT state, positions FROM alert_rules, alert_progress")
    with pytest.raises(NoMoreElected):
        world.look()
    assert world.stored() == []
    assert world.run("SELECT state, positions FROM alert_rules, alert_progress") == before
    world.look(second)
    assert world.stored() == [(1.0, 101.0)]


def test_of_two_that_look_at_once_one_writes(world: World) -> None:
    """The first one is frozen between its last statement and its commit; the other one was elected before that."""
    world.flush(0, 99.0)
    world.add(direction="above")
    world.look()
    world.flush(0, 101.0, at_s=1)
    frozen = world.term
    second = world.elect("b")
    with closing(psycopg2.connect(world.url)) as conn, conn.cursor() as cur:
        cur.execute("SELECT FROM alert_rules FOR UPDATE")  # of a look that goes on
        other = Connection(lambda: world.url, 5, 10, "other")
        with pytest.raises(DatabaseAway):
            look(other, second, has_webhook=True)
        conn.rollback()
        other.close()
    with pytest.raises(NoMoreElected):
        world.look(frozen)
    world.look(second)
    assert world.stored() == [(1.0, 101.0)]


def test_much_at_once_is_looked_at_in_parts_and_none_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_facts, "MOST_TICKS", 7)
    world.flush(0, 99.0)
    world.add(direction="above")
    world.flush(0, *[99.0, 101.0] * 20, at_s=1)
    world.workers[1].received_us += S
    world.flush(1, *[99.0, 101.0] * 20, at_s=41)
    looks = 1
    while world.look().more:
        looks += 1
    assert looks > 10
    assert len(world.stored()) == 40
    world.look()
    assert len(world.stored()) == 40


def test_ticks_that_are_imported_alert_nobody(world: World) -> None:
    world.flush(0, 99.0)
    world.add(direction="above")
    world.flush(0, 101.0, 99.0, at_s=-86_400)
    world.look()
    assert world.stored() == []


def test_a_spread_and_what_is_told_of_it(world: World) -> None:
    world.add("spread_above", 20.0, hysteresis=5, name="wide")
    world.flush(0, 99.0, spread=10.0)
    world.flush(0, 99.0, spread=25.0, at_s=1)
    world.flush(0, 99.0, spread=17.0, at_s=2)
    world.flush(0, 99.0, spread=30.0, at_s=3)
    found = world.look()
    assert (found.alerts, found.rules, found.symbols, found.more) == (1, 1, frozenset({"TSLA"}), False)
    (message,) = world.run("SELECT message, alert_type, severity FROM alerts")
    assert message == ("wide: TSLA spread 25 points is above 20", "spread_above", "warning")


def test_no_tick_for_long_is_told_once_until_one_comes(world: World) -> None:
    now_us = time.time_ns() // 1000
    write_all(world.sink, world.workers[0], [Tick(time_us=now_us - 100 * S)])
    world.add("no_tick", 60.0)
    for _ in range(3):
        world.look()
    ((value,),) = world.run("SELECT value FROM alerts")
    assert 99 <= value < 200
    write_all(world.sink, world.workers[0], [Tick(time_us=now_us + 60 * S)])
    world.look()
    write_all(world.sink, world.workers[0], [Tick("NVDA", time_us=now_us + 60 * S)])
    world.run("UPDATE current SET last_updated = last_updated - interval '1000 s' WHERE symbol = 'TSLA'")
    world.look()
    assert len(world.stored()) == 2


def test_no_tick_means_nothing_while_the_exchange_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import alert_round

    write_all(world.sink, world.workers[0], [Tick(time_us=NOON_US)])
    world.add("no_tick", 60.0)
    hours: list[int | None] = [None]
    monkeypatch.setattr(alert_round, "open_since", lambda now_us, exchange: hours[0])
    world.look()
    hours[0] = time.time_ns() // 1000 - 10 * S
    world.look()
    assert world.stored() == []
    hours[0] -= 60 * S
    world.look()
    assert len(world.stored()) == 1


def test_a_spike_of_volume_is_told(world: World) -> None:
    minute_us = time.time_ns() // 60_000_000_000 * 60 * S
    rows = [
        Tick(time_us=minute_us - ago * 60 * S, seq=ago, last=10.0, volume=10.0, flags=24) for ago in range(1, 8)
    ]
    write_all(world.sink, world.workers[0], rows)
    world.add("volume_spike", 3.0)
    world.look()
    assert world.stored() == []
    write_all(world.sink, world.workers[0], [Tick(time_us=minute_us, last=10.0, volume=50.0, flags=24)])
    world.look()
    world.look()
    assert [value for _, value in world.stored()] == [5.0]


def test_a_basis_is_looked_at_once_its_dataset_is_there(world: World) -> None:
    world.add("basis_beyond", 5.0, subject="VN30F1M")
    if world.run("SELECT to_regclass('basis_history')") == [(None,)]:
        world.look()
        world.run("CREATE TABLE basis_history (futures_symbol text, time timestamptz, basis float8)")
    columns = "futures_symbol, time, basis"
    has_received = world.run(
        "SELECT 1 FROM pg_attribute WHERE attrelid = 'basis_history'::regclass AND attname = 'received_at'"
    )
    extra, value = (", received_at", ", now()") if has_received else ("", "")
    for number, (name, basis) in enumerate([("VN30F1M", 1), ("OTHER", 9), ("VN30F1M", 6), ("VN30F1M", 7)]):
        world.run(
            f"INSERT INTO basis_history ({columns}{extra}) VALUES (%s, to_timestamp(%s), %s{value})",
            name,
            NOON_US // S + number,
            basis,
        )
        world.look()
    assert world.stored() == [(2.0, 6.0)]
    assert world.run("SELECT message, symbol_id FROM alerts") == [("VN30F1M basis 6 is above 5", None)]


def test_alerts_are_told_until_they_are_ticked_off(world: World) -> None:
    world.add(direction="above")
    world.flush(0, 99.0, 101.0, 99.0, 101.0)
    world.look()
    with world.connection.transaction() as cur:
        first, second = unpushed(cur, 10)
        assert [one.alert_id for one in unposted(cur, 10)] == [first.alert_id, second.alert_id]
        assert (first.symbol, first.timestamp, first.value) == ("TSLA", "2026-01-13T12:00:01.000000Z", 101.0)
        pushed(cur, [first.alert_id])
        assert unpushed(cur, 10) == [second]
        posted(cur, first.alert_id)
        post_later(cur, second.alert_id, 100)
        assert unposted(cur, 10) == []
        pushed(cur, [second.alert_id])
    assert world.run("SELECT alert_id, is_pushed, tries FROM alert_outbox") == [(second.alert_id, True, 1)]


def test_rules_are_added_listed_and_removed(world: World) -> None:
    first = world.add(symbol="tsla.us", name="one")
    assert (first.symbol, first.direction, first.field) == ("TSLA", "both", "price")
    second = world.add("metric_beyond", 90.0, dataset="system_metrics", field="cpu_percent", subject="host")
    with world.connection.transaction() as cur:
        assert list_rules(cur) == [first, second]
        assert remove_rule(cur, first.rule_id) == first
        assert list_rules(cur) == [second]
    with world.connection.transaction() as cur, pytest.raises(NotFound):
        remove_rule(cur, first.rule_id)


def test_a_rule_that_cannot_be_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownSymbol):
        world.add(symbol="NOPE")
    with pytest.raises(UnknownSymbol):
        world.add(symbol="A\0B")
    with pytest.raises(BadField):
        world.add(hysteresis=-1.0)
    monkeypatch.setattr(alert_rules, "MOST_RULES", 1)
    world.add()
    with pytest.raises(Conflict):
        world.add()


def test_with_no_rules_nothing_is_written(world: World) -> None:
    rule = world.add()
    with world.connection.transaction() as cur:
        remove_rule(cur, rule.rule_id)
    world.flush(0, 99.0, 101.0)
    world.look()
    world.look()
    assert world.run("SELECT count(*) FROM alert_progress") == [(0,)]
    world.add(direction="below")
    world.flush(0, 99.0, at_s=10)
    world.look()
    assert world.stored() == [(10.0, 99.0)]
