"""The newest metrics in memory: what was accepted counts at once, what is stored when it is read, and nobody waits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gevent
import pytest
from gevent.event import Event

from app import newest_metrics
from app.datasets.registry import DATASETS
from app.errors import DatabaseAway
from app.newest_metrics import NewestMetrics
from app.storage.newest_metrics import Newest
from tests.dataset_rows import accepted
from tests.waiting import others_turn, run_until

STRATEGY, EXECUTION = DATASETS["strategy_metrics"], DATASETS["execution_metrics"]
AT = "2026-01-13T10:00:{:02}Z"
AT_US = 1_768_298_400_000_000
WAIT_S = 20.0


class Database:
    """What is stored, as it is read; it may be slow, or away."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Newest]] = {STRATEGY.name: {}, EXECUTION.name: {}}
        self.reads, self.answering, self.is_away = 0, Event(), False
        self.answering.set()

    def __call__(self) -> dict[str, dict[str, Newest]]:
        self.reads += 1
        self.answering.wait()
        if self.is_away:
            raise DatabaseAway("it is away")
        return copy.deepcopy(self.stored)

    def store(self, second: int, **values: Any) -> None:
        self.stored[STRATEGY.name]["mean"] = Newest(AT_US + second * 1_000_000, values)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_metrics, "REFRESH_S", 0.0)
    monkeypatch.setattr(newest_metrics, "REFRESH_SHARE", 1e9)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def newest(database: Database) -> NewestMetrics:
    return NewestMetrics([STRATEGY, EXECUTION], database)


def accept(newest: NewestMetrics, second: int, name: str = "mean", **values: Any) -> None:
    newest.accepted(
        STRATEGY, accepted(STRATEGY, [{"strategy_name": name, "timestamp": AT.format(second), **values}], "update")
    )


def read(newest: NewestMetrics) -> Mapping[str, Newest]:
    newest.wait(WAIT_S)
    return newest.of(STRATEGY)


def pnl(newest: NewestMetrics) -> Any:
    return newest.of(STRATEGY)["mean"].values["pnl"]


def test_what_was_accepted_counts_at_once_and_older_does_not(newest: NewestMetrics, database: Database) -> None:
    database.answering.clear()
    accept(newest, 5, pnl=5.0, positions=1)
    assert pnl(newest) == 5.0
    accept(newest, 4, pnl=4.0)
    assert pnl(newest) == 5.0
    accept(newest, 5, pnl=6.0)
    assert newest.of(STRATEGY)["mean"] == Newest(
        AT_US + 5_000_000, {"pnl": 6.0, "daily_pnl": None, "positions": 1, "signals": None, "win_rate": None}
    )
    accept(newest, 7, signals=3)
    assert newest.of(STRATEGY)["mean"].values["positions"] is None, "a record is no update of the one before"
    newest.accepted(EXECUTION, accepted(EXECUTION, [{"timestamp": AT.format(1), "fill_rate": 0.5}], "update"))
    assert newest.of(EXECUTION)[""].values["fill_rate"] == 0.5
    database.answering.set()


def test_while_many_records_are_looked_at_others_are_served(newest: NewestMetrics, database: Database) -> None:
    """A file of 10 MB has some 200,000 of them; what is read from the database meanwhile takes none of them away."""
    database.store(1, pnl=-1.0)
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            newest.of(STRATEGY)
            others_turn()

    sent = [{"strategy_name": f"s{at % 3}", "timestamp": AT_US // 1000 + at, "pnl": at} for at in range(5000)]
    serving = gevent.spawn(others)
    newest.accepted(STRATEGY, accepted(STRATEGY, sent, "update"))
    seen = turns
    serving.kill()
    assert seen >= 5000 // newest_metrics.SLICE_RECORDS - 1
    found = {name: one.values["pnl"] for name, one in newest.of(STRATEGY).items() if name != "mean"}
    assert found == {"s0": 4998, "s1": 4999, "s2": 4997}


def test_records_of_other_datasets_are_passed_over(newest: NewestMetrics) -> None:
    news = DATASETS["news"]
    newest.accepted(news, accepted(news, [{"symbol": "AAPL", "timestamp": AT.format(1), "url": "u"}], "update"))


def test_what_others_stored_is_read_and_what_is_not_flushed_yet_stays(
    newest: NewestMetrics, database: Database
) -> None:
    database.store(3, pnl=3.0)
    assert read(newest)["mean"].values == {"pnl": 3.0}
    accept(newest, 9, pnl=9.0)
    accept(newest, 9, name="mine", pnl=1.0)
    assert read(newest)["mean"].values["pnl"] == 9.0
    assert set(newest.of(STRATEGY)) == {"mean", "mine"}
    database.store(11, pnl=11.0)
    assert read(newest)["mean"].values["pnl"] == 11.0


def test_what_the_database_never_had_is_forgotten_in_the_end(
    newest: NewestMetrics, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.store(3, pnl=3.0)
    accept(newest, 9, pnl=9.0)
    accept(newest, 9, name="mine", pnl=1.0)
    assert read(newest)["mean"].values["pnl"] == 9.0
    monkeypatch.setattr(newest_metrics, "FLUSH_S", 0.0)
    assert read(newest)["mean"].values["pnl"] == 3.0
    assert set(newest.of(STRATEGY)) == {"mean"}


def test_an_update_of_the_stored_record_counts_until_it_is_flushed(
    newest: NewestMetrics, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.store(9, pnl=3.0)
    accept(newest, 9, pnl=4.0)
    assert read(newest)["mean"].values["pnl"] == 4.0
    monkeypatch.setattr(newest_metrics, "RACE_S", 0.0)
    assert read(newest)["mean"].values["pnl"] == 3.0


def test_with_the_database_away_what_is_known_stays(newest: NewestMetrics, database: Database) -> None:
    database.store(3, pnl=3.0)
    read(newest)
    database.is_away, reads = True, database.reads
    assert read(newest)["mean"].values == {"pnl": 3.0}
    accept(newest, 5, pnl=5.0)
    assert read(newest)["mean"].values["pnl"] == 5.0
    assert database.reads > reads
    database.is_away = False
    database.store(6, pnl=6.0)
    run_until(lambda: read(newest)["mean"].values["pnl"] == 6.0)


def test_who_asks_does_not_wait_for_a_slow_database_and_it_is_asked_once_at_a_time(
    newest: NewestMetrics, database: Database
) -> None:
    database.answering.clear()
    for _ in range(10):
        assert newest.of(STRATEGY) == {}
        others_turn()
    newest.wait(0.01)
    assert database.reads == 1
    database.store(3, pnl=3.0)
    database.answering.set()
    assert read(newest)["mean"].values == {"pnl": 3.0}


def test_while_nobody_asks_nothing_is_read(newest: NewestMetrics, database: Database) -> None:
    read(newest)
    newest.wait(WAIT_S)
    reads = database.reads
    gevent.sleep(0.05)  # in which nothing may be read
    assert database.reads == reads


def test_made_up_names_fill_no_memory(newest: NewestMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_metrics, "MOST_NAMES", 3)
    for number in range(10):
        accept(newest, 1, name=f"s{number}")
    accept(newest, 2, name="s1", pnl=1.0)
    found = newest.of(STRATEGY)
    assert len(found) == 3
    assert found["s1"].values["pnl"] == 1.0
