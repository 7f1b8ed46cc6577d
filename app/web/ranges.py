"""Requests for pieces of an answer (RFC 9110, sections 13 and 14): what polars, DuckDB and their like read Parquet by.

    HEAD, the last n bytes, bytes from 0 on    begin to read: a file of the rows as they are now
    other bytes                                of the file that the same client began for the same address
    If-Match, If-Range with an ETag            of that very file

Several ranges at once, and what is none, are answered with everything. Greenlet side.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Response, request

from app.errors import Conflict, OutOfRange, PreconditionFailed
from app.parquet_spool import Making, Spool
from app.reads import Client
from app.spool_files import Opened
from app.spool_readers import Overtaken
from app.web.answers import NEXT_PAGE_HEADER
from app.web.errors import error_answer
from app.web.streaming import stream_pages

_RANGE = re.compile(r"bytes[ \t]*=[ \t,]*([0-9]*)-([0-9]*)[ \t,]*", re.IGNORECASE)
MOST_DIGITS = 18
"""A number with more is as far out as any."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bytes first to last, both included; last None: to the end. first None: the last `last` bytes."""

    first: int | None
    last: int | None

    def of(self, size_bytes: int) -> tuple[int, int] | None:
        """Return [start, end) of a file of so many bytes, None when none of its bytes are wanted."""
        if self.first is None:
            start, end = max(0, size_bytes - (self.last or 0)), size_bytes
        else:
            start, end = self.first, size_bytes if self.last is None else min(size_bytes, self.last + 1)
        return (start, end) if start < end else None


def wanted_range(header: str | None) -> Wanted | None:
    """Return the one range that a Range header asks for; None when there is none, several, or it is none."""
    found = _RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return None
    first, last = (_number(text) for text in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return Wanted(first, last)


def asks_for_pieces() -> bool:
    """Tell whether the request may be answered by `answer_pieces`."""
    return request.method == "HEAD" or "Range" in request.headers or "If-Match" in request.headers


def answer_pieces(
    spool: Spool,
    client: Client,
    making: Making,
    *,
    mimetype: str,
    headers: Mapping[str, str],
    closed: bool,
) -> Response | None:
    """Return the answer to a request for pieces, or None: then it is to be answered with everything, streamed.

    closed: the identity alone makes the ETag of a streamed answer. Raises what making raises, PreconditionFailed,
    Conflict, and what Spool.begin raises.
    """
    wanted = wanted_range(request.headers.get("Range")) if request.method == "GET" else None
    since_ns = time.time_ns()
    address = _short(request.environ.get("RAW_URI") or request.full_path)
    reader = _short(address, request.remote_addr or "", request.headers.get("User-Agent", ""))
    opened: Opened | None = None
    tags = _tags_asked_for(wanted)
    if tags is not None:
        opened = spool.named(address, tags)
        if opened is None and "If-Match" in request.headers:
            raise PreconditionFailed(PreconditionFailed.__doc__)
    elif wanted is not None or request.method == "HEAD":
        if wanted is not None and wanted.first is not None:
            end = None if wanted.last is None else wanted.last + 1
            try:
                opened = spool.follow(reader, wanted.first, end, if_asked_only=wanted.first == 0)
            except Overtaken as error:
                raise Conflict(str(error)) from error
        if opened is None:
            identity = making.identity()
            if closed and request.if_none_match.contains_weak(identity):
                return Response(status=304, headers={"ETag": f'W/"{identity}"', **headers})
            opened = spool.begin(
                reader, address, identity, making, client, since_ns=since_ns, asked_only=request.method == "HEAD"
            )
    if opened is None:
        return None
    own = dict(headers) | {"Accept-Ranges": "bytes", "ETag": f'"{opened.whole.tag}"'}
    if opened.whole.next_token is not None:
        own[NEXT_PAGE_HEADER] = opened.whole.next_token
    if request.if_none_match.contains_weak(opened.whole.tag):
        spool.close(opened)
        return Response(status=304, headers=own)
    return _answer(spool, opened, wanted, mimetype, own)


def _answer(spool: Spool, opened: Opened, wanted: Wanted | None, mimetype: str, headers: dict[str, str]) -> Response:
    size = opened.size_bytes
    span = (0, size) if wanted is None else wanted.of(size)
    if span is None:
        spool.close(opened)
        refused = error_answer(OutOfRange.code, f"Range: the answer has {size} bytes", OutOfRange.status)
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
    start, end = span
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        spool.close(opened)
        return Response(iter(()), mimetype=mimetype, headers=headers)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    answer = stream_pages(spool.pieces(opened, start, end), mimetype=mimetype, headers=lambda: headers)
    answer.status_code = 200 if wanted is None else 206
    return answer


def _tags_asked_for(wanted: Wanted | None) -> set[str] | None:
    """Return the tags one of which the file must have; None when any will do."""
    if "If-Match" in request.headers and not request.if_match.star_tag:
        return set(request.if_match.as_set())
    if wanted is not None and "If-Range" in request.headers:
        # A weak tag, or a date, is never good enough for this.
        found = re.fullmatch(r'"([^"]*)"', request.headers["If-Range"].strip())
        return {found[1]} if found else set()
    return None


def _number(text: str) -> int | None:
    if not text:
        return None
    return int(text) if len(text) <= MOST_DIGITS else 10**MOST_DIGITS


def _short(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
