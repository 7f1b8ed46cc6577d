"""The newest record of each name, as the database tells it."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg2.extensions import connection

from app.datasets.registry import DATASETS
from app.datasets.rollup import rollup_keys
from app.storage import newest_metrics
from app.storage.newest_metrics import read_newest
from app.storage.sink import DatabaseSink
from tests.integration.test_metrics_reader import METRICS, some_records, store, us_of


@pytest.mark.long
def test_the_newest_record_of_each_name_is_told_whole(sink: DatabaseSink, conn: connection) -> None:
    wanted: dict[str, dict[str, tuple[int, dict[str, Any]]]] = {}
    for seed, dataset in enumerate(METRICS):
        records = some_records(dataset, 150, seed)
        store(sink, dataset, records)
        newest = wanted[dataset.name] = {}
        for record in sorted(records, key=us_of):
            names = [record[column.name] for column in rollup_keys(dataset)]
            values = {column.name: record.get(column.name) for column in dataset.values}
            newest[names[0] if names else ""] = (us_of(record), values)
    with conn.cursor() as cur:
        found = read_newest(cur, METRICS)
    assert {
        dataset: {name: (one.time_us, one.values) for name, one in rows.items()} for dataset, rows in found.items()
    } == wanted
    assert len(wanted["market_data"]) == 3


def test_of_nothing_there_is_nothing(conn: connection) -> None:
    with conn.cursor() as cur:
        assert read_newest(cur, METRICS) == {dataset.name: {} for dataset in METRICS}


def test_names_are_found_by_jumps_and_not_by_looking_at_all_records(sink: DatabaseSink, conn: connection) -> None:
    dataset = DATASETS["strategy_metrics"]
    store(sink, dataset, some_records(dataset, 3000, seed=9), flushes=1)
    statement = newest_metrics._newest(dataset)
    with conn.cursor() as cur:
        cur.execute("ANALYZE strategy_metrics")
        cur.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        (((plan,),),) = cur.fetchall()

    def looked_at(node: dict[str, Any]) -> int:
        own = 0
        if "Scan" in node["Node Type"] and "Relation Name" in node:
            own = int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        return own + sum(looked_at(inner) for inner in node.get("Plans", ()))

    assert 3 <= looked_at(plan["Plan"]) < 100
