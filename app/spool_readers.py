"""Who reads which file in pieces, remembered so that a reader sees one state of the rows. Lane side, pure.

    <root>/begun/<reader>.<begun>.<how>    a link to the file that a reader began to read

A reader is whoever asks for an address from one place; all workers know all of them.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from app.errors import TickhubError
from app.formats.parquet_places import places_of
from app.spool_files import Opened, Whole, open_whole, whole_of

RECENT_S = 60.0
"""Of several files that a reader began, those are looked at that were read within this time."""

MOST_BEGUN = 5000
"""Links that are kept, the newest: looking for one takes milliseconds up to here."""

MOST_CANDIDATES = 8
"""Files whose footers are looked at to tell which one a reader goes on with."""

OVERTAKEN = "the file that was begun has made room for others: begin again, at its end or with HEAD"

ASKED, READ = ".asked", ".read"


class Overtaken(TickhubError):
    """The file that a reader began has made room for others."""


class SpoolReaders:
    """The links. Every call may raise OSError."""

    def __init__(self, root: Path) -> None:
        self._begun = root / "begun"
        self._places = lru_cache(maxsize=16)(places_of)

    def make(self) -> None:
        """Make the directory; idempotent."""
        self._begun.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, reader: str, whole: Whole, *, asked_only: bool) -> None:
        """Remember which file a reader has begun. asked_only: so far it only knows how long the file is."""
        for before in self._links(reader):
            if _target(before) == whole.path:
                before.unlink(missing_ok=True)
        how = ASKED if asked_only else READ
        os.symlink(whole.path, self._begun / f"{reader}.{time.time_ns():020d}{how}")

    def follow(self, reader: str, start: int, end: int | None, *, if_asked_only: bool = False) -> Opened | None:
        """Return the file that a reader goes on with when it wants [start, end); None when it has begun none.

        if_asked_only: only when it has not read any of it yet. Of several that it has begun, two programs on one
        machine perhaps, it is the one whose parts lie there, else the last. Raises Overtaken.
        """
        links = self._links(reader)[::-1]
        if not links or (if_asked_only and links[0].suffix != ASKED):
            return None
        last = _open_target(links[0])
        if last is None:
            raise Overtaken(OVERTAKEN)
        if links[0].suffix == ASKED:
            with suppress(FileNotFoundError):
                links[0].rename(links[0].with_suffix(READ))
        best, best_fit = last, -1 if len(links) == 1 else self._fit(last, start, end)
        overtaken = False
        for link in links[1:MOST_CANDIDATES]:
            if best_fit == 2:
                break
            other = _open_target(link)
            if other is None:
                overtaken = True
                continue
            recent = time.time() - os.fstat(other.fd).st_mtime < RECENT_S
            fit = self._fit(other, start, end) if recent and other.whole.tag != best.whole.tag else -1
            if fit > best_fit:
                best, best_fit, other = other, fit, best
            os.close(other.fd)
        if overtaken and best_fit < 2:
            os.close(best.fd)
            raise Overtaken(OVERTAKEN)
        os.utime(best.fd)
        return best

    def forget(self) -> None:
        """Remove links to files that are gone, and the oldest of too many."""
        links = sorted(os.listdir(self._begun), key=lambda name: name.split(".")[1])
        for number, name in enumerate(links):
            link = self._begun / name
            with suppress(FileNotFoundError):
                over = time.time() - link.lstat().st_mtime >= RECENT_S and not link.exists()
                if over or number < len(links) - MOST_BEGUN:
                    link.unlink()

    def _links(self, reader: str) -> list[Path]:
        """Return what a reader has begun, in order."""
        return [self._begun / name for name in sorted(os.listdir(self._begun)) if name.startswith(f"{reader}.")]

    def _fit(self, opened: Opened, start: int, end: int | None) -> int:
        """Return how well [start, end) fits the parts of a file, from -1 to 2."""
        if start >= opened.size_bytes:
            return -1
        try:
            return self._places(opened.whole.path).fits(start, opened.size_bytes if end is None else end)
        except FileNotFoundError:
            return 0


def _open_target(link: Path) -> Opened | None:
    target = _target(link)
    return None if target is None else open_whole(whole_of(target))


def _target(link: Path) -> Path | None:
    try:
        return Path(os.readlink(link))
    except FileNotFoundError:
        return None
