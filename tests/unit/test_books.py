"""Books: numbers that outlive their writer, read by everybody."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.pipeline.books import JOURNAL_FIELDS, Book, Shelf, journal_book, journal_mark

ROOT = Path(__file__).resolve().parents[2]


def test_numbers_are_read_by_others_as_soon_as_they_are_written(tmp_path: Path) -> None:
    mine = Book(tmp_path / "a.book", ("rows", "bytes"), create=True)
    theirs = Book(tmp_path / "a.book", ("rows", "bytes"), create=False)
    mine["rows"] = -(2**63)
    mine["bytes"] = 2**62
    mine.add("bytes", 2**62 - 1)
    mine.add("rows")
    assert (theirs["rows"], theirs["bytes"]) == (1 - 2**63, 2**63 - 1)
    mine.close()
    theirs.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Book(tmp_path / "a.book", ("rows",), create=True).close()
    theirs = Book(tmp_path / "a.book", ("rows",), create=False)
    with pytest.raises(TypeError):
        theirs["rows"] = 1
    theirs.close()


def test_a_book_opened_again_goes_on_counting(tmp_path: Path) -> None:
    book = Book(tmp_path / "a.book", ("rows",), create=True)
    book.add("rows", 7)
    book.close()
    again = Book(tmp_path / "a.book", ("rows",), create=True)
    again.add("rows", 1)
    assert again["rows"] == 8
    again.close()


def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from app.pipeline.books import journal_book\n"
        "book = journal_book(Path(sys.argv[1]), 'ab' * 16); book['received'] = 12345\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    shelf = Shelf(tmp_path, JOURNAL_FIELDS)
    shelf.refresh()
    assert shelf.total("received") == 12345


def test_a_shelf_adds_up_the_books_that_come_and_go(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, JOURNAL_FIELDS)
    shelf.refresh()
    assert shelf.total("stored") == 0
    books = [journal_book(tmp_path, f"{number:032x}") for number in range(3)]
    for number, book in enumerate(books):
        book["stored"] = 10**number
    (tmp_path / "notes.txt").write_text("no book")
    (tmp_path / "half.book").write_bytes(b"\0" * 8)  # one that is just being made
    shelf.refresh()
    assert shelf.total("stored") == 111
    books[0].path.unlink()
    books[2].add("stored", 1)
    shelf.refresh()
    assert shelf.total("stored") == 111
    assert len(list(shelf.books())) == 2


def test_a_shelf_keeps_its_books_while_the_next_server_tidies_the_directory(tmp_path: Path) -> None:
    """The master was killed and started again: its workers still answer while the new one wipes the run directory."""
    book = Book(tmp_path / "a.book", JOURNAL_FIELDS, create=True)
    book["received"] = 7
    shelf = Shelf(tmp_path, JOURNAL_FIELDS)
    shelf.refresh()
    assert shelf.changed_ns() > 0
    shutil.rmtree(tmp_path)
    assert shelf.changed_ns() == 0
    shelf.refresh()
    assert shelf.total("received") == 7
    tmp_path.mkdir()
    shelf.refresh()
    assert shelf.total("received") == 0


def test_a_book_that_is_not_there_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Book(tmp_path / "none.book", ("rows",), create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda d: journal_book(d, "ab" * 16), journal_mark])
def test_a_book_has_its_place_on_disk_before_it_is_used(tmp_path: Path, make) -> None:
    """A hole that a full disk cannot fill kills who writes to it through memory: SIGBUS."""
    book = make(tmp_path)
    try:
        assert os.stat(book.path).st_blocks * 512 >= os.stat(book.path).st_size
    finally:
        book.close()
