"""Journals without an owner are taken over and drained; what is committed is kept a while, then removed.

Greenlet side, but for the functions that say otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import gevent

from app.lanes import Lane
from app.pipeline import journal, reader
from app.pipeline.books import Book, journal_book
from app.pipeline.flusher import Flusher, Source
from app.pipeline.ingest import Ingest
from app.pipeline.window import MemoryBudget, Window

SCAN_INTERVAL_S = 2.0
"""How soon a dead worker's journal is found."""

KEEP_SHARE = 0.5
"""Committed segments are kept for journal_keep_s only while the journals take less than this share of their bound."""

_JOURNAL = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger("tickhub")


@dataclass(slots=True)
class Orphan:
    """A journal whose lock was just taken."""

    directory: Path
    lock_fd: int
    end_row: int
    disk_bytes: int


@dataclass(slots=True)
class Freed:
    """Segments that were removed."""

    segments: int = 0
    size_bytes: int = 0
    gone: bool = False


@dataclass(slots=True)
class _Held:
    source: Source
    lock_fd: int
    book: Book = field(init=False)

    def __post_init__(self) -> None:
        self.book = self.source.book


def take_orphans(root: Path, held: frozenset[str]) -> tuple[list[Orphan], list[str]]:
    """Take the lock of every journal that nobody owns; return them, and what kept others from it. Lane side.

    A journal that cannot be read keeps no other from being taken, and its lock free.
    """
    found, trouble = [], []
    for entry in os.scandir(root):
        # Others may put things here: lost+found is in the root of every disk.
        if not _JOURNAL.fullmatch(entry.name) or entry.name in held:
            continue
        directory = Path(entry.path)
        try:
            fd = journal.acquire(directory)
        except FileNotFoundError:
            # Being removed by its owner, or left half removed by one that died there.
            with contextlib.suppress(OSError):
                directory.rmdir()
            continue
        except OSError as error:
            trouble.append(f"journal {entry.name} cannot be taken over: {error}")
            continue
        if fd is None:
            continue
        try:
            found.append(Orphan(directory, fd, reader.end_row(directory), journal.disk_bytes(directory)))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one journal, the others are drained
            os.close(fd)
            trouble.append(f"journal {entry.name} cannot be read: {error}")
    return found, trouble


def free(directory: Path, committed_row: int, end_row: int, older_than: float, need_bytes: int, *, own: bool) -> Freed:
    """Remove segments whose rows are all committed, oldest first. Lane side.

    Those last written before `older_than` (seconds since 1970), and younger ones until `need_bytes` are free. The
    last segment of the own journal stays: it is being written. When nothing is left of another's, its directory goes.
    """
    freed = Freed()
    try:
        names = journal.segments(directory)
    except FileNotFoundError:
        if own:
            raise  # somebody removed it under us: that must be told
        return Freed(gone=True)
    for index, first in enumerate(names):
        end = names[index + 1] if index + 1 < len(names) else None
        path = journal.segment_path(directory, first)
        if end is None and (own or end_row > committed_row):
            break
        if end is not None and end > committed_row:
            break
        stat = path.stat()
        if stat.st_mtime > older_than and freed.size_bytes >= need_bytes:
            break
        path.unlink()
        freed.segments += 1
        freed.size_bytes += stat.st_size
    if not own and not journal.segments(directory):
        for name in ("mark", "lock"):
            (directory / name).unlink(missing_ok=True)
        # Who finds it without a lock removes it too: see take_orphans.
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()
        freed.gone = True
    return freed


class Recovery:
    """Looks for journals without an owner, and frees what is done, every few seconds."""

    def __init__(
        self,
        root: Path,
        books: Path,
        ingest: Ingest,
        flusher: Flusher,
        budget: MemoryBudget,
        *,
        files_lane: Lane,
        keep_s: float,
        journal_max_bytes: int,
        pid: int,
    ) -> None:
        self._root = root
        self._books = books
        self._ingest = ingest
        self._flusher = flusher
        self._budget = budget
        self._lane = files_lane
        self._keep_s = keep_s
        self._max_bytes = journal_max_bytes
        self._pid = pid
        self._held: dict[str, _Held] = {}
        self._told: set[str] = set()

    def run(self) -> None:
        """Scan for ever; to be spawned as a greenlet."""
        while True:
            try:
                self.scan()
            except Exception:
                # The journals stay where they are; the next round tries again.
                log.exception("looking for journals failed")
            gevent.sleep(SCAN_INTERVAL_S)

    def scan(self) -> None:
        """Take over what is unowned, free what is done; trouble with one journal is logged once."""
        own = self._ingest.source
        held = frozenset({own.journal_id, *self._held})
        orphans, trouble = self._lane.call(take_orphans, self._root, held)
        for orphan in orphans:
            try:
                self._adopt(orphan)
            except OSError as error:
                # Kept, the lock would keep everybody from this journal, us too.
                os.close(orphan.lock_fd)
                trouble.append(f"journal {orphan.directory.name} cannot be taken over: {error}")
        # Two reserves: freed up to one, the next batch would fill it again.
        short = self._lane.call(journal.shortage_bytes, self._root, 2)
        for source in (own, *(held.source for held in list(self._held.values()))):
            try:
                self._free(source, short)
            except OSError as error:
                trouble.append(f"journal {source.journal_id} cannot be freed: {error}")
        for line in trouble:
            if line not in self._told:
                log.error("[ERROR] %s", line)
        self._told = set(trouble)

    def close(self) -> None:
        """Give up the journals; whoever comes next takes them."""
        for held in self._held.values():
            os.close(held.lock_fd)
        self._held.clear()

    def _adopt(self, orphan: Orphan) -> None:
        book = journal_book(self._books, orphan.directory.name)
        end_row = max(orphan.end_row, book["end_row"])
        book["owner_pid"] = self._pid
        book["disk_bytes"] = orphan.disk_bytes
        book["end_row"] = end_row
        window = Window(orphan.directory, self._lane.call, self._budget)
        source = Source(orphan.directory, window, book, own=False)
        source.open_left_over(end_row)
        self._held[source.journal_id] = _Held(source, orphan.lock_fd)
        self._flusher.sources.append(source)
        self._flusher.poke(source)
        log.info("took over journal %s (%d rows, %d bytes)", source.journal_id, end_row, orphan.disk_bytes)

    def _free(self, source: Source, short_bytes: int) -> None:
        entry = source.entry
        if entry is None:
            return
        over = self._ingest.disk_bytes() - int(self._max_bytes * KEEP_SHARE)
        freed = self._lane.call(
            free,
            source.directory,
            entry.next_row,
            source.window.end_row,
            time.time() - self._keep_s,
            max(0, over, short_bytes),
            own=source.own,
        )
        source.book.add("disk_bytes", -freed.size_bytes)
        if freed.gone:
            held = self._held.pop(source.journal_id)
            self._flusher.sources.remove(source)
            source.close()
            source.book["disk_bytes"] = 0
            os.close(held.lock_fd)
