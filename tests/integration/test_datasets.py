"""What every dataset promises, against a real database: each test runs for each one that is registered."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection

from app.dataset_source import DatasetSource
from app.datasets.ddl import create_table
from app.datasets.declare import Dataset, Policy
from app.datasets.registry import DATASETS
from app.errors import BadParameter
from app.market.batches import LedgerEntry
from app.row_stream import RowsRequest, RowStream
from app.storage.connection import Connection
from app.storage.sink import DatabaseSink
from tests.batches import execute, ledger_of, rows_of
from tests.dataset_rows import RecordFeeder, key_value, records
from tests.integration.write_migration import missing
from tests.integration.write_schema import SNAPSHOT

EVERY = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
POLICIES: tuple[Policy, ...] = ("ignore", "update", "keep_newest", "error")


def write(
    sink: DatabaseSink, feeder: RecordFeeder, *requests: tuple[Dataset, Policy, Sequence[dict[str, Any]]]
) -> LedgerEntry:
    entry = sink.ledger(feeder.journal_id)
    return sink.write(feeder.journal_id, entry, feeder.records(*requests))[0]


def read(own: Connection, dataset: Dataset, **asked: Any) -> list[dict[str, Any]]:
    """Return the records as JSON shows them, page by page of seven."""
    symbol, descending = asked.pop("symbol", None), asked.pop("descending", False)
    source = DatasetSource(dataset, asked.pop("start_us", None), asked.pop("end_us", None), asked)
    token, found = None, []
    for _ in range(1000):
        stream = RowStream(RowsRequest(symbol, source, "json", limit=7, descending=descending, page_token=token))
        with own.reading(10) as cur:
            stream.open(cur, with_version=False)
            answer = json.loads(stream.page(cur))
        assert answer["dataset"] == dataset.name
        found += answer["records"]
        token = answer["next_page_token"]
        if token is None:
            return found
    raise AssertionError("pages without end")


def full(dataset: Dataset, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as it is read back, less what is computed where nothing was sent."""
    return {column.name: record.get(column.name) for column in dataset.columns}


def same(dataset: Dataset, read_back: Sequence[dict[str, Any]], sent: Sequence[dict[str, Any]]) -> None:
    """Assert that these records are read: all that was sent to the last bit, null where nothing can be computed."""
    order = [column.name for column in dataset.order]
    wanted = sorted((full(dataset, one) for one in sent), key=lambda one: [one[name] or "" for name in order])
    got = [dict(one) for one in read_back]
    for one, other in zip(got, wanted, strict=True):
        for name in dataset.computed:
            if other[name] is None:
                one[name] = None
    assert got == wanted


@pytest.fixture(autouse=True)
def _no_instruments(request: pytest.FixtureRequest) -> None:
    """Empty the table that a fresh database has rows in."""
    dataset = getattr(request.node, "callspec", None) and request.node.callspec.params.get("dataset")
    if dataset is not None and dataset.name == "instruments":
        execute(request.getfixturevalue("conn"), "DELETE FROM instruments")


OWN = pytest.mark.parametrize(
    "dataset", [one for one in DATASETS.values() if one.has_own_table], ids=lambda dataset: dataset.name
)
SHARED = pytest.mark.parametrize(
    "dataset", [one for one in DATASETS.values() if not one.has_own_table], ids=lambda dataset: dataset.name
)


@SHARED
def test_a_table_that_others_write_too_has_the_declared_columns_and_key(conn: connection, dataset: Dataset) -> None:
    columns = """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull, col_description(attrelid, attnum) IS NOT NULL
        FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
    """
    found = {row[0]: row[1:] for row in rows_of(conn, columns, [dataset.table])}
    execute(conn, "CREATE SCHEMA declared", f"SET search_path = declared; {create_table(dataset)}")
    declared = {row[0]: row[1:] for row in rows_of(conn, columns, [f"declared.{dataset.table}"])}
    if dataset.symbol in dataset.key and not dataset.by_name[dataset.symbol or ""].required:
        declared["symbol_id"] = ("integer", False, True)  # PRIMARY KEY says more
    whole = {"smallint": "bigint", "integer": "bigint"}
    for name, (kind, is_required, said) in declared.items():
        assert (whole.get(found[name][0], found[name][0]), *found[name][1:]) == (
            whole.get(kind, kind),
            is_required,
            said,
        ), name
    unique = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass AND indisunique"
    names = ", ".join('"time"' if one.column == "time" else one.column for one in dataset.keys)
    indexes = [row[0].replace("upper(symbol)", "symbol") for row in rows_of(conn, unique, [f"public.{dataset.table}"])]
    assert any(f"({names})" in one for one in indexes), indexes


@OWN
def test_the_table_is_what_the_declaration_says(conn: connection, dataset: Dataset) -> None:
    shape = """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(c.oid, a.attnum),
            obj_description(c.oid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.oid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname
    """
    keys = """
        SELECT pg_get_indexdef(indexrelid, 1, true), pg_get_indexdef(indexrelid, 2, true),
            pg_get_indexdef(indexrelid, 3, true), pg_get_indexdef(indexrelid, 4, true), indisprimary
        FROM pg_index WHERE indrelid = %s::regclass ORDER BY indisprimary, 1, 2
    """
    execute(conn, "CREATE SCHEMA declared", f"SET search_path = declared; {create_table(dataset)}")
    for query in (shape, keys):
        assert rows_of(conn, query, [f"public.{dataset.table}"]) == rows_of(conn, query, [f"declared.{dataset.table}"])


def test_every_dataset_has_its_migration() -> None:
    assert [dataset.name for dataset in missing(SNAPSHOT.read_text())] == []


@EVERY
def test_what_is_written_is_read_back_page_by_page_in_both_directions(
    sink: DatabaseSink, own: Connection, dataset: Dataset
) -> None:
    sent = records(dataset, 30)
    moved = write(sink, RecordFeeder(), (dataset, dataset.policy, sent))
    assert (moved.next_row, moved.stored) == (30, 30)
    found = read(own, dataset)
    same(dataset, found, sent)
    assert read(own, dataset, descending=True) == found[::-1]


@EVERY
def test_a_range_a_symbol_and_a_part_of_the_key_choose_records(
    sink: DatabaseSink, own: Connection, dataset: Dataset
) -> None:
    sent = records(dataset, 30)
    write(sink, RecordFeeder(), (dataset, dataset.policy, sent))
    found = read(own, dataset)
    if dataset.symbol is not None:
        symbol = found[5][dataset.symbol] if dataset.adds_symbols else "NatGas"
        for name in (symbol, symbol.lower(), symbol.upper()):
            assert read(own, dataset, symbol=name) == [one for one in found if one[dataset.symbol] == symbol]
        if not dataset.adds_symbols:
            assert read(own, dataset, symbol="VIX") == []
    for column in dataset.filters:
        chosen = next(one[column.name] for one in found[3:] if one[column.name] is not None)
        assert read(own, dataset, **{column.name: chosen}) == [one for one in found if one[column.name] == chosen]
        assert read(own, dataset, **{column.name: "'; DROP TABLE ticks; --"}) == []
    if dataset.time is not None:
        stream = DatasetSource(dataset, None, None)
        times = sorted({one[dataset.time] for one in found})
        us = [int(_us(time)) for time in times]
        assert stream.range == (None, None)
        inside = [one for one in found if times[5] <= one[dataset.time] < times[12]]
        assert read(own, dataset, start_us=us[5], end_us=us[12]) == inside
        assert read(own, dataset, start_us=us[5] - 1, end_us=us[11] + 1) == inside
        assert read(own, dataset, start_us=us[5] + 1)[0][dataset.time] == times[6]


def _us(text: str) -> float:
    import numpy as np

    return np.datetime64(text.rstrip("Z"), "us").astype(np.int64).item()


@EVERY
def test_a_batch_that_comes_again_stores_nothing_twice(
    conn: connection, sink: DatabaseSink, own: Connection, dataset: Dataset
) -> None:
    sent = records(dataset, 20)
    for policy in POLICIES:
        feeder = RecordFeeder()
        before = read(own, dataset)
        moved = write(sink, feeder, (dataset, policy, sent), (dataset, policy, sent))
        assert (moved.stored + moved.duplicates, moved.set_aside) == (40, 0)
        assert moved.stored == (0 if before else 20)
        assert ledger_of(conn, feeder.journal_id)[:4] == (40, moved.stored, moved.duplicates, 0)
        same(dataset, read(own, dataset), sent)


@EVERY
@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_decides_as_if_records_had_come_one_by_one(
    conn: connection, sink: DatabaseSink, own: Connection, dataset: Dataset, policy: Policy
) -> None:
    rng = random.Random(7)
    model: dict[tuple[Any, ...], dict[str, Any]] = {}
    conflicts, total, feeder = 0, 0, RecordFeeder()
    for _ in range(6):
        requests = []
        for _ in range(rng.randrange(1, 4)):
            sent = []
            for one in records(dataset, 4, seed=rng.randrange(10**6)):
                for column in dataset.values:
                    if not column.required and rng.random() < 0.5:
                        one.pop(column.name, None)
                sent.append(one)
            sent = [*sent, *rng.sample(sent, 2)]
            rng.shuffle(sent)
            for one in sent:
                total += 1
                conflicts += _apply(model, dataset, policy, one)
            requests.append((dataset, policy, sent))
        moved = write(sink, feeder, *requests)
    same(dataset, read(own, dataset), list(model.values()))
    assert (moved.next_row, moved.set_aside) == (total, conflicts)
    assert rows_of(conn, "SELECT count(*) FROM rejected_records WHERE code = 'conflict'") == [(conflicts,)]


def _apply(model: dict[tuple[Any, ...], dict[str, Any]], dataset: Dataset, policy: Policy, one: dict[str, Any]) -> int:
    """Do to the model what a record does by itself; return whether it is set aside."""
    key = tuple(one[name] for name in dataset.key)
    stored = model.get(key)
    if stored is None:
        model[key] = full(dataset, one)
        return 0
    if policy == "error":
        return int(stored != full(dataset, one))
    own = dataset.own_time.name if dataset.own_time else None
    older = own is not None and one.get(own) and stored[own] and one[own] < stored[own]
    if policy == "update" or (policy == "keep_newest" and not older):
        stored.update(one)
    return 0


@EVERY
def test_an_update_that_was_accepted_earlier_and_comes_later_replaces_nothing(
    sink: DatabaseSink, own: Connection, dataset: Dataset
) -> None:
    optional = [column for column in dataset.values if not column.required and column.kind == "float"]
    if len(optional) < 2:
        pytest.skip("has no two numbers that may be absent: one of them is sent, the other is what must stay")
    bare = {name: one for name, one in records(dataset, 1)[0].items() if dataset.always(dataset.by_name[name])}
    first, second = optional[:2]
    early = bare | {first.name: 0.25, second.name: 0.25}
    late = bare | {first.name: 0.5}
    write(sink, RecordFeeder(received_us=2_000_000_000_000_000), (dataset, "update", [late]))
    write(sink, RecordFeeder(received_us=1_000_000_000_000_000), (dataset, "update", [early]))
    same(dataset, read(own, dataset), [bare | {first.name: 0.5, second.name: 0.25}])


def test_a_repeat_in_the_same_request_counts_as_the_newest(sink: DatabaseSink, own: Connection) -> None:
    dataset = DATASETS["backtests"]
    bare = {name: one for name, one in records(dataset, 1)[0].items() if dataset.always(dataset.by_name[name])}
    said = bare | {"sharpe": 0.5}
    write(sink, RecordFeeder(received_us=1_000), (dataset, "update", [said, said, said]))
    write(sink, RecordFeeder(received_us=1_001), (dataset, "update", [bare | {"sharpe": 0.25}]))
    same(dataset, read(own, dataset), [said])


@EVERY
def test_a_record_that_the_database_refuses_is_set_aside_and_the_others_go_in(
    conn: connection, sink: DatabaseSink, own: Connection, dataset: Dataset
) -> None:
    column = dataset.order[0] if dataset.time in dataset.key else dataset.keys[0]
    sent = records(dataset, 20)
    bad = key_value(column, 13)
    others = [one for one in sent if one[column.name] != bad]
    name = f'"{column.column}"'
    execute(conn, f"ALTER TABLE {dataset.table} ADD CONSTRAINT no CHECK ({name} <> '{bad}')")
    feeder = RecordFeeder()
    moved = write(sink, feeder, (dataset, dataset.policy, sent))
    assert (moved.stored, moved.set_aside) == (len(others), 20 - len(others))
    same(dataset, read(own, dataset), others)
    kept = rows_of(conn, "SELECT row_no, dataset, code, message, payload FROM rejected_records ORDER BY row_no")
    assert [row[0] for row in kept] == [number for number, one in enumerate(sent) if one[column.name] == bad]
    assert {row[1:3] for row in kept} == {(dataset.name, "refused")}
    assert "violates check constraint" in kept[0][3]
    payload = kept[0][4]
    for field in dataset.columns:
        if field.kind not in ("time", "float") and field.name in sent[kept[0][0]]:
            assert payload[field.name] == sent[kept[0][0]][field.name]


@EVERY
def test_a_token_of_something_else_is_refused(sink: DatabaseSink, own: Connection, dataset: Dataset) -> None:
    write(sink, RecordFeeder(), (dataset, dataset.policy, records(dataset, 9)))
    stream = RowStream(RowsRequest(None, DatasetSource(dataset, None, None), "json", limit=3))
    with own.reading(10) as cur:
        stream.open(cur, with_version=False)
        stream.page(cur)
    for source, descending in (
        (DatasetSource(dataset, None, None), True),
        (DatasetSource(dataset, None, None, {"a": "b"}), False),
    ):
        other = RowStream(
            RowsRequest(None, source, "json", limit=3, descending=descending, page_token=stream.next_token)
        )
        with own.reading(10) as cur, pytest.raises(BadParameter, match="page_token"):
            other.open(cur, with_version=False)


@EVERY
def test_a_write_changes_the_version_of_its_range(
    conn: connection, sink: DatabaseSink, own: Connection, dataset: Dataset
) -> None:
    def version() -> str:
        stream = RowStream(RowsRequest(None, DatasetSource(dataset, None, None), "json", limit=3))
        with own.reading(10) as cur:
            stream.open(cur, with_version=True)
        assert stream.version is not None
        return stream.version

    versions = [version()]
    sent = records(dataset, 3)
    write(sink, RecordFeeder(), (dataset, dataset.policy, sent))
    versions.append(version())
    write(sink, RecordFeeder(), (dataset, "ignore", sent))
    assert version() == versions[-1]
    execute(conn, f"UPDATE {dataset.table} SET received_at = now()")
    versions.append(version())
    execute(conn, f"DELETE FROM {dataset.table}")
    assert len({*versions, version()}) == 3  # nothing is nothing again


@pytest.mark.long
def test_records_of_many_datasets_and_policies_are_one_transaction(
    conn: connection, sink: DatabaseSink, own: Connection
) -> None:
    feeder, requests, total = RecordFeeder(), [], 0
    for dataset in DATASETS.values():
        for policy in POLICIES:
            requests.append((dataset, policy, records(dataset, 5, seed=total)))
            total += 5
    entry = sink.ledger(feeder.journal_id)
    before = {name: read(own, dataset) for name, dataset in DATASETS.items()}
    batch = feeder.records(*requests)
    batch.end_row += 1  # the ledger will not add up: nothing may stay
    with pytest.raises(Exception, match="adds_up"):
        sink.write(feeder.journal_id, entry, batch)
    assert {name: read(own, dataset) for name, dataset in DATASETS.items()} == before
    batch.end_row -= 1
    moved, notes, _ = sink.write(feeder.journal_id, sink.ledger(feeder.journal_id), batch)
    assert moved.stored + moved.duplicates + moved.set_aside == moved.next_row == total
    assert moved.set_aside == rows_of(conn, "SELECT count(*) FROM rejected_records")[0][0]
    assert all("rejected_records" in note for note in notes)


def test_a_text_that_no_index_takes_is_set_aside_and_does_not_stop_the_journal(
    conn: connection, sink: DatabaseSink
) -> None:
    news = DATASETS["news"]
    execute(
        conn, "ALTER TABLE news DROP CONSTRAINT news_pkey; CREATE UNIQUE INDEX ON news (symbol_id, time, url, headline)"
    )
    story = records(news, 2)
    rng = random.Random(1)
    story[1]["headline"] = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(4000))
    moved = write(sink, RecordFeeder(), (news, "ignore", story))
    assert (moved.stored, moved.set_aside) == (1, 1)


def test_an_instrument_that_comes_again_takes_no_number(conn: connection, sink: DatabaseSink) -> None:
    dataset, feeder = DATASETS["instruments"], RecordFeeder()
    sent, taken = records(dataset, 3), "SELECT last_value FROM instruments_symbol_id_seq"
    write(sink, feeder, (dataset, "update", sent))
    before = rows_of(conn, taken)
    assert write(sink, feeder, (dataset, "update", sent), (dataset, "ignore", sent)).duplicates == 6
    assert rows_of(conn, taken) == before


def test_two_that_write_the_same_new_keys_at_once_store_them_once(
    conn: connection, database_url: str, sink: DatabaseSink
) -> None:
    news = DATASETS["news"]
    sent = records(news, 50)
    other = psycopg2.connect(database_url)
    try:
        with other.cursor() as cur:  # the same keys, not yet committed
            cur.execute(
                "INSERT INTO news (symbol_id, time, url, received_at)"
                " SELECT symbol_id, %s, %s, now() FROM instruments WHERE symbol = 'AAPL'",
                (sent[0]["timestamp"], sent[0]["url"]),
            )
        import threading

        outcome: list[LedgerEntry] = []
        waiting = threading.Thread(target=lambda: outcome.append(write(sink, RecordFeeder(), (news, "update", sent))))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive(), "it waits for the other's key"
        other.commit()
        waiting.join(20)
    finally:
        other.close()
    assert outcome[0].stored + outcome[0].duplicates == 50
    assert rows_of(conn, "SELECT count(*), count(DISTINCT (symbol_id, time, url)) FROM news") == [(50, 50)]


def test_speeds_are_computed_where_none_were_sent_and_follow_late_snapshots(
    sink: DatabaseSink, own: Connection
) -> None:
    dataset = DATASETS["foreign_snapshots"]

    def at(minute: int, bought: float | None, **more: Any) -> dict[str, Any]:
        time = f"2026-01-13T02:{minute:02}:00.000000Z"
        return {"symbol": "AAPL", "timestamp": time, "f_buy_vol": bought, "f_sell_vol": 0.0, **more}

    write(
        sink,
        RecordFeeder(),
        (dataset, "ignore", [at(0, 100.0), at(4, 500.0), at(5, 450.0), at(6, 460.0, buy_speed_per_min=7.0)]),
    )
    speeds = [one["buy_speed_per_min"] for one in read(own, dataset, symbol="AAPL")]
    assert speeds == [None, 100.0, None, 7.0]
    write(sink, RecordFeeder(), (dataset, "ignore", [at(2, 400.0), at(1, None)]))
    found = read(own, dataset, symbol="AAPL")
    assert [one["buy_speed_per_min"] for one in found] == [None, None, 150.0, 50.0, None, 7.0]
    assert [one["f_net_vol"] for one in found] == [100.0, None, 400.0, 500.0, 450.0, 460.0]
    nothing = DATASETS["basis_history"]
    write(
        sink,
        RecordFeeder(),
        (
            nothing,
            "ignore",
            [{"futures_symbol": "F", "timestamp": "2026-01-13", "futures_price": 5.5, "spot_value": 4.0}],
        ),
    )
    assert read(own, nothing)[0]["basis"] == 1.5
