"""Many files of a week into one again: late ticks left one each time they were merged. Blocking, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from app.archive.checking import check_bytes, compare, in_order, read_file
from app.archive.place import ArchiveError, Place
from app.archive.weeks import Range, hold, set_manifest
from app.archive.writing import GROUP_ROWS, Progress, names_of, write_file, write_manifest
from app.storage.archive_files import Manifest, load
from app.storage.archive_rows import WholeTicks, joined
from app.storage.connection import Connection

MOST_FILES = 16
"""A read opens them all; all but the largest are in memory while they are made one."""


def compact(
    connection: Connection, place: Place, known: Range, progress: Progress, step: Callable[[str], None]
) -> Path | None:
    """Write an archived week's files as one, if they are too many, and let it be in force; return the old directory.

    None: they are few. Readers may still look at the old one. Raises ArchiveError, ArchiveAway, DatabaseAway; then
    nothing was changed that counts.
    """
    week = known.week
    if known.manifest is None or known.sha256 is None:
        raise ArchiveError(f"the week {week.name} is {known.state}, not archived")
    manifest = load(place.root, known.manifest, known.sha256)
    if len(manifest.files) <= MOST_FILES:
        return None
    old = place.root / Path(known.manifest).parent
    for file in manifest.files:
        check_bytes(old / file.name, file)
    made = place.new_folder()
    one = write_file(made / "ticks-1.parquet", _whole_groups(_ticks(old, manifest)), names_of(connection), progress)
    step("compaction written")
    compare(_ticks(old, manifest), read_file(made / one.name, one.symbols), progress)
    check_bytes(made / one.name, one)
    name, sha256, sizes = write_manifest(made, week, 1, [one], manifest.derived_rows)
    kept = place.keep(made, week.name)
    place.copy(kept)
    step("compaction kept")
    with connection.transaction() as cur:
        hold(cur, week, known.manifest)
        set_manifest(cur, week, "archived", f"ticks/{kept.name}/{name}", sha256, sizes)
    step("compaction switched")
    return old


def _ticks(folder: Path, manifest: Manifest) -> Iterator[WholeTicks]:
    main, *others = sorted(manifest.files, key=lambda file: -file.rows)
    rest = [ticks for file in others for ticks in read_file(folder / file.name, file.symbols)]
    return in_order(read_file(folder / main.name, main.symbols), rest)


def _whole_groups(parts: Iterable[WholeTicks]) -> Iterator[WholeTicks]:
    """Yield the same ticks in parts of whole row groups, but for the last one."""
    left: WholeTicks | None = None
    for part in parts:
        ticks = part if left is None else joined([left, part])
        whole = len(ticks) // GROUP_ROWS * GROUP_ROWS
        if whole:
            yield ticks.take(slice(whole))
        left = ticks.take(slice(whole, None))
    if left is not None and len(left):
        yield left
