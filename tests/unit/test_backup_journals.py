"""Copies of journals: they follow, and are cut where they have to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.backup.journals import copy_new, put_back, remove_older, rows_behind
from app.pipeline.journal import Journal, Position
from app.pipeline.reader import read
from app.pipeline.records import Entry

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "journal").mkdir()
    return Journal(tmp_path / "journal", ID, 1 << 10)


def entries(*rows: int) -> list[Entry]:
    return [Entry("ticks", 1, count, bytes([count]) * 300) for count in rows]


def rows_of(directory: Path, first: int = 0) -> list[tuple[int, int]]:
    chunk = read(directory, Position(0, 0, first), 1 << 20)
    assert not chunk.damage
    return [(record.first_row, record.rows) for record in chunk.records]


def test_copies_grow_with_their_journal_over_its_segments(journal: Journal, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    for _ in range(5):
        journal.append(entries(2, 3))
        assert copy_new(tmp_path / "journal", copies) > 0
        assert copy_new(tmp_path / "journal", copies) == 0
    live, copied = ({p.name: p.read_bytes() for p in d.glob("*.seg")} for d in (tmp_path / "journal" / ID, copies / ID))
    assert live == copied
    assert len(live) > 1


def test_a_cut_keeps_whole_records_that_were_received_until_then(journal: Journal, tmp_path: Path) -> None:
    written = [journal.append(entries(4)).written[0] for _ in range(6)]
    copies = tmp_path / "copies"
    copy_new(tmp_path / "journal", copies)
    # The third record's last row was received at received_us + 3.
    until_us = written[2].received_us + 3
    [cut] = put_back(copies, tmp_path / "back", {ID: 4}, until_us)
    assert (cut.records, cut.rows, cut.end_row) == (2, 8, 12)
    assert rows_of(tmp_path / "back" / ID, 4) == [(4, 4), (8, 4)]
    [cut] = put_back(copies, tmp_path / "earlier", {}, until_us - 1)
    assert cut.end_row == 8
    [cut] = put_back(copies, tmp_path / "all", {}, None)
    assert cut.rows == 24
    assert rows_of(tmp_path / "all" / ID) == [(4 * n, 4) for n in range(6)]


def test_a_journal_whose_rows_are_all_committed_is_left_out(journal: Journal, tmp_path: Path) -> None:
    journal.append(entries(4, 4))
    copy_new(tmp_path / "journal", tmp_path / "copies")
    assert put_back(tmp_path / "copies", tmp_path / "back", {ID: 8}, None) == []
    assert not (tmp_path / "back" / ID).exists()


def test_a_torn_tail_is_left_out(journal: Journal, tmp_path: Path) -> None:
    journal.append(entries(4, 5))
    copy_new(tmp_path / "journal", tmp_path / "copies")
    [segment] = (tmp_path / "copies" / ID).glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-10])
    [cut] = put_back(tmp_path / "copies", tmp_path / "back", {}, None)
    assert cut.rows == 4


def test_rows_that_a_database_has_not_are_counted(journal: Journal, tmp_path: Path) -> None:
    live = tmp_path / "journal"
    for _ in range(3):
        journal.append([*entries(4, 5), Entry("system_metrics", 1, 1, b"own")])
    assert len(list(live.glob("*/*.seg"))) > 1
    assert [rows_behind(live, known) for known in ({}, {ID: 4}, {ID: 11}, {ID: 30})] == [27, 23, 17, 0]
    assert rows_behind(tmp_path / "none", {}) == 0


def test_old_copies_go(journal: Journal, tmp_path: Path) -> None:
    journal.append(entries(4))
    copies = tmp_path / "copies"
    copy_new(tmp_path / "journal", copies)
    assert remove_older(copies, 0) == 0
    assert remove_older(copies, 1 << 60) == 1
    assert not (copies / ID).exists()
