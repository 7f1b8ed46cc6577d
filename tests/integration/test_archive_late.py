"""Ticks that come for archived times, and whoever reads or writes while weeks move."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import psycopg2
import pytest
from psycopg2.extensions import connection

from app.archive import compacting
from app.archive.checking import compare
from app.archive.place import ArchiveError
from app.archive.weeks import Week, freeze
from app.errors import ArchiveAway
from app.storage import archive_files, clocks, retention
from app.storage.archive_reader import nothing
from app.storage.archive_rows import WholeTicks
from app.storage.connection import Connection
from app.storage.import_job import DerivedTicksThere, ImportJob, find_instruments
from app.storage.partitions import WEEK_US
from app.storage.sink import DatabaseSink
from app.storage.tick_reader import read_ticks
from tests.batches import (
    NAN,
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    ledger_of,
    new_sink,
    rows_of,
    stored_keys,
    write_all,
)
from tests.integration.archiving import MONDAY_US, bring_back, read_times, run, with_archiver, without_seq

WAIT_S = 30


def quotes(count: int, start: int = 0) -> list[Tick]:
    return [Tick(time_us=MONDAY_US + i, bid=10 + i / 4, ask=11 + i / 4) for i in range(start, start + count)]


# ---- late ticks


def test_late_ticks_are_new_known_or_in_conflict(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    feeder = Feeder()
    unnumbered = without_seq([MONDAY_US + 500] * 2)
    write_all(sink, feeder, quotes(20), unnumbered)
    run(database_url, tmp_path)
    bars_before = rows_of(conn, "SELECT * FROM bars ORDER BY 1, 2, 3")
    new = [*quotes(5, start=20), Tick(time_us=MONDAY_US + 3, seq=1, bid=NAN, ask=NAN, last=4.0, volume=2, flags=56)]
    conflict = [Tick(time_us=MONDAY_US + 7, bid=99)]
    write_all(sink, feeder, quotes(10), new, conflict)
    write_all(sink, feeder, new[:3], without_seq([MONDAY_US + 500] * 3), [Tick(time_us=MONDAY_US + 20, bid=77)])
    # Accepted, and not seen yet: neither as ticks nor in bars.
    assert rows_of(conn, "SELECT * FROM bars ORDER BY 1, 2, 3") == bars_before
    assert len(read_times(database_url, tmp_path)) == 22
    (said,) = run(database_url, tmp_path)
    assert "7 late ticks merged" in said
    assert len(read_times(database_url, tmp_path)) == 22 + 7
    asides = rows_of(conn, "SELECT code, bid FROM rejected_ticks ORDER BY bid")
    assert asides == [("seq_conflict", 77.0), ("seq_conflict", 99.0)]
    next_row, stored, duplicates, aside, *_ = ledger_of(conn, feeder.journal_id)
    assert (stored, aside, next_row) == (29, 2, stored + duplicates + aside)
    assert run(database_url, tmp_path) == []
    bring_back(database_url, tmp_path)
    assert len(stored_keys(conn)) == 29
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_clocks_that_differ_keep_no_late_ticks_from_being_merged(
    database_url: str, sink: DatabaseSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, quotes(20))
    run(database_url, tmp_path)
    write_all(sink, feeder, quotes(5, start=20), [Tick(time_us=MONDAY_US + WEEK_US)])
    monkeypatch.setattr(clocks, "MOST_APART", timedelta(0))
    with pytest.raises(ArchiveError, match="clock says"):
        run(database_url, tmp_path)
    assert read_times(database_url, tmp_path) == [*(MONDAY_US + i for i in range(25)), MONDAY_US + WEEK_US]
    assert len(list(tmp_path.glob("ticks/*"))) == 1, "nothing was moved"


def test_ticks_sent_again_after_the_archive_add_nothing(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    sent = [*quotes(30), *without_seq([MONDAY_US + 500] * 3)]
    write_all(sink, Feeder(), sent)
    run(database_url, tmp_path)
    before = rows_of(conn, "SELECT * FROM tick_ranges"), rows_of(conn, "SELECT * FROM bars ORDER BY 1, 2, 3")
    again = Feeder()
    write_all(sink, again, sent)
    run(database_url, tmp_path)
    assert (rows_of(conn, "SELECT * FROM tick_ranges"), rows_of(conn, "SELECT * FROM bars ORDER BY 1, 2, 3")) == before
    assert ledger_of(conn, again.journal_id)[:4] == (33, 0, 33, 0)
    assert rows_of(conn, "SELECT sum(ticks) FROM resent_ticks") == [(33,)]
    assert len(read_times(database_url, tmp_path)) == 33


def test_late_ticks_of_a_renamed_symbol_are_read_with_the_others(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(sink, Feeder(), [*quotes(3), *without_seq([MONDAY_US + 500] * 2)])
    run(database_url, tmp_path)
    for table in ("instruments", "current"):
        execute(conn, f"UPDATE {table} SET symbol = 'TSLB' WHERE symbol = 'TSLA'")
    late = [*quotes(2, start=3), *without_seq([MONDAY_US + 500] * 2, "TSLB")]
    write_all(sink, Feeder(), [Tick(**{**vars(tick), "symbol": "TSLB"}) for tick in late])
    run(database_url, tmp_path)
    times = [MONDAY_US + i for i in (0, 1, 2, 3, 4, 500, 500, 500, 500)]
    assert read_times(database_url, tmp_path) == times
    monkeypatch.setattr(compacting, "MOST_FILES", 1)
    assert run(database_url, tmp_path) == ["20260105: 2 files are one now"]
    assert read_times(database_url, tmp_path) == times
    before = rows_of(conn, "SELECT rows FROM tick_ranges")
    bring_back(database_url, tmp_path)
    assert rows_of(conn, "SELECT count(*) FROM ticks") == before == [(9,)]
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_merging_a_few_late_ticks_again_and_again_copies_no_week(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "MOST_FILES", 3)
    root, copies, feeder = tmp_path / "archive", tmp_path / "copies", Feeder()
    write_all(sink, feeder, quotes(60))
    for late in range(10):
        with_archiver(database_url, root, lambda archiver: archiver.run(1), copies=copies)
        write_all(sink, feeder, quotes(1, start=60 + late))
    assert read_times(database_url, root) == [MONDAY_US + i for i in range(69)]
    [(path, sha256)] = rows_of(conn, "SELECT manifest, manifest_sha256 FROM tick_ranges")
    files = archive_files.load(root, path, sha256).files
    assert len(files) <= 3
    assert ("ticks-1.parquet", 60) in [(file.name, file.rows) for file in files], "the large one is as it was"
    assert not (root / "unused").exists()
    assert len(list((root / "ticks").iterdir())) == len(list(copies.iterdir())) == 1
    # Until they are a real share of it.
    for start in (70, 80, 90):
        write_all(sink, feeder, quotes(10, start=start))
        with_archiver(database_url, root, lambda archiver: archiver.run(1), copies=copies)
    assert read_times(database_url, root) == [MONDAY_US + i for i in range(100)]
    assert len(list((root / "unused").iterdir())) == 1
    bring_back(database_url, root)
    assert len(stored_keys(conn)) == 100
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_an_import_does_not_double_what_is_archived_without_seq(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), without_seq([MONDAY_US + 500]))
    run(database_url, tmp_path)
    job = ImportJob(sink.connection, "an-import", merge=False)
    entry, _ = job.open()
    instruments = find_instruments(sink.connection, ["TSLA"], add=False)
    from tests.tick_sets import Row, stored

    with pytest.raises(DerivedTicksThere):
        job.write(entry, stored([Row(time_us=MONDAY_US + 500, bid=1.0)]), 1, instruments)


def test_a_week_that_is_dropped_later_loses_its_files(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, quotes(10), [Tick(time_us=MONDAY_US + WEEK_US)])
    run(database_url, tmp_path)
    write_all(sink, feeder, quotes(5, start=10))
    owner = Connection(lambda: database_url, 5, 60, "retention")
    list(retention.run(owner, {"ticks": (date.today() - date(2026, 1, 12)).days}, "test"))
    owner.close()
    assert rows_of(conn, "SELECT state FROM tick_ranges ORDER BY upper(range)")[-1:] == [("archived",)]
    run(database_url, tmp_path)
    assert read_times(database_url, tmp_path) == [MONDAY_US + WEEK_US]
    assert len(list(tmp_path.glob("ticks/*"))) == 1
    assert rows_of(conn, "SELECT count(*) FROM tick_ranges WHERE state = 'dropped' AND manifest IS NOT NULL") == [(0,)]
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(0,)], "those that waited went with their week"
    write_all(sink, feeder, quotes(5, start=20))
    assert rows_of(conn, "SELECT code, count(*) FROM rejected_ticks GROUP BY 1") == [("too_old", 5)]


# ---- others meanwhile


@pytest.mark.long
def test_a_flush_that_has_looked_is_waited_for_and_the_next_one_sees_the_new_state(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), quotes(1))
    own = Connection(lambda: database_url, 5, 30, "archiver")
    feeder = Feeder()
    prepared_by = new_sink(database_url)
    batch, entry = feeder.batch(quotes(1, start=5)), prepared_by.ledger(feeder.journal_id)
    with closing(psycopg2.connect(database_url)) as flush, ThreadPoolExecutor(2) as pool:
        with flush.cursor() as cur:
            # A flush that finds no row about its week, and has not stored its ticks yet.
            from app.storage.tick_ranges import cold

            cold(cur, np.array([MONDAY_US]))
        freezing = pool.submit(freeze, own, Week(MONDAY_US))
        with pytest.raises(TimeoutError):
            freezing.result(1.5)
        with flush.cursor() as cur:
            cur.execute(
                "INSERT INTO ticks VALUES (1, to_timestamp(%s), 9, 1, 2, NULL, NULL, 0, 0, 0, 6, 1, now())",
                (MONDAY_US / 1e6,),
            )
        flush.commit()
        freezing.result(WAIT_S)
        writing = pool.submit(prepared_by.write, feeder.journal_id, entry, batch)
        assert writing.result(WAIT_S).entry.stored == 1
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(2,)]
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(1,)]
    own.close()
    prepared_by.close()


def test_a_reader_with_an_old_snapshot_keeps_its_partition(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), quotes(10))
    reader = Connection(lambda: database_url, 5, 30, "reader", tmp_path)
    with reader.reading(30) as cur:
        cur.execute("SELECT count(*) FROM instruments")  # its snapshot is older than the archive, and it holds no tick
        lines = with_archiver(database_url, tmp_path, lambda archiver: archiver.run(1), readers_timeout_s=0.5)
        assert any("its partition stays" in line for line in lines)
        page = read_ticks(cur, 1, None, None, after=None, descending=False, max_rows=100)
        assert len(page.table) == 10
    assert read_times(database_url, tmp_path) == [MONDAY_US + i for i in range(10)], "each once: from the files"
    reader.close()
    run(database_url, tmp_path)
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(0,)]


@pytest.mark.long
def test_flushes_and_reads_go_on_while_weeks_move(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, *[quotes(50, start=50 * i) for i in range(4)])
    stop = threading.Event()
    sent: list[Tick] = []

    def send() -> None:
        mine = new_sink(database_url)
        number = 0
        while not stop.is_set():
            number += 1
            # Some of the week that moves, some of another one.
            rows = [*quotes(3, start=198 + number), Tick(time_us=MONDAY_US + WEEK_US * 3 + number)]
            write_all(mine, feeder, rows)
            sent.extend(rows)
        mine.close()

    def look() -> None:
        while not stop.is_set():
            times = read_times(database_url, tmp_path)
            assert times[:200] == [MONDAY_US + i for i in range(200)]
            assert len(times) == len(set(times))

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(send), pool.submit(look)]
        try:
            for _ in range(3):
                run(database_url, tmp_path)
                bring_back(database_url, tmp_path)
        finally:
            stop.set()
        for job in jobs:
            job.result(WAIT_S)
    run(database_url, tmp_path, hot_days=0)
    keys = {("TSLA", tick.time_us, tick.seq) for tick in [*quotes(200), *sent]}
    assert stored_keys(conn) == sorted(keys)
    assert_bars_and_current_are_those_of_a_clean_load(conn)
    _, stored, _, aside, *_ = ledger_of(conn, feeder.journal_id)
    assert (stored, aside) == (len(keys), 0)


def test_two_archivers_do_not_meet(database_url: str, sink: DatabaseSink, tmp_path: Path) -> None:
    write_all(sink, Feeder(), quotes(10))
    refused: list[str] = []

    def second(step: str) -> None:
        for root in (tmp_path / "one", tmp_path / "other"):
            with pytest.raises(ArchiveError, match="another archiver"):
                run(database_url, root)
            refused.append(step)

    with_archiver(database_url, tmp_path / "one", lambda archiver: archiver.run(1), second)
    assert "written" in refused


# ---- damage


def test_a_change_under_the_archiver_is_noticed(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), quotes(10))

    def change(step: str) -> None:
        if step == "compared":
            execute(conn, "DELETE FROM ticks WHERE bid = 10", "UPDATE bars SET version = version + 1")

    with pytest.raises(ArchiveError, match="changed meanwhile"):
        with_archiver(database_url, tmp_path, lambda archiver: archiver.run(1), change)
    assert len(read_times(database_url, tmp_path)) == 9
    run(database_url, tmp_path, hot_days=0)
    assert len(read_times(database_url, tmp_path)) == 9
    assert rows_of(conn, "SELECT state, rows FROM tick_ranges") == [("archived", 9)]


def test_a_row_that_differs_in_the_file_stops_the_archiver(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), quotes(10))

    def change(step: str) -> None:
        if step == "written":
            execute(conn, "UPDATE ticks SET spread = 3 WHERE bid = 10")

    with pytest.raises(ArchiveError, match="is not the same in the file"):
        with_archiver(database_url, tmp_path, lambda archiver: archiver.run(1), change)
    assert rows_of(conn, "SELECT state FROM tick_ranges") == [("archiving",)]
    assert len(read_times(database_url, tmp_path)) == 10


@pytest.mark.parametrize("what", ["ticks-1.parquet", "manifest-1.json"])
def test_a_missing_or_changed_file_is_an_error_and_never_an_empty_answer(
    database_url: str, sink: DatabaseSink, tmp_path: Path, what: str
) -> None:
    write_all(sink, Feeder(), quotes(10))
    run(database_url, tmp_path)
    with pytest.raises(ArchiveAway, match="archive_dir"):
        read_times(database_url, None)
    (path,) = tmp_path.glob(f"ticks/*/{what}")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found: list[str | None] = []
    with_archiver(database_url, tmp_path, lambda archiver: found.extend(wrong for _, wrong in archiver.verify()))
    (wrong,) = found
    assert wrong is not None
    assert "checksum" in wrong
    with pytest.raises((ArchiveAway, ArchiveError)):
        bring_back(database_url, tmp_path)
    path.unlink()
    with pytest.raises(ArchiveAway):
        read_times(database_url, tmp_path)


def test_lost_files_come_back_from_the_backups(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    root, copies = tmp_path / "archive", tmp_path / "backups" / "archive"
    feeder = Feeder()
    write_all(sink, feeder, quotes(10))
    with_archiver(database_url, root, lambda archiver: archiver.run(1), copies=copies)
    write_all(sink, feeder, quotes(5, start=10))
    with_archiver(database_url, root, lambda archiver: archiver.run(1), copies=copies)
    before = read_times(database_url, root)
    assert len(before) == 15
    shutil.rmtree(root)
    lines = with_archiver(database_url, root, lambda archiver: archiver.run(0), copies=copies)
    assert any("files were missing" in line for line in lines)
    assert read_times(database_url, root) == before
    next(root.glob("ticks/*/ticks-2.parquet")).unlink()
    with_archiver(database_url, root, lambda archiver: archiver.run(0), copies=copies)
    assert read_times(database_url, root) == before
    assert with_archiver(database_url, root, lambda archiver: archiver.run(0), copies=copies) == []


def test_a_database_that_was_set_back_finds_the_files_that_it_names(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), quotes(10))
    run(database_url, tmp_path)
    before = read_times(database_url, tmp_path)
    execute(conn, "CREATE TABLE as_it_was AS SELECT * FROM tick_ranges")
    bring_back(database_url, tmp_path)
    assert list(tmp_path.glob("ticks/*")) == []
    execute(conn, "INSERT INTO tick_ranges SELECT * FROM as_it_was", "DELETE FROM ticks")
    run(database_url, tmp_path)
    assert read_times(database_url, tmp_path) == before
    bring_back(database_url, tmp_path)
    assert len(list(tmp_path.glob("unused/*"))) == 1


def whole(rows: int, **changes: float) -> WholeTicks:
    made = nothing()
    for name in WholeTicks.__slots__:
        kind = getattr(made, name).dtype
        setattr(made, name, np.full(rows, changes.get(name, 1), kind))
    return made


@pytest.mark.parametrize("name", WholeTicks.__slots__)
def test_every_column_is_compared(name: str) -> None:
    assert compare([whole(5), whole(3)], [whole(5), whole(1), whole(2)], lambda _: None) == 8
    changed = whole(8)
    getattr(changed, name)[6] = 2
    with pytest.raises(ArchiveError, match="not the same"):
        compare([whole(8)], [changed], lambda _: None)


def test_too_many_and_too_few_rows_are_noticed() -> None:
    with pytest.raises(ArchiveError, match="missing"):
        compare([whole(8)], [whole(7)], lambda _: None)
    with pytest.raises(ArchiveError, match="more than"):
        compare([whole(8)], [whole(8), whole(1)], lambda _: None)
    zeros, minus = whole(2, bid=0.0), whole(2, bid=-0.0)
    with pytest.raises(ArchiveError, match="not the same"):
        compare([zeros], [minus], lambda _: None)
