"""Clocks: this host's, the database's, and the one that naive tick times are read in."""

from __future__ import annotations

import ctypes
import struct
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail, ok, warn
from app.market.clock import BrokerClock
from app.storage.schema import HEAD

SKEW_WARN_S, SKEW_FAIL_S = 1.0, 10.0
AHEAD = timedelta(minutes=1)
"""Ticks further ahead than that are counted by the server, too (tickhub_ticks_ahead_total)."""

_STATUS_AT, _UNSYNCHRONIZED = 40, 0x40
"""Where struct timex has its status on 64 bits, and STA_UNSYNC in it: adjtimex(2)."""

_NEWEST = "SELECT symbol, last_updated, now() FROM current WHERE last_updated > now() + %s ORDER BY 2 DESC LIMIT 1"


def clock(case: Case) -> Iterator[Finding]:
    """This host's clock is kept right."""
    synchronized = _is_synchronized()
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if synchronized is None:
        yield ok("clock", f"{now}; whether something keeps it right cannot be read here")
    elif synchronized:
        yield ok("clock", f"{now}, kept right by NTP")
    else:
        yield warn("clock", f"{now}, and nothing keeps it right", "apt-get install chrony, or timedatectl set-ntp true")


def tick_timezone(case: Case) -> Iterator[Finding]:
    """The clock of naive tick times is known."""
    spec = case.settings.tick_timezone
    [wall_us], _ = BrokerClock(spec).to_wall_us(np.array([time.time_ns() // 1000]))
    wall = datetime.fromtimestamp(int(wall_us) / 1e6, UTC)
    yield ok("tick_timezone", f"{spec}: there it is {wall:%Y-%m-%d %H:%M} now")


def database_clock(case: Case) -> Iterator[Finding]:
    """The database's clock and this host's agree."""
    before_s = time.time()
    [(theirs_s,)] = case.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
    after_s = time.time()
    # Anything within the time of asking agrees.
    skew_s = max(before_s - theirs_s, theirs_s - after_s, 0.0)
    [(zone,)] = case.rows("SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'")
    found = f"{skew_s:.1f} s from this host's; time zone {zone}"
    remedy = "have both hosts' clocks kept right by NTP (chrony)"
    if skew_s > SKEW_FAIL_S:
        yield fail("database clock", found, remedy)
    elif skew_s > SKEW_WARN_S:
        yield warn("database clock", found, remedy)
    else:
        yield ok("database clock", found)


def tick_times(case: Case) -> Iterator[Finding]:
    """No newest price is from the future, as those are that were read in a wrong time zone."""
    if case.revision != HEAD:
        return
    ahead = case.rows(_NEWEST, (AHEAD,))
    if ahead:
        [(symbol, newest, now)] = ahead
        yield warn(
            "tick times",
            f"the newest price of {symbol} is {(newest - now) / timedelta(hours=1):.1f} hours ahead of the clock",
            "is --tick-timezone the broker's? docs/troubleshooting.md, Time zones",
        )
    else:
        yield ok("tick times", "none ahead of the clock")


CHECKS: tuple[Check, ...] = (clock, tick_timezone)
OF_DATABASE: tuple[Check, ...] = (database_clock, tick_times)


def _is_synchronized() -> bool | None:
    """Tell whether the kernel knows its clock to be right, as chrony, ntpd and timesyncd tell it; None: unknown."""
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:
        return None
    answer = ctypes.create_string_buffer(512)  # all zeros: only asks
    if ctypes.CDLL(None).adjtimex(answer) < 0:
        return None
    (status,) = struct.unpack_from("i", answer, _STATUS_AT)
    return not status & _UNSYNCHRONIZED
