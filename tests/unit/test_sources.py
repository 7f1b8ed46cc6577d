"""When no bar of a range runs any more."""

from __future__ import annotations

from random import Random

import pytest

from app.market import intervals
from app.market.intervals import INTERVALS, Buckets
from app.sources import BARS_END_US, BarSource
from app.storage.bar_reader import BarQuery

DAY_US = 86_400_000_000
NOW_US = 1_774_742_400_000_000
"""2026-03-29 00:00 UTC: the night in which the clocks of Europe change."""

ZONES = ("UTC", "Europe/London", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe")


def bars(interval: str, zone: str, end_us: int | None, now_us: int = NOW_US) -> BarSource:
    return BarSource(BarQuery(Buckets(interval, zone), "bid", None, end_us, fill=False, now_us=now_us), {}, ())


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("zone", ZONES)
def test_a_range_is_closed_when_its_last_bar_has_ended(interval: str, zone: str) -> None:
    random, buckets = Random(f"{interval} {zone}"), Buckets(interval, zone)
    for _ in range(200):
        end_us = NOW_US + random.choice((-1, 1)) * random.randrange(random.choice((10, DAY_US, 40 * DAY_US)))
        last_ends_us = buckets.next(buckets.start(end_us - 1))
        for now_us in (NOW_US, end_us, last_ends_us - 1, last_ends_us):
            assert bars(interval, zone, end_us, now_us).closed == (last_ends_us <= now_us), (end_us, now_us)


def test_a_range_without_an_end_never_is() -> None:
    assert not bars("1m", "UTC", None).closed


def test_of_ranges_long_ago_or_to_come_no_zones_days_are_looked_up() -> None:
    intervals._edges_of_year.cache_clear()
    for end_us, closed in ((0, True), (NOW_US - 34 * DAY_US, True), (NOW_US + 1, False), (BARS_END_US, False)):
        for interval in ("1d", "1w", "1M"):
            assert bars(interval, "Asia/Tehran", end_us).closed == closed
    assert intervals._edges_of_year.cache_info().misses == 0
