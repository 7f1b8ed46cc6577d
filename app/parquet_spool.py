"""Answers that are made whole before they are sent, so that clients can read them in pieces. Greenlet side.

polars and DuckDB read a Parquet file by its parts: the footer first, which lies at the end, then the columns that they
need, each in a request of its own. What they read must be one file, whichever worker they meet, though ticks arrive.
So the first of these requests has the answer written to a file, and the others go on with it (spool_readers.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import gevent

from app.errors import ClientGone, QueryTimeout, TickhubError
from app.lanes import Lane
from app.reads import Client
from app.spool_files import NoRoom, Opened, Part, SpoolFiles, read_piece
from app.spool_readers import SpoolReaders

PIECE_BYTES = 256 << 10
"""What is read from a file at a time."""

POLL_S = 0.05
WAIT_MOST_S = 300.0
"""How long a request waits for the file that another one makes. A hundred million rows take half of it."""

SWEEP_EVERY_S = 30.0
LINE_EVERY_S = 10.0

log = logging.getLogger("tickhub")


class Making(Protocol):
    """An answer that can be made, once."""

    def identity(self) -> str:
        """Look at the rows as they are now, and return what tells the answer from every other one."""

    def pages(self) -> Iterator[bytes]:
        """Return the bytes; `identity` was called before."""

    def ending(self) -> tuple[bool, str | None]:
        """Return what is known behind the last page: whether its identity is enough for the answer to be the same,
        whatever the clock says, and where the next page begins.
        """


class Spool:
    """The files of this host's workers, and the lane on which this one works with them."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Take the directory; nothing is made yet. max_bytes: of all files together."""
        self._files = SpoolFiles(root, max_bytes)
        self._readers = SpoolReaders(root)
        self._lane = Lane("spool")
        self._said_at = float("-inf")

    def run(self) -> None:
        """Remove what is not read any more, for ever; to be spawned as a greenlet."""
        while True:
            try:
                self._lane.call(self._sweep)
            except OSError as error:
                log.warning("[READ] the files of answers cannot be tidied: %s", error)
            gevent.sleep(SWEEP_EVERY_S)

    def stop(self) -> None:
        """Let the lane end; idempotent."""
        self._lane.stop()

    def begin(
        self,
        reader: str,
        address: str,
        identity: str,
        making: Making,
        client: Client,
        *,
        since_ns: int,
        asked_only: bool,
    ) -> Opened | None:
        """Return the answer of an address with that identity as a file, made unless it is there; close it.

        The reader goes on with this one. since_ns: when the request came, ns since 1970. asked_only: it is not to be
        read yet. None when there is no room for it, or no directory. Raises what making raises; ClientGone;
        QueryTimeout when somebody else makes it and takes too long.
        """
        until = time.monotonic() + WAIT_MOST_S
        opened: Opened | None = None
        try:
            while opened is None:
                found = self._lane.call(self._files.claim, address, identity, since_ns)
                if isinstance(found, Part):
                    found = self._make(found, making, client)
                elif found is None:
                    self._wait(until, client)
                opened = found
            self._lane.call(self._readers.begin, reader, opened.whole, asked_only=asked_only)
        except (NoRoom, OSError) as error:
            if opened is not None:
                self.close(opened)
            self._say(error)
            return None
        return opened

    def follow(self, reader: str, start: int, end: int | None, *, if_asked_only: bool = False) -> Opened | None:
        """Return the file that a reader has begun and wants [start, end) of; None when it has begun none; close it.

        if_asked_only: only when it has not read any of it. Raises Overtaken when that file is gone.
        """
        try:
            return self._lane.call(self._readers.follow, reader, start, end, if_asked_only=if_asked_only)
        except OSError as error:
            self._say(error)
            return None

    def named(self, address: str, tags: Collection[str]) -> Opened | None:
        """Return a file of an address by the tag of its bytes; close it."""
        try:
            return self._lane.call(self._files.named, address, tags)
        except OSError as error:
            self._say(error)
            return None

    def pieces(self, opened: Opened, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes [start, end) of a file, and close it at the end. Raises OSError."""
        try:
            for at in range(start, end, PIECE_BYTES):
                yield self._lane.call(read_piece, opened, at, min(PIECE_BYTES, end - at))
        finally:
            self.close(opened)

    def close(self, opened: Opened) -> None:
        """Close a file; does not wait."""
        self._later(os.close, opened.fd)

    def _make(self, part: Part, making: Making, client: Client) -> Opened:
        try:
            pages = making.pages()
            try:
                for page in pages:
                    if client.gone():
                        raise ClientGone
                    self._lane.call(part.write, page)
            finally:
                if isinstance(pages, Generator):
                    pages.close()
            lasting, next_token = making.ending()
            return self._lane.call(part.publish, lasting=lasting, next_token=next_token)
        finally:
            self._later(part.drop)  # does nothing when it was published

    def _wait(self, until: float, client: Client) -> None:
        if client.gone():
            raise ClientGone
        if time.monotonic() >= until:
            raise QueryTimeout("This answer is being made for somebody else, and it takes long. Ask again later.")
        gevent.sleep(POLL_S)

    def _sweep(self) -> None:
        """Lane side."""
        self._files.make()
        self._readers.make()
        self._files.sweep()
        self._readers.forget()

    def _later(self, fn: Callable[..., object], *args: Any) -> None:
        try:
            self._lane.submit(fn, *args)
        except TickhubError:  # the lane has ended
            fn(*args)

    def _say(self, error: Exception) -> None:
        if time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            log.warning("[READ] a Parquet answer is streamed, not to be read in pieces: %s", error)
