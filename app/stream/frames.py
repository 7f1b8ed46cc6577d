"""What travels between workers, as bytes: messages of a kind in frames with a versioned head. Pure.

A frame is a head (who sent it), then pieces: whole messages, or parts of one that is larger than a frame. The parts of
a message follow each other in the frames of one sender; frames of several senders may come in between. Frames may be
lost: each part carries the whole message's checksum, so that parts of two messages never make a third one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import TickhubError

VERSION = 1
"""Of everything in here. A worker of another release may live beside this one for a while: they ignore each other."""

MOST_MESSAGE_BYTES = 4 << 20
"""No message is larger: ten times what the largest flush has to tell."""

_MAGIC = b"tb"
_HEAD = struct.Struct("<2sBx8s8sH2x")
HEAD_BYTES = _HEAD.size
_PIECE = struct.Struct("<BBxxII")
"""Kind, flags, bytes that follow, checksum of the whole message if this is a part (else 0)."""
PIECE_HEAD_BYTES = _PIECE.size
_FIRST, _LAST = 1, 2


class BadFrame(TickhubError):
    """These bytes are no frame, or not the message that they should be."""


class ForeignFrame(TickhubError):
    """A frame of another version."""


@dataclass(frozen=True)
class Sender:
    """A worker's life. host: 8 bytes, the same for all workers of a server; life: 8 random bytes."""

    host: bytes
    life: bytes
    slot: int

    def head(self) -> bytes:
        """Return the head of its frames."""
        return _HEAD.pack(_MAGIC, VERSION, self.host, self.life, self.slot)


def sender_of(frame: bytes) -> Sender:
    """Return who sent a frame. Raises BadFrame, ForeignFrame."""
    if len(frame) < HEAD_BYTES:
        raise BadFrame("too short")
    magic, version, host, life, slot = _HEAD.unpack_from(frame)
    if magic != _MAGIC:
        raise BadFrame("no frame")
    if version != VERSION:
        raise ForeignFrame(f"version {version}")
    return Sender(host, life, slot)


def pieces_of(kind: int, payload: bytes, most_bytes: int) -> list[bytes]:
    """Return a message (kind: 0 to 255) as pieces of at most `most_bytes`, their heads included."""
    room = most_bytes - PIECE_HEAD_BYTES
    if len(payload) <= room:
        return [_PIECE.pack(kind, _FIRST | _LAST, len(payload), 0) + payload]
    pieces, checksum = [], zlib.crc32(payload)
    for start in range(0, len(payload), room):
        part = payload[start : start + room]
        flags = (_FIRST if start == 0 else 0) | (_LAST if start + room >= len(payload) else 0)
        pieces.append(_PIECE.pack(kind, flags, len(part), checksum) + part)
    return pieces


class Assembler:
    """Makes messages of frames again. What it holds of unfinished ones is bounded."""

    def __init__(self, most_bytes: int = 2 * MOST_MESSAGE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._unfinished: dict[bytes, tuple[tuple[int, int], list[bytes]]] = {}
        self._bytes = 0

    def messages(self, frame: bytes, sender: Sender) -> Iterator[tuple[int, bytes]]:
        """Yield the messages (kind, payload) that this frame completes; one of which a part was lost is passed over.

        Raises BadFrame, maybe after some.
        """
        at = HEAD_BYTES
        while at < len(frame):
            if at + PIECE_HEAD_BYTES > len(frame):
                raise BadFrame("it ends within a piece's head")
            kind, flags, length, checksum = _PIECE.unpack_from(frame, at)
            at += PIECE_HEAD_BYTES
            if at + length > len(frame) or flags > _FIRST | _LAST:
                raise BadFrame("a piece is longer than the frame")
            payload = frame[at : at + length]
            at += length
            if flags == _FIRST | _LAST:
                yield kind, payload
            elif (whole := self._part(sender.life, (kind, checksum), flags, payload)) is not None:
                yield kind, whole

    def _part(self, life: bytes, message: tuple[int, int], flags: int, payload: bytes) -> bytes | None:
        if flags & _FIRST:
            self._drop(life)
            self._unfinished[life] = (message, [])
        unfinished = self._unfinished.get(life)
        if unfinished is None or unfinished[0] != message:
            self._drop(life)
            return None
        parts = unfinished[1]
        parts.append(payload)
        self._bytes += len(payload)
        if flags & _LAST:
            self._drop(life)
            whole = b"".join(parts)
            return whole if zlib.crc32(whole) == message[1] else None
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._unfinished)))
        return None

    def _drop(self, life: bytes) -> None:
        if (unfinished := self._unfinished.pop(life, None)) is not None:
            self._bytes -= sum(map(len, unfinished[1]))
