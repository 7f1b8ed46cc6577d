"""The directory of whole answers without a server: what stays, what goes, and what is remembered of readers."""

from __future__ import annotations

import fcntl
import io
import os
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import spool_files, spool_readers
from app.spool_files import NoRoom, Opened, Part, SpoolFiles, read_piece
from app.spool_readers import Overtaken, SpoolReaders

KIB = 1 << 10


@pytest.fixture
def files(tmp_path: Path) -> SpoolFiles:
    made = SpoolFiles(tmp_path, 100 * KIB)
    made.make()
    return made


@pytest.fixture
def readers(tmp_path: Path, files: SpoolFiles) -> SpoolReaders:
    made = SpoolReaders(tmp_path)
    made.make()
    return made


def claim(files: SpoolFiles, address: str, identity: str = "v1") -> Part:
    part = files.claim(address, identity, time.time_ns())
    assert isinstance(part, Part)
    return part


def make(files: SpoolFiles, address: str, data: bytes, identity: str = "v1", *, lasting: bool = True) -> Opened:
    part = claim(files, address, identity)
    part.write(data)
    return part.publish(lasting=lasting, next_token="t-_0")


def names(files: SpoolFiles, suffix: str = ".whole") -> set[str]:
    return {path.name.split(".")[0] for path in files.root.glob(f"*{suffix}")}


def age(opened: Opened, seconds: float) -> None:
    os.utime(opened.whole.path, (time.time() - seconds,) * 2)


def parquet(values: list[float]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"bid": values, "ask": values}), out)
    return out.getvalue()


def test_a_file_is_found_as_it_was_made_until_its_identity_changes(files: SpoolFiles) -> None:
    made = make(files, "a", b"ticks")
    found = files.claim("a", "v1", time.time_ns())
    assert isinstance(found, Opened)
    assert found.whole == made.whole
    assert found.whole.next_token == "t-_0"
    assert read_piece(found, 1, 3) == b"ick"
    with pytest.raises(OSError, match="ends early"):
        read_piece(found, 1, 5)
    assert isinstance(files.claim("a", "v2", time.time_ns()), Part)
    assert isinstance(files.claim("b", "v1", time.time_ns()), Part)


def test_what_the_clock_changes_is_good_only_for_who_asked_before_it_was_made(files: SpoolFiles) -> None:
    before_ns = time.time_ns()
    made = make(files, "a", b"bars", lasting=False)
    assert isinstance(files.claim("a", "v1", before_ns), Opened)
    assert isinstance(files.claim("a", "v1", made.whole.made_ns + 1), Part)


def test_only_one_makes_it_and_who_comes_after_a_dropped_one_begins_with_nothing(files: SpoolFiles) -> None:
    part = claim(files, "a")
    part.write(b"half")
    assert files.claim("a", "v1", time.time_ns()) is None
    assert names(files) == set()
    part.drop()
    part.drop()
    assert names(files, ".part") == set()
    opened = make(files, "a", b"whole")
    assert (opened.size_bytes, opened.whole.path.read_bytes()) == (5, b"whole")
    part = claim(files, "b")
    part.publish(lasting=True, next_token=None)
    part.drop()
    assert names(files) == {"a", "b"}


def test_a_part_that_nobody_makes_any_more_makes_room_and_others_stay(files: SpoolFiles) -> None:
    (files.root / "a.v1.part").write_bytes(bytes(90 * KIB))  # its process was killed
    kept = claim(files, "b")
    kept.write(bytes(20 * KIB))
    assert names(files, ".part") == {"b"}
    files.sweep()
    assert names(files, ".part") == {"b"}
    (files.root / "c.v1.part").touch()
    files.sweep()
    assert names(files, ".part") == {"b"}


def test_the_least_lately_read_go_first_and_those_being_read_never(files: SpoolFiles) -> None:
    made = {name: make(files, name, bytes(30 * KIB)) for name in "abc"}
    for name, seconds in (("a", 20.0), ("b", 40.0), ("c", 5.0)):
        age(made[name], seconds)
    make(files, "d", bytes(30 * KIB))
    assert names(files) == {"a", "c", "d"}
    make(files, "e", bytes(40 * KIB))
    assert names(files) == {"c", "d", "e"}
    part = claim(files, "f")
    with pytest.raises(NoRoom):
        part.write(bytes(30 * KIB))
    assert names(files) == {"c", "d", "e"}
    assert read_piece(made["b"], 0, 9) == bytes(9), "who reads it goes on"


def test_what_can_never_fit_sends_nothing_away(files: SpoolFiles) -> None:
    age(make(files, "a", bytes(30 * KIB)), 100)
    part = claim(files, "b")
    with pytest.raises(NoRoom):
        part.write(bytes(101 * KIB))
    assert names(files) == {"a"}


def test_files_are_few(files: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_files, "MOST_FILES", 3)
    for number in range(6):
        age(make(files, f"a{number}", b"."), 100 - number)
    assert names(files) == {"a3", "a4", "a5"}


@pytest.mark.parametrize(("seconds", "short", "stays"), [(500, 0, True), (700, 0, False), (15, 1, False), (5, 1, True)])
def test_what_is_not_read_is_swept_away_sooner_where_the_disk_is_short(
    files: SpoolFiles, monkeypatch: pytest.MonkeyPatch, seconds: float, short: int, stays: bool
) -> None:
    age(make(files, "a", b"."), seconds)
    monkeypatch.setattr(spool_files, "shortage_bytes", lambda path, reserves: short)
    files.sweep()
    assert (names(files) == {"a"}) == stays


def test_a_disk_that_is_short_takes_nothing(files: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    old, read = make(files, "a", b"."), make(files, "b", b".")
    age(old, 20)
    monkeypatch.setattr(spool_files, "shortage_bytes", lambda path, reserves: 1)
    with pytest.raises(NoRoom, match="the disk is full"):
        claim(files, "c").write(b".")
    assert names(files) == {"b"}
    assert read.size_bytes == 1


def test_reading_keeps_a_file(files: SpoolFiles) -> None:
    made = make(files, "a", b"ticks")
    for use in (
        lambda: read_piece(made, 0, 1),
        lambda: files.claim("a", "v1", time.time_ns()),
    ):
        age(made, 700)
        use()
        files.sweep()
        assert names(files) == {"a"}


def test_a_reader_goes_on_with_what_it_began_and_others_with_theirs(files: SpoolFiles, readers: SpoolReaders) -> None:
    first, second = make(files, "a", b"one"), make(files, "a", b"two", "v2")
    readers.begin("me", first.whole, asked_only=False)
    readers.begin("you", second.whole, asked_only=False)
    for reader, made in (("me", first), ("you", second)):
        found = readers.follow(reader, 1, 2)
        assert found is not None
        assert found.whole == made.whole
    assert readers.follow("nobody", 1, 2) is None


def test_asking_for_the_length_is_the_beginning_of_the_first_bytes_once(
    files: SpoolFiles, readers: SpoolReaders
) -> None:
    made = make(files, "a", b"one")
    readers.begin("me", made.whole, asked_only=False)
    assert readers.follow("me", 0, 4, if_asked_only=True) is None
    readers.begin("me", made.whole, asked_only=True)
    assert readers.follow("me", 0, 4, if_asked_only=True) is not None
    assert readers.follow("me", 0, 4, if_asked_only=True) is None
    assert readers.follow("me", 4, 8) is not None
    assert len(os.listdir(files.root / "begun")) == 1


def test_of_several_files_a_piece_is_of_the_one_whose_parts_lie_there(files: SpoolFiles, readers: SpoolReaders) -> None:
    made = [make(files, "a", parquet([float(x) for x in range(rows)]), f"v{rows}") for rows in (500, 1000, 1500, 2000)]
    for opened in made:
        readers.begin("me", opened.whole, asked_only=False)
    for opened in made:
        group = pq.read_metadata(opened.whole.path).row_group(0)
        chunk = group.column(1)
        start = chunk.dictionary_page_offset
        found = readers.follow("me", start, start + chunk.total_compressed_size)
        assert found is not None
        assert found.whole == opened.whole
    anywhere = readers.follow("me", 7, 9)
    assert anywhere is not None
    assert anywhere.whole == made[-1].whole, "the last one begun"


def test_a_file_that_is_gone_is_said_so_not_replaced_by_another(files: SpoolFiles, readers: SpoolReaders) -> None:
    first, second = (make(files, "a", parquet([1.5] * rows), f"v{rows}") for rows in (100, 200))
    for opened in (first, second):
        readers.begin("me", opened.whole, asked_only=False)
    first.whole.path.unlink()
    with pytest.raises(Overtaken):
        readers.follow("me", 7, 9)
    size = second.size_bytes
    found = readers.follow("me", size - 8, size)
    assert found is not None, "these bytes are surely of the second"
    second.whole.path.unlink()
    with pytest.raises(Overtaken):
        readers.follow("me", size - 8, size)


def test_readers_are_forgotten_with_their_files_and_the_oldest_of_too_many(
    files: SpoolFiles, readers: SpoolReaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(files, "a", b".")
    for number in range(5):
        readers.begin(f"reader{number}", made.whole, asked_only=False)
    monkeypatch.setattr(spool_readers, "MOST_BEGUN", 3)
    readers.forget()
    assert {name.split(".")[0] for name in os.listdir(files.root / "begun")} == {"reader2", "reader3", "reader4"}
    made.whole.path.unlink()
    readers.forget()
    assert len(os.listdir(files.root / "begun")) == 3, "who reads now is still told"
    monkeypatch.setattr(spool_readers, "RECENT_S", 0.0)
    readers.forget()
    assert os.listdir(files.root / "begun") == []


def test_room_is_made_by_one_at_a_time(files: SpoolFiles) -> None:
    """Or two would take the same room."""
    with closing((files.root / "lock").open("a")) as lock:
        part = claim(files, "a")
        real, seen = os.write, []

        def write(fd: int, data: bytes) -> int:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                seen.append("free")
            except BlockingIOError:
                seen.append("held")
            return real(fd, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", write)
            part.write(b"data")
    assert seen == ["held"]
