"""Rules of alerts on committed data: every commit is looked at once, whoever is elected, and alerts are stored once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from app.alert_round import NoMoreElected, Round, look
from app.alerts.rules import METRICS, NewRule, Rule
from app.datasets.registry import DATASETS
from app.errors import BadField, Conflict, DatabaseAway, NotFound, UnknownSymbol
from app.storage import alert_facts, alert_rules
from app.storage.alert_outbox import post_later, posted, pushed, told_after, unposted, unpushed
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
        now_us = time.time_ns() // 1000 + 60 * S  # later than the rules, however slow or quick this is
        self.workers = [Feeder(now_us + 7 * number) for number in range(2)]
        self.connection = Connection(lambda: url, 5, 10, "look")
        self.seq = 0
        self.term = self.elect("a")
        self.round = Round()

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

    def look(self, term: Term | None = None, *, is_steady: bool = True) -> Round:
        self.round = look(
            self.connection,
            term or self.term,
            has_webhook=True,
            window_us=self.round.window_us,
            is_steady=is_steady,
        )
        return self.round

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
    while world.look().window_us is not None:
        looks += 1
    assert looks > 10
    assert len(world.stored()) == 40
    world.look()
    assert len(world.stored()) == 40


def test_what_came_with_long_pauses_is_looked_at_in_windows_and_none_passed_over(world: World) -> None:
    """As after a look that did not end in time: it goes on with little, and takes more where there is nothing."""
    world.flush(0, 99.0)
    world.add(direction="above")
    for number in range(1, 5):
        world.workers[0].received_us += 10**number * S
        world.flush(0, 101.0, 99.0, at_s=10 * number)
    world.round = Round(window_us=1)
    looks = 1
    while world.look().window_us is not None:
        looks += 1
    assert 10 < looks < 100
    assert world.stored() == [(10.0 * number, 101.0) for number in range(1, 5)]


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
    assert (found.alerts, found.rules, found.symbols, found.window_us) == (1, 1, frozenset({"TSLA"}), None)
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
    rows = [Tick(time_us=minute_us - ago * 60 * S, seq=ago, last=10.0, volume=10.0, flags=24) for ago in range(1, 8)]
    write_all(world.sink, world.workers[0], rows)
    world.add("volume_spike", 3.0)
    world.look()
    assert world.stored() == []
    write_all(world.sink, world.workers[0], [Tick(time_us=minute_us, last=10.0, volume=50.0, flags=24)])
    world.look()
    world.look()
    assert [value for _, value in world.stored()] == [5.0]


def test_a_spike_of_volume_is_none_because_time_goes_by(world: World) -> None:
    """The first minutes after the open were heavy, and trading pauses: they must not drop out of the mean meanwhile."""
    minute_us = time.time_ns() // 60_000_000_000 * 60 * S
    volumes = dict.fromkeys(range(24, 20, -1), 1000.0) | dict.fromkeys(range(20, 14, -1), 10.0) | {14: 100.0}
    for ago, volume in volumes.items():
        tick = Tick(time_us=minute_us - ago * 60 * S, last=10.0, volume=volume, flags=24)
        write_all(world.sink, world.workers[0], [tick])
    world.add("volume_spike", 3.0)
    world.look()
    assert world.stored() == []


def test_no_tick_is_not_told_while_workers_write_what_came_long_before(world: World) -> None:
    """The database was away for a while, and is back."""
    now_us = time.time_ns() // 1000
    write_all(world.sink, world.workers[0], [Tick(time_us=now_us - 300 * S)])
    world.add("no_tick", 60.0)
    world.look(is_steady=False)
    assert world.stored() == []
    world.run(f"UPDATE ingest_log SET updated_at = now(), done_until = to_timestamp({now_us / S - 200})")
    world.look()
    assert world.stored() == []
    world.run("UPDATE ingest_log SET updated_at = now() - interval '11 s'")
    world.look()
    assert len(world.stored()) == 1


def test_what_was_beyond_within_the_cool_down_is_told_after_it_though_nothing_comes(world: World) -> None:
    world.flush(0, 99.0)
    world.add(direction="above", cooldown_s=60)
    world.flush(0, 101.0, 99.0, 102.0, at_s=1)
    world.look()
    world.look()
    assert world.stored() == [(1.0, 101.0)]
    world.run(
        "UPDATE alert_rules SET state = jsonb_set(state, '{looked_us}', to_jsonb((state->>'looked_us')::bigint - %s))",
        58 * S,
    )
    world.look(is_steady=False)  # what came meanwhile may not be written yet
    assert world.stored() == [(1.0, 101.0)]
    world.look()
    (_, (at_s, value)) = world.stored()
    assert (value, 61 <= at_s < 100) == (102.0, True)
    world.look()
    world.flush(0, 102.5, at_s=200)
    world.look()
    assert len(world.stored()) == 2


def test_only_the_newest_ticks_are_read_though_a_rule_has_seen_no_value(world: World) -> None:
    """A trade's price of what is only quoted: were there no floor, each look would read all that there ever was."""
    world.flush(0, 99.0, spread=NAN)
    world.add("spread_above", 20.0)
    world.add(field="last")
    for number in range(1, 3):
        world.flush(0, 99.0, at_s=1000 * number, spread=NAN)
        world.look()
        states = [state for (state,) in world.run("SELECT state FROM alert_rules ORDER BY rule_id")]
        assert [state["seen_us"] for state in states] == [0, 0]
        assert [state["newest_us"] for state in states] == [NOON_US + 1000 * number * S] * 2
    world.flush(0, 99.0, at_s=2001, spread=21.0, last=5.0, volume=1.0, flags=30)
    world.flush(0, 99.0, at_s=1900, spread=22.0)  # older than the newest by more than a minute
    world.look()
    assert world.stored() == [(2001.0, 21.0)]


def test_a_rule_that_is_made_while_the_last_one_is_forgotten_has_a_place_to_begin(world: World) -> None:
    rule = world.add()
    world.look()
    with world.connection.transaction() as cur:
        remove_rule(cur, rule.rule_id)
    other = Connection(lambda: world.url, 5, 10, "other")
    with closing(psycopg2.connect(world.url)) as conn, conn.cursor() as cur:
        cur.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")  # a look that sees no rules
        cur.execute("SELECT FROM alert_rules")
        with other.transaction() as own:
            add_rule(own, NewRule("price_crosses", 100.0, symbol="TSLA"))
        with pytest.raises(psycopg2.errors.SerializationFailure):
            cur.execute("DELETE FROM alert_progress")
    other.close()
    assert world.run("SELECT count(*) FROM alert_progress") == [(1,)]


def test_a_basis_is_looked_at_sent_or_computed(world: World) -> None:
    world.add("basis_beyond", 5.0, subject="VN30F1M", hysteresis=1)
    rows = [
        ("VN30F1M", 1.0, None, None),
        ("OTHER", 9.0, None, None),
        ("VN30F1M", None, 1206.0, 1200.0),
        ("VN30F1M", 7.0, None, None),
        ("VN30F1M", None, 1204.0, 1200.0),
        ("VN30F1M", None, 1194.0, 1200.0),
    ]
    for number, (name, basis, future, spot) in enumerate(rows):
        world.run(
            "INSERT INTO basis_history (futures_symbol, time, basis, futures_price, spot_value, received_at)"
            " VALUES (%s, to_timestamp(%s), %s, %s, %s, now())",
            *(name, NOON_US // S + number, basis, future, spot),
        )
        world.look()
    assert world.stored() == [(2.0, 6.0), (5.0, -6.0)]
    assert world.run("SELECT message, symbol_id FROM alerts ORDER BY alert_id") == [
        ("VN30F1M basis 6 is above 5", None),
        ("VN30F1M basis -6 is below -5", None),
    ]


METRIC_RULES: list[tuple[dict[str, Any], str, str]] = [
    ({"dataset": "market_data", "field": "spread_bps", "symbol": "TSLA"}, "symbol_id, spread_bps", "2"),
    ({"dataset": "strategy_metrics", "field": "pnl", "subject": "trend"}, "strategy_name, pnl", "'trend'"),
    ({"dataset": "execution_metrics", "field": "fill_rate"}, "fill_rate", ""),
    ({"dataset": "system_metrics", "field": "cpu_percent", "subject": "h1"}, "host, cpu_percent", "'h1'"),
]


@pytest.mark.parametrize(("fields", "columns", "about"), METRIC_RULES, ids=[one[0]["dataset"] for one in METRIC_RULES])
def test_a_metric_is_looked_at(world: World, fields: dict[str, Any], columns: str, about: str) -> None:
    world.add("metric_beyond", 0.5, hysteresis=0.1, **fields)
    if fields.get("symbol"):
        about = str(world.run("SELECT symbol_id FROM instruments WHERE symbol = 'TSLA'")[0][0])
    table = fields["dataset"]
    now_s = int(time.time())
    for day in (0, 1):  # it may be the last minute of a month
        world.run("SELECT ensure_month_partition(%s, to_timestamp(%s))", table, now_s + day * 86_400)
    for number, value in enumerate([0.4, 0.9, 0.45, 0.9, 0.3, 0.6]):
        world.run(
            f"INSERT INTO {table} (time, received_at, {columns}) VALUES (to_timestamp(%s), now(), "
            f"{about}{about and ', '}%s)",
            *(now_s + number, value),
        )
        world.look()
        world.look()
    assert [value for _, value in world.stored()] == [0.9, 0.6]


def test_many_rules_of_one_field_each_have_their_values_and_what_is_left_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_facts, "MOST_VALUES", 6)
    monkeypatch.setattr(alert_facts, "LEAST_VALUES", 2)
    for name in ("a", "b"):
        for threshold in (5.0, 50.0):
            world.add("basis_beyond", threshold, subject=name, hysteresis=1)

    def send(rows: list[tuple[str, float]], at_s: int) -> None:
        for number, (name, basis) in enumerate(rows):
            world.run(
                "INSERT INTO basis_history (futures_symbol, time, basis, received_at)"
                " VALUES (%s, to_timestamp(%s), %s, now())",
                *(name, NOON_US // S + at_s + number, basis),
            )

    send([("a", 1), ("b", 1)], 0)
    world.look()
    send([("a", 6), ("a", 1), ("a", 7), ("b", 60), ("a", 2), ("a", 8)], 2)
    for looks in range(1, 4):
        world.look()
        if looks == 1:
            assert world.stored() == [(2.0, 6.0), (5.0, 60.0), (5.0, 60.0)]
    assert sorted(world.stored()) == [(2.0, 6.0), (4.0, 7.0), (5.0, 60.0), (5.0, 60.0), (7.0, 8.0)]


def test_every_metric_that_can_be_looked_at_is_a_field_of_its_dataset() -> None:
    for name, (key, fields) in METRICS.items():
        declared = DATASETS[name]
        assert {declared.by_name[field].kind for field in fields} <= {"float", "int"}
        assert [column.name for column in declared.keys if column.kind != "time"] == ([] if key is None else [key])


def test_alerts_behind_a_number_are_found_from_now_on(world: World) -> None:
    world.add(direction="above")
    world.flush(0, 99.0, 101.0, 99.0)
    world.look()
    with world.connection.transaction() as cur:
        start = told_after(cur, None, 10)
        assert start.alerts == []
        assert told_after(cur, start.last_id, 10) == start
    world.flush(0, 101.0, 99.0, 101.0, at_s=10)
    world.look()
    world.run("INSERT INTO alerts (time, alert_type, message) VALUES (now(), 'x', 'sent from outside')")
    with world.connection.transaction() as cur:
        first = told_after(cur, start.last_id, 1)
        second = told_after(cur, first.last_id, 10)
    assert [one.timestamp[17:19] for one in [*first.alerts, *second.alerts]] == ["10", "12"]


def test_an_alert_of_a_rule_is_found_though_one_from_outside_has_a_later_number(world: World) -> None:
    world.add(direction="above")
    world.flush(0, 99.0)
    world.look()
    world.run("INSERT INTO alerts (alert_id, time, alert_type, message) VALUES (1000, now(), 'x', 'from outside')")
    with world.connection.transaction() as cur:
        start = told_after(cur, None, 10)
    world.flush(0, 101.0, at_s=10)
    world.look()
    with world.connection.transaction() as cur:
        found = told_after(cur, start.last_id, 10)
    assert [one.value for one in found.alerts] == [101.0]


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
