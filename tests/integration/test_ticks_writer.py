"""The writer against a real database: every tick stored once, or set aside once with its reason."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection

from app.errors import DatabaseAway, LedgerMoved
from app.storage.sink import DatabaseSink
from tests.batches import (
    NAN,
    NOON_US,
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    ledger_of,
    many,
    new_sink,
    rows_of,
    stored_keys,
    write_all,
)
from tests.waiting import wait_until

WAIT_S = 60


@pytest.fixture
def feeder() -> Feeder:
    return Feeder()


def aside(conn: connection) -> list[tuple[object, ...]]:
    return rows_of(conn, "SELECT row_no, symbol, code FROM rejected_ticks ORDER BY journal_no, row_no")


# ---- new, known, conflicting


def test_new_ticks_are_stored_with_every_column(conn: connection, sink: DatabaseSink, feeder: Feeder) -> None:
    feeder.received_us = NOON_US + 5
    execute(conn, "UPDATE instruments SET digits = 2 WHERE symbol = 'NVDA'")
    entry = write_all(
        sink,
        feeder,
        [
            Tick(bid=1.5, ask=NAN, flags=2),
            Tick(seq=-7, bid=NAN, ask=NAN, last=3.25, volume=4.0, flags=56),
            Tick("NVDA", bid=1.25, ask=1.5),
        ],
        [Tick("NVDA", NOON_US + 1, last=2.0, spread=99.0, volume=5.0, flags=88)],
    )
    assert (entry.next_row, entry.stored) == (4, 4)
    number = entry.journal_no
    assert rows_of(
        conn,
        "SELECT symbol, (extract(epoch FROM time) * 1e6)::bigint, seq, bid, ask, last, spread, volume, buy_volume,"
        " sell_volume, flags, journal_no, (extract(epoch FROM ticks.received_at) * 1e6)::bigint FROM ticks"
        " JOIN instruments USING (symbol_id) ORDER BY ticks.received_at",
    ) == [
        ("TSLA", NOON_US, 0, 1.5, None, None, None, 0.0, 0.0, 0.0, 2, number, NOON_US + 5),
        ("TSLA", NOON_US, -7, None, None, 3.25, None, 4.0, 4.0, 0.0, 56, number, NOON_US + 6),
        ("NVDA", NOON_US, 0, 1.25, 1.5, None, 25.0, 0.0, 0.0, 0.0, 6, number, NOON_US + 7),
        ("NVDA", NOON_US + 1, 0, 10.0, 10.5, 2.0, 99.0, 5.0, 0.0, 5.0, 88, number, NOON_US + 8),
    ]
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_a_spread_is_as_sent_else_of_the_digits_else_unknown(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    execute(conn, "UPDATE instruments SET digits = 5 WHERE symbol = 'TSLA'")
    write_all(
        sink,
        feeder,
        [
            Tick(seq=0, bid=1.10001, ask=1.10014),
            Tick(seq=1, bid=1.1, ask=1.2, spread=0.0),
            Tick(seq=2, bid=1.2, ask=1.1),
            Tick(seq=3, bid=1.2, ask=NAN),
            Tick("NVDA", bid=1.1, ask=1.2),
        ],
    )
    found = rows_of(conn, "SELECT spread FROM ticks ORDER BY received_at")
    assert [value for (value,) in found] == [13.0, 0.0, -10_000.0, None, None]


def test_a_resent_batch_stores_nothing_twice(conn: connection, sink: DatabaseSink, feeder: Feeder) -> None:
    rows = many(500)
    for _ in range(3):
        write_all(sink, feeder, rows)
    assert ledger_of(conn, feeder.journal_id) == (1500, 500, 1000, 0, 0, 0)
    assert len(stored_keys(conn)) == 500
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_new_ticks_among_known_ones_are_stored_and_only_they_count_in_bars(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    rows = many(300, volume=1.5, flags=56, last=5.0)
    write_all(sink, feeder, rows[:200])
    shuffled = rows[100:]
    random.Random(1).shuffle(shuffled)
    entry = write_all(sink, feeder, shuffled)
    assert (entry.stored, entry.duplicates, entry.set_aside) == (300, 100, 0)
    assert rows_of(conn, "SELECT sum(ticks), sum(volume) FROM bars WHERE resolution = 86400") == [(300, 450)]
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_duplicates_within_one_flush_are_stored_once(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    rows = many(50)
    entry = write_all(sink, feeder, rows + rows, rows[::-1])
    assert (entry.stored, entry.duplicates, entry.set_aside) == (50, 100, 0)
    assert_bars_and_current_are_those_of_a_clean_load(conn)


@pytest.mark.parametrize("together", [True, False], ids=["one flush", "two flushes"])
@pytest.mark.parametrize(
    "other",
    [{"bid": 9.0}, {"bid": NAN}, {"ask": NAN}, {"last": 1.0}, {"volume": 1.0}, {"flags": 2}],
    ids=lambda change: next(iter(change)),
)
def test_another_tick_of_the_same_key_is_set_aside_with_its_place_in_the_journal(
    conn: connection, sink: DatabaseSink, feeder: Feeder, together: bool, other: dict[str, float]
) -> None:
    first, second, third = Tick(), replace(Tick(), **other), Tick(seq=1)
    if together:
        entry = write_all(sink, feeder, [first, second], [third])
    else:
        write_all(sink, feeder, [first])
        entry = write_all(sink, feeder, [second], [third])
    assert (entry.next_row, entry.stored, entry.duplicates, entry.set_aside) == (3, 2, 0, 1)
    assert rows_of(conn, "SELECT journal_no, row_no, code FROM rejected_ticks") == [
        (entry.journal_no, 1, "seq_conflict")
    ]
    (kept,) = rows_of(conn, "SELECT bid, ask, last, volume, flags FROM rejected_ticks")
    expected = (second.bid, second.ask, second.last, second.volume, second.flags)
    assert kept == tuple(None if math.isnan(value) else value for value in expected)
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_a_spread_and_a_time_of_receipt_are_no_part_of_a_ticks_identity(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    write_all(sink, feeder, [Tick(spread=5.0)])
    entry = write_all(sink, feeder, [Tick(spread=7.0), Tick()])
    assert (entry.stored, entry.duplicates, entry.set_aside) == (1, 2, 0)


def test_a_zero_with_a_sign_is_a_zero(conn: connection, sink: DatabaseSink, feeder: Feeder) -> None:
    write_all(sink, feeder, [Tick(bid=0.0, last=-0.0)])
    entry = write_all(sink, feeder, [Tick(bid=-0.0, last=0.0), Tick(bid=-0.0, last=-0.0)])
    assert (entry.duplicates, entry.set_aside) == (2, 0)


def test_a_resend_of_a_stored_tick_is_a_duplicate_also_right_behind_a_conflicting_one(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    """Which requests share a flush must not decide what becomes of them."""
    write_all(sink, feeder, [Tick(bid=1.0)])
    entry = write_all(sink, feeder, [Tick(bid=2.0), Tick(bid=1.0), Tick(bid=2.0)])
    assert (entry.stored, entry.duplicates, entry.set_aside) == (1, 1, 2)
    assert [row for row, _, _ in aside(conn)] == [1, 3]


SYMBOLS = ("TSLA", "NVDA", "NatGas")
TICKS = st.builds(
    Tick,
    symbol=st.sampled_from(SYMBOLS),
    time_us=st.sampled_from([NOON_US, NOON_US + 1, NOON_US + 60_000_000, NOON_US + 8 * 86_400_000_000]),
    seq=st.sampled_from([-5, 0, 1]),
    bid=st.sampled_from([NAN, 1.0, 2.0]),
    ask=st.sampled_from([NAN, 2.0]),
    last=st.sampled_from([NAN, NAN, 1.5]),
    spread=st.sampled_from([NAN, 3.0]),
    volume=st.sampled_from([0.0, 2.5]),
    flags=st.sampled_from([6, 56]),
)


class RowByRow:
    """What the contract says, one row after the other."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, int, int], tuple[str, ...]] = {}
        self.fate: Counter[str] = Counter()
        self.aside: list[int] = []

    def take(self, row: int, tick: Tick) -> None:
        key = tick.symbol, tick.time_us, tick.seq
        content = tuple(str(v) for v in (tick.bid, tick.ask, tick.last, tick.volume, tick.flags))
        if key not in self.content:
            self.content[key] = content
            self.fate["stored"] += 1
        elif self.content[key] == content:
            self.fate["duplicates"] += 1
        else:
            self.fate["set_aside"] += 1
            self.aside.append(row)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    flushes=st.lists(st.lists(st.lists(TICKS, min_size=1, max_size=12), min_size=1, max_size=3), max_size=4)
)
@example(flushes=[[[Tick(bid=1.0)]], [[Tick(bid=2.0), Tick(bid=1.0)]]])
def test_any_flushes_leave_what_taking_row_by_row_leaves(
    conn: connection, sink: DatabaseSink, flushes: list[list[list[Tick]]]
) -> None:
    execute(conn, *(f"DELETE FROM {t}" for t in ("ticks", "bars", "current", "ingest_log", "rejected_ticks")))
    feeder, model = Feeder(), RowByRow()
    for requests in flushes:
        row = feeder.row
        for tick in (tick for request in requests for tick in request):
            model.take(row, tick)
            row += 1
        write_all(sink, feeder, *requests)
    if flushes:
        expected = tuple(model.fate[name] for name in ("stored", "duplicates", "set_aside"))
        assert ledger_of(conn, feeder.journal_id) == (feeder.row, *expected, 0, 0)
    assert stored_keys(conn) == sorted(model.content)
    assert [row for row, _, _ in aside(conn)] == model.aside
    assert_bars_and_current_are_those_of_a_clean_load(conn)


# ---- instruments


@pytest.mark.parametrize("name", ["öl.de", "straße", "ΣΊΣΥΦΟΣ", "İST", "dž", "mixed.Case", "a'b\"c\\%s"])
def test_a_symbol_of_any_letters_is_stored_under_its_own_name(
    conn: connection, sink: DatabaseSink, feeder: Feeder, name: str
) -> None:
    """The database's idea of upper case is not Python's; a name that neither finds must not stop the journal."""
    with conn.cursor() as cur:
        cur.execute("INSERT INTO instruments (symbol) VALUES (%s) RETURNING symbol_id", (name,))
    conn.commit()
    write_all(sink, feeder, [Tick(name)])
    write_all(sink, feeder, [Tick(name, seq=1), Tick("VIX")])
    assert stored_keys(conn) == sorted([(name, NOON_US, 0), (name, NOON_US, 1), ("VIX", NOON_US, 0)])
    assert (name,) in rows_of(conn, "SELECT symbol FROM current")


def test_a_symbol_that_the_database_does_not_have_is_added(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    """An older backup, or a symbol that registered itself: its ticks were acknowledged."""
    write_all(sink, feeder, [Tick("NEW.X"), Tick("Ärger")])
    assert {symbol for symbol, _, _ in stored_keys(conn)} == {"NEW.X", "Ärger"}
    assert rows_of(conn, "SELECT count(*) FROM history.new_x_history") == [(1,)]


def test_a_symbol_that_was_renamed_meanwhile_is_found_by_its_alias(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    execute(
        conn,
        "UPDATE instruments SET symbol = 'TSLA2' WHERE symbol = 'TSLA'",
        "INSERT INTO symbol_aliases SELECT 'tsla', symbol_id FROM instruments WHERE symbol = 'TSLA2'",
    )
    write_all(sink, feeder, [Tick("TSLA")])
    assert stored_keys(conn) == [("TSLA2", NOON_US, 0)]
    assert rows_of(conn, "SELECT symbol FROM current") == [("TSLA2",)]


# ---- rows that the database refuses


REFUSE = "ALTER TABLE ticks ADD CONSTRAINT refused CHECK (bid IS DISTINCT FROM 666)"


@pytest.mark.parametrize("at", [0, 4_321, 9_999])
def test_one_refused_row_in_ten_thousand_is_set_aside_alone(
    conn: connection, sink: DatabaseSink, feeder: Feeder, at: int
) -> None:
    execute(conn, REFUSE)
    rows = many(10_000)
    rows[at] = replace(rows[at], bid=666.0)
    entry = write_all(sink, feeder, rows[:6_000], rows[6_000:])
    assert (entry.next_row, entry.stored, entry.duplicates, entry.set_aside) == (10_000, 9_999, 0, 1)
    assert aside(conn) == [(at, "TSLA", "refused")]
    ((message,),) = rows_of(conn, "SELECT message FROM rejected_ticks")
    assert "refused" in message
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_a_row_that_only_its_bar_refuses_is_set_aside(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    execute(conn, "ALTER TABLE bars ADD CONSTRAINT refused CHECK (bid_high < 600)")
    rows = many(1_000)
    rows[777] = replace(rows[777], bid=666.0)
    entry = write_all(sink, feeder, rows)
    assert (entry.stored, entry.set_aside) == (999, 1)
    assert aside(conn) == [(777, "TSLA", "refused")]
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_refused_known_and_conflicting_rows_in_one_flush_each_meet_their_fate(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    execute(conn, REFUSE)
    rows = many(100)
    write_all(sink, feeder, rows[:50])
    mixed = list(rows)
    mixed[10] = replace(rows[10], bid=77.0)
    mixed[60] = replace(rows[60], bid=666.0)
    mixed.append(rows[60])
    entry = write_all(sink, feeder, mixed)
    assert aside(conn) == [(60, "TSLA", "seq_conflict"), (110, "TSLA", "refused")]
    assert (entry.stored, entry.duplicates, entry.set_aside) == (100, 49, 2)
    assert_bars_and_current_are_those_of_a_clean_load(conn)


@pytest.mark.long
def test_a_flush_of_which_every_row_is_refused_ends(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    execute(conn, REFUSE)
    entry = write_all(sink, feeder, [replace(row, bid=666.0) for row in many(1_000)] + many(5, symbol="NVDA"))
    assert (entry.stored, entry.set_aside) == (5, 1_000)


def test_what_was_set_aside_is_set_aside_once_however_often_it_is_written(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    batch = feeder.batch([Tick(bid=1.0), Tick(bid=2.0)])
    entry = sink.ledger(feeder.journal_id)
    sink.write(feeder.journal_id, entry, batch)
    execute(
        conn,
        "UPDATE ingest_log SET next_row = 0, stored = 0, duplicates = 0, set_aside = 0",
        "DELETE FROM ticks",
    )
    sink.write(feeder.journal_id, sink.ledger(feeder.journal_id), batch)
    assert ledger_of(conn, feeder.journal_id) == (2, 1, 0, 1, 0, 0)
    assert [row for row, _, _ in aside(conn)] == [1]


# ---- ranges that were removed


@pytest.mark.parametrize("sides", ["closed", "no lower", "no upper", "infinite"])
def test_ticks_of_a_removed_range_are_set_aside_as_too_old(
    conn: connection, sink: DatabaseSink, feeder: Feeder, sides: str
) -> None:
    low, high = NOON_US, NOON_US + 1_000_000
    bounds = {
        "closed": (f"to_timestamp({low // 10**6})", f"to_timestamp({high // 10**6})"),
        "no lower": ("NULL", f"to_timestamp({high // 10**6})"),
        "no upper": (f"to_timestamp({low // 10**6})", "NULL"),
        "infinite": ("'-infinity'", "'infinity'"),
    }[sides]
    execute(
        conn, f"INSERT INTO tick_ranges VALUES (tstzrange({bounds[0]}::timestamptz, {bounds[1]}), 'dropped')"
    )
    times = [low - 1, low, high - 1, high]
    entry = write_all(sink, feeder, [Tick(time_us=at) for at in times])
    gone = {"closed": [1, 2], "no lower": [0, 1, 2], "no upper": [1, 2, 3], "infinite": [0, 1, 2, 3]}[sides]
    assert aside(conn) == [(row, "TSLA", "too_old") for row in gone]
    assert (entry.stored, entry.set_aside) == (4 - len(gone), len(gone))
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_ranges_that_are_not_removed_take_ticks(conn: connection, sink: DatabaseSink, feeder: Feeder) -> None:
    execute(conn, "INSERT INTO tick_ranges VALUES (tstzrange(NULL, NULL), 'hot')")
    assert write_all(sink, feeder, [Tick()]).stored == 1


# ---- trouble that is not about a row


def assert_nothing_happened(conn: connection, feeder: Feeder, next_row: int = 0) -> None:
    assert aside(conn) == []
    assert stored_keys(conn) == []
    assert ledger_of(conn, feeder.journal_id)[0] == next_row
    assert (
        rows_of(conn, "SELECT count(*) FROM bars") == rows_of(conn, "SELECT count(*) FROM current") == [(0,)]
    )


def _waiting(url: str) -> int:
    """Wait until a session of ours waits for a lock, and return its process id."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND application_name = 'tickhub test'"
    )
    with closing(psycopg2.connect(url)) as conn:
        return int(wait_until(lambda: rows_of(conn, query), what="a waiter")[0][0])


def prepared(sink: DatabaseSink, feeder: Feeder) -> tuple[str, object, object]:
    """Make instruments and partitions known, and return the arguments of a write of five ticks."""
    warm = Feeder()
    write_all(sink, warm, [Tick("VIX")])
    with sink.connection.transaction() as cur:
        cur.execute("DELETE FROM ticks; DELETE FROM bars; DELETE FROM current")
    return feeder.journal_id, sink.ledger(feeder.journal_id), feeder.batch(many(5))


@pytest.mark.parametrize("trouble", ["statement timeout", "lock timeout", "terminated", "cancelled"])
def test_a_session_in_trouble_sets_nothing_aside_and_the_next_try_stores_all(
    conn: connection, database_url: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_url + ("&options=-c%20lock_timeout%3D100" if trouble == "lock timeout" else "")
    sink, feeder = new_sink(url), Feeder()
    arguments = prepared(sink, feeder)
    if trouble == "statement timeout":  # for the one write that is to end by it
        monkeypatch.setattr(sink.connection, "_begin", new_sink(url, 0.3).connection._begin)
    with closing(psycopg2.connect(database_url)) as blocker, ThreadPoolExecutor(1) as pool:
        with blocker.cursor() as cur:
            cur.execute("LOCK TABLE bars IN ACCESS EXCLUSIVE MODE")
        writing = pool.submit(sink.write, *arguments)
        if trouble in ("terminated", "cancelled"):
            function = "pg_terminate_backend" if trouble == "terminated" else "pg_cancel_backend"
            rows_of(conn, f"SELECT {function}({_waiting(database_url)})")
        with pytest.raises(DatabaseAway):
            writing.result(WAIT_S)
        blocker.rollback()
    monkeypatch.undo()
    assert_nothing_happened(conn, feeder)
    sink.write(*arguments)
    assert ledger_of(conn, feeder.journal_id) == (5, 5, 0, 0, 0, 0)
    sink.close()


def test_a_read_only_database_sets_nothing_aside(conn: connection, database_url: str) -> None:
    sink, feeder = new_sink(database_url + "&options=-c%20default_transaction_read_only%3Don"), Feeder()
    writable = new_sink(database_url)
    entry = writable.ledger(feeder.journal_id)
    with pytest.raises(DatabaseAway, match="read-only"):
        sink.write(feeder.journal_id, entry, feeder.batch([Tick()]))
    assert_nothing_happened(conn, feeder)
    writable.close()
    sink.close()


def test_no_connection_left_is_a_database_that_is_away(conn: connection, database_url: str) -> None:
    role = f"full_{Feeder().journal_id[:8]}"
    execute(conn, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    sink = new_sink(database_url.replace("user=tickhub", f"user={role}"))
    try:
        with pytest.raises(DatabaseAway, match="too many connections"):
            sink.ledger(Feeder().journal_id)
    finally:
        sink.close()
        execute(conn, f"DROP ROLE {role}")


def test_a_partition_that_was_removed_is_made_again_and_no_row_is_blamed(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    """The database says check_violation, as for a bad row."""
    write_all(sink, feeder, many(5))
    execute(conn, "DROP TABLE ticks_20260112")
    arguments = (
        feeder.journal_id,
        sink.ledger(feeder.journal_id),
        feeder.batch(many(5, time_us=NOON_US + 10**6)),
    )
    with pytest.raises(DatabaseAway, match="partition"):
        sink.write(*arguments)
    assert aside(conn) == []
    sink.write(*arguments)
    assert ledger_of(conn, feeder.journal_id) == (10, 10, 0, 0, 0, 0)


def test_a_missing_column_is_trouble_and_no_rows_fault(
    conn: connection, sink: DatabaseSink, feeder: Feeder
) -> None:
    arguments = prepared(sink, feeder)
    execute(conn, "ALTER TABLE ticks RENAME COLUMN received_at TO r")
    with pytest.raises(DatabaseAway, match="received_at"):
        sink.write(*arguments)
    execute(conn, "ALTER TABLE ticks RENAME COLUMN r TO received_at")
    assert_nothing_happened(conn, feeder)


# ---- others write too


def test_somebody_elses_flush_of_the_same_rows_is_noticed_and_nothing_is_counted_twice(
    conn: connection, database_url: str, sink: DatabaseSink, feeder: Feeder
) -> None:
    other = new_sink(database_url)
    batch = feeder.batch(many(20), [Tick(bid=3.0)])
    entry = sink.ledger(feeder.journal_id)
    assert other.ledger(feeder.journal_id) == entry
    other.write(feeder.journal_id, entry, batch)
    before = rows_of(conn, "SELECT * FROM rejected_ticks")
    with pytest.raises(LedgerMoved):
        sink.write(feeder.journal_id, entry, batch)
    assert ledger_of(conn, feeder.journal_id) == (21, 20, 0, 1, 0, 0)
    assert rows_of(conn, "SELECT * FROM rejected_ticks") == before
    assert_bars_and_current_are_those_of_a_clean_load(conn)
    other.close()


def _send(url: str, requests: list[list[Tick]], barrier: threading.Barrier) -> tuple[int, int, int]:
    """Write the requests one flush each, trying again when the database is in trouble, as the flusher does."""
    sink, feeder = new_sink(url), Feeder()
    try:
        for request in requests:
            batch = feeder.batch(request)
            barrier.wait(WAIT_S)
            for _ in range(50):
                try:
                    entry = sink.ledger(feeder.journal_id)
                    while sink.write(feeder.journal_id, entry, batch)[0] is entry:
                        pass
                    break
                except DatabaseAway:
                    continue
            else:
                raise AssertionError("the database never let it through")
        entry = sink.ledger(feeder.journal_id)
        return entry.stored, entry.duplicates, entry.set_aside
    finally:
        sink.close()


def test_two_senders_of_the_same_data_in_opposite_order_store_it_once(
    conn: connection, database_url: str
) -> None:
    rounds = 40
    rng = random.Random(3)
    requests = []
    for number in range(rounds):
        rows = [
            Tick(
                rng.choice(SYMBOLS),
                NOON_US + number * 1_000_000 + at,
                bid=rng.choice([NAN, 1.0 + at]),
                ask=rng.choice([NAN, 2.0]),
                last=rng.choice([NAN, 3.0]),
            )
            for at in range(150)
        ]
        requests.append(rows)
    barrier = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(_send, database_url, requests, barrier)
        other = pool.submit(_send, database_url, [rows[::-1] for rows in requests], barrier)
        fates = [one.result(WAIT_S * 2), other.result(WAIT_S * 2)]
    total = rounds * 150
    assert fates[0][0] + fates[1][0] == total
    assert fates[0][1] + fates[1][1] == total
    assert (fates[0][2], fates[1][2]) == (0, 0)
    assert len(stored_keys(conn)) == total
    assert aside(conn) == []
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_two_senders_that_deadlock_blame_no_row(conn: connection, database_url: str) -> None:
    """Conflicting ticks of other NULL patterns are written in other orders: the server ends one of the two."""
    rounds = 8
    requests: list[list[list[Tick]]] = [[], []]
    for number in range(rounds):
        at = NOON_US + number * 1_000_000
        for side in (0, 1):
            requests[side].append(
                [Tick(time_us=at + n, bid=NAN if (n + side) % 2 else 1.0, ask=2.0, seq=n) for n in range(400)]
            )
    barrier = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        fates = [
            job.result(WAIT_S * 2)
            for job in [pool.submit(_send, database_url, side, barrier) for side in requests]
        ]
    assert fates[0][0] + fates[1][0] == rounds * 400
    assert fates[0][2] + fates[1][2] == rounds * 400
    assert {code for _, _, code in aside(conn)} == {"seq_conflict"}
    assert_bars_and_current_are_those_of_a_clean_load(conn)
