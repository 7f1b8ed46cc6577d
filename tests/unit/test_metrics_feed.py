"""The figures of /ws/metrics: made once for all who watch, and only while somebody does; what the machine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gevent
import msgspec
import pytest

from app.datasets.rollup import rollup_keys
from app.machine import Machine
from app.metrics_history import GROUPS, Group
from app.stream.hub import MAX_STALL_S
from app.stream.subscriber import Subscriber
from app.web import metrics_feed
from app.web.current_metrics import CurrentMetrics, ExecutionFigures, MarketFigures, StrategyFigures, SystemFigures
from app.web.metrics_feed import MetricsFeed
from tests.outlet import Outlet
from tests.waiting import run_until

WAIT_S = 20.0


class Figures:
    """Numbers instead of figures, and how many were asked for."""

    def __init__(self) -> None:
        self.made = 0
        self.broken = False

    def __call__(self) -> CurrentMetrics:
        if self.broken:
            raise ZeroDivisionError
        self.made += 1
        return cast(Any, self.made)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_feed, "EVERY_S", 0.005)
    monkeypatch.setattr(metrics_feed, "MOST_SHARE", 1.0)


def test_they_are_made_once_for_all_who_watch_and_not_for_nobody() -> None:
    figures, outlets = Figures(), [Outlet() for _ in range(40)]
    feed, readers = MetricsFeed(figures), [Subscriber(outlet) for outlet in outlets]
    for reader in readers:
        feed.add(reader)
    run_until(lambda: figures.made >= 5)
    for reader in readers:
        feed.remove(reader)
    gevent.sleep(0.05)  # the one that was being made ends
    made = figures.made
    for outlet in outlets:
        assert outlet.got in (list(range(1, made + 1)), list(range(1, made)))
    gevent.sleep(0.05)  # in which none may be made
    assert figures.made == made
    feed.add(readers[0])
    run_until(lambda: outlets[0].got[-1] > made)
    feed.remove(readers[0])


def test_who_is_stalled_misses_some_delays_nobody_and_is_closed_in_the_end() -> None:
    feed, slow, quick = MetricsFeed(Figures()), Outlet(), Outlet()
    readers = [Subscriber(slow), Subscriber(quick)]
    for reader in readers:
        feed.add(reader)
    run_until(lambda: slow.got)
    slow.stalled_since = float("inf")
    before = len(slow.got)
    run_until(lambda: len(quick.got) > before + 5)
    assert (len(slow.got), slow.closed_with) == (before, None)
    slow.stalled_since = -MAX_STALL_S
    run_until(lambda: slow.closed_with == 1013)
    slow.stalled_since = None
    run_until(lambda: len(slow.got) > before)
    assert slow.got[-1] > before + 5, "the newest, not the next"
    for reader in readers:
        feed.remove(reader)


def test_figures_that_cannot_be_made_end_all_who_watch_and_those_that_come_later_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    figures, first, second = Figures(), Outlet(), Outlet()
    feed = MetricsFeed(figures)
    figures.broken = True
    feed.add(Subscriber(first))
    run_until(lambda: first.closed_with == 1011)
    assert [record.message for record in caplog.records] == ["live figures cannot be sent"]
    figures.broken = False
    reader = Subscriber(second)
    feed.add(reader)
    run_until(lambda: second.got)
    feed.remove(reader)


def test_what_the_processors_do_is_known_from_the_second_look_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.look().cpu is None
    for _ in range(2):
        gevent.sleep(0.1)  # shares are of a time
        for share in machine.look():
            assert share is not None
            assert 0 <= share <= 100


@pytest.mark.parametrize(
    ("figures", "group"),
    [(StrategyFigures, "strategy"), (ExecutionFigures, "execution"), (SystemFigures, "system"), (MarketFigures, "")],
)
def test_the_figures_of_a_group_are_the_fields_of_its_dataset(
    figures: type[msgspec.Struct], group: Group | str
) -> None:
    dataset = GROUPS[cast(Group, group or "market_data")]
    named = {column.name for column in dataset.columns}
    keys = {column.name for column in rollup_keys(dataset)}
    assert set(figures.__struct_fields__) - {"host", "stale"} == named - keys
