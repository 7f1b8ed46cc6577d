"""Token buckets: how many requests at once, how many in the long run, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.rate_limits import BURST_S, CONFIGURED_PLACES, PLACES, RateLimits, place_of


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(tmp_path: Path, clock: Clock) -> Iterator[RateLimits]:
    found = RateLimits(tmp_path / "limits", clock)
    yield found
    found.close()


def taken(limits: RateLimits, most: int, place: int = 0, kind: str = "read", rate_per_s: float = 10.0) -> int:
    return sum(limits.take(place, kind, rate_per_s) == 0.0 for _ in range(most))


def test_a_full_bucket_holds_what_two_seconds_bring(limits: RateLimits) -> None:
    assert taken(limits, 100) == 10 * BURST_S


def test_in_the_long_run_the_rate_holds(limits: RateLimits, clock: Clock) -> None:
    taken(limits, 100)
    passed = 0
    for _ in range(1000):
        clock.s += 0.01
        passed += taken(limits, 3)
    assert passed == pytest.approx(100, abs=1)


def test_it_says_how_long_to_wait_and_then_there_is_one(limits: RateLimits, clock: Clock) -> None:
    taken(limits, 100)
    wait_s = limits.take(0, "read", 10.0)
    assert 0 < wait_s <= 0.1 + 1e-6
    clock.s += wait_s / 2
    assert limits.take(0, "read", 10.0) > 0
    clock.s += wait_s / 2
    assert taken(limits, 2) == 1


@pytest.mark.parametrize("rate_per_s", [0.01, 0.1, 0.3])
def test_a_slow_rate_still_lets_one_through(limits: RateLimits, clock: Clock, rate_per_s: float) -> None:
    assert taken(limits, 3, rate_per_s=rate_per_s) == 1
    clock.s += 1 / rate_per_s
    assert taken(limits, 3, rate_per_s=rate_per_s) == 1


def test_no_rate_is_no_limit(limits: RateLimits) -> None:
    assert taken(limits, 10_000, rate_per_s=0.0) == 10_000


def test_keys_and_kinds_have_buckets_of_their_own(limits: RateLimits) -> None:
    for place in (0, 1, PLACES - 1):
        for kind in ("read", "ingest"):
            assert taken(limits, 100, place, kind) == 20, (place, kind)


def test_all_workers_of_a_host_share_them(tmp_path: Path, clock: Clock) -> None:
    workers = [RateLimits(tmp_path / "limits", clock) for _ in range(2)]
    assert sum(taken(worker, 15) for worker in workers) == 20
    for worker in workers:
        worker.close()


def test_a_host_that_was_started_anew_keeps_nobody_waiting(tmp_path: Path, clock: Clock) -> None:
    before, clock.s = RateLimits(tmp_path / "limits", clock), 5e6
    assert taken(before, 100) == 20
    before.close()
    clock.s = 30.0  # its clock counts from the start of the host
    after = RateLimits(tmp_path / "limits", clock)
    assert taken(after, 100) == 20
    after.close()


def test_a_rate_that_was_raised_holds_at_once(limits: RateLimits) -> None:
    assert taken(limits, 3, rate_per_s=0.01) == 1
    assert taken(limits, 100, rate_per_s=10.0) == 20


def test_keys_of_the_settings_and_of_the_database_do_not_share_one() -> None:
    configured = {place_of(number, configured=True) for number in range(2000)}
    stored = {place_of(number, configured=False) for number in range(20_000)}
    assert not configured & stored
    assert configured | stored == set(range(PLACES))
    assert len(configured) == CONFIGURED_PLACES
