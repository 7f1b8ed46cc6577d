"""Reading a journal back: for the rows that did not fit in memory, and for what a dead process left. Lane side, pure.

Damage is stepped over to the next sound record head and named; the rows it cost are counted as lost. Row numbers
that a failed write used are void and counted as skipped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from app.market.batches import OBJECTS_BYTES, Record
from app.pipeline.journal import Position, segment_path, segments, tag_of
from app.pipeline.records import (
    HEAD_BYTES,
    MAGIC,
    MAX_NAME_BYTES,
    SEGMENT,
    SegmentHead,
    unpack_head,
    unpack_payload,
)


@dataclass(slots=True)
class Chunk:
    """Records read in a row; `next` is where to go on. `at_end`: nothing more is there.

    `skipped` and `lost` rows lie behind the last record (those before a record stand in it).
    """

    records: list[Record] = field(default_factory=list)
    next: Position = field(default_factory=lambda: Position(0, 0, 0))
    skipped: int = 0
    lost: int = 0
    damage: list[str] = field(default_factory=list)
    at_end: bool = False


def start_at(directory: Path, row: int) -> Position:
    """Return the position from which the rows from `row` on are read."""
    earlier = [first for first in segments(directory) if first <= row]
    return Position(earlier[-1] if earlier else 0, 0, row)


def read(directory: Path, start: Position, max_bytes: int, stop: Position | None = None) -> Chunk:
    """Read records from `start` on, about `max_bytes` of memory of them (at least one), not past `stop`.

    Rows before `start.row` are passed over. Raises OSError when a segment cannot be read.
    """
    chunk = Chunk(next=start)
    tag = tag_of(directory.name)
    names = segments(directory)
    heads = {first: _segment_head(directory, first, tag) for first in names if first >= start.segment}
    present = [first for first in names if first >= start.segment]
    row, budget = start.row, max_bytes
    for index, first in enumerate(present):
        if stop is not None and first > stop.segment:
            break
        head = heads[first]
        if head is not None:
            row = _cross(head, row, chunk)
        following = heads[present[index + 1]] if index + 1 < len(present) else None
        void_from = following.previous_end_row if following is not None else None
        limit = stop.offset if stop is not None and first == stop.segment else None
        offset = start.offset if first == start.segment else 0
        is_last = index + 1 == len(present)
        row, offset, done = _read_segment(directory, first, tag, offset, row, limit, void_from, budget, chunk, is_last)
        chunk.next = Position(first, offset, row)
        budget = max_bytes - sum(record.memory_bytes for record in chunk.records)
        if not done or budget <= 0:
            return chunk
    if stop is not None and row < stop.row:
        chunk.lost += stop.row - row
        chunk.damage.append(f"rows {row} to {stop.row - 1} are missing")
        chunk.next = stop
    chunk.at_end = True
    return chunk


def end_row(directory: Path) -> int:
    """Return the number behind the last row that can be read from the last segment."""
    tag = tag_of(directory.name)
    for first in reversed(segments(directory)):
        row = _end_row_from(directory, first)
        # A segment whose beginning was never finished proves nothing, not even that the rows before it were durable.
        if row > first or _segment_head(directory, first, tag) is not None:
            return row
    return 0


def _end_row_from(directory: Path, first: int) -> int:
    row, at = first, Position(first, 0, first)
    while True:
        chunk = read(directory, at, 8 << 20)
        row = max(row, chunk.next.row)
        if chunk.at_end:
            return row
        at = chunk.next


def _cross(head: SegmentHead, row: int, chunk: Chunk) -> int:
    """Account for the rows between the segment before and this one; return the next row expected."""
    if row < head.previous_end_row:
        chunk.lost += head.previous_end_row - row
        chunk.damage.append(f"rows {row} to {head.previous_end_row - 1} are missing")
        row = head.previous_end_row
    if row < head.first_row:
        chunk.skipped += head.first_row - row
        row = head.first_row
    return row


def _segment_head(directory: Path, first: int, tag: int) -> SegmentHead | None:
    with open(segment_path(directory, first), "rb") as file:
        data = file.read(4096)
    found = unpack_head(data, 0, tag)
    if found is None or found[0].dataset != SEGMENT:
        return None
    payload = unpack_payload(data, 0, found[1], found[2])
    return None if payload is None else msgspec.json.decode(payload, type=SegmentHead)


def _read_segment(
    directory: Path,
    first: int,
    tag: int,
    offset: int,
    row: int,
    limit: int | None,
    void_from: int | None,
    budget: int,
    chunk: Chunk,
    is_last: bool,
) -> tuple[int, int, bool]:
    """Read one segment from `offset`; return (next row, next offset, whether its end was reached)."""
    with open(segment_path(directory, first), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = size if limit is None else min(size, limit)
        while offset < end:
            head_bytes = os.pread(file.fileno(), min(HEAD_BYTES + MAX_NAME_BYTES, end - offset), offset)
            found = unpack_head(head_bytes, 0, tag)
            payload = None
            if found is not None:
                record, payload_at, payload_bytes = found
                if record.end_row <= row and record.dataset != SEGMENT:
                    offset += payload_at + payload_bytes
                    continue
                data = os.pread(file.fileno(), payload_at + payload_bytes, offset)
                if offset + payload_at + payload_bytes <= end:
                    payload = unpack_payload(data, 0, payload_at, payload_bytes)
            if found is None or payload is None:
                resumed = _next_head(file.fileno(), offset + 1, end, tag)
                if resumed is None and is_last and limit is None:
                    # What a killed process was writing: never synced, so never acknowledged.
                    chunk.damage.append(f"segment {first}: {end - offset} bytes of an unfinished write at its end")
                    return row, end, True
                to = end if resumed is None else resumed
                chunk.damage.append(f"segment {first}: {to - offset} damaged bytes at {offset}")
                offset = to
                continue
            offset += payload_at + payload_bytes
            if record.dataset == SEGMENT or (void_from is not None and record.first_row >= void_from):
                continue
            if record.first_row > row:
                chunk.lost += record.first_row - row
                chunk.damage.append(f"rows {row} to {record.first_row - 1} are missing")
            chunk.records.append(replace(record, payload=payload, skipped_before=chunk.skipped, lost_before=chunk.lost))
            chunk.skipped = chunk.lost = 0
            row = record.end_row
            budget -= len(payload) + OBJECTS_BYTES
            if budget <= 0:
                return row, offset, offset >= end
    return row, end, True


def _next_head(fd: int, offset: int, end: int, tag: int) -> int | None:
    """Return the offset of the next sound record head at or behind `offset`, or None."""
    step = 1 << 20
    while offset < end:
        data = os.pread(fd, min(step + HEAD_BYTES + MAX_NAME_BYTES, end - offset), offset)
        at = data.find(MAGIC)
        while 0 <= at < step:
            if unpack_head(data, at, tag) is not None:
                return offset + at
            at = data.find(MAGIC, at + 1)
        offset += step
    return None
