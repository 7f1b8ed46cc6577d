"""Files of records: what is exported can be imported again, in every format, once."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection

from app.cli.records import export_records
from app.cli.records_import import BLOCK_ROWS, Imported, import_records
from app.datasets.declare import Dataset, Policy
from app.datasets.registry import DATASETS
from app.errors import TickhubError
from app.formats.encoders import Format
from app.settings import load
from app.storage.connection import Connection
from app.storage.sink import DatabaseSink
from app.storage.writers import writers
from tests.batches import execute, rows_of
from tests.dataset_rows import RecordFeeder, records

EVERY = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
FORMATS: tuple[Format, ...] = ("json", "ndjson", "csv", "arrow", "parquet")


@pytest.fixture
def database(database_url: str) -> Iterator[Connection]:
    made = Connection(lambda: database_url, 5, 30, "test")
    yield made
    made.close()


def store(database: Connection, dataset: Dataset, count: int) -> None:
    sink, feeder = DatabaseSink(database, writers()), RecordFeeder()
    sink.write(
        feeder.journal_id, sink.ledger(feeder.journal_id), feeder.records((dataset, "ignore", records(dataset, count)))
    )


def export(
    database: Connection, dataset: Dataset, path: Path, form: Format, *, zipped: bool = False, **more: Any
) -> int:
    wanted = {"symbol": None, "start": None, "end": None, "computed": False}
    args = argparse.Namespace(**{"file": str(path), **wanted, **more})
    return export_records(database, dataset, args, form, zipped)


def bring(
    database: Connection, dataset: Dataset, path: Path, form: Format, policy: Policy = "ignore", *, zipped: bool = False
) -> Imported:
    return import_records(database, dataset, path, form, zipped, policy, load(flags={}))


@pytest.mark.long
@EVERY
@pytest.mark.parametrize("form", FORMATS)
def test_what_was_exported_comes_back_the_same_and_once(
    conn: connection, database: Connection, tmp_path: Path, dataset: Dataset, form: Format
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    execute(conn, f"DELETE FROM {dataset.table}")  # some instruments are there from the start
    store(database, dataset, 30)
    assert export(database, dataset, first, form, zipped=True) == 30
    execute(conn, f"DELETE FROM {dataset.table}")
    told = bring(database, dataset, first, form, zipped=True)
    assert (told.stored, told.duplicates, told.set_aside, told.refused) == (30, 0, 0, 0)
    assert export(database, dataset, second, form, zipped=True) == 30
    assert first.read_bytes() == second.read_bytes()
    again = bring(database, dataset, first, form, zipped=True)
    assert (again.stored, again.duplicates, again.before) == (0, 0, 30)
    assert rows_of(conn, f"SELECT count(*) FROM {dataset.table}") == [(30,)]


def test_what_is_computed_is_exported_only_when_asked_for_as_an_import_would_fix_it(
    conn: connection, database: Connection, tmp_path: Path
) -> None:
    bars, sent, path = DATASETS["price_history"], tmp_path / "sent.csv", tmp_path / "out.csv"
    lines = [f"AAPL,1d,2026-01-{day},vendor,{day},{day},{day},{day}" for day in (12, 13)]
    sent.write_text("\n".join(["symbol,interval,timestamp,source,open,high,low,close", *lines]))
    assert bring(database, bars, sent, "csv").stored == 2

    def adj_close(**more: bool) -> list[str]:
        assert export(database, bars, path, "csv", **more) == 2
        with path.open(newline="") as file:
            return [row["adj_close"] for row in csv.DictReader(file)]

    assert adj_close(computed=True) == ["12.0", "13.0"]
    assert adj_close() == ["", ""]
    told = bring(database, bars, path, "csv", "update")
    assert (told.stored, told.duplicates) == (0, 2)
    assert rows_of(conn, "SELECT count(adj_close), count(daily_return) FROM price_history") == [(0, 0)]


def test_an_import_that_was_cut_off_goes_on(
    conn: connection, database: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    news, path = DATASETS["news"], tmp_path / "news.csv"
    lines = [f"AAPL,2026-01-13T00:00:00Z,https://example.com/{number}" for number in range(2 * BLOCK_ROWS + 5)]
    path.write_text("\n".join(["symbol,timestamp,url", *lines, "FOO,2026-01-13,x", ""]))
    plain, blocks = DatabaseSink.write, []

    def cut(self: DatabaseSink, *args: Any) -> Any:
        blocks.append(args)
        if len(blocks) == 2:
            raise TickhubError("cut off")
        return plain(self, *args)

    monkeypatch.setattr(DatabaseSink, "write", cut)
    with pytest.raises(TickhubError, match="cut off"):
        bring(database, news, path, "csv")
    assert rows_of(conn, "SELECT count(*) FROM news") == [(BLOCK_ROWS,)]
    told = bring(database, news, path, "csv")
    assert (told.before, told.stored, told.refused) == (BLOCK_ROWS, BLOCK_ROWS + 5, 1)
    assert rows_of(conn, "SELECT next_row = stored, next_row FROM ingest_log") == [(True, len(lines))]


def test_a_file_that_is_none_says_so(database: Connection, tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    with pytest.raises(TickhubError, match="nothing"):
        bring(database, DATASETS["news"], path, "csv")
    path.write_bytes(b"no such thing")
    for form in FORMATS:
        if form == "ndjson":  # a line of it is a record, good or bad
            assert bring(database, DATASETS["news"], path, form).refused == 1
            continue
        with pytest.raises(TickhubError):
            bring(database, DATASETS["news"], path, form)
    with pytest.raises(TickhubError):
        bring(database, DATASETS["news"], path, "csv", zipped=True)


def test_a_symbol_and_a_range_choose_what_is_exported(database: Connection, tmp_path: Path) -> None:
    news = DATASETS["news"]
    store(database, news, 30)
    assert export(database, news, tmp_path / "a", "csv", start=0, end=1) == 0

    assert export(database, news, tmp_path / "b", "csv", symbol="natgas") == 10
    with pytest.raises(TickhubError, match="unknown symbol"):
        export(database, news, tmp_path / "c", "csv", symbol="FOO")
