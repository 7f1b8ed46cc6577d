"""The datasets bench measures what it says: its records, its pairs, its questions."""

from __future__ import annotations

import datetime
import json
import math

import numpy as np
import pytest

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from tests.bench.asking import Asked
from tests.bench.datasets_report import Pair, Read, Results, Writes, interval, results_tables, targets
from tests.bench.desk_history import MOST_ROWS, Held, questions
from tests.bench.desk_records import batches, encoded
from tests.dataset_rows import accepted


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
def test_its_records_are_taken_and_share_no_key(dataset: Dataset) -> None:
    sent = [record for batch in batches(dataset, 3, 100) for record in batch]
    keys = {tuple(record[name] for name in dataset.key) for record in sent}
    assert len(keys) == (100 if dataset.adds_symbols else 300)
    assert len(accepted(dataset, sent, dataset.policy)) == 300
    assert [len(json.loads(body)) for body in encoded(dataset, 3, 100)] == [100] * 3


def test_an_interval_that_reaches_one_is_no_measurable_loss() -> None:
    noisy = [Pair(100.0, 100.0 * ratio) for ratio in (0.97, 1.02, 0.99, 1.01, 0.98, 1.03, 0.98)]
    mean, low, high = interval(noisy)
    assert low < mean < 1.0 < high
    slower = [Pair(100.0, 100.0 * ratio) for ratio in (0.94, 0.95, 0.93, 0.95, 0.94, 0.96, 0.94)]
    assert interval(slower)[2] < 1.0
    assert [target.met for pairs in (noisy, slower) for target in targets(Results(pairs=pairs))] == [True, False]
    assert math.isinf(interval([Pair(1.0, 1.0)] * 40)[2])


def test_targets_take_the_99th_percentile_of_both_ways_in() -> None:
    quick, slow = Asked(np.full(100, 5.0), np.full(100, 7)), Asked(np.full(100, 60.0), np.full(100, 7))
    results = Results([Writes("news", 1000, quick, slow, 2.0)], [Read("a chain", slow, 30.0), Read("other", slow)])
    assert [(target.name, target.met) for target in targets(results)] == [
        ("1,000 news acknowledged, p99", True),
        ("1,000 news committed, p99", False),
        ("a chain, p99", False),
    ]
    assert ["50,000" in results_tables(results)[0], "a chain" in results_tables(results)[1]] == [True, True]


def test_questions_know_how_many_rows_they_get() -> None:
    end = datetime.datetime(2026, 1, 13, 20, tzinfo=datetime.UTC)
    asked = list(questions(Held(end - datetime.timedelta(hours=173), end), 40))
    rows = {name: count for name, _, count, _ in asked}
    assert rows["a year of daily OHLC"] == 261
    assert rows["metrics of a symbol, the last hour by 1m"] == 60
    assert rows["metrics of 8 symbols, a day by 5m"] == 8 * 288
    assert rows["metrics of a symbol, a week by 5m"] == 2016
    assert all(count <= MOST_ROWS for count in rows.values())
    assert all(len(requests) >= 8 and bound_ms for _, requests, _, bound_ms in asked)
