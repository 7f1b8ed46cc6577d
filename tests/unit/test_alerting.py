"""Alerts from the elected process to the readers of all workers: each told once by a worker, and none left untold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import gevent
import msgspec
import pytest

from app import alerting
from app.alert_round import NoMoreElected, Round
from app.alerting import Alerting
from app.election import Election
from app.errors import DatabaseAway
from app.lanes import Lane
from app.market.committed import Touched
from app.storage.alert_facts import FIRST_WINDOW_US
from app.storage.alert_outbox import StoredAlert, ToldAfter
from app.storage.connection import Connection
from app.storage.lease import Term
from app.stream.bus import ALERTS, Bus
from app.stream.frames import BadFrame
from app.stream.hub import Hub
from app.stream.messages import AlertUpdate
from tests.waiting import run_until

NOWHERE = Path("/dev/null/bus")


def alert(number: int) -> StoredAlert:
    return StoredAlert(number, "AAPL", "2026-01-13T12:00:00.000000Z", "price_crosses", str(number), "info", 1, 1.0)


class Desk:
    """What the database has: alerts that were not told, and what looks find."""

    def __init__(self) -> None:
        self.untold: list[StoredAlert] = []
        self.looks: list[Round | Exception] = []
        self.looked = 0
        self.fails_to_note = False
        self.windows: list[int | None] = []
        self.steady: list[bool] = []
        self.stored: list[StoredAlert] = []

    def told_after(self, cur: object, after_id: int | None, most: int) -> ToldAfter:
        last_id = max((one.alert_id for one in self.stored), default=0)
        if after_id is None:
            return ToldAfter([], last_id)
        return ToldAfter([one for one in self.stored if one.alert_id > after_id], last_id)

    def look(
        self, connection: object, term: Term, *, has_webhook: bool, window_us: int | None, is_steady: bool
    ) -> Round:
        self.looked += 1
        self.windows.append(window_us)
        self.steady.append(is_steady)
        found = self.looks.pop(0) if self.looks else Round(symbols=frozenset({"AAPL"}))
        if isinstance(found, Exception):
            raise found
        return found

    def pushed(self, cur: object, ids: list[int]) -> None:
        if self.fails_to_note:
            raise NoMoreElected
        self.untold = [one for one in self.untold if one.alert_id not in ids]


class Wire(Bus):
    """A bus that hands its messages over at once."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, 0)
        self.others: list[Wire] = []
        self.handler: Callable[[bytes], None] = lambda message: None

    @property
    def reaches_somebody(self) -> bool:
        return bool(self.others)

    def on(self, kind: int, handler: Callable[[bytes], None]) -> None:
        assert kind == ALERTS
        self.handler = handler

    def send(self, kind: int, payload: bytes, to: object = None, *, here: bool = False) -> None:
        for other in self.others:
            other.handler(payload)


class Readers:
    """A hub's readers."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.there = True

    def wants_alerts(self) -> bool:
        return self.there

    def alerts(self, updates: list[AlertUpdate]) -> None:
        self.told += [one.message for one in updates]


class Lease:
    """An election that is held by hand."""

    def __init__(self) -> None:
        self.term: Term | None = None
        self.began = gevent.event.Event()


class Straight:
    """A lane that runs at once."""

    def call_within(self, timeout_s: float, interrupt: object, fn: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return fn(*args, **more)


class NoConnection:
    interrupt = None


class Worker:
    def __init__(self) -> None:
        self.lease, self.readers, self.bus = Lease(), Readers(), Wire()
        self.alerting = Alerting(
            cast(Election, self.lease),
            cast(Lane, Straight()),
            cast(Connection, NoConnection()),
            cast(Hub, self.readers),
            self.bus,
        )
        self.greenlets = [gevent.spawn(self.alerting.run), gevent.spawn(self.alerting.repair)]

    def elect(self, number: int) -> None:
        self.lease.term = Term("desk", "x", number)
        self.lease.began.set()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk()
    monkeypatch.setattr(alerting, "look", made.look)
    monkeypatch.setattr(alerting, "unpushed", lambda cur, most: made.untold[:most])
    monkeypatch.setattr(alerting, "pushed", made.pushed)
    monkeypatch.setattr(alerting, "_in_transaction", lambda connection, fn: fn(None))
    monkeypatch.setattr(alerting, "give_up", lambda cur, older_s: 0)
    monkeypatch.setattr(alerting, "told_after", made.told_after)
    for name in ("LEAST_S", "RETRY_S", "MORE_S", "REPAIR_S"):
        monkeypatch.setattr(alerting, name, 0.001)
    return made


@pytest.fixture
def workers(desk: Desk) -> Iterator[list[Worker]]:
    made = [Worker(), Worker()]
    made[0].bus.others, made[1].bus.others = [made[1].bus], [made[0].bus]
    yield made
    gevent.killall([greenlet for one in made for greenlet in one.greenlets])


def test_what_is_stored_is_told_to_the_readers_of_every_worker_once(desk: Desk, workers: list[Worker]) -> None:
    desk.untold = [alert(number) for number in range(alerting.MOST_PUSHED + 5)]
    workers[0].elect(1)
    run_until(lambda: not desk.untold)
    expected = [str(number) for number in range(alerting.MOST_PUSHED + 5)]
    assert [one.readers.told for one in workers] == [expected, expected]


def test_nobody_looks_who_is_not_elected(desk: Desk, workers: list[Worker]) -> None:
    workers[0].alerting.committed([Touched("AAPL", 0, 0)])
    gevent.sleep(0.05)  # in which nobody may look
    assert desk.looked == 0


def test_one_that_died_before_it_noted_whom_it_told_is_followed_by_one_that_tells_the_others(
    desk: Desk, workers: list[Worker]
) -> None:
    desk.fails_to_note = True
    desk.untold = [alert(1)]
    workers[0].bus.others = []  # it did not get so far
    workers[0].elect(1)
    run_until(lambda: workers[0].readers.told)
    workers[0].lease.term, desk.fails_to_note = None, False
    workers[1].elect(2)
    run_until(lambda: not desk.untold)
    assert [one.readers.told for one in workers] == [["1"], ["1"]]


def test_a_commit_of_a_symbol_with_rules_is_looked_at_without_waiting(
    desk: Desk, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "SWEEP_S", 1000.0)
    desk.looks = [Round(symbols=frozenset({"AAPL"}))]
    workers[0].elect(1)
    run_until(lambda: desk.looked == 1)
    gevent.sleep(0.05)  # what follows the first look ends
    workers[0].alerting.committed([Touched("TSLA", 0, 0)])
    gevent.sleep(0.05)  # in which nobody may look
    assert desk.looked == 1
    workers[0].alerting.committed([Touched("TSLA", 0, 0), Touched("AAPL", 0, 0)])
    run_until(lambda: desk.looked == 2)


def test_whatever_goes_wrong_it_looks_again(desk: Desk, workers: list[Worker]) -> None:
    desk.looks = [NoMoreElected(), RuntimeError("a mistake"), Round(window_us=8), Round(alerts=1)]
    desk.untold = []
    workers[0].elect(1)
    run_until(lambda: desk.looked >= 4)
    # After a failure it looks at less, in case that it was too much.
    assert desk.windows[:4] == [None, FIRST_WINDOW_US, FIRST_WINDOW_US, 8]


def test_what_was_stored_while_telling_failed_is_told_in_the_same_term(
    desk: Desk, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "SWEEP_S", 0.001)
    workers[0].elect(1)
    run_until(lambda: desk.looked >= 3)
    desk.looks = [DatabaseAway("its answer was lost, but it had stored")]
    desk.untold = [alert(1)]
    run_until(lambda: not desk.untold)
    assert [one.readers.told for one in workers] == [["1"], ["1"]]


def test_a_worker_that_did_not_hear_of_an_alert_finds_it(desk: Desk, workers: list[Worker]) -> None:
    desk.stored = [alert(1)]
    workers[1].readers.there = False
    run_until(lambda: workers[0].alerting._repaired_id == 1)
    workers[0].bus.handler(msgspec.msgpack.encode([alert(2)]))
    desk.stored += [alert(2), alert(3)]
    run_until(lambda: workers[0].readers.told == ["2", "3"])
    gevent.sleep(0.02)  # in which nothing more may be told
    # What was before there were readers is no news to them.
    assert [one.readers.told for one in workers] == [["2", "3"], []]
    workers[1].readers.there = True
    run_until(lambda: workers[1].alerting._repaired_id == 3)
    desk.stored.append(alert(4))
    run_until(lambda: workers[1].readers.told == ["4"])


def test_looks_are_steady_when_they_have_gone_on_for_a_while(
    desk: Desk, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "SWEEP_S", 0.001)
    monkeypatch.setattr(alerting, "STEADY_S", 0.05)
    workers[0].elect(1)
    run_until(lambda: True in desk.steady)
    assert not desk.steady[0]
    desk.looks = [DatabaseAway("for a moment")]
    run_until(lambda: not desk.looks and False in desk.steady[desk.steady.index(True) :])


def test_what_is_no_alert_is_not_told(workers: list[Worker]) -> None:
    for message in (b"", b"\xff", msgspec.msgpack.encode([{"alert_id": "x"}])):
        with pytest.raises(BadFrame):
            workers[0].bus.handler(message)
    assert workers[0].readers.told == []


def test_what_was_told_is_remembered_and_bounded(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerting, "REMEMBERED", 3)
    for numbers in ([1, 2], [2, 3], [4, 5], [4, 5]):
        workers[0].bus.handler(msgspec.msgpack.encode([alert(number) for number in numbers]))
    assert workers[0].readers.told == ["1", "2", "3", "4", "5"]
    assert len(workers[0].alerting._told) == 3
