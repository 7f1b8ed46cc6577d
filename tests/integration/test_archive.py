"""Weeks of ticks into the archive and back: every row the same, whatever kills the archiver and wherever it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from psycopg2.extensions import connection

from app.archive import compacting, writing
from app.market.intervals import Buckets
from app.storage.archive_files import load as load_manifest
from app.storage.bar_reader import BarQuery, read_bars
from app.storage.connection import Connection
from app.storage.lease import DESK, claim
from app.storage.partitions import WEEK_US
from app.storage.sink import DatabaseSink
from app.storage.tick_reader import TickKey, TickPage, read_ticks
from tests.batches import (
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    ledger_of,
    rows_of,
    stored_keys,
    write_all,
)
from tests.integration.archiving import MONDAY_US, bring_back, died_at, run, some_ticks, with_archiver, without_seq

LATE_STEPS = ["late written", "late kept", "late merged"]
STEPS = ["frozen", "begun", "writing", "written", "compared", "named", "kept", "copied", "switched"]
STEPS += ["waited", "dropped"]
BACK_STEPS = [*LATE_STEPS, "waited", "dropped", "filling", "filled", "released", "aside"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive [1]"


def load(sink: DatabaseSink) -> Feeder:
    feeder = Feeder()
    rows = some_ticks()
    write_all(sink, feeder, rows[::2], rows[1::2])
    write_all(sink, feeder, without_seq([MONDAY_US + 50, MONDAY_US + 50, MONDAY_US + 50, MONDAY_US + 60]))
    return feeder


Answer = tuple[object, ...]


def everything(url: str, root: Path, sizes: tuple[int, ...] = (50,)) -> list[Answer]:
    """Return all that can be asked of two symbols: pages of ticks in both directions, and bars."""
    reader = Connection(lambda: url, 5, 30, "reader", root)
    found: list[Answer] = []
    try:
        with reader.reading(30) as cur:
            for symbol_id in (1, 2):
                for page_rows in sizes:
                    for start_us, end_us in ((None, None), (MONDAY_US + 50, MONDAY_US + 2 * WEEK_US + 1_000_000)):
                        for descending in (False, True):
                            after: TickKey | None = None
                            while True:
                                page = read_ticks(
                                    cur,
                                    symbol_id,
                                    start_us,
                                    end_us,
                                    after=after,
                                    descending=descending,
                                    max_rows=page_rows,
                                )
                                found += said(page)
                                if not page.more:
                                    break
                                assert page.last_key is not None
                                after = TickKey.decode(page.last_key.encode())
                                found.append(("token", page.last_key.encode()))
                for interval in ("1s", "15s"):
                    query = BarQuery(Buckets(interval, "UTC"), "bid", None, None, False, 2**61)
                    bars = read_bars(
                        cur, symbol_id, False, query, after_us=None, descending=False, max_bars=10_000
                    )
                    found += [tuple(map(str, row)) for row in zip(*bars.table.columns, strict=True)]
    finally:
        reader.close()
    return found


def said(page: TickPage) -> list[Answer]:
    assert all(isinstance(column, np.ndarray) for column in page.table.columns)
    return [tuple(map(str, row)) for row in zip(*page.table.columns, strict=True)]


def states(conn: connection) -> list[str]:
    return [state for (state,) in rows_of(conn, "SELECT state FROM tick_ranges ORDER BY range")]


def left_in_ticks(conn: connection) -> int:
    return int(rows_of(conn, "SELECT count(*) FROM ticks")[0][0])


def whole_rows(conn: connection) -> list[tuple[object, ...]]:
    return rows_of(conn, "SELECT ticks::text FROM ticks ORDER BY symbol_id, time, seq")


# ---- there and back


@pytest.mark.long
def test_answers_are_the_same_from_the_archive(
    conn: connection, database_url: str, sink: DatabaseSink, archive: Path
) -> None:
    load(sink)
    before = everything(database_url, archive, (1, 4, 1000))
    assert len(before) > 1000
    run(database_url, archive)
    assert states(conn) == ["archived"] * 3
    assert left_in_ticks(conn) == 0
    assert rows_of(conn, "SELECT count(*) FROM pg_class WHERE relname ~ '^ticks_2026'") == [(0,)]
    assert everything(database_url, archive, (1, 4, 1000)) == before


def test_hot_and_archived_weeks_are_read_as_one(
    conn: connection, database_url: str, sink: DatabaseSink, archive: Path
) -> None:
    load(sink)
    before = everything(database_url, archive)
    run(database_url, archive)
    for week in (0, 2):
        at = MONDAY_US + week * WEEK_US
        with_archiver(database_url, archive, lambda archiver, at=at: archiver.bring_back(at, at + 1))  # type: ignore[misc]
    assert states(conn) == ["archived"]
    assert everything(database_url, archive) == before


def test_what_comes_back_is_what_went(
    conn: connection, database_url: str, sink: DatabaseSink, archive: Path
) -> None:
    load(sink)
    before = whole_rows(conn)
    run(database_url, archive)
    bring_back(database_url, archive)
    assert whole_rows(conn) == before
    assert states(conn) == []
    assert_bars_and_current_are_those_of_a_clean_load(conn)


@pytest.mark.parametrize("page_rows", [11, 48])
def test_pages_of_any_length_that_are_fetched_side_by_side_lose_and_repeat_nothing(
    conn: connection,
    database_url: str,
    sink: DatabaseSink,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    page_rows: int,
) -> None:
    monkeypatch.setattr(writing, "PAGE_ROWS", page_rows)
    load(sink)
    before, rows = everything(database_url, archive), whole_rows(conn)
    run(database_url, archive)
    assert left_in_ticks(conn) == 0
    assert everything(database_url, archive) == before
    bring_back(database_url, archive)
    assert whole_rows(conn) == rows


@pytest.mark.parametrize(("is_serving", "used"), [(False, {"tickhub 1", "tickhub 2"}), (True, {"tickhub 1"})])
def test_beside_a_server_rows_are_read_over_one_connection(
    conn: connection,
    database_url: str,
    sink: DatabaseSink,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_serving: bool,
    used: set[str],
) -> None:
    monkeypatch.setattr(writing, "PAGE_ROWS", 7)
    load(sink)
    if is_serving:
        with conn, conn.cursor() as cur:
            assert claim(cur, DESK, "host/1", 3600) is not None
    names: set[str] = set()

    def step(_: str) -> None:
        found = rows_of(conn, "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
        conn.commit()
        names.update(name for (name,) in found if name in ("tickhub 1", "tickhub 2"))

    with_archiver(database_url, archive, lambda archiver: archiver.run(1), step)
    assert (names, left_in_ticks(conn)) == (used, 0)


def test_a_derived_seq_is_in_no_file_unless_its_symbol_has_another_name_now(
    conn: connection, database_url: str, sink: DatabaseSink, archive: Path
) -> None:
    import pyarrow.parquet as pq

    write_all(sink, Feeder(), without_seq([MONDAY_US + 50] * 3), without_seq([MONDAY_US + 70], "NVDA"))
    before = whole_rows(conn)
    execute(conn, "UPDATE instruments SET symbol = 'RENAMED' WHERE symbol = 'NVDA'")
    run(database_url, archive)
    (path,) = archive.glob("ticks/*/ticks-1.parquet")
    table = pq.read_table(path.open("rb"))
    assert table["ordinal"].to_pylist()[:3] in ([-1, -2, -3], [-3, -2, -1], *([a, b, -6 - a - b] for a, b in _PAIRS))
    assert [seq is None for seq in table["raw_seq"].to_pylist()] == [True, True, True, False]
    bring_back(database_url, archive)
    assert whole_rows(conn) == before


_PAIRS = [(-1, -3), (-2, -1), (-2, -3), (-3, -1)]


def test_young_weeks_stay_and_nothing_moves_when_it_is_off(
    conn: connection, database_url: str, sink: DatabaseSink, archive: Path
) -> None:
    load(sink)
    run(database_url, archive, hot_days=0)
    run(database_url, archive, hot_days=36_500)
    assert states(conn) == []


# ---- deaths


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS + LATE_STEPS)
def test_an_archiver_killed_at_any_step_loses_and_doubles_nothing(
    conn: connection, database_url: str, archive: Path, sink: DatabaseSink, step: str
) -> None:
    feeder = load(sink)
    before = everything(database_url, archive)
    late = [Tick(time_us=MONDAY_US + 99, seq=4), Tick(time_us=MONDAY_US, seq=0, bid=10, ask=10.5)]
    is_late = step.startswith("late")
    if is_late:
        run(database_url, archive)
        write_all(sink, feeder, late)
    assert died_at(database_url, archive, step)
    if step != "late merged":
        assert everything(database_url, archive) == before
    if not is_late:
        write_all(sink, feeder, late)
    # What was begun is finished, even when nothing is to be archived any more.
    run(database_url, archive, hot_days=0)
    run(database_url, archive)
    assert states(conn) == ["archived"] * 3
    assert left_in_ticks(conn) == 0
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(0,)]
    assert not list(archive.glob("ticks/.new-*"))
    bring_back(database_url, archive)
    wanted = {(tick.symbol, tick.time_us, tick.seq) for tick in [*some_ticks(), *late]}
    wanted |= {(tick.symbol, tick.time_us, tick.seq) for tick in without_seq([MONDAY_US + 50] * 3 + [MONDAY_US + 60])}
    assert stored_keys(conn) == sorted(wanted)
    assert_bars_and_current_are_those_of_a_clean_load(conn)
    next_row, stored, duplicates, set_aside, *_ = ledger_of(conn, feeder.journal_id)
    assert (stored, duplicates, set_aside) == (len(wanted), next_row - len(wanted), 0)


@pytest.mark.long
@pytest.mark.parametrize(("each", "left"), [(1, 2), (15, 1)], ids=["few ticks", "a share of all"])
@pytest.mark.parametrize("step", ["compaction written", "compaction kept", "compaction switched"])
def test_many_files_become_one_whatever_kills_the_archiver(
    conn: connection,
    database_url: str,
    archive: Path,
    sink: DatabaseSink,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    each: int,
    left: int,
) -> None:
    feeder = load(sink)
    run(database_url, archive)
    late = [Tick(time_us=MONDAY_US + 99 + i, seq=4 - i % 2 * 9) for i in range(3 * each)]
    for number in range(3):
        write_all(sink, feeder, late[number::3])
        run(database_url, archive)
    assert len(list(archive.glob("ticks/20260105-*/ticks-*.parquet"))) == 4
    before = everything(database_url, archive)
    assert died_at(database_url, archive, step)
    assert everything(database_url, archive) == before
    monkeypatch.setattr(compacting, "MOST_FILES", 1)
    run(database_url, archive)
    assert everything(database_url, archive) == before
    [(path, sha256)] = rows_of(conn, "SELECT manifest, manifest_sha256 FROM tick_ranges ORDER BY range LIMIT 1")
    assert len(load_manifest(archive, path, sha256).files) == left
    if left == 1:
        assert len(list(archive.glob("ticks/20260105-*/*"))) == 2, "a file and a manifest"
    assert run(database_url, archive) == []
    bring_back(database_url, archive)
    assert len(stored_keys(conn)) == len(some_ticks()) + 4 + len(late)
    assert_bars_and_current_are_those_of_a_clean_load(conn)


@pytest.mark.long
@pytest.mark.parametrize("step", BACK_STEPS)
def test_bringing_back_killed_at_any_step_loses_and_doubles_nothing(
    conn: connection, database_url: str, archive: Path, sink: DatabaseSink, step: str
) -> None:
    feeder = load(sink)
    late = [Tick(time_us=MONDAY_US + 99, seq=4)]
    run(database_url, archive)
    write_all(sink, feeder, late)
    assert died_at(database_url, archive, step, "bring back")
    now = everything(database_url, archive)
    bring_back(database_url, archive)
    assert states(conn) == []
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(0,)]
    if step not in ("late written", "late kept"):
        assert everything(database_url, archive) == now
    assert len(stored_keys(conn)) == len(some_ticks()) + 4 + 1
    assert_bars_and_current_are_those_of_a_clean_load(conn)
    run(database_url, archive, hot_days=0)
    assert list(archive.glob("ticks/*")) == []


def test_a_begun_archive_can_be_given_up(
    conn: connection, database_url: str, archive: Path, sink: DatabaseSink
) -> None:
    feeder = load(sink)
    assert died_at(database_url, archive, "written")
    late = [Tick(time_us=MONDAY_US + 99, seq=4), Tick(time_us=MONDAY_US, seq=0, bid=77)]
    write_all(sink, feeder, late)
    bring_back(database_url, archive)
    assert states(conn) == []
    assert len(stored_keys(conn)) == len(some_ticks()) + 4 + 1
    assert rows_of(conn, "SELECT code FROM rejected_ticks") == [("seq_conflict",)]
    assert_bars_and_current_are_those_of_a_clean_load(conn)
