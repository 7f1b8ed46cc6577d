"""A whole option chain that is sent again, into a month that PostgreSQL has not counted yet."""

from __future__ import annotations

from itertools import product

from psycopg2.extensions import connection

from app.datasets.registry import DATASETS
from app.storage.sink import DatabaseSink
from tests.batches import execute, rows_of
from tests.dataset_rows import RecordFeeder

CONTRACTS = 6000
LOOKED_AT = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname LIKE 'option_quotes%'"


def test_each_contract_is_looked_for_by_itself_and_not_among_the_whole_chain(
    conn: connection, sink: DatabaseSink
) -> None:
    dataset, feeder = DATASETS["option_quotes"], RecordFeeder()
    days = ("2026-02-20", "2026-03-20", "2026-06-18")
    chain = [
        {"symbol": "AAPL", "timestamp": "2026-01-13T15:00:00Z", "expiration_date": day, "strike_price": 100.0 + at,
         "option_type": kind, "bid": 1.0}
        for day, at, kind in product(days, range(1000), ("call", "put"))
    ]  # fmt: skip
    entry = sink.ledger(feeder.journal_id)
    for turn in range(3):
        for start in range(0, CONTRACTS, 1000):
            part = [record | {"bid": 1.0 + turn} for record in chain[start : start + 1000]]
            entry = sink.write(feeder.journal_id, entry, feeder.records((dataset, "update", part))).entry
    sink.close()
    execute(conn, "SELECT pg_stat_force_next_flush()")
    conn.commit()
    assert rows_of(conn, "SELECT count(*), min(bid) FROM option_quotes") == [(CONTRACTS, 3.0)]
    ((rows,),) = rows_of(conn, LOOKED_AT)
    assert rows < 100 * CONTRACTS
