"""An archive whose disk is full or whose files are damaged: said with the path, and everything else goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg2.extensions import connection

from app.archive import weeks
from app.archive.place import ArchiveError
from app.archive.weeks import drop_partition, ranges
from app.errors import ArchiveAway
from app.storage.archive_files import load
from app.storage.connection import Connection
from app.storage.partitions import WEEK_US
from app.storage.sink import DatabaseSink
from tests.batches import (
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    rows_of,
    stored_keys,
    write_all,
)
from tests.integration.archiving import MONDAY_US, bring_back, read_times, run, with_archiver

QUOTES = [Tick(time_us=MONDAY_US + i, bid=10 + i / 4, ask=11 + i / 4) for i in range(20)]
NEXT_US = MONDAY_US + WEEK_US


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield the directory of an archive on a file system of its own, with next to no room."""
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", root], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def fill(root: Path) -> Path:
    """Leave no room; return what takes it."""
    path = root / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_a_full_disk_keeps_ticks_where_they_are_until_there_is_room(
    conn: connection, database_url: str, sink: DatabaseSink, small_disk: Path
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, QUOTES)
    wanted = [tick.time_us for tick in QUOTES]
    filler = fill(small_disk)
    for _ in range(2):
        with pytest.raises(ArchiveError, match="No space left"):
            run(database_url, small_disk)
        assert read_times(database_url, small_disk) == wanted
        assert not list(small_disk.glob("ticks/.new-*")), "what is not whole takes no room"
    late = [Tick(time_us=MONDAY_US + 100, seq=1)]
    write_all(sink, feeder, late, QUOTES[:3])
    filler.unlink()
    run(database_url, small_disk)
    wanted.append(MONDAY_US + 100)
    assert read_times(database_url, small_disk) == wanted
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(0,)]

    # Full again before late ticks are merged: they wait.
    write_all(sink, feeder, [Tick(time_us=MONDAY_US + 200)])
    filler = fill(small_disk)
    with pytest.raises(ArchiveError, match="No space left"):
        run(database_url, small_disk)
    assert read_times(database_url, small_disk) == wanted
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(1,)]
    filler.unlink()
    run(database_url, small_disk)
    assert read_times(database_url, small_disk) == [*wanted, MONDAY_US + 200]
    bring_back(database_url, small_disk)
    assert len(stored_keys(conn)) == len(QUOTES) + 2
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_every_byte_of_a_file_is_checked_before_it_is_read(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    write_all(sink, Feeder(), QUOTES)
    run(database_url, tmp_path)
    ((manifest, sha256),) = rows_of(conn, "SELECT manifest, manifest_sha256 FROM tick_ranges")
    (file,) = load(tmp_path, manifest, sha256).files
    (group,) = file.groups
    assert group.offset == 4, "behind the magic number"
    assert group.offset + group.bytes == file.footer[0]
    (path,) = tmp_path.glob("ticks/*/ticks-1.parquet")
    whole = path.read_bytes()
    for at in (4, len(whole) // 3, file.footer[0] - 1, file.footer[0], len(whole) - 6, len(whole) - 1):
        path.unlink()  # another one of that name: rows that were decoded are kept
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        forget_decoded()
        with pytest.raises(ArchiveAway, match="is damaged"):
            read_times(database_url, tmp_path)
    path.write_bytes(whole)
    assert read_times(database_url, tmp_path) == [tick.time_us for tick in QUOTES]


def test_a_week_whose_file_is_damaged_leaves_the_others_readable_and_stored(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, QUOTES, [Tick(time_us=NEXT_US + i) for i in range(5)])
    run(database_url, tmp_path)
    (path,) = tmp_path.glob("ticks/20260105-*/ticks-1.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:9] + b"?" + whole[10:])
    forget_decoded()
    with pytest.raises(ArchiveAway, match="20260105-"):
        read_times(database_url, tmp_path)
    assert read_times(database_url, tmp_path, NEXT_US) == [NEXT_US + i for i in range(5)]
    write_all(sink, feeder, [Tick(time_us=MONDAY_US + 1, bid=10.25, ask=11.25), Tick(time_us=NEXT_US + 9)])
    with pytest.raises(ArchiveError, match="20260105-"):
        run(database_url, tmp_path)
    assert read_times(database_url, tmp_path, NEXT_US)[-1] == NEXT_US + 9, "late ticks of other weeks are merged"
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(1,)], "and this one waits"
    path.write_bytes(whole)
    run(database_url, tmp_path)
    assert read_times(database_url, tmp_path)[:20] == [tick.time_us for tick in QUOTES]
    assert rows_of(conn, "SELECT count(*) FROM late_ticks") == [(0,)]


def test_what_was_dropped_is_not_archived_again_and_what_came_back_is_not_doubled(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    feeder = Feeder()
    next_week = [Tick(time_us=NEXT_US + i) for i in range(5)]
    write_all(sink, feeder, QUOTES, next_week)
    run(database_url, tmp_path)
    bring_back(database_url, tmp_path)
    write_all(sink, feeder, QUOTES, next_week)
    assert len(stored_keys(conn)) == 25, "sent again after they were brought back"
    run(database_url, tmp_path)
    write_all(sink, feeder, QUOTES, next_week, [Tick(time_us=NEXT_US + 9)])
    execute(
        conn,
        "UPDATE tick_ranges SET state = 'dropped' WHERE lower(range) < '2026-01-12'",
        "DELETE FROM late_ticks WHERE time < '2026-01-12'",
    )
    run(database_url, tmp_path)
    write_all(sink, feeder, QUOTES[:7])
    run(database_url, tmp_path)
    assert read_times(database_url, tmp_path) == [*(NEXT_US + i for i in range(5)), NEXT_US + 9]
    assert rows_of(conn, "SELECT code, count(*) FROM rejected_ticks GROUP BY 1") == [("too_old", 7)]
    assert len(list(tmp_path.glob("ticks/2026*"))) == 1


def forget_decoded() -> None:
    """As a process that has not read the file yet."""
    from app.storage import archive_reader

    archive_reader._piece.cache_clear()


def test_a_week_that_was_emptied_before_it_was_frozen_is_hot_again(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, QUOTES)

    def empty(step: str) -> None:
        if step == "frozen":
            # As a `delete` does that came just before: what is due was looked up at the run's beginning.
            execute(conn, "DELETE FROM ticks")

    with_archiver(database_url, tmp_path, lambda archiver: archiver.run(1), empty)
    assert rows_of(conn, "SELECT * FROM tick_ranges") == []
    assert not list((tmp_path / "ticks").iterdir())


def test_a_week_that_is_hot_again_keeps_its_partition(
    conn: connection, database_url: str, sink: DatabaseSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, QUOTES)
    run(database_url, tmp_path)
    own = Connection(lambda: database_url, 5, 30, "archiver")
    with own.transaction() as cur:
        before = ranges(cur)
    bring_back(database_url, tmp_path)
    # Somebody brought it back between the look and the drop.
    monkeypatch.setattr(weeks, "ranges", lambda _: before)
    with pytest.raises(ArchiveError, match="is not archived: its partition stays"):
        drop_partition(own, before[0].week)
    own.close()
    assert len(stored_keys(conn)) == len(QUOTES)
