"""The journal on disk: what was acknowledged is read back, whatever happened to the rest."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.market.batches import Record
from app.pipeline import journal as journals
from app.pipeline import reader
from app.pipeline.journal import Journal, Position, acquire, segment_path, segments
from app.pipeline.reader import read, start_at
from app.pipeline.records import HEAD_BYTES, SEGMENT, Entry, SegmentHead, pack, unpack_head

ROOT = Path(__file__).resolve().parents[2]
BIG = 1 << 30
A = "a1" * 16
B = "b2" * 16


def entry(rows: int = 3, size: int = 20, mark: int = 0) -> Entry:
    return Entry("ticks", 1, rows, bytes((mark * 31 + i * 7) % 251 for i in range(size)))


@dataclass
class Told:
    """All that reading a journal tells; rows that are not there lie before the record they are told with."""

    records: list[Record]
    skipped: int
    lost: int
    damage: list[str]
    end: Position

    @property
    def payloads(self) -> list[bytes]:
        return [record.payload for record in self.records]


def read_all(directory: Path, start: Position, max_bytes: int = BIG, stop: Position | None = None) -> Told:
    """Read to the end and check that every row is accounted for, in every chunk."""
    told = Told([], 0, 0, [], start)
    row, skipped, lost = start.row, 0, 0
    while True:
        chunk = read(directory, told.end, max_bytes, stop)
        for record in chunk.records:
            record = replace(
                record,
                skipped_before=record.skipped_before + skipped,
                lost_before=record.lost_before + lost,
            )
            assert row + record.skipped_before + record.lost_before == record.first_row
            told.skipped += record.skipped_before
            told.lost += record.lost_before
            row, skipped, lost = record.end_row, 0, 0
            told.records.append(record)
        skipped, lost = skipped + chunk.skipped, lost + chunk.lost
        assert row + skipped + lost == chunk.next.row
        assert chunk.at_end or chunk.next > told.end, "reading must go on"
        told.damage += chunk.damage
        told.end = chunk.next
        if chunk.at_end:
            told.skipped += skipped
            told.lost += lost
            return told


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine crashes here, so the kernel's memory is durable enough."""
    monkeypatch.setattr(journals.os, "fdatasync", lambda fd: None)
    monkeypatch.setattr(journals.os, "fsync", lambda fd: None)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path, A, BIG)
    yield made
    made.close()


def beginning(directory: Path) -> Position:
    return start_at(directory, 0)


def spans(directory: Path) -> list[tuple[int, int, int, Record]]:
    """Return (segment, offset, size, record) of every record of an undamaged journal, heads of segments too."""
    found = []
    tag = journals.tag_of(directory.name)
    for first in segments(directory):
        data, at = segment_path(directory, first).read_bytes(), 0
        while at < len(data):
            head = unpack_head(data, at, tag)
            assert head is not None
            size = head[1] - at + head[2]
            found.append((first, at, size, head[0]))
            at += size
    return found


def damage(directory: Path, segment: int, offset: int, junk: bytes) -> None:
    with open(segment_path(directory, segment), "r+b") as file:
        file.seek(offset)
        file.write(junk)


def flip(directory: Path, segment: int, offset: int) -> None:
    with open(segment_path(directory, segment), "r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x5A]))


# ---- what goes in comes out


def test_records_come_back_as_they_were_written_and_numbered(journal: Journal) -> None:
    first = journal.append([entry(3, 20, 1), Entry("trades", 7, 1, b"")])
    second = journal.append([entry(2, 5, 2)])
    assert [w.first_row for w in first.written + second.written] == [0, 3, 4]
    assert second.tail.row == 6
    told = read_all(journal.directory, beginning(journal.directory), stop=second.tail)
    assert [(r.dataset, r.layout, r.rows, r.first_row) for r in told.records] == [
        ("ticks", 1, 3, 0),
        ("trades", 7, 1, 3),
        ("ticks", 1, 2, 4),
    ]
    assert told.payloads == [entry(3, 20, 1).payload, b"", entry(2, 5, 2).payload]
    assert [r.received_us for r in told.records] == [w.received_us for w in [*first.written, *second.written]]
    assert (told.skipped, told.lost, told.damage, told.end) == (0, 0, [], second.tail)


def test_a_record_lies_where_its_append_said(journal: Journal) -> None:
    appended = journal.append([entry(mark=n) for n in range(4)])
    for number, written in enumerate(appended.written):
        told = read_all(journal.directory, written.position, stop=appended.tail)
        assert told.payloads == [entry(mark=n).payload for n in range(number, 4)]


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(
        st.lists(st.tuples(st.integers(1, 9), st.integers(0, 300)), min_size=1, max_size=4), max_size=8
    ),
    segment_bytes=st.sampled_from([1, 200, 600, BIG]),
    max_bytes=st.sampled_from([1, 100, 500]),
)
def test_reading_in_small_pieces_equals_reading_at_once_from_any_record_on(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[tuple[int, int]]],
    segment_bytes: int,
    max_bytes: int,
) -> None:
    made = Journal(tmp_path_factory.mktemp("j"), A, segment_bytes)
    try:
        sent = [
            [entry(rows, size, g * 10 + i) for i, (rows, size) in enumerate(group)]
            for g, group in enumerate(groups)
        ]
        for group in sent:
            made.append(group)
        flat = [e for group in sent for e in group]
        everything = read_all(made.directory, beginning(made.directory))
        assert everything.payloads == [e.payload for e in flat]
        row = 0
        for number, e in enumerate([*flat, None]):
            for stop in (None, made.tail()):
                told = read_all(made.directory, start_at(made.directory, row), max_bytes, stop)
                assert told.records == everything.records[number:]
                assert (told.lost, told.skipped, told.damage) == (0, 0, [])
            row += e.rows if e else 0
        assert reader.end_row(made.directory) == sum(e.rows for e in flat)
    finally:
        made.close()


def test_nothing_behind_the_stop_is_read(tmp_path: Path) -> None:
    for segment_bytes in (BIG, 1):
        made = Journal(tmp_path, uuid.uuid4().hex, segment_bytes)
        tails = [made.append([entry(mark=n)]).tail for n in range(4)]
        for number, tail in enumerate(tails):
            told = read_all(made.directory, beginning(made.directory), stop=tail)
            assert told.payloads == [entry(mark=n).payload for n in range(number + 1)]
            assert told.end == tail
        made.close()


def test_times_of_receipt_rise_with_every_row_though_the_clock_stands_still_or_goes_back(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_700_000_000_000_000_000]
    monkeypatch.setattr(journals.time, "time_ns", lambda: clock[0])
    taken: list[int] = []
    for rows, step_ns in ((5, 0), (1, 0), (4, -10_000_000), (2, 10**9), (3, -(10**9))):
        for written in journal.append([entry(rows), entry(1)]).written:
            assert not taken or written.received_us > taken[-1]
            taken.append(written.received_us)
        taken[-1] += 0  # one row in the second entry: its own time is its last
        clock[0] += step_ns
    told = read_all(journal.directory, beginning(journal.directory))
    times = [r.received_us + i for r in told.records for i in range(r.rows)]
    assert all(b > a for a, b in pairwise(times))


# ---- the lock


def test_a_journal_belongs_to_one_until_it_is_closed(journal: Journal) -> None:
    assert acquire(journal.directory) is None
    second = Journal(journal.directory.parent, B, BIG)
    second.close()
    taken = acquire(second.directory)
    assert taken is not None
    assert acquire(second.directory) is None
    os.close(taken)


def test_a_journal_is_owned_before_anybody_can_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    rename = Path.rename

    def look_first(self: Path, target: Path) -> Path:
        seen.append((self / "lock").exists() and acquire(self) is None and self.name.startswith("."))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look_first)
    Journal(tmp_path, A, BIG).close()
    assert seen == [True]


def test_a_journal_that_is_removed_between_open_and_lock_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Journal(tmp_path, A, BIG)
    made.close()
    flock = journals.fcntl.flock

    def remove_first(fd: int, operation: int) -> None:
        (made.directory / "lock").unlink()
        flock(fd, operation)

    monkeypatch.setattr(journals.fcntl, "flock", remove_first)
    assert acquire(made.directory) is None
    with pytest.raises(FileNotFoundError):
        acquire(made.directory)


# ---- writes that fail


class FullDisk:
    """Lets `free` more bytes through, a part of a write too, and as many syncs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes = BIG
        self.free_syncs = BIG
        self.truncates = True
        write, truncate = os.write, os.ftruncate
        sync = journals.sync_file

        def limited(fd: int, data: bytes | memoryview) -> int:
            if not self.free_bytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            done = write(fd, data[: self.free_bytes])
            self.free_bytes -= done
            return done

        def synced(fd: int) -> None:
            if not self.free_syncs:
                raise OSError(errno.EIO, "Input/output error")
            self.free_syncs -= 1
            sync(fd)

        def truncated(fd: int, size: int) -> None:
            if not self.truncates:
                raise OSError(errno.EIO, "Input/output error")
            truncate(fd, size)

        monkeypatch.setattr(journals.os, "write", limited)
        monkeypatch.setattr(journals, "sync_file", synced)
        monkeypatch.setattr(journals.os, "ftruncate", truncated)

    def is_empty_again(self) -> None:
        self.free_bytes = self.free_syncs = BIG
        self.truncates = True


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


RECORD_BYTES = HEAD_BYTES + len("ticks") + 20


@pytest.mark.parametrize("truncates", [True, False], ids=["truncated", "torn bytes stay"])
@pytest.mark.parametrize(
    "free", [0, 1, 4, HEAD_BYTES, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 9, "sync"]
)
def test_a_write_that_fails_is_void_and_the_next_one_is_not(
    journal: Journal, disk: FullDisk, free: int | str, truncates: bool
) -> None:
    journal.append([entry(mark=1)])
    disk.truncates = truncates
    if free == "sync":
        disk.free_syncs = 0
    else:
        disk.free_bytes = int(free)
    with pytest.raises(OSError):
        journal.append([entry(4, mark=2), entry(5, mark=3)])
    failed_tail = journal.tail()
    assert failed_tail.row == 3
    told = read_all(journal.directory, beginning(journal.directory), stop=failed_tail)
    assert (told.payloads, told.skipped, told.lost) == ([entry(mark=1).payload], 0, 0)

    disk.is_empty_again()
    appended = journal.append([entry(2, mark=4)])
    assert appended.written[0].first_row == 12, "the numbers 3 to 11 were used"
    assert appended.tail.row == 14
    for max_bytes in (1, BIG):
        for stop in (appended.tail, None):
            told = read_all(journal.directory, beginning(journal.directory), max_bytes, stop)
            assert told.payloads == [entry(mark=1).payload, entry(mark=4).payload]
            assert (told.skipped, told.lost) == (9, 0)
    assert reader.end_row(journal.directory) == 14


def test_the_next_segments_head_says_what_is_void(journal: Journal, disk: FullDisk) -> None:
    journal.append([entry(3)])
    disk.free_syncs = 0
    with pytest.raises(OSError):
        journal.append([entry(7)])
    disk.is_empty_again()
    journal.append([entry(1)])
    assert segments(journal.directory) == [0, 10]
    data = segment_path(journal.directory, 10).read_bytes()
    found = unpack_head(data, 0, journals.tag_of(A))
    assert found is not None
    assert found[0].dataset == SEGMENT
    head = msgspec.json.decode(data[found[1] : found[1] + found[2]], type=SegmentHead)
    assert head == SegmentHead(A, first_row=10, previous_end_row=3)


def test_writes_that_fail_again_and_again_leave_no_segments_and_reuse_no_numbers(
    journal: Journal, disk: FullDisk
) -> None:
    journal.append([entry(1, mark=1)])
    for free_bytes in (0, 30, 90, 200, 0):
        disk.free_bytes = free_bytes
        with pytest.raises(OSError):
            journal.append([entry(10, 400)])
    disk.is_empty_again()
    appended = journal.append([entry(1, mark=2)])
    told = read_all(journal.directory, beginning(journal.directory))
    assert told.payloads == [entry(mark=1).payload, entry(mark=2).payload]
    assert told.lost == 0
    assert told.skipped == appended.written[0].first_row - 1
    assert told.skipped >= 10


def test_a_segment_that_cannot_be_begun_is_removed(
    tmp_path: Path, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Journal(tmp_path, A, 1)

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for attempt in ("write", "sync", "directory"):
        disk.free_bytes = 10 if attempt == "write" else BIG
        disk.free_syncs = 0 if attempt == "sync" else BIG
        with monkeypatch.context() as patch:
            if attempt == "directory":
                patch.setattr(journals, "sync_directory", fail)
            with pytest.raises(OSError):
                made.append([entry()])
        assert segments(made.directory) == []
    disk.is_empty_again()
    assert made.append([entry()]).written[0].first_row == 0
    made.close()


def test_a_real_limit_of_the_file_size_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """The kernel itself cuts the writes short (EFBIG, as a full disk would by ENOSPC)."""
    code = """
import json, resource, sys
from pathlib import Path
from app.pipeline.journal import Journal
from app.pipeline.records import Entry
made = Journal(Path(sys.argv[1]), sys.argv[2], 1 << 30)
resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
told = []
for number in range(40):
    try:
        written = made.append([Entry("ticks", 1, 2, bytes([number]) * 90)]).written[0]
        told.append([number, written.first_row])
    except OSError as error:
        told.append([number, None])
print(json.dumps(told))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), A],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = json.loads(run.stdout)
    acknowledged = [(number, row) for number, row in told if row is not None]
    assert 0 < len(acknowledged) < 40
    found = read_all(tmp_path / A, beginning(tmp_path / A))
    assert [(r.payload[0], r.first_row) for r in found.records] == acknowledged
    assert found.lost == 0
    assert found.skipped == 2 * sum(1 for number, row in told if row is None and number < acknowledged[-1][0])


# ---- damage


def a_journal(root: Path, *, segment_bytes: int = BIG, records: int = 6, journal_id: str = A) -> Path:
    made = Journal(root, journal_id, segment_bytes)
    for number in range(records):
        made.append([entry(number + 1, 40 + number, number)])
    made.close()
    return made.directory


REGIONS: dict[str, Callable[[int], Iterable[int]]] = {
    "magic": lambda size: range(4),
    "crc of the head": lambda size: range(4, 8),
    "head": lambda size: range(8, HEAD_BYTES),
    "name": lambda size: range(HEAD_BYTES, HEAD_BYTES + 5),
    "payload": lambda size: range(HEAD_BYTES + 5, size),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("segment_bytes", [BIG, 1], ids=["one segment", "a segment a record"])
def test_a_damaged_byte_costs_its_record_and_no_other(
    tmp_path: Path, region: str, segment_bytes: int
) -> None:
    directory = a_journal(tmp_path, segment_bytes=segment_bytes)
    sound = read_all(directory, beginning(directory)).records
    for segment, offset, size, record in spans(directory):
        if record.dataset == SEGMENT or record.end_row == sound[-1].end_row:
            continue
        for byte in REGIONS[region](size):
            flip(directory, segment, offset + byte)
            for max_bytes in (1, BIG):
                told = read_all(directory, beginning(directory), max_bytes)
                assert told.payloads == [r.payload for r in sound if r.first_row != record.first_row]
                assert (told.lost, told.skipped) == (record.rows, 0)
                assert told.damage, "damage must be named"
            flip(directory, segment, offset + byte)


def test_a_damaged_last_record_of_a_dead_journal_is_an_unfinished_write_and_of_a_living_one_is_lost(
    tmp_path: Path,
) -> None:
    """Only who knows where the journal ended can tell the two apart."""
    directory = a_journal(tmp_path)
    tail = read_all(directory, beginning(directory)).end
    segment, offset, size, last = spans(directory)[-1]
    for byte in range(size):
        flip(directory, segment, offset + byte)
        told = read_all(directory, beginning(directory))
        assert (len(told.records), told.lost, told.skipped) == (5, 0, 0)
        assert told.damage
        assert reader.end_row(directory) == last.first_row
        told = read_all(directory, beginning(directory), stop=tail)
        assert (len(told.records), told.lost, told.skipped) == (5, last.rows, 0)
        flip(directory, segment, offset + byte)


def test_a_torn_tail_is_left_out_wherever_it_is_torn(tmp_path: Path) -> None:
    directory = a_journal(tmp_path)
    segment, offset, size, last = spans(directory)[-1]
    for cut in reversed(range(offset, offset + size)):
        os.truncate(segment_path(directory, segment), cut)
        told = read_all(directory, beginning(directory))
        assert (len(told.records), told.lost, told.skipped) == (5, 0, 0)
        assert told.end.row == reader.end_row(directory) == last.first_row
        assert bool(told.damage) == (cut > offset)


def test_a_damaged_head_of_a_segment_costs_none_of_its_records(tmp_path: Path) -> None:
    directory = a_journal(tmp_path, segment_bytes=150)
    heads = [span for span in spans(directory) if span[3].dataset == SEGMENT]
    assert len(heads) > 2
    for segment, offset, size, _ in heads:
        for byte in range(size):
            flip(directory, segment, offset + byte)
            told = read_all(directory, beginning(directory))
            assert (len(told.records), told.lost, told.skipped) == (6, 0, 0)
            flip(directory, segment, offset + byte)


def test_void_numbers_behind_a_damaged_head_are_still_accounted_for(journal: Journal, disk: FullDisk) -> None:
    journal.append([entry(3, mark=1)])
    disk.free_bytes = 0
    with pytest.raises(OSError):
        journal.append([entry(4)])
    disk.is_empty_again()
    journal.append([entry(2, mark=2)])
    flip(journal.directory, 7, 20)
    told = read_all(journal.directory, beginning(journal.directory))
    assert told.payloads == [entry(mark=1).payload, entry(mark=2).payload]
    assert told.skipped + told.lost == 4


@pytest.mark.parametrize("missing", [0, 1, 2, 5])
def test_a_missing_segment_costs_exactly_its_rows(tmp_path: Path, missing: int) -> None:
    directory = a_journal(tmp_path, segment_bytes=1)
    records = read_all(directory, beginning(directory)).records
    tail = read_all(directory, beginning(directory)).end
    segment_path(directory, segments(directory)[missing]).unlink()
    for stop in (tail, None):
        told = read_all(directory, beginning(directory), 1, stop)
        assert told.payloads == [r.payload for n, r in enumerate(records) if n != missing]
        is_last = missing == 5
        assert told.lost == (0 if is_last and stop is None else records[missing].rows)
        assert told.skipped == 0


def test_an_unreadable_segment_is_trouble_and_not_a_loss(tmp_path: Path) -> None:
    directory = a_journal(tmp_path, segment_bytes=1)
    path = segment_path(directory, segments(directory)[2])
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        read_all(directory, beginning(directory))


def test_stale_bytes_of_another_journal_are_never_taken_for_records(tmp_path: Path) -> None:
    """A crashed file system may leave blocks of an old file in a new one."""
    directory = a_journal(tmp_path)
    stale = a_journal(tmp_path, journal_id=B)
    old = segment_path(stale, 0).read_bytes()
    segment, offset, size, record = spans(directory)[3]
    data = segment_path(directory, segment).read_bytes()
    for at, replaced in ((offset, size), (len(data), 0), (offset, 0)):
        segment_path(directory, segment).write_bytes(data[:at] + old + data[at + replaced :])
        told = read_all(directory, beginning(directory))
        assert len(told.records) == (5 if replaced else 6)
        assert told.lost == (record.rows if replaced else 0)
        assert told.damage


def test_a_long_stretch_of_damage_is_crossed(tmp_path: Path) -> None:
    """Longer than what is searched at a time, with the next record across the border."""
    made = Journal(tmp_path, A, BIG)
    made.append([entry(1, mark=1)])
    spoiled = made.append([entry(5, (1 << 20) + 3)]).written[0]
    made.append([entry(2, mark=2)])
    made.close()
    for shift in (0, 1, HEAD_BYTES - 1, 45, 60):
        damage(made.directory, 0, spoiled.position.offset + shift, b"\0" * 100)
        told = read_all(made.directory, beginning(made.directory))
        assert told.payloads == [entry(mark=1).payload, entry(mark=2).payload]
        assert told.lost == 5


def test_a_payload_full_of_magic_words_is_searched_to_its_end(tmp_path: Path) -> None:
    made = Journal(tmp_path, A, BIG)
    inner = pack(entry(1, 10), 1, 0, journals.tag_of(B))
    spoiled = made.append([Entry("ticks", 1, 4, (b"TKJ1" * 50 + inner) * 3)]).written[0]
    made.append([entry(2, mark=2)])
    made.close()
    flip(made.directory, 0, spoiled.position.offset + 3)
    told = read_all(made.directory, beginning(made.directory))
    assert (told.payloads, told.lost) == ([entry(mark=2).payload], 4)


@pytest.mark.long
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    segment_bytes=st.sampled_from([1, 150, 400, BIG]),
    spots=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 200)), min_size=1, max_size=4),
    max_bytes=st.sampled_from([1, 120, BIG]),
    stopped=st.booleans(),
)
@example(segment_bytes=1, spots=[(0.0, 200)], max_bytes=1, stopped=True)
def test_any_damage_costs_only_what_it_touches_and_every_row_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    segment_bytes: int,
    spots: Sequence[tuple[float, int]],
    max_bytes: int,
    stopped: bool,
) -> None:
    directory = a_journal(tmp_path_factory.mktemp("d"), segment_bytes=segment_bytes, records=8)
    found = read_all(directory, beginning(directory))
    everywhere = [(first, at) for first, at, size, _ in spans(directory) for at in range(at, at + size)]
    touched = set()
    for where, length in spots:
        begin = int(where * (len(everywhere) - 1))
        for segment, offset in everywhere[begin : begin + length]:
            if (segment, offset) not in touched:
                touched.add((segment, offset))
                flip(directory, segment, offset)
    whole = [
        record.first_row
        for segment, offset, size, record in _spans_before(everywhere, found, directory, touched)
        if record.dataset != SEGMENT
        and not any((segment, at) in touched for at in range(offset, offset + size))
    ]
    told = read_all(directory, beginning(directory), max_bytes, found.end if stopped else None)
    assert [r.first_row for r in told.records] == whole
    assert told.skipped == 0
    assert told.damage or len(whole) == 8
    if stopped:
        assert told.lost == 36 - sum(r.rows for r in told.records)


def _spans_before(
    everywhere: list[tuple[int, int]], found: Told, directory: Path, touched: set[tuple[int, int]]
) -> list[tuple[int, int, int, Record]]:
    """Return the spans as they were: undo the damage, look, and do it again."""
    for segment, offset in touched:
        flip(directory, segment, offset)
    try:
        return spans(directory)
    finally:
        for segment, offset in touched:
            flip(directory, segment, offset)


# ---- where a dead journal ends


def test_a_journal_without_rows_ends_at_its_beginning(tmp_path: Path) -> None:
    made = Journal(tmp_path, A, BIG)
    made.close()
    assert reader.end_row(made.directory) == 0
    assert read_all(made.directory, beginning(made.directory)).end.row == 0


@pytest.mark.parametrize("head", [b"", b"TKJ1", None], ids=["empty", "torn", "whole"])
def test_a_death_while_a_segment_is_begun_loses_no_rows(
    tmp_path: Path, disk: FullDisk, head: bytes | None
) -> None:
    """Rows of a failed write were never acknowledged: they are void, not lost, also when the next segment was
    never finished."""
    made = Journal(tmp_path, A, BIG)
    made.append([entry(3)])
    disk.free_bytes = 0
    with pytest.raises(OSError):
        made.append([entry(50)])
    disk.is_empty_again()
    made.append([entry(2)])
    made.close()
    path = segment_path(made.directory, 53)
    whole = next(size for first, _, size, r in spans(made.directory) if first == 53 and r.dataset == SEGMENT)
    path.write_bytes(path.read_bytes()[:whole] if head is None else head)
    told = read_all(made.directory, beginning(made.directory))
    assert (len(told.records), told.lost) == (1, 0)
    assert told.end.row == reader.end_row(made.directory) == (53 if head is None else 3)
