"""Reading a request's body: bounded in bytes and time, decompressed in slices."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import gevent
from flask import Request
from gunicorn.http.errors import ParseException

from app.errors import BadJson, TooLarge, UnsupportedEncoding
from app.in_flight import InFlight
from app.web.patience import small_bodies

PIECE_BYTES = 256 * 1024
FEED_BYTES = 16 * 1024
"""What zlib does not take of its input it copies, for every piece and every member: fed little, it copies little."""

READ_TIMEOUT_S = 60.0
"""A body that takes longer holds a place in the in-flight bound for nothing: no bridge is that slow."""


SMALL_BYTES = 64 * 1024
"""A body up to this holds next to nothing but its connection while it is awaited."""


class _Stream(Protocol):
    def read(self, size: int) -> bytes: ...


@contextmanager
def body_of(request: Request, max_bytes: int, in_flight: InFlight) -> Iterator[bytes]:
    """Give the request's body, decompressed; its bytes count as in flight until the block ends.

    Raises TooLarge, UnsupportedEncoding, BadJson (cut short, damaged gzip) or BufferFull.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise UnsupportedEncoding(f"Content-Encoding {encoding[:40]!r} is not understood: send plain JSON or gzip")
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    held = _Held(in_flight)
    try:
        body = _read_in_time(request, max_bytes, held)
        if encoding in ("gzip", "x-gzip"):
            body = _unzip(body, max_bytes, held)
        yield body
    finally:
        held.release()


def _read_in_time(request: Request, max_bytes: int, held: _Held) -> bytes:
    if request.content_length is not None and request.content_length <= SMALL_BYTES:
        with small_bodies.wait():
            return _read(request, max_bytes, held)
    with gevent.Timeout(READ_TIMEOUT_S, BadJson(f"the body did not arrive within {READ_TIMEOUT_S:.0f} s")):
        return _read(request, max_bytes, held)


class _Held:
    """What this request holds of the in-flight bound."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._bytes = 0

    def more(self, size_bytes: int) -> None:
        # Twice: the body, and the columns that are made of it.
        self._in_flight.take(2 * size_bytes)
        self._bytes += 2 * size_bytes

    def release(self) -> None:
        self._in_flight.give(self._bytes)
        self._bytes = 0


def _read(request: Request, max_bytes: int, held: _Held) -> bytes:
    stream: _Stream = request.environ["wsgi.input"]
    expected = request.content_length
    pieces, size = [], 0
    while expected is None or size < expected:
        try:
            piece = stream.read(PIECE_BYTES if expected is None else min(PIECE_BYTES, expected - size))
        except (ParseException, OSError) as error:  # chunks that are none, or a client that left
            raise BadJson(f"the body cannot be read: {error}") from error
        if not piece:
            break
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        held.more(len(piece))
        pieces.append(piece)
    if expected is not None and size < expected:
        raise BadJson(f"the body ends after {size} of {expected} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _unzip(data: bytes, max_bytes: int, held: _Held) -> bytes:
    pieces, size = [], 0
    unzip = zlib.decompressobj(wbits=31)
    try:
        for at in range(0, len(data), FEED_BYTES):
            feed = data[at : at + FEED_BYTES]
            while feed:
                if unzip.eof:  # a further member, as `cat a.gz b.gz` makes
                    unzip = zlib.decompressobj(wbits=31)
                piece = unzip.decompress(feed, PIECE_BYTES)
                feed = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
                size += len(piece)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                held.more(len(piece))
                if piece:
                    pieces.append(piece)
                gevent.sleep(0)  # others are served between slices
    except zlib.error as error:
        raise BadJson(f"the gzip body is damaged: {error}") from error
    if data and not unzip.eof:
        raise BadJson("the gzip body is cut short")
    return b"".join(pieces)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than max_body_mb ({max_bytes >> 20} MiB)")
