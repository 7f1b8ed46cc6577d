"""Many files of a week into fewer: late ticks left one each time they were merged. Blocking, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from app.archive.checking import check_bytes, compare, in_order, read_file
from app.archive.merging import next_number
from app.archive.place import ArchiveError, Place
from app.archive.weeks import Range, hold, set_manifest
from app.archive.writing import GROUP_ROWS, Progress, names_of, write_file, write_manifest
from app.storage.archive_files import Manifest, TickFile, load
from app.storage.archive_rows import WholeTicks, joined
from app.storage.connection import Connection

MOST_FILES = 16
"""A read opens them all; a page of each is in memory while they are made one."""

SHARE = 4
"""A file is written anew when the smaller ones have a quarter of its rows: so each time leaves one that is larger by a
quarter at least, and all that was ever written of a week is a few times what there is."""


class Compacted(NamedTuple):
    """How many files were made one. left: the directory that is not in force any more; None: it still is."""

    files: int
    left: Path | None


def compact(
    connection: Connection, place: Place, known: Range, progress: Progress, step: Callable[[str], None]
) -> Compacted | None:
    """Write the small files of an archived week as one, if there are too many, and let it be in force.

    None: they are few. All of them go to a directory of their own; one that is not all is added beside the large ones.
    Readers may still look at the old ones. Raises ArchiveError, ArchiveAway, DatabaseAway; then nothing was changed
    that counts.
    """
    week = known.week
    if known.manifest is None or known.sha256 is None:
        raise ArchiveError(f"the week {week.name} is {known.state}, not archived")
    manifest = load(place.root, known.manifest, known.sha256)
    small = to_write_anew(manifest.files)
    if not small:
        return None
    large = [file for file in manifest.files if file not in small]
    folder = place.root / Path(known.manifest).parent
    for file in small:
        check_bytes(folder / file.name, file)
    made = place.new_folder()
    path = made / f"ticks-{next_number(folder, 'ticks') if large else 1}.parquet"
    one = write_file(path, _whole_groups(_ticks(folder, small)), names_of(connection), progress)
    step("compaction written")
    compare(_ticks(folder, small), read_file(path, one.symbols), progress)
    check_bytes(path, one)
    kept, name, sha256, sizes = _keep(place, known, made, [*large, one], manifest)
    place.copy(kept)
    step("compaction kept")
    with connection.transaction() as cur:
        hold(cur, week, known.manifest)
        set_manifest(cur, week, "archived", f"ticks/{kept.name}/{name}", sha256, sizes)
    step("compaction switched")
    return Compacted(len(small), None if large else folder)


def to_write_anew(files: Sequence[TickFile]) -> list[TickFile]:
    """Return the files, from the smallest on, that are to be made one; none: they are few."""
    if len(files) <= MOST_FILES:
        return []
    by_rows = sorted(files, key=lambda file: file.rows)
    smaller = accumulate((file.rows for file in by_rows), initial=0)
    worth = [at for at, (file, rows) in enumerate(zip(by_rows, smaller, strict=False)) if file.rows <= SHARE * rows]
    return by_rows[: worth[-1] + 1] if worth else []


def _keep(
    place: Place, known: Range, made: Path, files: list[TickFile], was: Manifest
) -> tuple[Path, str, str, dict[str, int]]:
    """Have the new file, and a manifest, where they are to be; return the directory and what the manifest is."""
    if len(files) == 1:
        name, sha256, sizes = write_manifest(made, known.week, 1, files, was.derived_rows)
        return place.keep(made, known.week.name), name, sha256, sizes
    assert known.manifest is not None
    folder = place.root / Path(known.manifest).parent
    place.add(made, folder)
    name, sha256, sizes = write_manifest(folder, known.week, next_number(folder, "manifest"), files, was.derived_rows)
    return folder, name, sha256, sizes


def _ticks(folder: Path, files: Iterable[TickFile]) -> Iterator[WholeTicks]:
    return in_order(read_file(folder / file.name, file.symbols) for file in files)


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
