"""Which job is due when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import SettingsError
from app.jobs.schedule import MERGE, TRIES, Job, LastRun, State, jobs_of, last_moment, next_due
from app.settings import load

BACKUP = Job("backup", ("backup", "daily"), 2, 0)
TIDY = Job("maintain", ("maintain", "all"), 4, 30)
NOW = datetime(2026, 1, 15, 3, 0, tzinfo=UTC)
TODAY, YESTERDAY = datetime(2026, 1, 15, 2, 0, tzinfo=UTC), datetime(2026, 1, 14, 2, 0, tzinfo=UTC)


def ran(state: State, due_at: datetime, ended_at: datetime | None = None) -> LastRun:
    return LastRun(state, due_at, ended_at)


def test_nothing_but_merging_runs_unless_it_is_asked_for() -> None:
    assert jobs_of(load({}, None, None)) == (MERGE,)


def test_settings_say_what_runs_when() -> None:
    environ = {
        "TICKHUB_BACKUP_SCHEDULE": "on",
        "TICKHUB_KEEP_DAYS_METRICS": "30",
        "TICKHUB_RETENTION_AT": "03:15",
        "TICKHUB_MAINTAIN_SCHEDULE": "on",
        "TICKHUB_MAINTAIN_AT": "23:59",
    }
    assert jobs_of(load(environ, None, None)) == (
        BACKUP,
        Job("retention", ("maintain", "retention"), 3, 15),
        Job("maintain", ("maintain", "all"), 23, 59),
        MERGE,
    )


@pytest.mark.parametrize("text", ["24:00", "2:00", "02:60", "now", "02:00:00"])
def test_a_time_of_day_must_be_one(text: str) -> None:
    with pytest.raises(SettingsError, match="time of day"):
        load({"TICKHUB_BACKUP_AT": text}, None, None)


@pytest.mark.parametrize(
    ("ticks", "bars", "fits"), [(0, 0, True), (30, 0, True), (30, 30, True), (0, 30, False), (31, 30, False)]
)
def test_bars_are_kept_as_long_as_their_ticks(ticks: int, bars: int, fits: bool) -> None:
    environ = {"TICKHUB_KEEP_DAYS_TICKS": str(ticks), "TICKHUB_KEEP_DAYS_BARS": str(bars)}
    if fits:
        assert load(environ, None, None).keep_days["bars"] == bars
    else:
        with pytest.raises(SettingsError, match="keep_days_bars"):
            load(environ, None, None)


def test_the_newest_moment_is_today_or_yesterday() -> None:
    assert last_moment(BACKUP, NOW) == TODAY
    assert last_moment(BACKUP, TODAY) == TODAY
    assert last_moment(BACKUP, TODAY - timedelta(microseconds=1)) == YESTERDAY


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (None, False),  # new: the table learns of it first
        (ran("waiting", YESTERDAY), True),
        (ran("waiting", TODAY), False),
        (ran("ok", YESTERDAY), True),
        (ran("ok", TODAY), False),
        (ran("ok", TODAY - timedelta(days=40)), True),  # once, however long it was down
        (ran("failed", TODAY), False),
        (ran("failed", YESTERDAY), True),
        (ran("running", YESTERDAY), False),
        (ran("cut_off", TODAY, NOW - timedelta(minutes=1)), True),
        (ran("cut_off", TODAY, NOW - timedelta(seconds=1)), False),  # what it waits for must be over
        # The clock was wrong, and is right again: not for ever.
        (ran("ok", TODAY + timedelta(days=400)), True),
        (ran("ok", TODAY + timedelta(days=1)), False),
        (ran("cut_off", TODAY, NOW + timedelta(days=400)), True),
    ],
)
def test_a_job_is_due_once_for_its_moment_and_again_when_it_was_cut_off(last: LastRun | None, due: bool) -> None:
    known = {} if last is None else {"backup": last}
    assert next_due([BACKUP], known, NOW) == ((BACKUP, TODAY) if due else None)


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (None, False),
        (ran("waiting", NOW - 9 * MINUTE), False),
        (ran("waiting", NOW - 10 * MINUTE), True),
        (ran("ok", NOW - 9 * MINUTE), False),
        (ran("ok", NOW - 10 * MINUTE), True),
        (ran("running", TODAY), False),
        (ran("failed", NOW - 9 * MINUTE), False),
        (ran("failed", NOW - 10 * MINUTE), True),  # whatever was in its way should be over
        (LastRun("failed", NOW - 10 * MINUTE, None, TRIES - 1), True),
        (LastRun("failed", NOW - 59 * MINUTE, None, TRIES), False),  # it is not over
        (LastRun("failed", NOW - 60 * MINUTE, None, TRIES), True),
        (ran("cut_off", NOW - MINUTE, NOW - MINUTE), True),
        (ran("ok", NOW + 9 * MINUTE), False),
        (ran("ok", NOW + 400 * MINUTE), True),  # the clock was wrong
    ],
)
def test_late_ticks_are_merged_within_ten_minutes_and_soon_after_it_failed(last: LastRun | None, due: bool) -> None:
    known = {"archive": ran("failed", TODAY)} | ({} if last is None else {"merge": last})
    archive = Job("archive", ("archive", "run"), 2, 0)
    assert next_due([archive, MERGE], known, NOW) == ((MERGE, NOW) if due else None)
    # The day's own run comes first: it moves what is old, and merges.
    known["archive"] = ran("ok", YESTERDAY)
    assert next_due([archive, MERGE], known, NOW) == (archive, TODAY)


def test_of_several_the_first_one_runs() -> None:
    known = {"backup": ran("ok", TODAY), "maintain": ran("ok", YESTERDAY - timedelta(days=9))}
    assert next_due([BACKUP, TIDY], known, NOW) == (TIDY, datetime(2026, 1, 14, 4, 30, tzinfo=UTC))
    known["backup"] = ran("ok", YESTERDAY)
    assert next_due([BACKUP, TIDY], known, NOW) == (BACKUP, TODAY)
