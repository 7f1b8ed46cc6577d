"""Copies of journal segments beside the backups: what was acknowledged and not yet committed. Blocking.

    <backup_dir>/journal/<journal id>/<first row>.seg

A segment only grows, so what is new of it is added to its copy. Its tail may be a record that is just being written:
the reader of journals leaves out what is not whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.pipeline.journal import segment_path, segments, sync_directory, tag_of
from app.pipeline.records import SEGMENT, unpack_head, unpack_payload

_PIECE_BYTES = 1 << 20
_OWN = "system_metrics"


@dataclass(frozen=True, slots=True)
class Cut:
    """What was put back of a journal: whole records received until then, and the row behind the last of them."""

    journal_id: str
    records: int
    rows: int
    end_row: int


def copy_new(live: Path, copies: Path) -> int:
    """Add what is new of all journals to their copies, durably; return the bytes. Idempotent, at most one caller.

    Segments that go meanwhile are committed: the database has their rows.
    """
    added = 0
    for directory in sorted(live.iterdir()) if live.exists() else []:
        if is_journal(directory):
            added += _copy_journal(directory, copies / directory.name)
    return added


def _copy_journal(directory: Path, target: Path) -> int:
    added = 0
    try:
        firsts = segments(directory)
    except FileNotFoundError:
        return 0
    for first in firsts:
        copy = segment_path(target, first)
        have = copy.stat().st_size if copy.exists() else 0
        try:
            with segment_path(directory, first).open("rb") as source:
                size = os.fstat(source.fileno()).st_size
                if size <= have:
                    continue
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                source.seek(have)
                with copy.open("ab") as out:
                    os.fchmod(out.fileno(), 0o600)
                    while piece := source.read(_PIECE_BYTES):
                        out.write(piece)
                        added += len(piece)
                    out.flush()
                    os.fdatasync(out.fileno())
        except FileNotFoundError:
            continue
        if not have:
            sync_directory(target)
    return added


def rows_behind(live: Path, next_rows: Mapping[str, int]) -> int:
    """Return how many rows, but for the server's own metrics, the journals have that a database has not.

    next_rows: as for `put_back`. A server that starts on both stores them.
    """
    rows = 0
    for directory in sorted(live.iterdir()) if live.exists() else []:
        next_row = next_rows.get(directory.name, 0)
        for first in segments(directory) if is_journal(directory) else []:
            for _, _, dataset, count, first_row, _ in _records(
                segment_path(directory, first).read_bytes(), tag_of(directory.name)
            ):
                if dataset not in (SEGMENT, _OWN):
                    rows += max(0, min(count, first_row + count - next_row))
    return rows


def remove_older(copies: Path, before_us: int) -> int:
    """Remove copies that were last written before a moment (UTC, microseconds); return how many segments went."""
    gone = 0
    for directory in sorted(copies.iterdir()) if copies.exists() else []:
        for first in segments(directory):
            path = segment_path(directory, first)
            if path.stat().st_mtime_ns // 1000 < before_us:
                path.unlink()
                gone += 1
        if not any(directory.iterdir()):
            directory.rmdir()
    return gone


def put_back(
    copies: Path,
    target: Path,
    next_rows: Mapping[str, int],
    until_us: int | None,
    happened: Callable[[int], bool] = lambda _: True,
) -> list[Cut]:
    """Write journals of what was received until then (None: of everything) and is not committed; return them.

    next_rows: by journal, the first row that the restored database does not have; a journal that it does not know is
    new to it from its first row. A journal that it has all of is left out. target: an empty or missing directory.
    happened: tells of a time (UTC, microseconds) whether what was received then still counts (lineage.py).
    """
    cuts = []
    for directory in sorted(copies.iterdir()) if copies.exists() else []:
        if not is_journal(directory):
            continue
        fresh = target / directory.name
        cut = _cut(directory, fresh, next_rows.get(directory.name, 0), until_us, happened)
        if cut is None:
            shutil.rmtree(fresh, ignore_errors=True)
        else:
            cuts.append(cut)
    if target.exists():
        sync_directory(target)
    return cuts


def _cut(
    directory: Path, fresh: Path, next_row: int, until_us: int | None, happened: Callable[[int], bool]
) -> Cut | None:
    tag = tag_of(directory.name)
    records = rows = end_row = 0
    ended = False
    fresh.mkdir(mode=0o700, parents=True)
    for first in segments(directory):
        if ended:
            break
        data = segment_path(directory, first).read_bytes()
        kept = bytearray()
        for at, end, dataset, record_rows, first_row, received_us in _records(data, tag):
            last_us = received_us + max(record_rows - 1, 0)
            if dataset == SEGMENT:
                kept += data[at:end]
            elif (until_us is not None and last_us > until_us) or not happened(last_us):
                ended = True  # times rise: all that follows is later, too
                break
            else:
                kept += data[at:end]
                if first_row + record_rows > next_row:
                    records, rows = records + 1, rows + record_rows
                end_row = first_row + record_rows
        if kept:
            path = segment_path(fresh, first)
            path.write_bytes(kept)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if not rows:
        return None
    (fresh / "lock").touch(mode=0o600)
    sync_directory(fresh)
    return Cut(directory.name, records, rows, end_row)


def _records(data: bytes, tag: int) -> list[tuple[int, int, str, int, int, int]]:
    """Return the whole records: from, to, dataset, rows, first row, received. What is damaged is looked past."""
    found = []
    at = 0
    while at < len(data):
        head = unpack_head(data, at, tag)
        if head is None:
            at = data.find(b"TKJ1", at + 1)
            if at < 0:
                break
            continue
        record, payload_at, size = head
        if unpack_payload(data, at, payload_at, size) is None:
            at += 1
            continue
        end = payload_at + size
        found.append((at, end, record.dataset, record.rows, record.first_row, record.received_us))
        at = end
    return found


def is_journal(directory: Path) -> bool:
    """Tell whether a directory is a journal's, by its name."""
    name = directory.name
    return directory.is_dir() and len(name) >= 16 and all(letter in "0123456789abcdef" for letter in name)
