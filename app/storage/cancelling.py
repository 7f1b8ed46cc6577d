"""Cancelling a statement of a connection that another thread waits on. Lane side.

psycopg2's own `connection.cancel()` holds the interpreter's lock while it waits for the server: before one that hangs,
the whole process would stand still (measured: as long as the server was stopped). The same two calls of libpq made
through ctypes let it go.
"""

from __future__ import annotations

import ctypes

from psycopg2 import _psycopg
from psycopg2.extensions import connection as PsycopgConnection

_libpq = ctypes.CDLL(_psycopg.__file__)  # psycopg2's own copy of libpq is found through what links to it
_libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
_libpq.PQgetCancel.restype = ctypes.c_void_p
_libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
_libpq.PQcancel.restype = ctypes.c_int
_libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
_libpq.PQfreeCancel.restype = None

_REASON_BYTES = 256
"""What libpq's manual recommends for the buffer of the reason."""


class Canceller:
    """Cancels what runs on one connection; stays valid when that is closed, and does nothing then."""

    def __init__(self, connection: PsycopgConnection) -> None:
        self._handle: int | None = _libpq.PQgetCancel(connection.pgconn_ptr)

    def cancel(self) -> bool:
        """Tell the server to cancel; whether it took the message. Waits for it: without bound if it hangs.

        When this returns the signal was sent: a statement that begins afterwards is not hit.
        """
        reason = ctypes.create_string_buffer(_REASON_BYTES)
        return self._handle is not None and bool(_libpq.PQcancel(self._handle, reason, _REASON_BYTES))

    def __del__(self) -> None:
        if self._handle is not None:
            _libpq.PQfreeCancel(self._handle)
