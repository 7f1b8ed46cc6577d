"""Rollups of metrics: whatever comes, in whatever order and at once, they are what a plain count of the rows gives."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection

from app.datasets.declare import Dataset, Policy
from app.datasets.registry import DATASETS
from app.datasets.rollup import RESOLUTIONS_S, RollupColumn, create_rollup, rollup_columns, rollup_keys, rollup_table
from app.storage.sink import DatabaseSink
from app.storage.writers import writers
from tests.batches import execute, new_sink, rows_of
from tests.dataset_rows import SYMBOLS, RecordFeeder, records

WAIT_S = 60
ROLLED = [dataset for dataset in DATASETS.values() if dataset.rollup]
EVERY = pytest.mark.parametrize("dataset", ROLLED, ids=lambda dataset: dataset.name)
MARKET = DATASETS["market_data"]
NOON = datetime(2026, 1, 31, 23, 50, tzinfo=UTC)
"""Near the end of a month: buckets of both are made."""


def write(sink: DatabaseSink, feeder: RecordFeeder, *requests: tuple[Dataset, Policy, Sequence[dict[str, Any]]]) -> int:
    """Write requests in one transaction; return how many rows were stored."""
    batch, entry = feeder.records(*requests), sink.ledger(feeder.journal_id)
    before = entry.stored
    while True:
        moved, *_ = sink.write(feeder.journal_id, entry, batch)
        if moved is not entry:
            return moved.stored - before


def at(seconds: float) -> str:
    return (NOON + timedelta(seconds=seconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def rollup_of(conn: connection, dataset: Dataset) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the stored rollup by (key..., resolution, start in seconds)."""
    names = ["rows", "first_time", "last_time", *(column.name for column in rollup_columns(dataset))]
    keys = ", ".join([*(column.column for column in rollup_keys(dataset)), "resolution"])
    found = rows_of(
        conn, f"SELECT {keys}, extract(epoch FROM time)::bigint, {', '.join(names)} FROM {rollup_table(dataset)}"
    )
    size = len(rollup_keys(dataset)) + 2
    return {row[:size]: dict(zip(names, row[size:], strict=True)) for row in found}


def _made_of(column: RollupColumn, known: list[Any]) -> Any:
    if column.of == "count" or not known:
        return len(known) if column.of == "count" else None
    add = math.fsum if column.field.kind == "float" else sum
    return {"sum": add, "min": min, "max": max, "last": lambda values: values[-1]}[column.of](known)


def counted(conn: connection, dataset: Dataset) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return what a plain count of the stored rows gives."""
    keys = [column.column for column in rollup_keys(dataset)]
    fields = list(dict.fromkeys(column.field.column for column in rollup_columns(dataset)))
    buckets: dict[tuple[Any, ...], list[tuple[datetime, dict[str, Any]]]] = {}
    listed = ", ".join([*keys, *fields])
    for time, *values in rows_of(conn, f"SELECT time, {listed} FROM {dataset.table} ORDER BY time"):
        for seconds in RESOLUTIONS_S:
            start = int(time.timestamp()) // seconds * seconds
            buckets.setdefault((*values[: len(keys)], seconds, start), []).append(
                (time, dict(zip(fields, values[len(keys) :], strict=True)))
            )
    made = {}
    for key, rows in buckets.items():
        bucket: dict[str, Any] = {"rows": len(rows), "first_time": rows[0][0], "last_time": rows[-1][0]}
        for column in rollup_columns(dataset):
            known = [values[column.field.column] for _, values in rows if values[column.field.column] is not None]
            bucket[column.name] = _made_of(column, known)
        made[key] = bucket
    return made


def assert_exact(conn: connection, dataset: Dataset) -> int:
    """Compare the rollup with a plain count; return how many buckets there are."""
    stored, wanted = rollup_of(conn, dataset), counted(conn, dataset)
    assert stored.keys() == wanted.keys()
    for key, bucket in wanted.items():
        for name, value in bucket.items():
            if isinstance(value, float) and name.endswith("_sum"):
                assert math.isclose(stored[key][name], value, rel_tol=1e-12, abs_tol=1e-9), (key, name)
            else:
                assert stored[key][name] == value, (key, name)
    return len(wanted)


@EVERY
def test_the_tables_are_what_the_declaration_says(conn: connection, dataset: Dataset) -> None:
    shape = """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(c.oid, a.attnum),
            obj_description(c.oid), pg_get_partkeydef(c.oid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.oid = %s::regclass AND a.attnum > 0 ORDER BY a.attnum
    """
    keys = "SELECT split_part(pg_get_indexdef(indexrelid), ' USING ', 2) FROM pg_index WHERE indrelid = %s::regclass"
    parts = """
        SELECT c.relname, c.reloptions, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = %s::regclass ORDER BY 1
    """
    execute(conn, "CREATE SCHEMA declared", f"SET search_path = declared; {create_rollup(dataset)}")
    for query in (shape, keys, parts):
        there = rows_of(conn, query, [f"public.{rollup_table(dataset)}"])
        assert there
        assert sorted(there) == sorted(rows_of(conn, query, [f"declared.{rollup_table(dataset)}"]))


@EVERY
def test_late_changed_and_repeated_rows_leave_what_a_plain_count_gives(
    conn: connection, sink: DatabaseSink, dataset: Dataset
) -> None:
    rng, feeder = random.Random(3), RecordFeeder()
    policies: tuple[Policy, ...] = ("ignore", "update", "keep_newest", "error")
    for round_ in range(8):
        requests: list[tuple[Dataset, Policy, list[dict[str, Any]]]] = []
        for _ in range(rng.randrange(1, 4)):
            made = records(dataset, 12, seed=rng.randrange(10**6))
            for one in made:
                seconds = rng.choice([0, 1, 59.999999, 60, 299, 300, 599.5, 3600, 86_400])
                one["timestamp"] = at(seconds + rng.choice([0, 0.25]))
            rng.shuffle(made)
            requests.append((dataset, rng.choice(policies), made))
        write(sink, feeder, *requests)
        assert assert_exact(conn, dataset) > 0, round_
    assert {key[-2] for key in rollup_of(conn, dataset)} == set(RESOLUTIONS_S)


def test_what_is_set_aside_leaves_no_bucket(conn: connection, sink: DatabaseSink) -> None:
    execute(conn, "ALTER TABLE market_data ADD CONSTRAINT no CHECK (bid <> 13)")
    good = {"symbol": "AAPL", "timestamp": at(0), "bid": 1.0}
    bad = {"symbol": "AAPL", "timestamp": at(7200), "bid": 13.0}
    assert write(sink, RecordFeeder(), (MARKET, "update", [good, bad])) == 1
    assert assert_exact(conn, MARKET) == 3


def test_who_writes_the_same_hour_waits_and_counts_both(
    conn: connection, database_url: str, sink: DatabaseSink
) -> None:
    write(sink, RecordFeeder(), (MARKET, "update", [{"symbol": "AAPL", "timestamp": at(0), "volume": 1.0}]))
    for minute, symbol in ((1, "AAPL"), (2, "TSLA")):  # an hour that is there, and one that both begin
        with closing(psycopg2.connect(database_url)) as holder, holder.cursor() as cur:
            cur.execute("SET lock_timeout = '20s'")
            mine, feeder = new_sink(database_url), RecordFeeder()
            entry = mine.ledger(feeder.journal_id)
            first = feeder.records((MARKET, "update", [{"symbol": symbol, "timestamp": at(minute), "volume": 2.0}]))
            writer = writers()["market_data"]
            prepared = writer.prepare(mine.connection, entry.journal_no, first.records)
            writer.write(cur, prepared)  # and not yet committed
            done = threading.Event()

            def other(symbol: str = symbol, minute: int = minute, done: threading.Event = done) -> None:
                theirs = new_sink(database_url)
                try:
                    row = {"symbol": symbol, "timestamp": at(minute + 0.5), "volume": 4.0}
                    write(theirs, RecordFeeder(), (MARKET, "update", [row]))
                    done.set()
                finally:
                    theirs.close()

            with ThreadPoolExecutor(1) as pool:
                job = pool.submit(other)
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND state = 'active'"
                while rows_of(conn, waiting) == [(0,)]:
                    assert not done.is_set()
                holder.commit()
                job.result(WAIT_S)
            mine.close()
        assert_exact(conn, MARKET)
    assert rows_of(conn, "SELECT sum(volume_sum) FROM market_data_rollup WHERE resolution = 3600") == [(13.0,)]


def test_many_that_write_the_same_buckets_at_once_leave_them_exact(conn: connection, database_url: str) -> None:
    barrier = threading.Barrier(3)

    def send(number: int) -> int:
        mine, rng, stored = new_sink(database_url), random.Random(number), 0
        feeder = RecordFeeder()
        try:
            barrier.wait(WAIT_S)
            for _ in range(12):
                made = [
                    {
                        "symbol": symbol,
                        "timestamp": at(60 * rng.randrange(0, 70, 7) + number + 3 * rng.randrange(15)),
                        "bid": rng.random(),
                        "trades": rng.randrange(1 << 53),
                    }
                    for symbol in rng.sample(SYMBOLS, 3)
                    for _ in range(4)
                ]
                stored += write(mine, feeder, (MARKET, "update", made))
            return stored
        finally:
            mine.close()

    with ThreadPoolExecutor(3) as pool:
        assert all(stored > 0 for stored in pool.map(send, range(3)))
    assert assert_exact(conn, MARKET) > 20
