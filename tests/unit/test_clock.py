"""The broker's clock against values worked out by hand and against zoneinfo itself."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.clock import BrokerClock

ODD_ZONES = [
    "Africa/Casablanca",
    "America/New_York",
    "America/Noronha",
    "America/St_Johns",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Athens",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
]
EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
clock_of = cache(BrokerClock)


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def to_utc(clock: BrokerClock, text: str, fold: bool = False) -> str:
    answer = clock.to_utc_us(np.array([us(text)]), np.array([fold]))
    return (EPOCH + int(answer[0]) * MICROSECOND).isoformat(" ")


def by_zoneinfo(wall_us: int, fold: bool, zone: ZoneInfo, shift: timedelta) -> int:
    """What zoneinfo says, but for one thing: a skipped time has the offset before, whatever fold says."""
    local = EPOCH + wall_us * MICROSECOND - shift
    first = local.replace(tzinfo=zone).utcoffset()
    second = local.replace(tzinfo=zone, fold=1).utcoffset()
    assert first is not None
    assert second is not None
    offset = second if fold and second < first else first
    return (local - offset - EPOCH) // MICROSECOND


@pytest.mark.parametrize(
    ("wall", "fold", "utc"),
    [
        # Winter: New York is UTC-5, the broker UTC+2. Summer: UTC-4 and UTC+3.
        ("2026-01-13 19:54:43.000123", False, "2026-01-13 17:54:43.000123"),
        ("2026-07-01 00:00:00", False, "2026-06-30 21:00:00"),
        # 8 March 2026, New York 02:00 -> 03:00 is 07:00 UTC; the broker's clock goes 09:00 -> 10:00.
        ("2026-03-08 08:59:59.999999", False, "2026-03-08 06:59:59.999999"),
        ("2026-03-08 09:00:00", False, "2026-03-08 07:00:00"),
        ("2026-03-08 09:30:00", True, "2026-03-08 07:30:00"),
        ("2026-03-08 09:59:59.999999", False, "2026-03-08 07:59:59.999999"),
        ("2026-03-08 10:00:00", False, "2026-03-08 07:00:00"),
        # 1 November 2026, New York 02:00 -> 01:00 is 06:00 UTC; the broker's clock goes 09:00 -> 08:00.
        ("2026-11-01 07:59:59.999999", True, "2026-11-01 04:59:59.999999"),
        ("2026-11-01 08:00:00", False, "2026-11-01 05:00:00"),
        ("2026-11-01 08:59:59.999999", False, "2026-11-01 05:59:59.999999"),
        ("2026-11-01 08:00:00", True, "2026-11-01 06:00:00"),
        ("2026-11-01 08:59:59.999999", True, "2026-11-01 06:59:59.999999"),
        ("2026-11-01 09:00:00", False, "2026-11-01 07:00:00"),
        ("2026-11-01 09:00:00", True, "2026-11-01 07:00:00"),
    ],
)
def test_new_york_plus_seven_changes_when_new_york_does(wall, fold, utc):
    assert to_utc(BrokerClock("America/New_York+7h"), wall, fold) == utc


@pytest.mark.parametrize(
    ("spec", "utc"),
    [
        ("UTC", "2026-07-01 12:00:00"),
        ("UTC-3h", "2026-07-01 15:00:00"),
        ("Etc/GMT+3", "2026-07-01 15:00:00"),  # the zone's own sign, not a shift
        ("Etc/GMT+3-30m", "2026-07-01 15:30:00"),
        ("Europe/Athens", "2026-07-01 09:00:00"),
        ("America/New_York+7h30m", "2026-07-01 08:30:00"),
        ("America/New_York+420m", "2026-07-01 09:00:00"),
        ("America/Port-au-Prince-1h", "2026-07-01 17:00:00"),
    ],
)
def test_every_form_of_a_clock_is_read(spec, utc):
    assert to_utc(BrokerClock(spec), "2026-07-01 12:00:00") == utc


@pytest.mark.parametrize(
    "spec",
    [
        "",
        " ",
        "Mars/Olympus",
        "Mars/Olympus+7h",
        "America",
        "America/New_York+7",
        "America/New_York+",
        "America/New_York+h",
        "America/New_York+7h-30m",
        "America/New_York+24h",
        "America/New_York+1440m",
        "America/New_York+7hours",
        "+7h",
        "../../etc/passwd",
        "UTC\0",
        "\ud800+7h",
        "UTC+٧h",
    ],
)
def test_what_is_no_clock_is_refused_by_name(spec):
    with pytest.raises(ValueError, match=r"is no clock|no time zone|less than 24h") as refused:
        BrokerClock(spec)
    assert repr(spec) in str(refused.value)


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(
    zone=st.sampled_from(ODD_ZONES),
    shift_m=st.sampled_from([-720, -90, -1, 0, 30, 420, 721]),
    walls=st.lists(st.integers(us("1990-01-01"), us("2100-06-01")), min_size=1, max_size=20),
    folds=st.randoms(use_true_random=False),
)
def test_random_times_are_what_zoneinfo_says(zone, shift_m, walls, folds):
    clock = clock_of(f"{zone}{shift_m:+}m")
    fold = [folds.random() < 0.5 for _ in walls]
    expected = [
        by_zoneinfo(w, f, ZoneInfo(zone), timedelta(minutes=shift_m))
        for w, f in zip(walls, fold, strict=True)
    ]
    assert clock.to_utc_us(np.array(walls), np.array(fold)).tolist() == expected


def assert_agrees_around_every_change(zone: str, nudges_us: list[int]) -> None:
    """Compare with zoneinfo from half a day before to two days after each UTC day with a change."""
    tz = ZoneInfo(zone)
    days = [datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=k) for k in range(365 * 50)]
    offsets = [day.astimezone(tz).utcoffset() for day in days]
    changed = [
        day.replace(tzinfo=None) for day, a, b in zip(days, offsets, offsets[1:], strict=False) if a != b
    ]
    readings = [
        (day - EPOCH + timedelta(minutes=30 * k)) // MICROSECOND for day in changed for k in range(-24, 96)
    ]
    walls = [reading + nudge for reading in readings for nudge in nudges_us]
    clock = BrokerClock(zone)
    for fold in (False, True):
        answer = clock.to_utc_us(np.array(walls, np.int64), np.full(len(walls), fold))
        assert answer.tolist() == [by_zoneinfo(w, fold, tz, timedelta(0)) for w in walls], zone


@pytest.mark.parametrize("zone", ODD_ZONES)
def test_around_every_change_it_is_what_zoneinfo_says(zone):
    microsecond = 1 / 60_000_000
    assert_agrees_around_every_change(
        zone, [-microsecond, 0, microsecond, 1 - microsecond, 1]
    )  # Gaza: at 00:01


@pytest.mark.long
def test_zones_of_all_kinds_agree_with_zoneinfo_around_their_changes():
    """Every third one: half of the names are other names of the same zones."""
    for zone in sorted(available_timezones() - {"localtime"})[::3]:
        assert_agrees_around_every_change(zone, nudges_us=[0])


@settings(max_examples=300, deadline=None)
@given(
    zone=st.sampled_from(ODD_ZONES),
    utc=st.lists(st.integers(us("1971-01-01"), us("2100-06-01")), min_size=1, max_size=20),
)
def test_to_the_wall_clock_and_back_is_the_same_instant(zone, utc):
    clock = clock_of(f"{zone}+7h")
    wall, fold = clock.to_wall_us(np.array(utc, np.int64))
    assert clock.to_utc_us(wall, fold).tolist() == utc
    for reading, second, instant in zip(wall.tolist(), fold.tolist(), utc, strict=True):
        local = (EPOCH.replace(tzinfo=UTC) + instant * MICROSECOND).astimezone(ZoneInfo(zone))
        assert EPOCH + reading * MICROSECOND == local.replace(tzinfo=None, fold=0) + timedelta(hours=7)
        assert second == bool(local.fold)


def test_the_repeated_hour_comes_back_with_its_fold():
    clock = BrokerClock("America/New_York+7h")
    utc = us("2026-11-01 04:00") + np.arange(4 * 60, dtype=np.int64) * 60_000_000
    wall, fold = clock.to_wall_us(utc)
    assert fold.tolist() == [False] * 120 + [True] * 60 + [False] * 60
    assert clock.to_utc_us(wall, fold).tolist() == utc.tolist()


@pytest.mark.parametrize("spec", ["UTC", "UTC+3h", "America/New_York+7h"])
def test_an_empty_batch_and_the_ends_of_time_are_answered(spec):
    clock = BrokerClock(spec)
    assert clock.to_utc_us(np.array([], np.int64), np.array([], np.bool_)).tolist() == []
    assert [column.tolist() for column in clock.to_wall_us(np.array([], np.int64))] == [[], []]
    ends = np.array([us("0001-01-01"), us("9999-12-31 23:59:59.999999")])
    assert np.abs(clock.to_utc_us(ends, np.array([True, True])) - ends).max() <= 86_400_000_000


def test_zones_are_found_where_the_system_has_none():
    program = (
        "import zoneinfo; assert zoneinfo.TZPATH == ();"
        "import numpy as np; from app.market.clock import BrokerClock;"
        "print(BrokerClock('America/New_York+7h').to_utc_us(np.array([0]), np.array([False]))[0])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONTZPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.strip() == str(-2 * 3600 * 1_000_000), ran.stderr
