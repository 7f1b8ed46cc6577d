"""Books: a few numbers a journal, in a small memory-mapped file that its owner alone writes and everybody reads.

They survive a killed process (the pages are the kernel's), so `/stats` adds up dead workers' too. The server's
start wipes them: they count one server's life. The truth about rows is the ledger; books are what is shown.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

SUFFIX = ".book"


class Book:
    """Named int64 numbers in a file. One process writes (`create=True`); each write is one aligned store."""

    def __init__(self, path: Path, fields: Sequence[str], *, create: bool) -> None:
        self.path = path
        self._index = {name: i for i, name in enumerate(fields)}
        size = 8 * len(fields)
        fd = os.open(path, (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) | os.O_CLOEXEC, 0o600)
        try:
            there = os.fstat(fd).st_size
            if there < size:
                if not create:
                    raise FileNotFoundError(path)
                # Written, not truncated to size: a hole that a full disk cannot fill kills who writes to it (SIGBUS).
                os.pwrite(fd, bytes(size - there), there)
            self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ | (mmap.PROT_WRITE if create else 0))
        finally:
            os.close(fd)
        self._numbers = memoryview(self._map).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._numbers[self._index[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self._numbers[self._index[name]] = value

    def add(self, name: str, value: int = 1) -> None:
        """Add to a number."""
        self._numbers[self._index[name]] += value

    def close(self) -> None:
        """Unmap the file; it stays."""
        self._numbers.release()
        self._map.close()


class Shelf:
    """All the books of one kind in a directory, opened for reading as they appear."""

    def __init__(self, directory: Path, fields: Sequence[str]) -> None:
        self.directory = directory
        self.fields = tuple(fields)
        self._open: dict[str, Book] = {}

    def refresh(self) -> None:
        """Look for books that appeared or went; while the directory itself is gone, keep those that are open.

        A server that is started where another's workers still end wipes and makes it anew.
        """
        try:
            names = {entry.name for entry in os.scandir(self.directory) if entry.name.endswith(SUFFIX)}
        except FileNotFoundError:
            return
        for gone in self._open.keys() - names:
            self._open.pop(gone).close()
        for name in names - self._open.keys():
            try:
                self._open[name] = Book(self.directory / name, self.fields, create=False)
            except FileNotFoundError:
                continue  # just being made, or just removed: the next look finds out

    def changed_ns(self) -> int:
        """Return when books last came or went, nanoseconds; 0 while the directory is being made anew."""
        try:
            return os.stat(self.directory).st_mtime_ns
        except FileNotFoundError:
            return 0

    def books(self) -> Iterable[Book]:
        """Return the books as of the last refresh."""
        return self._open.values()

    def total(self, name: str) -> int:
        """Return the sum of one number over all books."""
        return sum(book[name] for book in self._open.values())


JOURNAL_FIELDS = (
    "owner_pid",
    "disk_bytes",  # the journal's segments
    "end_row",  # behind the last acknowledged row
    "received",  # rows accepted since the server's start; rows left in journals then count too
    "stored",
    "duplicates",
    "set_aside",
    "skipped",
    "lost",
    "baseline_set",  # 1 once the base_* below are known
    "base_stored",  # the ledger's numbers when this server's life first saw the journal
    "base_duplicates",
    "base_set_aside",
    "base_skipped",
    "base_lost",
    "collected",  # of `received`: what the server itself collected
    "collected_done",  # the part of it that is processed
    "flushes",
    "last_flush_us",
)


def journal_book(directory: Path, journal_id: str) -> Book:
    """Open a journal's book for writing; only the owner of the journal's lock may."""
    return Book(directory / f"{journal_id}{SUFFIX}", JOURNAL_FIELDS, create=True)


MARK_FIELDS = ("next_row",)


def journal_mark(directory: Path) -> Book:
    """Open the mark in a journal's own directory: how far its owner saw the ledger get.

    Only a hint that outlives the server: the ledger decides. It tells what waits while the database is away.
    """
    return Book(directory / "mark", MARK_FIELDS, create=True)
