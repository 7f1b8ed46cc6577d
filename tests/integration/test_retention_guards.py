"""Retention by itself leaves something of every table, and goes by no clock that is wrong; a dry run tells and drops
nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection

from app.datasets.registry import DATASETS
from app.settings import ROOT
from app.storage import retention
from app.storage.clocks import ClocksDiffer, agreed_now
from app.storage.connection import Connection
from app.storage.retention_cuts import CLASSES, WouldEmpty
from app.storage.sink import DatabaseSink
from tests.batches import Feeder, Tick, execute, rows_of, write_all
from tests.dataset_rows import RecordFeeder

NOW = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)
YEARS_AHEAD = NOW + timedelta(days=3650)
OLD = datetime(2024, 3, 6, tzinfo=UTC)
DAY = timedelta(days=1)

_HELD = """
    SELECT (SELECT count(*) FROM ticks), (SELECT count(*) FROM bars), (SELECT count(*) FROM market_data),
        (SELECT count(*) FROM rejected_ticks), (SELECT count(*) FROM alerts), (SELECT count(*) FROM audit_log),
        (SELECT count(*) FROM tick_ranges), (SELECT count(*) FROM kept_from), (SELECT count(*) FROM pg_inherits)
"""
_REJECTED = """
    INSERT INTO rejected_ticks (journal_no, row_no, symbol, time, seq, volume, flags, code, message, received_at,
        set_aside_at) SELECT 1, n, 'X', now(), 0, 0, 0, 'refused', '', now(), %s::timestamptz - n * interval '1 day'
    FROM generate_series(0, 99) n
"""
_ARCHIVED = """
    INSERT INTO tick_ranges (range, state, manifest, manifest_sha256, rows, derived_rows, bytes)
    VALUES (tstzrange(%s, %s), 'archived', 'm', 's', 7, 0, 1)
"""
_ANOTHER_CLOCK = """
    CREATE SCHEMA clock;
    CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() - interval ''2 hours''';
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public, history', current_database());
    END $$
"""


def ticks_on(*moments: datetime) -> list[Tick]:
    return [Tick(time_us=int(moment.timestamp() * 1_000_000), bid=10 + n % 50) for n, moment in enumerate(moments)]


def store_ticks(sink: DatabaseSink, *moments: datetime) -> None:
    write_all(sink, Feeder(), ticks_on(*moments))


def store_market_data(sink: DatabaseSink, *moments: datetime) -> None:
    rows = [{"symbol": "TSLA", "timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}"} for moment in moments]
    feeder = RecordFeeder()
    batch, entry = feeder.records((DATASETS["market_data"], "ignore", rows)), sink.ledger(feeder.journal_id)
    while sink.write(feeder.journal_id, entry, batch)[0] is entry:
        pass  # it made partitions


def put(conn: connection, statement: str, *values: object) -> None:
    with conn.cursor() as cur:
        bound = cur.mogrify(statement, values).decode()
    execute(conn, bound)


def run(own: Connection, now: datetime = NOW, allow_empty: bool = False, **keep_days: int) -> list[str]:
    return [found.table for found in retention.run(own, keep_days, "me", now, allow_empty=allow_empty)]


def held(conn: connection) -> list[tuple[Any, ...]]:
    found = rows_of(conn, _HELD)
    conn.commit()
    return found


@pytest.mark.parametrize("name", ["ticks", "metrics"])
@pytest.mark.parametrize("now", [NOW, YEARS_AHEAD], ids=["old imports", "a clock years ahead"])
def test_what_would_leave_nothing_is_refused_with_all_else_until_a_person_says_so(
    conn: connection, own: Connection, sink: DatabaseSink, name: str, now: datetime
) -> None:
    newest = OLD if now is NOW else NOW
    moments = [newest - days * DAY for days in range(0, 60, 3)]
    (store_ticks if name == "ticks" else store_market_data)(sink, *moments)
    put(conn, _REJECTED, now)
    before, keep = held(conn), {name: 30, "rejected": 30}
    with pytest.raises(WouldEmpty, match=f"{'ticks' if name == 'ticks' else 'market_data'} .*--allow-empty"):
        run(own, now, False, **keep)
    assert held(conn) == before
    assert {"ticks" if name == "ticks" else "market_data", "rejected_ticks"} <= set(run(own, now, True, **keep))
    [(ticks, _, records, rejected, *_)] = held(conn)
    assert (ticks, records, rejected) == (0, 0, 31)
    assert run(own, now, False, **keep) == [], "there is nothing more to be asked"


def test_bars_that_are_all_too_old_stay_when_their_ticks_went(
    conn: connection, own: Connection, sink: DatabaseSink
) -> None:
    store_ticks(sink, *(OLD + hours * DAY / 24 for hours in range(50)))
    run(own, NOW, True, ticks=30)
    with pytest.raises(WouldEmpty, match="bars"):
        run(own, bars=30)
    store_ticks(sink, NOW)
    assert run(own, bars=30) == ["bars"]


@pytest.mark.parametrize("newest_is_archived", [True, False])
def test_ticks_in_the_archive_are_ticks_too(
    conn: connection, own: Connection, sink: DatabaseSink, newest_is_archived: bool
) -> None:
    if newest_is_archived:
        store_ticks(sink, OLD)
    monday = datetime(2026, 1, 12 if newest_is_archived else 5, tzinfo=UTC)
    put(conn, _ARCHIVED, monday, monday + 7 * DAY)
    if newest_is_archived:
        assert run(own, ticks=2) == ["ticks"]
        return
    with pytest.raises(WouldEmpty):
        run(own, ticks=2)
    [found] = retention.run(own, {"ticks": 2}, "me", NOW, allow_empty=True)
    assert (found.rows, found.archived) == (0, 7)
    assert rows_of(conn, "SELECT details -> 'archived' FROM audit_log") == [(7,)]


def test_alerts_and_a_feed_that_was_given_up_may_all_go_while_ticks_come(
    conn: connection, own: Connection, sink: DatabaseSink
) -> None:
    put(conn, "INSERT INTO alerts (time, alert_type, message) VALUES (%s, 'x', 'old')", OLD)
    store_market_data(sink, OLD - 60 * DAY)
    store_ticks(sink, OLD)
    with pytest.raises(WouldEmpty, match=r"market_data .*, alerts "):
        run(own, metrics=30, alerts=30)
    store_ticks(sink, NOW - 13 * DAY)  # a silence of holidays
    assert {"market_data", "alerts"} <= set(run(own, metrics=30, alerts=30))


@pytest.mark.parametrize(("ahead", "keep"), [(15, 5), (44, 30), (8, 7)])
def test_a_clock_ahead_by_more_than_is_kept_is_seen_by_ticks_that_are_older_than_it(
    conn: connection, own: Connection, sink: DatabaseSink, ahead: int, keep: int
) -> None:
    put(conn, "INSERT INTO alerts (time, alert_type, message) VALUES (%s, 'x', 'new')", NOW)
    store_ticks(sink, NOW)
    before = held(conn)
    with pytest.raises(WouldEmpty, match="alerts"):
        run(own, NOW + ahead * DAY, alerts=keep)
    assert held(conn) == before
    # A tick of no clock at all tells nothing, and hides none that does.
    write_all(sink, Feeder(), [replace(tick, symbol="NVDA") for tick in ticks_on(NOW + (ahead + 90) * DAY)])
    with pytest.raises(WouldEmpty, match="alerts"):
        run(own, NOW + ahead * DAY, alerts=keep)
    store_ticks(sink, NOW + ahead * DAY)
    assert run(own, NOW + ahead * DAY, alerts=keep) == ["alerts"]


def test_a_run_that_was_killed_with_a_persons_word_is_finished_without_it(
    conn: connection, own: Connection, sink: DatabaseSink
) -> None:
    store_ticks(sink, OLD, OLD + 30 * DAY)
    store_market_data(sink, OLD, OLD + 60 * DAY)
    execute(conn, "INSERT INTO tick_ranges (range, state) VALUES (tstzrange(NULL, '2026-01-05'), 'dropped')")
    execute(conn, "INSERT INTO kept_from (dataset, time) VALUES ('market_data', '2026-01-01')")
    found = run(own, ticks=10, metrics=10)
    assert found[:2] == ["ticks", "market_data"]
    [(ticks, _, records, *_)] = held(conn)
    assert (ticks, records) == (0, 0)


def test_a_dry_run_tells_what_a_run_drops(conn: connection, own: Connection, sink: DatabaseSink) -> None:
    moments = [NOW - days * DAY for days in range(0, 120, 2)]
    store_ticks(sink, *moments)
    store_market_data(sink, *moments)
    put(conn, _REJECTED, NOW)
    put(conn, _ARCHIVED, datetime(2025, 6, 2, tzinfo=UTC), datetime(2025, 6, 9, tzinfo=UTC))
    execute(conn, "ALTER TABLE ticks DETACH PARTITION ticks_20251006")  # left by a run that was killed
    put(conn, "INSERT INTO alerts (time, alert_type, message) VALUES (%s, 'x', ''), (%s, 'x', '')", OLD, NOW)
    keep = {**dict.fromkeys(CLASSES, 40), "bars": 60}
    before = held(conn)
    told = [(name, found) for name, found in retention.plan(own, keep, NOW) if found.rows or found.partitions]
    assert held(conn) == before
    assert [name for name, _ in told] == ["ticks", "bars", *["metrics"] * 4, "alerts", "rejected"]
    assert told[0][1].archived == 7
    assert [found for _, found in told] == list(retention.run(own, keep, "me", NOW))


def test_clocks_that_are_apart_are_refused(own: Connection) -> None:
    now = datetime.now(UTC)
    assert agreed_now(own, now + timedelta(minutes=50)) == now + timedelta(minutes=50)
    for apart in (timedelta(minutes=70), -timedelta(minutes=70), timedelta(days=3650)):
        with pytest.raises(ClocksDiffer, match="clock says"):
            agreed_now(own, now + apart)


@pytest.mark.long
def test_the_commands_tell_and_refuse(
    conn: connection, sink: DatabaseSink, database_url: str, tmp_path: Path
) -> None:
    def command(status: int, *words: str) -> str:
        line = [sys.executable, "-m", "app", *words, "--database-url", database_url, "--data-dir", str(tmp_path)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    store_ticks(sink, *(OLD + days * DAY for days in range(10)))
    before = held(conn)
    keep = ("maintain", "retention", "--keep-days-ticks", "30", "--keep-days-rejected", "30")
    told = command(1, *keep, "--dry-run")
    assert "ticks: ticks before 20" in told
    assert "10 rows in 2 partitions would be dropped" in told
    assert "rejected: nothing would be dropped" in told
    assert "nothing would be left of ticks" in told
    assert "--allow-empty" in command(1, *keep)
    assert "retention: nothing was dropped" in command(0, *keep, "--dry-run", "--allow-empty")
    assert "20240304: 5 ticks would move" in command(0, "archive", "run", "--hot-days", "30", "--dry-run")
    assert "for maintain retention and maintain archive" in command(2, "maintain", "all", "--dry-run")
    assert "for maintain retention" in command(2, "maintain", "archive", "--allow-empty")
    execute(conn, _ANOTHER_CLOCK)
    for asked in (keep, (*keep, "--allow-empty"), ("archive", "run", "--hot-days", "30")):
        assert "clock says" in command(1, *asked)
    assert held(conn) == before
