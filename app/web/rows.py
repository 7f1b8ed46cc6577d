"""Answers of rows: in the format that was asked for, from the cache where it has them, streamed where they are many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, Protocol

from flask import Response, request
from psycopg2.extensions import cursor as Cursor

from app.errors import BadParameter
from app.formats.encoders import MIMETYPES, Format
from app.formats.table import Table
from app.pacing import Pace, first_page_rows
from app.reads import EXPORT, PAGE, Client
from app.row_stream import RowsRequest, RowStream, Source
from app.runtime import Runtime
from app.web.answers import NEXT_PAGE_HEADER
from app.web.client import client_of
from app.web.params import Time
from app.web.ranges import answer_pieces, asks_for_pieces
from app.web.streaming import Ahead, stream_pages

DEFAULT_ROWS = 1000
MOST_ROWS = 10_000
"""Rows of one JSON answer. More belong into a stream of another format."""


def range_of(start: Time | None, end: Time | None) -> tuple[int | None, int | None]:
    """Return [start, end) in UTC microseconds. Raises BadParameter when it ends before it starts."""
    if start is not None and end is not None and end.us < start.us:
        raise BadParameter("end: is before start")
    return None if start is None else start.us, None if end is None else end.us


class RowParams(Protocol):
    """The common read parameters of the interface."""

    format: Format | None
    limit: int | None
    order: Literal["asc", "desc"] | None
    page_token: str | None


def rows_request(symbol: str | None, source: Source, params: RowParams) -> RowsRequest:
    """Return what was asked, with its defaults. Raises BadParameter."""
    format, limit = params.format or accepted_format(), params.limit
    ranged = source.range != (None, None)
    unbounded = ranged and format != "json"
    if limit is None and not unbounded:
        limit = DEFAULT_ROWS
    if limit is not None and limit > MOST_ROWS and not unbounded:
        raise BadParameter(
            f"limit: at most {MOST_ROWS} in JSON or without a range; with start or end the formats ndjson, csv, arrow "
            "and parquet have no limit"
        )
    return RowsRequest(
        symbol=symbol,
        source=source,
        format=format,
        gzip=format != "parquet" and request.accept_encodings["gzip"] > 0,
        limit=limit,
        newest=params.order is None and not ranged and params.page_token is None,
        descending=params.order == "desc",
        page_token=params.page_token,
    )


def accepted_format() -> Format:
    """Return the format that the Accept header prefers: JSON unless it names another one."""
    plain: dict[str, Format] = {mimetype.split(";")[0]: name for name, mimetype in MIMETYPES.items()}
    best = request.accept_mimetypes.best_match(list(plain), default=MIMETYPES["json"])
    return plain[best]


def answer_rows(
    run: Runtime, asked: RowsRequest, *, closed: bool, cacheable: bool = True, by_parts: bool = False
) -> Response:
    """Return the answer to a request of rows.

    closed: only ticks change the answer, no clock does: then it has an ETag. cacheable: its version is cheap to tell.
    by_parts: the source takes its time for a few rows and gives no more at a time, so it is always streamed.
    Raises RequestError and DatabaseAway before anything is sent; trouble after that breaks the transfer off.
    """
    client = client_of(request.environ)
    stream = RowStream(asked)
    single = asked.limit is not None and asked.limit <= MOST_ROWS and not by_parts
    read = partial(run.reads.run, PAGE if single else EXPORT, client=client)
    known_to_client = request.if_none_match if closed else None
    cached = run.cache if single and cacheable and asked.format == "json" else None
    headers = {"Vary": "Accept, Accept-Encoding", "Cache-Control": "no-cache"}
    if asked.gzip:
        headers["Content-Encoding"] = "gzip"
    mimetype = MIMETYPES[asked.format].split(";")[0]  # Flask adds the charset of texts
    if asked.format == "parquet" and not by_parts and asks_for_pieces():
        making = _Making(run, asked, read, client)
        pieces = answer_pieces(run.spool, client, making, mimetype=mimetype, headers=headers, closed=closed)
        if pieces is not None:
            return pieces
    first: bytes | None = None
    if known_to_client or (cached is not None and cached.worth_asking):
        read(partial(_open, stream, True))
        tag = stream.identity()
        if known_to_client and known_to_client.contains_weak(tag):
            return Response(status=304, headers={"ETag": f'W/"{tag}"', **headers})
        if cached is not None:
            kept = cached.get(tag)
            if kept is not None:
                token, _, first = kept.partition(b"\n")
                stream.next_token = token.decode() or None

    def told() -> dict[str, str]:
        """Return the headers, once the first page is made."""
        own = dict(headers)
        if closed:
            own["ETag"] = f'W/"{stream.identity()}"'
        if stream.next_token is not None:
            own[NEXT_PAGE_HEADER] = stream.next_token
        return own

    if not single:
        return stream_pages(_pages(run, stream, read, client, closed), mimetype=mimetype, headers=told)
    if first is None:
        first = read(partial(_first_page, stream, closed))
        if cached is not None and stream.lasting and stream.version is not None:
            kept = (stream.next_token or "").encode() + b"\n" + first
            cached.put(stream.identity(), kept, run.settings.cache_ttl_s)
    return Response(first, mimetype=mimetype, headers=told())


class _Making:
    """An answer that is made as a whole, with what is known of it then."""

    def __init__(self, run: Runtime, asked: RowsRequest, read: Callable[..., Any], client: Client) -> None:
        self._run, self._stream, self._read, self._client = run, RowStream(asked), read, client

    def identity(self) -> str:
        self._read(partial(_open, self._stream, True))
        return self._stream.identity()

    def pages(self) -> Iterator[bytes]:
        return _pages(self._run, self._stream, self._read, self._client, True)

    def ending(self) -> tuple[bool, str | None]:
        return self._stream.lasting, self._stream.next_token


def _pages(
    run: Runtime, stream: RowStream, read: Callable[..., Any], client: Client, with_version: bool
) -> Iterator[bytes]:
    """Yield the answer's bytes; while one page is encoded the database makes the next."""
    worked_s = 0.0

    def tables() -> Iterator[Table]:
        nonlocal worked_s
        while not stream.done:
            began_s = time.monotonic()
            table = read(stream.read)
            worked_s = time.monotonic() - began_s
            yield table

    with run.stream_places.taken(client):
        stream.page_rows = first_page_rows(stream.request.limit)
        yield read(partial(_first_page, stream, with_version))
        pace = Pace(lambda: run.requests_begun)
        reading = tables()
        ahead = Ahead(reading)
        try:
            while (table := ahead.get()) is not None:
                last = stream.done
                if not last:
                    stream.page_rows = pace.rest(worked_s)
                ahead = Ahead(reading)
                yield run.formatting.call(stream.encode, table, last)
        finally:
            ahead.stop()


def _open(stream: RowStream, with_version: bool, cur: Cursor) -> None:
    stream.open(cur, with_version)


def _first_page(stream: RowStream, with_version: bool, cur: Cursor) -> bytes:
    if stream.instrument is None:
        stream.open(cur, with_version)
    return stream.page(cur)
