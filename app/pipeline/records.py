"""The journal's record: bytes on disk that say what they are and whether they are whole. Lane side, pure.

    magic "TKJ1" | crc of the rest of the head and of the name | layout u16 | length of the name u16 | rows u32 |
    first row u64 | received_us i64 | payload length u32 | payload crc u32 | journal tag u64 | dataset name | payload

All little-endian. The tag is the journal's own, so that stale blocks of another file are never taken for records.
A record named SEGMENT opens each segment; its payload says where the segment before it ends.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import msgspec

from app.market.batches import Record

MAGIC = b"TKJ1"
SEGMENT = "#segment"
_PREFIX = struct.Struct("<4sI")
_HEAD = struct.Struct("<HHIQqIIQ")
HEAD_BYTES = _PREFIX.size + _HEAD.size
MAX_NAME_BYTES = 64
MAX_PAYLOAD_BYTES = 1 << 30


@dataclass(slots=True, frozen=True)
class Entry:
    """A batch to be journalled: `rows` rows of `dataset`, their bytes in layout `layout`."""

    dataset: str
    layout: int
    rows: int
    payload: bytes


class SegmentHead(msgspec.Struct, frozen=True):
    """What opens a segment: rows up to `previous_end_row` are before it, its own begin at `first_row`; numbers
    between were used by a write that failed, and are void."""

    journal_id: str
    first_row: int
    previous_end_row: int


def pack(entry: Entry, first_row: int, received_us: int, tag: int) -> bytes:
    """Return the bytes of a record."""
    name = entry.dataset.encode()
    head = (
        _HEAD.pack(
            entry.layout,
            len(name),
            entry.rows,
            first_row,
            received_us,
            len(entry.payload),
            zlib.crc32(entry.payload),
            tag,
        )
        + name
    )
    return b"".join((_PREFIX.pack(MAGIC, zlib.crc32(head)), head, entry.payload))


def unpack_head(data: bytes | memoryview, at: int, tag: int) -> tuple[Record, int, int] | None:
    """Read the head at `at`: (record without payload, offset of the payload, its crc and length as one size).

    Returns None when there is no whole, sound head of this journal there. The payload is read by `unpack`.
    """
    if len(data) - at < HEAD_BYTES:
        return None
    magic, crc = _PREFIX.unpack_from(data, at)
    if magic != MAGIC:
        return None
    layout, name_bytes, rows, first_row, received_us, payload_bytes, _, its_tag = _HEAD.unpack_from(
        data, at + _PREFIX.size
    )
    end = at + HEAD_BYTES + name_bytes
    if its_tag != tag or name_bytes > MAX_NAME_BYTES or payload_bytes > MAX_PAYLOAD_BYTES or end > len(data):
        return None
    if zlib.crc32(data[at + _PREFIX.size : end]) != crc:
        return None
    name = bytes(data[at + HEAD_BYTES : end]).decode()
    return Record(name, layout, rows, first_row, received_us, b""), end, payload_bytes


def unpack_payload(data: bytes | memoryview, head_at: int, payload_at: int, payload_bytes: int) -> bytes | None:
    """Return the payload of the record whose head is at `head_at`, or None when it is damaged or cut short."""
    payload = bytes(data[payload_at : payload_at + payload_bytes])
    crc = struct.unpack_from("<I", data, head_at + _PREFIX.size + 28)[0]
    if len(payload) != payload_bytes or zlib.crc32(payload) != crc:
        return None
    return payload
