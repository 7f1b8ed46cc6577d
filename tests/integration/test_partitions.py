"""Partitions on demand: nobody waits for a reader, and forty years of dates are many short calls."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import psycopg2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2.extensions import connection

from app.storage import partitions
from app.storage.partitions import MAX_NEW_PER_CALL, WEEK_US, MonthPartitions, Partitions, week_of, week_start_us
from app.storage.sink import DatabaseSink
from tests.batches import (
    NOON_US,
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    ledger_of,
    new_sink,
    rows_of,
    stored_keys,
    write_all,
)

WAIT_S = 60
YEAR_US = 365 * 86_400 * 1_000_000


def partition_names(conn: connection) -> list[str]:
    return [
        name
        for (name,) in rows_of(
            conn,
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ticks'::regclass ORDER BY 1",
        )
    ]


@given(st.integers(-(10**17), 7 * 10**15))
@example(0)
@example(4 * 86_400 * 1_000_000)
@example(4 * 86_400 * 1_000_000 - 1)
def test_a_time_lies_in_the_week_that_begins_at_its_monday(time_us: int) -> None:
    week = int(week_of(np.array([time_us]))[0])
    assert week_start_us(week) <= time_us < week_start_us(week + 1)
    monday = np.datetime64(week_start_us(week), "us")
    assert (monday.astype("M8[D]").astype(np.int64) + 3) % 7 == 0
    assert monday == monday.astype("M8[D]")


def test_a_partition_is_made_for_each_week_once(conn: connection, sink: DatabaseSink) -> None:
    before = set(partition_names(conn))
    feeder = Feeder()
    monday = week_start_us(int(week_of(np.array([NOON_US]))[0]))
    for _ in range(2):
        write_all(
            sink, feeder, [Tick(time_us=monday - 1), Tick(time_us=monday), Tick(time_us=monday + WEEK_US - 1)]
        )
    assert set(partition_names(conn)) - before == {"ticks_20260105", "ticks_20260112"} - before
    found = rows_of(conn, "SELECT tableoid::regclass::text, count(*) FROM ticks GROUP BY 1 ORDER BY 1")
    assert found == [("ticks_20260105", 1), ("ticks_20260112", 2)]


def test_an_open_reader_holds_up_neither_a_new_partition_nor_other_readers(
    conn: connection, database_url: str, sink: DatabaseSink
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, [Tick()])
    with closing(psycopg2.connect(database_url)) as reader, closing(psycopg2.connect(database_url)) as later:
        with reader.cursor() as cur:
            cur.execute("SELECT count(*) FROM ticks")  # and never commits
        write_all(sink, feeder, [Tick(time_us=NOON_US - 60 * WEEK_US)])
        assert ledger_of(conn, feeder.journal_id)[:2] == (2, 2)
        with later.cursor() as cur:
            cur.execute("SET lock_timeout = '10ms'")
            cur.execute("SELECT count(*) FROM ticks")
            assert cur.fetchall() == [(2,)]
        with reader.cursor() as cur:
            cur.execute("SELECT count(*) FROM ticks")
            assert cur.fetchall() == [(2,)]


def test_readers_do_not_queue_behind_a_partition_that_is_just_being_made(
    conn: connection, database_url: str
) -> None:
    with closing(psycopg2.connect(database_url)) as reader, closing(psycopg2.connect(database_url)) as maker:
        with reader.cursor() as cur:
            cur.execute("SELECT count(*) FROM ticks")
        with maker.cursor() as cur:
            cur.execute("SELECT ensure_tick_partition('1999-01-01')")
            assert cur.fetchall() == [(True,)]
        with conn.cursor() as cur:
            cur.execute("SET lock_timeout = '10ms'")
            cur.execute("SELECT count(*) FROM ticks")
            cur.execute("INSERT INTO instruments (symbol) VALUES ('also.writes')")
        maker.commit()


def test_a_table_in_the_way_is_trouble_and_blames_no_row(conn: connection, sink: DatabaseSink) -> None:
    execute(conn, "CREATE TABLE ticks_20260112 ()")
    feeder = Feeder()
    arguments = feeder.journal_id, sink.ledger(feeder.journal_id), feeder.batch([Tick()])
    with pytest.raises(Exception, match="in the way"):
        sink.write(*arguments)
    assert rows_of(conn, "SELECT * FROM rejected_ticks") == []
    execute(conn, "DROP TABLE ticks_20260112")
    assert sink.write(*arguments)[0].stored == 1


def test_no_call_makes_more_than_its_share(conn: connection, sink: DatabaseSink) -> None:
    made = Partitions()
    times = np.arange(MAX_NEW_PER_CALL * 2 + 1) * WEEK_US + NOON_US - 1000 * WEEK_US
    before = len(partition_names(conn))
    for calls in (1, 2):
        assert not made.ensure(sink.connection, times)
        assert len(partition_names(conn)) == before + calls * MAX_NEW_PER_CALL
    assert made.ensure(sink.connection, times)
    assert len(partition_names(conn)) == before + len(times)


def test_a_new_connection_looks_again(conn: connection, sink: DatabaseSink) -> None:
    made = Partitions()
    made.ensure(sink.connection, np.array([NOON_US]))
    execute(conn, "DROP TABLE ticks_20260112")
    sink.connection.close()
    made.ensure(sink.connection, np.array([NOON_US]))
    assert "ticks_20260112" in partition_names(conn)


def test_two_flushes_that_need_the_same_new_partitions_both_go_in(
    conn: connection, database_url: str
) -> None:
    weeks = 30
    barrier = threading.Barrier(2)

    def send(seq: int, step: int) -> int:
        mine, feeder = new_sink(database_url), Feeder()
        try:
            barrier.wait(WAIT_S)
            rows = [Tick(time_us=NOON_US - week * WEEK_US, seq=seq) for week in range(weeks)]
            for at in range(0, weeks, 3):
                write_all(mine, feeder, rows[::step][at : at + 3])
            return mine.ledger(feeder.journal_id).stored
        finally:
            mine.close()

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(send, 0, 1), pool.submit(send, 1, -1)]
        assert [job.result(WAIT_S) for job in jobs] == [weeks, weeks]
    assert len(stored_keys(conn)) == 2 * weeks


@pytest.mark.long
def test_forty_years_of_dates_in_one_request_are_stored_in_bounded_calls(
    conn: connection, database_url: str, sink: DatabaseSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than two thousand partitions; then the same again, and what is new among them, beside readers of all."""
    made = 0
    most = 0
    ensure = partitions.Partitions.ensure

    def counted(self: Partitions, *arguments: object) -> bool:
        nonlocal made, most
        before = len(self._weeks._known)
        done = ensure(self, *arguments)
        made += len(self._weeks._known) - before
        most = max(most, len(self._weeks._known) - before)
        return done

    monkeypatch.setattr(partitions.Partitions, "ensure", counted)
    weeks = range(-1040, 1046)
    rows = [Tick(time_us=NOON_US + week * WEEK_US, volume=1.0, flags=56, last=2.0) for week in weeks]
    feeder = Feeder()
    entry = write_all(sink, feeder, rows)
    assert (entry.stored, entry.set_aside) == (len(rows), 0)
    assert made == len(rows)
    assert most <= MAX_NEW_PER_CALL
    with closing(psycopg2.connect(database_url)) as one, closing(psycopg2.connect(database_url)) as other:
        for reader in (one, other):
            with reader.cursor() as cur:
                cur.execute("SELECT count(*) FROM ticks")
                assert cur.fetchall() == [(len(rows),)]
        write_all(sink, feeder, rows, [Tick(time_us=row.time_us, seq=1) for row in rows])
    assert ledger_of(conn, feeder.journal_id) == (3 * len(rows), 2 * len(rows), len(rows), 0, 0, 0)
    assert_bars_and_current_are_those_of_a_clean_load(conn)


# months


def months_of(conn: connection, table: str) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1"
    return [name for (name,) in rows_of(conn, query, (table,))]


def us(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


def test_a_month_is_made_for_the_records_in_it_and_the_next_one_ahead(conn: connection, sink: DatabaseSink) -> None:
    made = MonthPartitions("market_data")
    now = np.datetime64("now", "us").astype(np.int64)
    old = np.array([us("2019-12-31T23:59:59.999999"), us("2020-01-01"), us("2020-01-31")])
    assert made.ensure(sink.connection, old)
    assert months_of(conn, "market_data") == ["market_data_201912", "market_data_202001"]
    assert made.ensure(sink.connection, np.array([now]))
    (this, next_one) = rows_of(
        conn, "SELECT to_char(now() + n * interval '1 month', '\"market_data_\"YYYYMM') FROM generate_series(0, 1) n"
    )
    assert months_of(conn, "market_data")[2:] == [*this, *next_one]
    assert MonthPartitions("market_data").ensure(sink.connection, old), "made already"
    columns = "(symbol_id, time, received_at)"
    execute(conn, f"INSERT INTO market_data {columns} VALUES (1, '2019-12-31 23:59:59.999999Z', now())")
    assert rows_of(conn, "SELECT tableoid::regclass::text FROM market_data") == [("market_data_201912",)]


def test_no_call_makes_more_months_than_its_share(conn: connection, sink: DatabaseSink) -> None:
    made = MonthPartitions("option_quotes")
    times = np.array([us(f"{year}-{month:02}-15") for year in range(1990, 1996) for month in range(1, 13)])
    assert not made.ensure(sink.connection, times)
    assert len(months_of(conn, "option_quotes")) == MAX_NEW_PER_CALL
    assert made.ensure(sink.connection, times)
    assert len(months_of(conn, "option_quotes")) == len(times)


@pytest.mark.parametrize("table", ["ticks", "news", "market_data_rollup", "pg_class", "nothing"])
def test_only_tables_by_month_get_months(conn: connection, table: str) -> None:
    with pytest.raises(psycopg2.errors.WrongObjectType), conn.cursor() as cur:
        cur.execute("SELECT ensure_month_partition(%s, now())", (table,))


def test_only_who_may_store_records_gets_months(conn: connection, database_url: str) -> None:
    execute(conn, "CREATE ROLE storer LOGIN; CREATE ROLE looker LOGIN; GRANT INSERT ON market_data TO storer")
    try:
        for role, allowed in (("storer", True), ("looker", False)):
            with closing(psycopg2.connect(database_url.replace("user=tickhub", f"user={role}"))) as own:
                with own.cursor() as cur:
                    if allowed:
                        cur.execute("SELECT ensure_month_partition('market_data', '2020-02-29Z')")
                        assert cur.fetchall() == [(True,)]
                    else:
                        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                            cur.execute("SELECT ensure_month_partition('market_data', '2020-03-01Z')")
                own.commit()
        assert months_of(conn, "market_data") == ["market_data_202002"]
    finally:
        execute(conn, "DROP OWNED BY storer, looker; DROP ROLE storer, looker")


def test_two_that_need_the_same_new_months_both_have_them(conn: connection, database_url: str) -> None:
    barrier = threading.Barrier(2)

    def make(step: int) -> bool:
        mine = new_sink(database_url)
        try:
            barrier.wait(WAIT_S)
            partitions_ = MonthPartitions("system_metrics")
            times = [us(f"2021-{month:02}-01") for month in range(1, 13)][::step]
            return all(partitions_.ensure(mine.connection, np.array([at])) for at in times)
        finally:
            mine.close()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(make, (1, -1))) == [True, True]
    assert len(months_of(conn, "system_metrics")) == 12
