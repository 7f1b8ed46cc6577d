"""The sink: a batch and its place in the ledger are one transaction, whatever becomes of the connection."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection

from app.errors import DatabaseAway, LedgerMoved, TickhubError
from app.market.batches import Batch, LedgerEntry, Record
from app.storage import connection as connections
from app.storage.connection import Connection, is_about_a_row
from app.storage.instruments import read_instruments
from app.storage.sink import DatabaseSink
from tests.batches import (
    NAN,
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    ledger_of,
    many,
    new_sink,
    rows_of,
    stored_keys,
)
from tests.waiting import wait_until

WAIT_S = 60


@pytest.fixture
def feeder() -> Feeder:
    return Feeder()


# ---- the ledger


def test_a_journal_is_entered_once_and_keeps_its_number(
    conn: connection, database_url: str, sink: DatabaseSink, feeder: Feeder
) -> None:
    first = sink.ledger(feeder.journal_id)
    assert first == LedgerEntry(first.journal_no, 0)
    other = new_sink(database_url)
    assert other.ledger(feeder.journal_id) == sink.ledger(feeder.journal_id) == first
    assert sink.ledger(Feeder().journal_id).journal_no != first.journal_no
    other.close()


def test_the_ledger_moves_over_rows_that_are_not_there(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    entry = sink.ledger(feeder.journal_id)
    moved, *_ = sink.write(feeder.journal_id, entry, Batch([], 0, 0, 9, skipped=4, lost=5))
    assert moved == LedgerEntry(entry.journal_no, 9, skipped=4, lost=5)
    feeder.row = 9
    batch = feeder.batch(many(3))
    batch.skipped, batch.end_row = 2, 14
    assert sink.write(feeder.journal_id, moved, batch)[0] == sink.ledger(feeder.journal_id)
    assert ledger_of(conn, feeder.journal_id) == (14, 3, 0, 0, 6, 5)


def test_a_batch_that_does_not_add_up_is_not_written(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    entry, batch = sink.ledger(feeder.journal_id), feeder.batch(many(3))
    batch.end_row += 1
    with pytest.raises(DatabaseAway, match="adds_up"):
        sink.write(feeder.journal_id, entry, batch)
    assert stored_keys(conn) == []
    assert sink.ledger(feeder.journal_id) == entry


def test_a_ledger_that_moved_keeps_the_batch_out(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    entry = sink.ledger(feeder.journal_id)
    sink.write(feeder.journal_id, entry, feeder.batch(many(3)))
    with pytest.raises(LedgerMoved):
        sink.write(feeder.journal_id, entry, feeder.batch(many(4, symbol="NVDA")))
    assert len(stored_keys(conn)) == 3
    assert sink.ledger(feeder.journal_id).next_row == 3
    assert sink.connection.generation == 1, "nothing is wrong with the connection"


@pytest.mark.parametrize("change", ["DELETE FROM ingest_log", "TRUNCATE ingest_log"])
def test_a_journal_that_the_database_forgot_is_noticed_and_entered_anew(
    conn: connection, sink: DatabaseSink, feeder: Feeder, change: str
) -> None:
    batch = feeder.batch(many(3))
    entry, *_ = sink.write(feeder.journal_id, sink.ledger(feeder.journal_id), batch)
    execute(conn, change, "TRUNCATE ticks, bars, current")
    with pytest.raises(LedgerMoved):
        sink.write(feeder.journal_id, entry, feeder.batch(many(3)))
    again = sink.ledger(feeder.journal_id)
    assert again.next_row == 0
    sink.write(feeder.journal_id, again, batch)
    assert len(stored_keys(conn)) == 3
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_a_record_of_a_dataset_that_nobody_writes_stays_in_the_journal(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    batch = feeder.batch(many(3))
    batch.records.append(Record("weather", 1, 1, 3, 0, b""))
    with pytest.raises(TickhubError, match="weather") as raised:
        sink.write(feeder.journal_id, sink.ledger(feeder.journal_id), batch)
    assert not isinstance(raised.value, DatabaseAway), "it would hold up every other journal"
    assert stored_keys(conn) == []


# ---- two at once


def test_two_recoverers_of_one_journal_store_it_once(conn: connection, database_url: str) -> None:
    """Both have the records and the entry, and both write at the same moment, many times."""
    for number in range(15):
        feeder, barrier = Feeder(), threading.Barrier(2)
        batch = feeder.batch(
            [Tick(time_us=Tick().time_us + number * 10**6 + i, bid=i + 1.0) for i in range(50)]
        )
        conflict = Tick(time_us=Tick().time_us + number * 10**6, bid=77.0)
        batches = [batch, feeder.batch([conflict])]

        def recover(feeder: Feeder, batches: list[Batch], barrier: threading.Barrier) -> list[str]:
            mine = new_sink(database_url)
            try:
                said = []
                for batch in batches:
                    entry = mine.ledger(feeder.journal_id)
                    barrier.wait(WAIT_S)
                    if entry.next_row != batch.first_row:
                        said.append("too late")
                        continue
                    try:
                        while mine.write(feeder.journal_id, entry, batch)[0] is entry:
                            pass
                        said.append("wrote")
                    except LedgerMoved:
                        said.append("moved")
                    barrier.wait(WAIT_S)
                return said
            finally:
                mine.close()

        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(recover, feeder, batches, barrier) for _ in range(2)]
            told = sorted(zip(*(job.result(WAIT_S) for job in jobs), strict=True))
        assert [sorted(pair) for pair in told] == [["moved", "wrote"]] * 2
        assert ledger_of(conn, feeder.journal_id) == (51, 50, 0, 1, 0, 0)
    assert len(stored_keys(conn)) == 15 * 50
    assert rows_of(conn, "SELECT count(*) FROM rejected_ticks") == [(15,)]
    assert_bars_and_current_are_those_of_a_clean_load(conn)


# ---- an unknown outcome


def _losing_commits(monkeypatch: pytest.MonkeyPatch, committed: bool) -> list[int]:
    """From now on the next COMMIT of a write loses its connection, before or after the server did it."""
    losses = [1]
    connect = psycopg2.connect

    class Losing(psycopg2.extensions.connection):
        def commit(self) -> None:
            with self.cursor() as cur:
                cur.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
                wrote = cur.fetchone() == (True,)
            if losses and wrote:
                losses.pop()
                if committed:
                    super().commit()
                self.close()
                raise psycopg2.OperationalError("server closed the connection unexpectedly")
            super().commit()

    def losing(*arguments: Any, **keywords: Any) -> Any:
        return connect(*arguments, connection_factory=Losing, **keywords)

    monkeypatch.setattr(connections.psycopg2, "connect", losing)
    return losses


@pytest.mark.parametrize("committed", [True, False], ids=["was committed", "was not committed"])
def test_a_commit_whose_outcome_is_unknown_is_told_by_the_ledger(
    conn: connection,
    database_url: str,
    feeder: Feeder,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    warm = new_sink(database_url)
    warm.write(feeder.journal_id, warm.ledger(feeder.journal_id), feeder.batch(many(1)))
    warm.close()
    sink, batch = new_sink(database_url), feeder.batch(many(20), [Tick(bid=5.0)])
    entry = sink.ledger(feeder.journal_id)
    losses = _losing_commits(monkeypatch, committed)
    sink.close()
    with pytest.raises(DatabaseAway):
        sink.write(feeder.journal_id, entry, batch)
    assert losses == []
    found = sink.ledger(feeder.journal_id)
    assert found.next_row == (22 if committed else 1)
    if committed:
        with pytest.raises(LedgerMoved):
            sink.write(feeder.journal_id, entry, batch)
    else:
        sink.write(feeder.journal_id, found, batch)
    assert ledger_of(conn, feeder.journal_id) == (22, 20, 1, 1, 0, 0)
    assert len(stored_keys(conn)) == 20
    assert_bars_and_current_are_those_of_a_clean_load(conn)
    sink.close()


# ---- the connection


def test_a_connection_is_made_at_its_first_use_and_again_after_trouble(database_url: str) -> None:
    asked: list[int] = []

    def url() -> str:
        asked.append(1)
        return database_url

    made = Connection(url, 5, 30, "test")
    assert asked == []
    for expected in (1, 2):
        with pytest.raises(DatabaseAway, match="division by zero"), made.transaction() as cur:
            cur.execute("SELECT 1 / 0")
        assert (len(asked), made.generation) == (expected, expected)
    with made.transaction() as cur:
        cur.execute("SELECT 1")
    made.close()


def test_a_database_that_is_not_there_is_away_and_does_not_show_its_password() -> None:
    made = Connection(
        lambda: "postgresql://someone:secret@127.0.0.1:1/nowhere?connect_timeout=2", 2, 30, "test"
    )
    with pytest.raises(DatabaseAway) as refused, made.transaction():
        pass
    assert "secret" not in str(refused.value)


def test_a_transactions_settings_do_not_outlive_it(database_url: str) -> None:
    """A transaction pooler would hand them to somebody else."""
    made = Connection(lambda: database_url, 5, 7, "test")
    with made.transaction() as cur:
        cur.execute(
            "SELECT current_setting('statement_timeout'), current_setting('synchronous_commit'),"
            " current_setting('TimeZone')"
        )
        assert cur.fetchall() == [("7s", "on", "UTC")]
    with made.open().cursor() as cur:
        cur.execute("SELECT current_setting('statement_timeout')")
        assert cur.fetchall() == [("0",)]
    made.close()


def test_an_interrupted_call_ends_at_once_and_the_next_one_works(conn: connection, database_url: str) -> None:
    made = Connection(lambda: database_url, 5, 60, "test hanging")

    def hang() -> None:
        with made.transaction() as cur:
            cur.execute("SELECT pg_sleep(60)")

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(hang)
        wait_until(
            lambda: rows_of(
                conn,
                "SELECT 1 FROM pg_stat_activity"
                " WHERE application_name = 'tickhub test hanging' AND wait_event = 'PgSleep'",
            )
        )
        made.interrupt()
        with pytest.raises(DatabaseAway):
            hanging.result(WAIT_S)
    with made.transaction() as cur:
        cur.execute("SELECT 1")
        assert cur.fetchall() == [(1,)]
    made.close()
    made.interrupt()


def test_only_data_and_integrity_errors_are_about_a_row(conn: connection) -> None:
    statements = {
        "SELECT 1 / 0": True,
        "SELECT 'x'::int": True,
        "INSERT INTO instruments (symbol) VALUES ('TSLA')": True,
        "INSERT INTO instruments (symbol) VALUES (NULL)": True,
        "INSERT INTO tick_ranges VALUES (tstzrange(NULL, NULL), 'nowhere')": True,
        "INSERT INTO ticks VALUES (1, '1901-01-01', 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, now())": False,
        "SELECT nothing": False,
        "SELECT * FROM nothing": False,
        "SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)": False,
        "SET TRANSACTION READ ONLY; CREATE TABLE t ()": False,
    }
    for statement, about_a_row in statements.items():
        with pytest.raises(psycopg2.Error) as error, conn.cursor() as cur:
            cur.execute(statement)
        assert is_about_a_row(error.value) is about_a_row, statement
        conn.rollback()
    assert not is_about_a_row(psycopg2.OperationalError("server closed the connection unexpectedly"))


def test_warnings_of_the_server_are_passed_on_once(conn: connection, sink: DatabaseSink) -> None:
    execute(conn, "CREATE VIEW public.taken_x_history AS SELECT 1")
    feeder = Feeder()
    _, notes, _ = sink.write(feeder.journal_id, sink.ledger(feeder.journal_id), feeder.batch([Tick("TAKEN.X")]))
    assert len(notes) == 1
    assert "taken_x_history" in notes[0]
    entry = sink.ledger(feeder.journal_id)
    assert sink.write(feeder.journal_id, entry, feeder.batch([Tick("TAKEN.X", seq=1)]))[1] == []


def test_what_is_set_aside_is_noted_once_a_reason(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    batch = feeder.batch([Tick(bid=value) for value in (1.0, 2.0, NAN)])
    _, notes, _ = sink.write(feeder.journal_id, sink.ledger(feeder.journal_id), batch)
    assert len(notes) == 1
    assert notes[0].startswith("2 ticks set aside in rejected_ticks: seq_conflict")


def test_the_symbol_map_is_read_with_aliases_and_digits(conn: connection, own: Connection) -> None:
    execute(
        conn,
        "INSERT INTO instruments (symbol, digits, allow_nonpositive) VALUES ('WTI', 2, true)",
        "INSERT INTO symbol_aliases SELECT unnest(ARRAY['oil', 'CL']), symbol_id FROM instruments"
        " WHERE symbol = 'WTI'",
    )
    found = {instrument.symbol: instrument for instrument in read_instruments(own)}
    assert (found["WTI"].digits, found["WTI"].nonpositive_ok) == (2, True)
    assert sorted(found["WTI"].aliases) == ["CL", "oil"]
    assert found["TSLA"].aliases == ["TSLA.US"]
    assert len(found) == 18


def test_a_sink_leaves_no_connection_behind(conn: connection, database_url: str) -> None:
    sink = new_sink(database_url)
    sink.ledger(Feeder().journal_id)
    sink.close()
    with closing(psycopg2.connect(database_url)):
        wait_until(
            lambda: (
                rows_of(
                    conn,
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'tickhub test'",
                )
                == [(0,)]
            )
        )
