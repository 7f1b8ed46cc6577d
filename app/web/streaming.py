"""Answers that are made while they are sent: page after page, one ahead of the client. Greenlet side."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Generic, TypeVar

import gevent
from flask import Response, request

from app import request_ids
from app.errors import ClientGone, NotReady, QueryTimeout, StorageError, Unauthorized
from app.web.auth import may_go_on
from app.web.client import NoClient, SocketClient, client_of

PIECE_BYTES = 64 << 10
STALLED_S = 60.0
"""A client that took less than a piece in this time is dropped. Even a bad mobile connection has a hundred times the
speed; what stands still so long is a program that does not read, and it holds two pages of memory."""

PIECES_A_TURN = 4
"""After so many pieces the other greenlets get a turn: a client as fast as this server would never make it wait."""

T = TypeVar("T")

log = logging.getLogger("tickhub")


def stream_pages(
    pages: Iterator[bytes],
    *,
    mimetype: str,
    headers: Callable[[], Mapping[str, str]] = dict,
) -> Response:
    """Return an answer made of pages; the first is made before this returns, so its errors are still an answer, and
    `headers` is asked when it is there.

    Then one page is made while the one before is sent, not more: a client that does not read holds two pages of memory,
    no lane and no connection, and is dropped after STALLED_S. An error in a later page is logged and breaks the
    transfer off, so that no client takes a part for the whole; so does the end of the API key. `pages` runs in
    greenlets of its own, outside the request's context; it is closed when the answer is sent or the client has left.
    HEAD makes the first page only.
    """
    first = next(pages, b"")
    if request.method == "HEAD":
        _close(pages)
        return Response(iter(()), mimetype=mimetype, headers=headers())
    path = request.environ.get("RAW_URI", request.path)
    pieces = _pieces(first, pages, client_of(request.environ), path, may_go_on())
    return Response(pieces, mimetype=mimetype, headers=headers())


def _pieces(
    page: bytes | None, pages: Iterator[bytes], client: SocketClient | NoClient, path: str, allowed: Callable[[], bool]
) -> Iterator[bytes]:
    ahead: Ahead[bytes] | None = None
    complete = False
    stalled = _broken("the client does not read")
    client.begin()
    try:
        while page is not None:
            ahead = Ahead(pages)
            for count, start in enumerate(range(0, len(page), PIECE_BYTES), 1):
                if not allowed():
                    raise Unauthorized("the API key holds no more")
                with gevent.Timeout(STALLED_S, stalled):
                    yield page[start : start + PIECE_BYTES]
                if count % PIECES_A_TURN == 0:
                    gevent.sleep(0)
            page = ahead.get()
        complete = True
    except ClientGone:
        raise _broken("the client left") from None
    except (StorageError, QueryTimeout, NotReady, Unauthorized) as error:
        log.warning("[READ] %s broken off: %s", path, error)
        raise _broken(str(error)) from None
    except Exception as error:
        log.exception("[READ] %s broken off", path)
        raise _broken(str(error)) from None
    finally:
        if not complete:
            client.break_off()
        if stalled.__traceback__ is not None:  # raised in whatever was sending
            log.info("[READ] %s broken off: %s", path, stalled.strerror)
        if ahead is not None:
            ahead.stop()
        _close(pages)


def _close(pages: Iterator[bytes]) -> None:
    if isinstance(pages, Generator):
        pages.close()


def _broken(why: str) -> ConnectionResetError:
    """Return what makes gunicorn end the connection at once and without another word."""
    return ConnectionResetError(errno.ECONNRESET, why)


class Ahead(Generic[T]):
    """The next item of an iterator, being made."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._item: T | None = None
        self._error: Exception | None = None
        self._asked = request_ids.current()
        self._greenlet = gevent.spawn(self._make)

    def _make(self) -> None:
        request_ids.adopt(self._asked)
        try:
            self._item = next(self._items, None)
        except Exception as error:  # noqa: BLE001 - whoever waits for the item gets it
            self._error = error

    def get(self) -> T | None:
        """Return the item, or None behind the last one; raises what making it raised."""
        self._greenlet.join()
        if self._error is not None:
            raise self._error
        return self._item

    def stop(self) -> None:
        """Make it no further; what it reads is cancelled."""
        self._greenlet.kill()
