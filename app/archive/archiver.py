"""The steps of the archive, in order; whichever was the last one, a run goes on from it (docs/archive.md). Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from app.archive.bringing_back import fill
from app.archive.checking import check_bytes, check_files, compare, read_file
from app.archive.compacting import compact
from app.archive.merging import Merged, late_rows, merge_page, put_back
from app.archive.place import ArchiveError, Place
from app.archive.weeks import (
    Busy,
    Range,
    Week,
    drop_partition,
    forget,
    freeze,
    has_ticks,
    no_files,
    partitions,
    ranges,
    set_manifest,
    states_locked,
    tick_count,
    version,
    wait_for_readers,
)
from app.archive.writing import names_of, pages_ahead, write_file, write_manifest
from app.errors import ArchiveAway
from app.storage.archive_files import Manifest, load
from app.storage.archive_rows import WholeTicks
from app.storage.clocks import ClocksDiffer, agreed_now
from app.storage.connection import Connection
from app.storage.lease import DESK, is_taken

READERS_TIMEOUT_S = 120.0
"""What a reader may take before its partition, or its files, stay until the next run."""

DAY_US = 86_400_000_000


@contextmanager
def _kept_for_the_end(wrong: list[str]) -> Iterator[None]:
    """Go on with the others when one week is in trouble, or a clock."""
    try:
        yield
    except (ArchiveError, ArchiveAway, ClocksDiffer) as error:
        wrong.append(str(error))


@contextmanager
def _no_half_files(place: Place) -> Iterator[None]:
    """Free what a full disk made useless, and say so as an ArchiveError."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            place.sweep()
        raise ArchiveError(f"{place.root}: {error.strerror or str(error).splitlines()[0]}") from error


class Archiver:
    """Moves weeks of ticks into the archive and back."""

    def __init__(
        self,
        connection: Connection,
        guard: Connection,
        fetchers: Sequence[Connection],
        root: Path,
        *,
        step: Callable[[str], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
        progress: Callable[[int], None] = lambda _: None,
        readers_timeout_s: float = READERS_TIMEOUT_S,
        copies: Path | None = None,
    ) -> None:
        """Take what it needs; nothing is opened.

        copies: where the backups have the archive's files too; None: there are no backups.
        guard: a connection to the same database, for a session that keeps others away. fetchers: connections to it that
        read rows side by side, one at least. step: called with the name of each step when it is done. say: called with
        a line of what was done. progress: with rows that were done.
        """
        self._connection = connection
        self._guard = guard
        self._fetchers = fetchers
        self._place = Place(root, copies)
        self._step = step
        self._say = say
        self._progress = progress
        self._readers_timeout_s = readers_timeout_s
        self._guard_pid = 0

    def run(self, hot_days: int) -> None:
        """Finish what was begun, archive what is older than `hot_days` (0: nothing more), and merge late ticks.

        Raises ArchiveError for what needs somebody to look, clocks that differ included, Busy and DatabaseAway for what
        a later run may do.
        """
        with self._place.alone(self._guard) as self._guard_pid, _no_half_files(self._place):
            self._put_back()
            known = self._known()
            for one in known.values():
                if one.state == "archived":
                    self._find(one)
            for name in self._place.tidy({Path(one.manifest).parent.name for one in known.values() if one.manifest}):
                self._say(f"{name}: no range names it; moved to {self._place.root / 'unused'}")
            wrong: list[str] = []
            before_us: int | None = None
            with _kept_for_the_end(wrong):  # no merge goes by a clock
                before_us = self._before_us(hot_days)
            for week in self._due(known, before_us):
                with _kept_for_the_end(wrong), _no_half_files(self._place):
                    self._archive(week)
            for one in self._known().values():
                if one.state == "dropped" and one.manifest is not None:
                    self._remove(one, one.manifest)
                elif one.state == "archived":
                    with _kept_for_the_end(wrong), _no_half_files(self._place):
                        self._drop(one.week)
                        self._merge(one.week)
            if wrong:
                raise ArchiveError("; ".join(wrong))

    def due(self, hot_days: int) -> Iterator[tuple[Week, int]]:
        """Yield the weeks that `run` would archive now, and how many ticks each has in the database.

        Raises ClocksDiffer, DatabaseAway.
        """
        for week in self._due(self._known(), self._before_us(hot_days)):
            with self._connection.transaction() as cur:
                yield week, tick_count(cur, week)

    def bring_back(self, start_us: int, end_us: int) -> None:
        """Put the archived ticks of every week that [start_us, end_us) touches back into the database.

        Raises ArchiveError, ArchiveAway, Busy, DatabaseAway.
        """
        with self._place.alone(self._guard) as self._guard_pid, _no_half_files(self._place):
            touched = [one for one in self._known().values() if one.start_us < end_us and one.end_us > start_us]
            wanted = [one for one in touched if one.state in ("archiving", "archived")]
            for one in wanted:
                self._bring_back(one)
            if not wanted:
                self._say("nothing of that time is archived: nothing was brought back")

    def listed(self) -> Iterator[tuple[Range, int]]:
        """Yield the ranges, and how many late ticks wait for each. Raises DatabaseAway."""
        with self._connection.transaction() as cur:
            for one in ranges(cur):
                yield one, late_rows(cur, one.week) if one.state in ("archiving", "archived") else 0

    def verify(self) -> Iterator[tuple[Range, str | None]]:
        """Yield every archived range, and what is wrong with its files; None: nothing. Raises DatabaseAway."""
        for one in self._known().values():
            if one.state == "archived":
                try:
                    folder, manifest = self._manifest(one)
                    if manifest.rows != one.rows or sum(file.rows for file in manifest.files) != one.rows:
                        raise ArchiveError(f"{one.manifest} counts other rows than the database")
                    check_files(folder, manifest, self._progress)
                except (ArchiveError, ArchiveAway) as error:
                    yield one, str(error)
                else:
                    yield one, None

    def _before_us(self, hot_days: int) -> int | None:
        return round(agreed_now(self._connection).timestamp() * 1_000_000) - hot_days * DAY_US if hot_days > 0 else None

    def _known(self) -> dict[int, Range]:
        with self._connection.transaction() as cur:
            return {one.start_us: one for one in ranges(cur)}

    def _due(self, known: dict[int, Range], before_us: int | None) -> list[Week]:
        """Return the weeks that were begun, and those whose end is before a time and that have ticks."""
        due = [one.week for one in known.values() if one.state == "archiving"]
        with self._connection.transaction() as cur:
            for week in partitions(cur):
                state = known[week.start_us].state if week.start_us in known else "hot"
                if state == "hot" and before_us is not None and week.end_us <= before_us and has_ticks(cur, week):
                    due.append(week)
        return sorted(due, key=lambda week: week.start_us)

    def _archive(self, week: Week) -> None:
        freeze(self._connection, week)
        self._step("frozen")
        with self._connection.transaction() as cur:
            before, is_empty = version(cur, week), not has_ticks(cur, week)
        if is_empty:  # its ticks were deleted since it was due
            self._release(week, "archiving")
            return
        names = names_of(self._connection)
        folder = self._place.new_folder()
        self._step("begun")
        fetchers = self._fetching()
        derived = 0

        def counted(found: Iterator[WholeTicks]) -> Iterator[WholeTicks]:
            nonlocal derived
            for page in found:
                derived += int((page.seq < 0).sum())
                yield page
                self._step("writing")

        with pages_ahead(self._connection, fetchers, week.partition) as found:
            file = write_file(folder / "ticks-1.parquet", counted(found), names, self._progress)
        self._step("written")
        with pages_ahead(self._connection, fetchers, week.partition) as found:
            compare(found, read_file(folder / file.name, file.symbols), self._progress)
        check_bytes(folder / file.name, file)
        self._step("compared")
        name, sha256, sizes = write_manifest(folder, week, 1, [file], derived)
        self._step("named")
        kept = self._place.keep(folder, week.name)
        self._step("kept")
        self._place.copy(kept)
        self._step("copied")
        with states_locked(self._connection) as cur:
            if version(cur, week) != before:
                raise ArchiveError(f"ticks of the week {week.name} were changed meanwhile: the next run begins anew")
            set_manifest(cur, week, "archiving", f"ticks/{kept.name}/{name}", sha256, sizes)
        self._step("switched")
        self._say(f"{week.name}: {file.rows:,} ticks archived, {file.bytes / max(file.rows, 1):.2f} bytes each")

    def _fetching(self) -> Sequence[Connection]:
        """Return the fetchers; only one of them beside a server: the other cores are for those who send ticks."""
        with self._connection.transaction() as cur:
            return self._fetchers[:1] if is_taken(cur, DESK) else self._fetchers

    def _drop(self, week: Week) -> None:
        with self._connection.transaction() as cur:
            if week not in partitions(cur):
                return
        if not self._readers_left():
            self._say(f"{week.name}: somebody reads for very long; its partition stays until the next run")
            return
        self._step("waited")
        try:
            drop_partition(self._connection, week)
        except Busy as why:
            self._say(f"{week.name}: {why}")
        self._step("dropped")

    def _remove(self, one: Range, manifest: str) -> None:
        """Delete the files of a week that was dropped for its age, when nobody can look at them any more."""
        if not self._readers_left():
            return
        self._place.remove(self._place.root / Path(manifest).parent)
        self._step("removed")
        with self._connection.transaction() as cur:
            no_files(cur, one.week)
        self._say(f"{one.week.name}: dropped for its age; its files are deleted")

    def _merge(self, week: Week) -> None:
        with self._connection.transaction() as cur:
            waiting = late_rows(cur, week)
        total = Merged()
        # Not for ever: while a sender goes on with that week, the next run has the rest.
        while total.rows < waiting:
            merged = merge_page(self._connection, self._place, self._known()[week.start_us], self._step)
            if merged is None:
                break
            total += merged
            self._compact(week)
        self._compact(week)  # one that was killed
        if total.rows:
            self._say(
                f"{week.name}: {total.added:,} late ticks merged, {total.duplicates:,} were there,"
                f" {total.set_aside:,} set aside"
            )

    def _compact(self, week: Week) -> None:
        done = compact(self._connection, self._place, self._known()[week.start_us], self._progress, self._step)
        if done is not None:
            self._say(f"{week.name}: {done.files} files are one now")
            if done.left is not None and self._readers_left():
                self._place.put_aside(done.left)

    def _put_back(self) -> None:
        """Write late ticks of weeks that are hot: they came while these were not."""
        while put_back(self._connection):
            self._step("put back")

    def _bring_back(self, one: Range) -> None:
        week = one.week
        if one.state == "archived":
            self._merge(week)
            one = self._known()[week.start_us]
            folder, manifest = self._manifest(one)
            check_files(folder, manifest, lambda _: None)
            with self._connection.transaction() as cur:
                left_over = week in partitions(cur)
            if left_over and not self._readers_left():
                raise Busy(f"the week {week.name}: somebody reads for very long; try again later")
            self._step("waited")
            drop_partition(self._connection, week)
            self._step("dropped")
            fill(self._connection, self._fetching(), week, folder, manifest, self._progress, self._step)
            self._step("filled")
        self._release(week, one.state)
        if one.manifest is not None:
            if self._readers_left():
                self._place.put_aside(self._place.root / Path(one.manifest).parent)
            self._step("aside")
        self._say(f"{week.name}: {one.rows or 0:,} ticks are back in the database")

    def _release(self, week: Week, was: str) -> None:
        """Let a week be hot, and write what came for it meanwhile."""
        with states_locked(self._connection) as cur:
            forget(cur, week, was)
        self._step("released")
        self._put_back()

    def _find(self, one: Range) -> None:
        """Get files that are missing from where there may be others, and what there is to where the backups are."""
        assert one.manifest is not None
        found = self._place.find(one.manifest, [])
        with suppress(ArchiveAway):
            folder, manifest = self._manifest(one)
            found |= self._place.find(one.manifest, [file.name for file in manifest.files])
            self._place.copy(folder)
        if found:
            self._say(f"{one.week.name}: files were missing, and were looked for in `unused` and in the backups")

    def _readers_left(self) -> bool:
        """Wait for whoever may still look at an old place; tell whether they are gone."""
        gone = wait_for_readers(self._connection, [self._guard_pid], self._readers_timeout_s)
        if not gone:
            # Whoever reads for that long is waited for once, and not again for every week.
            self._readers_timeout_s = 0.0
        return gone

    def _manifest(self, one: Range) -> tuple[Path, Manifest]:
        if one.manifest is None or one.sha256 is None:
            raise ArchiveError(f"the week {one.week.name} is {one.state}, not archived")
        return self._place.root / Path(one.manifest).parent, load(self._place.root, one.manifest, one.sha256)
