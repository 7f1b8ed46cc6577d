"""Retention: it drops what it says and nothing else, nothing comes back, and nobody waits for it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection

from app.datasets.registry import DATASETS
from app.storage import rebuild, retention
from app.storage.connection import Connection
from app.storage.instruments import Known
from app.storage.sink import DatabaseSink
from app.storage.writers import writers
from tests.batches import BARS, CURRENT, Feeder, Tick, execute, rows_of
from tests.dataset_rows import RecordFeeder

NOW = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)
"""A Thursday."""
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
"""What ten days reach back to is the middle of the week that begins then."""


def us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def ticks_every(hours: int, since: datetime, until: datetime = NOW) -> list[Tick]:
    count = int((until - since) / timedelta(hours=hours))
    return [Tick(time_us=us(since + n * timedelta(hours=hours)), bid=10 + n % 50) for n in range(count)]


def store(sink: DatabaseSink, feeder: Any, batch: Any) -> tuple[int, int]:
    """Write a batch; return how many rows were stored and set aside."""
    entry = sink.ledger(feeder.journal_id)
    while True:
        moved, *_ = sink.write(feeder.journal_id, entry, batch)
        if moved is not entry:
            return moved.stored - entry.stored, moved.set_aside - entry.set_aside


def run(
    own: Connection, now: datetime = NOW, allow_empty: bool = False, **keep_days: int
) -> dict[str, tuple[int, int]]:
    dropped = retention.run(own, keep_days, "me", now, allow_empty=allow_empty)
    return {found.table: (found.rows, found.partitions) for found in dropped}


def partitions(conn: connection, table: str = "ticks") -> list[str]:
    found = rows_of(conn, f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass")
    return sorted(name for (name,) in found)


def test_weeks_that_are_too_old_go_and_nothing_else(conn: connection, own: Connection, sink: DatabaseSink) -> None:
    feeder = Feeder()
    ticks = ticks_every(5, datetime(2025, 12, 20, 1, tzinfo=UTC))
    assert store(sink, feeder, feeder.batch(ticks)) == (len(ticks), 0)
    bars, current = rows_of(conn, BARS), rows_of(conn, CURRENT)
    others = partitions(conn)
    old = sum(tick.time_us < us(MONDAY) for tick in ticks)
    dropped = [name for name in others if name < f"ticks_{MONDAY:%Y%m%d}"]
    conn.commit()
    assert run(own, ticks=10) == {"ticks": (old, len(dropped))}
    assert partitions(conn) == [name for name in others if name not in dropped]
    assert rows_of(conn, "SELECT count(*), min(time) FROM ticks") == [
        (len(ticks) - old, min(datetime.fromtimestamp(t.time_us / 1e6, UTC) for t in ticks if t.time_us >= us(MONDAY)))
    ]
    assert (rows_of(conn, BARS), rows_of(conn, CURRENT)) == (bars, current)
    assert rows_of(conn, "SELECT range::text, state FROM tick_ranges") == [('(,"2026-01-05 00:00:00+00")', "dropped")]
    assert rows_of(conn, "SELECT action, upper(range), rows FROM audit_log") == [
        ("retention", datetime(2026, 1, 5, tzinfo=UTC), old)
    ]
    conn.commit()
    assert run(own, ticks=10) == {}


def test_a_late_resend_is_set_aside_as_too_old_and_makes_no_partition(
    conn: connection, own: Connection, sink: DatabaseSink
) -> None:
    feeder = Feeder()
    ticks = ticks_every(12, datetime(2025, 12, 28, tzinfo=UTC))
    store(sink, feeder, feeder.batch(ticks))
    run(own, ticks=10)
    left, bars = partitions(conn), rows_of(conn, BARS)
    conn.commit()
    old = [tick for tick in ticks if tick.time_us < us(MONDAY)]
    never = [Tick(time_us=us(datetime(2019, 3, 4, tzinfo=UTC)))]
    # By the connection that remembers the partitions, and by one that does not.
    with closing(DatabaseSink(own, writers())) as other:
        for one in (sink, other):
            again = Feeder()
            assert store(one, again, again.batch([*old, *never])) == (0, len(old) + 1)
    assert rows_of(conn, "SELECT DISTINCT code FROM rejected_ticks") == [("too_old",)]
    assert (partitions(conn), rows_of(conn, BARS)) == (left, bars)


def test_bars_go_only_where_no_tick_can_come(conn: connection, own: Connection, sink: DatabaseSink) -> None:
    feeder = Feeder()
    store(sink, feeder, feeder.batch(ticks_every(6, datetime(2025, 12, 20, tzinfo=UTC))))
    assert run(own, bars=5) == {}, "its ticks are all there"
    found = run(own, ticks=10, bars=5)
    assert found["bars"][0] > 0
    assert rows_of(conn, "SELECT min(time) FROM bars") == [(MONDAY,)]
    whole = rows_of(conn, BARS)
    conn.commit()
    sum(rebuild.rebuild_bars(own, Known(rows_of(conn, "SELECT symbol_id FROM bars")[0][0], "TSLA", None, False)))
    assert rows_of(conn, BARS) == whole
    conn.commit()
    # A year later: all bars that are older than 400 days.
    assert run(own, now=NOW + timedelta(days=395), allow_empty=True, ticks=10, bars=400)["bars"][0] > 0
    assert rows_of(conn, "SELECT min(time) FROM bars")[0][0] == datetime(2026, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("name", ["market_data", "system_metrics"])
def test_months_of_metrics_go_with_their_rollups_and_are_refused_afterwards(
    conn: connection, own: Connection, sink: DatabaseSink, name: str
) -> None:
    dataset = DATASETS[name]
    key: dict[str, Any] = {"symbol": "TSLA"} if dataset.symbol else {"host": "h"}
    moments = [datetime(2025, 10, 1, tzinfo=UTC) + n * timedelta(hours=7) for n in range(350)]
    sent = [{**key, "timestamp": moment.isoformat().replace("+00:00", "Z")} for moment in moments]
    feeder = RecordFeeder()
    assert store(sink, feeder, feeder.records((dataset, "ignore", sent))) == (350, 0)
    old = sum(moment < datetime(2025, 12, 1, tzinfo=UTC) for moment in moments)
    found = run(own, metrics=30)
    assert found[name] == (old, 2)
    assert found[f"{name}_rollup_60"][0] == old
    for table in (name, f"{name}_rollup"):
        assert rows_of(conn, f"SELECT min(time) >= '2025-12-01' FROM {table}") == [(True,)]
    assert rows_of(conn, f"SELECT count(*) FROM {name}") == [(350 - old,)]
    left = partitions(conn, name)
    rollup = rows_of(conn, f"SELECT count(*), sum(rows) FROM {name}_rollup")
    conn.commit()
    again = RecordFeeder()
    assert store(sink, again, again.records((dataset, "ignore", sent))) == (0, old)
    assert rows_of(conn, "SELECT DISTINCT code FROM rejected_records") == [("too_old",)]
    assert (partitions(conn, name), rows_of(conn, f"SELECT count(*), sum(rows) FROM {name}_rollup")) == (left, rollup)


def test_a_reader_lets_nobody_wait_and_the_next_run_finishes(
    conn: connection, own: Connection, sink: DatabaseSink, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "DETACH_TIMEOUT_S", 1)
    feeder = Feeder()
    store(sink, feeder, feeder.batch(ticks_every(12, datetime(2025, 12, 28, tzinfo=UTC))))
    with closing(psycopg2.connect(database_url)) as reader, reader.cursor() as cur:
        cur.execute("SELECT count(*) FROM ticks")
        with pytest.raises(retention.Unfinished, match="being read"):
            run(own, ticks=10)
        # New readers do not see that week any more, and ticks go in.
        assert rows_of(conn, "SELECT min(time) >= '2025-12-29' FROM ticks") == [(True,)]
        conn.commit()
        later = Feeder()
        assert store(sink, later, later.batch([Tick(time_us=us(NOW) + 7)])) == (1, 0)
    assert run(own, ticks=10)["ticks"][1] == 2
    assert rows_of(conn, "SELECT count(*) FROM pg_class WHERE relname ~ '^ticks_2025'") == [(0,)]


def test_killed_between_its_steps_the_next_run_finishes(
    conn: connection, own: Connection, sink: DatabaseSink
) -> None:
    feeder = Feeder()
    ticks = ticks_every(12, datetime(2025, 12, 15, tzinfo=UTC))
    store(sink, feeder, feeder.batch(ticks))
    execute(conn, "INSERT INTO tick_ranges (range, state) VALUES (tstzrange(NULL, '2026-01-05'), 'dropped')")
    execute(conn, "ALTER TABLE ticks DETACH PARTITION ticks_20251222")
    execute(conn, "CREATE TABLE ticks_20250101 (mine integer)")
    old = sum(tick.time_us < us(MONDAY) for tick in ticks)
    assert run(own, ticks=10) == {"ticks": (old, 3)}
    assert rows_of(conn, "SELECT relname FROM pg_class WHERE relname ~ '^ticks_2025....$'") == [("ticks_20250101",)]


def test_a_flush_that_looked_before_is_waited_for(
    conn: connection, own: Connection, sink: DatabaseSink, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "GATE_TRIES", 2)
    feeder = Feeder()
    store(sink, feeder, feeder.batch(ticks_every(12, datetime(2025, 12, 28, tzinfo=UTC))))
    with closing(psycopg2.connect(database_url)) as flush, flush.cursor() as cur:
        cur.execute("SELECT * FROM tick_ranges FOR SHARE")
        with pytest.raises(retention.Unfinished, match="in use"):
            run(own, ticks=10)
        assert rows_of(conn, "SELECT count(*) FROM tick_ranges") == [(0,)]


def test_a_week_that_is_just_being_archived_is_left_alone(
    conn: connection, own: Connection, sink: DatabaseSink
) -> None:
    feeder = Feeder()
    store(sink, feeder, feeder.batch(ticks_every(12, datetime(2025, 12, 28, tzinfo=UTC))))
    execute(conn, "INSERT INTO tick_ranges (range, state) VALUES ('[2025-12-29, 2026-01-05)', 'archiving')")
    before = rows_of(conn, "SELECT count(*) FROM ticks")
    conn.commit()
    with pytest.raises(retention.Unfinished, match="archived"):
        run(own, ticks=10)
    assert rows_of(conn, "SELECT count(*) FROM ticks") == before


def test_alerts_rejects_and_the_audit_log_go_by_rows(conn: connection, own: Connection) -> None:
    execute(
        conn,
        "INSERT INTO rejected_ticks (journal_no, row_no, symbol, time, seq, volume, flags, code, message, received_at,"
        " set_aside_at) SELECT 1, n, 'X', now(), 0, 0, 0, 'refused', '', now(), timestamptz '2026-01-15' - n * interval"
        " '1 hour' FROM generate_series(0, 9999) n",
    )
    execute(
        conn,
        "INSERT INTO audit_log (actor, action, rows, at) VALUES ('a', 'delete', 1, '2020-01-01'),"
        " ('a', 'rebuild', 1, '2026-01-14')",
    )
    execute(
        conn,
        "INSERT INTO alerts (time, alert_type, message, received_at) SELECT timestamptz '2026-01-15' - n * interval"
        " '1 day', 'x', n::text, now() FROM generate_series(0, 99) n",
    )
    execute(
        conn,
        "INSERT INTO alert_outbox (alert_id, is_pushed, is_posted) SELECT alert_id, true, false FROM alerts"
        " WHERE message = '99'",
    )
    found = run(own, alerts=10, rejected=10, audit=10)
    assert found["rejected_ticks"] == (10_000 - 10 * 24 - 1, 0)
    assert found["alerts"] == (88, 0)
    assert rows_of(conn, "SELECT count(*) FROM alerts WHERE message = '99'") == [(1,)], "it is still to be told"
    assert rows_of(conn, "SELECT count(*) FROM audit_log WHERE action = 'delete'") == [(0,)]
