"""The rows of one request, page by page, as bytes: what a read does on its lane. Lane side; one call at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from psycopg2.extensions import cursor as Cursor

from app.errors import UnknownSymbol
from app.formats.encoders import Encoder, Format, Gzipped, make_encoder
from app.formats.table import Field, Table
from app.page_token import make_token, read_token
from app.storage.instruments import Known, find

PAGE_ROWS = 20_000
"""Rows of an export that are read, formatted and sent at a time: some 20 ms of a lane, 2 MB of CSV. Twice as many are
hardly quicker; ten times fewer cost a third more."""

ANSWERS_VERSION = 1
"""Part of every answer's identity, so that nobody goes on with what an older release made of the same ticks: clients
with their ETags, Redis with its bodies. Raise it with whatever makes another answer of them: columns, their order or
types, how a value is written, what bars are made of, what a page or its token is."""


ALL = Known(0, "", None, nonpositive_ok=False)
"""Stands for the instrument where no symbol was asked for; none has its number."""


@dataclass(slots=True)
class Page:
    """Rows in the asked order, the place of the last one, and whether there are more behind it."""

    table: Table
    place: bytes | None
    more: bool


class Source(Protocol):
    """Where the rows of a request come from."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return the columns."""

    @property
    def list_name(self) -> str:
        """Return what the list of rows is called in JSON."""

    @property
    def kind(self) -> tuple[str, ...]:
        """Return what tells these rows from others of the same symbol and range."""

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return the range that was asked for."""

    def head(self, instrument: Known) -> Mapping[str, str | None]:
        """Return the members of the JSON answer before the list."""

    def version(self, cur: Cursor, instrument: Known) -> str | None:
        """Return what changes whenever the rows do that the answer depends on; None: nothing cheap tells."""

    def read(
        self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int
    ) -> Page:
        """Return the next rows behind the place `after`."""

    def lasting(self, table: Table) -> bool:
        """Tell whether the rows stay true for as long as their version does, whatever the clock says."""


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """What was asked: at most `limit` rows (None: all) in one answer.

    symbol: None: rows of all instruments, or of none. newest: the last rows instead of the first ones, in ascending
    order all the same.
    """

    symbol: str | None
    source: Source
    format: Format
    gzip: bool = False
    limit: int | None = None
    newest: bool = False
    descending: bool = False
    page_token: str | None = None


@dataclass(slots=True)
class RowStream:
    """An answer that is being made. `page` returns its next bytes, of `page_rows` rows at most, until `done`."""

    request: RowsRequest
    instrument: Known | None = None
    version: str | None = None
    next_token: str | None = None
    lasting: bool = True
    done: bool = False
    page_rows: int = PAGE_ROWS
    _encoder: Encoder | None = field(default=None, repr=False)
    _read: int = 0
    _after: bytes | None = None

    def open(self, cur: Cursor, with_version: bool) -> None:
        """Find the instrument, and the version of its ticks in the range. Raises UnknownSymbol, BadParameter."""
        asked = self.request
        found = ALL if asked.symbol is None else find(cur, asked.symbol)
        if found is None:
            raise UnknownSymbol(f"Unknown symbol: {(asked.symbol or '')[:64]}")
        self.instrument = found
        if asked.page_token is not None:
            self._after = read_token(self._token_kind(found), asked.page_token)
        if with_version:
            self.version = asked.source.version(cur, found)

    def page(self, cur: Cursor) -> bytes:
        """Return the next bytes of the answer; after the last ones it is `done`."""
        return self.encode(self.read(cur))

    def read(self, cur: Cursor) -> Table:
        """Return the next rows; after the last ones it is `done`."""
        asked, instrument = self.request, self.instrument
        assert instrument is not None
        left = self.page_rows if asked.limit is None else min(self.page_rows, asked.limit - self._read)
        found = asked.source.read(
            cur, instrument, after=self._after, descending=asked.descending or asked.newest, max_rows=left
        )
        table = found.table.backwards() if asked.newest else found.table
        self._read += len(table)
        self._after = found.place
        self.lasting = self.lasting and asked.source.lasting(table)
        self.done = not found.more or self._read == asked.limit
        if self.done and found.more and not asked.newest and found.place is not None:
            self.next_token = make_token(self._token_kind(instrument), found.place)
        return table

    def encode(self, table: Table, last: bool | None = None) -> bytes:
        """Return the rows as bytes, with what comes before the first and behind the last of them.

        Tables are encoded in the order in which they were read. last: given where reading has gone on meanwhile.
        """
        encoder, out = self._encoder, b""
        if encoder is None:
            assert self.instrument is not None
            encoder = self._encoder = self._make_encoder(self.instrument)
            out = encoder.head()
        if len(table):
            out += encoder.rows(table)
        if self.done if last is None else last:
            out += encoder.tail(self.next_token)
        return out

    def identity(self) -> str:
        """Return what tells this answer from every other one, as a short text; it was opened with its version."""
        asked, instrument = self.request, self.instrument
        assert instrument is not None
        assert self.version is not None
        # Bars below a minute are made when asked for: which prices count in them, the ticks do not say.
        whole = [ANSWERS_VERSION, self.version, instrument.symbol, instrument.nonpositive_ok]
        whole += [*self._token_kind(instrument), asked.source.range]
        whole += [asked.format, asked.gzip, asked.limit, asked.newest, asked.page_token]
        return hashlib.sha256(msgspec.json.encode(whole)).hexdigest()[:32]

    def _token_kind(self, instrument: Known) -> tuple[object, ...]:
        return (instrument.symbol_id, self.request.descending, *self.request.source.kind)

    def _make_encoder(self, instrument: Known) -> Encoder:
        asked, source = self.request, self.request.source
        encoder = make_encoder(
            asked.format, source.fields, list_name=source.list_name, extra=source.head(instrument)
        )
        return Gzipped(encoder) if asked.gzip else encoder
