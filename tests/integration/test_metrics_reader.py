"""Metrics by intervals, and what they come to: of any range what a plain reading of all its records gives."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from psycopg2.extensions import connection

from app.datasets.declare import Aggregate, Dataset
from app.datasets.registry import DATASETS
from app.datasets.rollup import rollup_keys
from app.formats.json_rows import Ndjson
from app.formats.table import Table
from app.formats.times import time_texts
from app.storage.instruments import find
from app.storage.metrics_pieces import RECORDS, Chosen, Part, cut
from app.storage.metrics_reader import MetricsQuery, read_metrics
from app.storage.metrics_summary import read_summary
from app.storage.sink import DatabaseSink
from tests.batches import execute
from tests.dataset_rows import RecordFeeder

METRICS = [dataset for dataset in DATASETS.values() if dataset.aggregates]
EVERY = pytest.mark.parametrize("dataset", METRICS, ids=lambda dataset: dataset.name)
BEGIN_US = int(datetime(2026, 1, 31, 21, 17, 3, tzinfo=UTC).timestamp()) * 1_000_000
"""In the evening before a month begins: records lie in two tables."""

SECOND_US = 1_000_000
INTERVALS_S = (60, 300, 900, 3600, 86_400)
NAMES = {"symbol": ["AAPL", "NatGas", "TSLA"], "strategy_name": ["a", "É b", "z"], "host": ["one", "two"]}

Record = dict[str, Any]


def text_of(us: int) -> str:
    return time_texts(np.array([us], np.int64))[0]


def some_records(dataset: Dataset, count: int, seed: int) -> list[Record]:
    """Records of distinct keys within some hours, in bursts and with gaps; each field is absent in some."""
    rng = random.Random(seed)
    keys = [column.name for column in rollup_keys(dataset)]
    found: dict[tuple[Any, ...], Record] = {}
    at_us = BEGIN_US
    while len(found) < count:
        at_us += rng.choice([1, 250_000, SECOND_US, 7 * SECOND_US, 100 * SECOND_US])
        if rng.random() < 0.01:
            at_us += rng.randrange(3 * 3600) * SECOND_US
        record: Record = {name: rng.choice(NAMES[name]) for name in keys}
        record["timestamp"] = text_of(at_us)
        for column in dataset.values:
            if rng.random() < 0.75:
                record[column.name] = some_value(column.name, column.kind, rng)
        found[tuple(record[name] for name in (*keys, "timestamp"))] = record
    records = list(found.values())
    rng.shuffle(records)
    return records


def some_value(name: str, kind: str, rng: random.Random) -> Any:
    if kind == "text":
        return rng.choice(["healthy", "unhealthy", "đủ"])
    if kind == "int":
        return rng.choice([0, 1, 1000, rng.randrange(1 << 30)])
    return rng.choice([0.0, 0.25, 1 / 3, rng.random()])


def store(sink: DatabaseSink, dataset: Dataset, records: Sequence[Record], flushes: int = 5) -> None:
    feeder = RecordFeeder()
    for part in range(flushes):
        entry = sink.ledger(feeder.journal_id)
        sink.write(feeder.journal_id, entry, feeder.records((dataset, dataset.policy, records[part::flushes])))


def us_of(record: Record) -> int:
    found = datetime.fromisoformat(record["timestamp"])
    return int(found.replace(microsecond=0).timestamp()) * SECOND_US + found.microsecond


def chosen_of(conn: connection, dataset: Dataset, start_us: int, end_us: int, name: str | None) -> Chosen:
    if name is None:
        return Chosen(dataset, start_us, end_us)
    (key,) = rollup_keys(dataset)
    if key.kind == "symbol":
        with conn.cursor() as cur:
            found = find(cur, name)
        assert found is not None
        return Chosen(dataset, start_us, end_us, found.symbol_id)
    return Chosen(dataset, start_us, end_us, texts={key.name: name})


def among(dataset: Dataset, records: Sequence[Record], start_us: int, end_us: int, name: str | None) -> list[Record]:
    """The records of a range in the dataset's order."""
    order = [column.name for column in dataset.order]
    return sorted(
        (
            one
            for one in records
            if start_us <= us_of(one) < end_us and (name is None or one[rollup_keys(dataset)[0].name] == name)
        ),
        key=lambda one: [one[field] for field in order],
    )


def made_one(of: str, values: Sequence[Any]) -> Any:
    if not values:
        return None
    if of == "avg":
        return sum(values) / len(values)
    return {"sum": sum, "min": min, "max": max, "last": lambda all_: all_[-1]}[of](values)


def plainly(
    dataset: Dataset, records: Sequence[Record], interval_s: int, aggregates: Mapping[str, Aggregate]
) -> list[Record]:
    """What the intervals must be, of records in order."""
    keys = [column.name for column in rollup_keys(dataset)]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for one in records:
        start_us = us_of(one) // (interval_s * SECOND_US) * interval_s * SECOND_US
        groups.setdefault((start_us, *(one[name] for name in keys)), []).append(one)
    return [
        {
            **dict(zip(keys, names, strict=True)),
            "timestamp": text_of(start_us),
            **{
                field: made_one(of, [one[field] for one in group if one.get(field) is not None])
                for field, of in aggregates.items()
            },
        }
        for (start_us, *names), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def shown(table: Table | None) -> list[Record]:
    assert table is not None
    return [msgspec.json.decode(line) for line in Ndjson(table.fields).rows(table).splitlines()]


def alike(found: Sequence[Record], wanted: Sequence[Record]) -> None:
    """Equal, but for what another order of additions does to a sum."""
    assert [list(one) for one in found] == [list(one) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        numbers = {name: value for name, value in other.items() if isinstance(value, float)}
        assert {**one, **numbers} == other
        for name, value in numbers.items():
            assert one[name] == pytest.approx(value, rel=1e-12, abs=1e-12), (one, other, name)


def some_end(records: Sequence[Record], rng: random.Random) -> int:
    """A time at, beside or far from what may make a difference."""
    at_us = us_of(rng.choice(records))
    step_us = rng.choice(INTERVALS_S) * SECOND_US
    return rng.choice(
        [at_us, at_us + 1, at_us // step_us * step_us, -(-at_us // step_us) * step_us, BEGIN_US - 1, at_us + 10**12]
    )


@EVERY
def test_intervals_of_any_range_are_those_of_a_plain_reading(
    sink: DatabaseSink, conn: connection, dataset: Dataset
) -> None:
    records = some_records(dataset, 600, seed=1)
    store(sink, dataset, records)
    rng, lengths = random.Random(2), set()
    for _ in range(60):
        start_us, end_us = sorted((some_end(records, rng), some_end(records, rng)))
        interval_s = rng.choice(INTERVALS_S)
        aggregates: dict[str, Aggregate] = {
            column.name: "last" if column.kind == "text" else rng.choice(["avg", "sum", "min", "max", "last"])
            for column in dataset.values
            if rng.random() < 0.8
        }
        name = rng.choice([None, *(NAMES[rollup_keys(dataset)[0].name] if rollup_keys(dataset) else [])])
        query = MetricsQuery(chosen_of(conn, dataset, start_us, end_us, name), interval_s, aggregates)
        with conn.cursor() as cur:
            found = shown(read_metrics(cur, query, 10_000))
        wanted = plainly(dataset, among(dataset, records, start_us, end_us, name), interval_s, aggregates)
        alike(found, wanted)
        lengths.add(len(wanted))
    assert len(lengths) > 10


@EVERY
def test_a_summary_of_any_range_is_that_of_a_plain_reading(
    sink: DatabaseSink, conn: connection, dataset: Dataset
) -> None:
    records = some_records(dataset, 400, seed=3)
    store(sink, dataset, records)
    rng = random.Random(4)
    for _ in range(40):
        start_us, end_us = sorted((some_end(records, rng), some_end(records, rng)))
        name = rng.choice([None, *(NAMES[rollup_keys(dataset)[0].name] if rollup_keys(dataset) else [])])
        with conn.cursor() as cur:
            found = read_summary(cur, chosen_of(conn, dataset, start_us, end_us, name))
        wanted = among(dataset, records, start_us, end_us, name)
        ends = [us_of(one) for one in (wanted[0], wanted[-1])] if wanted else [None, None]
        assert [found.rows, found.first_us, found.last_us] == [len(wanted), *ends]
        assert list(found.fields) == list(dataset.aggregates)
        for field, figures in found.fields.items():
            values = [one[field] for one in wanted if one.get(field) is not None]
            assert figures.avg == (None if not values else pytest.approx(made_one("avg", values), rel=1e-12))
            assert (figures.min, figures.max, figures.last) == tuple(
                made_one(of, values) for of in ("min", "max", "last")
            )


@EVERY
def test_a_week_is_read_from_what_is_kept_of_it_and_its_records_from_its_ends_alone(
    sink: DatabaseSink, conn: connection, dataset: Dataset
) -> None:
    records = some_records(dataset, 200, seed=5)
    store(sink, dataset, records)
    start_us = us_of(min(records, key=us_of)) // 3_600_000_000 * 3_600_000_000
    chosen = Chosen(dataset, start_us, start_us + 7 * 86_400 * SECOND_US)
    aggregates = dataset.aggregates
    with conn.cursor() as cur:
        before = [shown(read_metrics(cur, MetricsQuery(chosen, one, aggregates), 1000)) for one in (60, 300, 86_400)]
        summary = read_summary(cur, chosen)
    execute(conn, f"DELETE FROM {dataset.table}")
    with conn.cursor() as cur:
        after = [shown(read_metrics(cur, MetricsQuery(chosen, one, aggregates), 1000)) for one in (60, 300, 86_400)]
        assert after == before
        assert read_summary(cur, chosen).rows == summary.rows == 200


def test_a_range_is_cut_where_buckets_begin_and_nothing_is_left_out_or_twice() -> None:
    rng = random.Random(6)
    for _ in range(500):
        start_us = rng.randrange(-10 * 3600, 10 * 3600) * rng.choice([SECOND_US, 60 * SECOND_US]) + rng.randrange(2)
        end_us = start_us + rng.randrange(5 * 3600 * SECOND_US)
        parts = list(cut(start_us, end_us, rng.choice([[], [60], [60, 300], [60, 300, 3600]])))
        assert [part.low_us for part in parts] == [start_us, *(part.high_us for part in parts)][: len(parts)]
        assert not parts or parts[-1].high_us == end_us
        for part in parts:
            assert part.low_us < part.high_us
            step_us = part.resolution_s * SECOND_US or 1
            assert part.low_us % step_us == part.high_us % step_us == 0
    minute_us = 60 * SECOND_US
    assert list(cut(minute_us - 1, 3 * minute_us, [60, 300, 3600])) == [
        Part(RECORDS, minute_us - 1, minute_us),
        Part(60, minute_us, 3 * minute_us),
    ]


def test_more_intervals_than_allowed_are_none(sink: DatabaseSink, conn: connection) -> None:
    dataset = DATASETS["execution_metrics"]
    records = some_records(dataset, 50, seed=7)
    store(sink, dataset, records)
    start_us = BEGIN_US - 1
    wanted = plainly(dataset, among(dataset, records, start_us, start_us + 10**12, None), 60, {})
    query = MetricsQuery(Chosen(dataset, start_us, start_us + 10**12), 60, {})
    with conn.cursor() as cur:
        assert len(shown(read_metrics(cur, query, len(wanted)))) == len(wanted)
        assert read_metrics(cur, query, len(wanted) - 1) is None


def test_sums_beyond_what_is_exact_are_numbers_all_the_same(sink: DatabaseSink, conn: connection) -> None:
    dataset = DATASETS["strategy_metrics"]
    records = [
        {"strategy_name": "a", "timestamp": text_of(BEGIN_US + at), "signals": 1 << 53, "positions": 3} for at in (0, 1)
    ]
    store(sink, dataset, records)
    query = MetricsQuery(Chosen(dataset, BEGIN_US, BEGIN_US + 10), 60, {"signals": "sum", "positions": "sum"})
    with conn.cursor() as cur:
        (row,) = shown(read_metrics(cur, query, 10))
    assert (row["signals"], row["positions"]) == (float(1 << 54), 6)


def test_what_was_kept_of_an_instrument_that_is_gone_is_answered_by_its_number(
    sink: DatabaseSink, conn: connection
) -> None:
    dataset = DATASETS["market_data"]
    store(sink, dataset, [{"symbol": "TSLA", "timestamp": text_of(BEGIN_US), "bid": 1.5}])
    with conn.cursor() as cur:
        known = find(cur, "TSLA")
    assert known is not None
    execute(conn, "DELETE FROM instruments WHERE symbol = 'TSLA'")
    with conn.cursor() as cur:
        query = MetricsQuery(Chosen(dataset, BEGIN_US, BEGIN_US + 1), 60, {"bid": "last"})
        (row,) = shown(read_metrics(cur, query, 10))
    assert (row["symbol"], row["bid"]) == (f"#{known.symbol_id}", 1.5)
