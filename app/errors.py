"""Every error that tickhub raises on purpose.

    TickhubError
    ├── SettingsError            the server cannot start so
    ├── RequestError             a client's request is refused; carries code and status
    │   ├── BadRequest (400) ... one class a status and code
    ├── ClientGone               nobody waits for the answer any more
    └── StorageError             the database
        ├── DatabaseAway         not reachable, or trouble that is not about a row: try again
        └── LedgerMoved          someone else flushed these rows: re-read the ledger
"""

from __future__ import annotations

from typing import ClassVar


class TickhubError(Exception):
    """Something went wrong in tickhub."""


class SettingsError(TickhubError):
    """The settings do not allow the server to start."""


class RequestError(TickhubError):
    """The request is refused."""

    code: ClassVar[str] = "bad_field"
    status: ClassVar[int] = 400
    retry_after_s: int | None = None


class BadJson(RequestError):
    """The body is not JSON."""

    code = "bad_json"


class MissingField(RequestError):
    """A required field is missing."""

    code = "missing_field"


class BadField(RequestError):
    """A field has a value that cannot be stored."""

    code = "bad_field"


class BadParameter(RequestError):
    """A query parameter has a value that makes no sense."""

    code = "bad_parameter"


class Unauthorized(RequestError):
    """An API key is needed: send it as X-API-Key or Authorization: Bearer."""

    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    """The API key, or the web page that this comes from, may not do that."""

    code = "forbidden"
    status = 403


class NotFound(RequestError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class MethodNotAllowed(RequestError):
    """This address does not take that method."""

    code = "method_not_allowed"
    status = 405


class TooLarge(RequestError):
    """The body is larger than max_body_mb."""

    code = "too_large"
    status = 413


class UnsupportedEncoding(RequestError):
    """The body's encoding is not understood: send JSON, plain or gzip."""

    code = "unsupported_encoding"
    status = 415


class BufferFull(RequestError):
    """The journal is full: the database has been away too long. Send it again later."""

    code = "buffer_full"
    status = 503
    retry_after_s = 5


class NotReady(RequestError):
    """The server cannot decide this yet. Send it again later."""

    code = "not_ready"
    status = 503
    retry_after_s = 2


class UnknownSymbol(RequestError):
    """There is no such symbol."""

    code = "unknown_symbol"
    status = 404


class Conflict(RequestError):
    """There is one already."""

    code = "conflict"
    status = 409


class UnknownDataset(RequestError):
    """There is no such dataset."""

    code = "unknown_dataset"
    status = 404


class UnknownCommand(RequestError):
    """There is no such command."""

    code = "unknown_command"


class RateLimited(RequestError):
    """Too much in too short a time. Go slower."""

    code = "rate_limited"
    status = 429
    retry_after_s = 1


class PreconditionFailed(Conflict):
    """What If-Match names is not there, or no more."""

    status = 412


class OutOfRange(BadParameter):
    """The answer has no such bytes."""

    status = 416


class QueryTimeout(RequestError):
    """The query took too long. Ask for less, or again later."""

    code = "query_timeout"
    status = 503
    retry_after_s = 2


class DatabaseNeeded(RequestError):
    """The database is away; this cannot be answered without it. Ask again later."""

    code = "database_away"
    status = 503
    retry_after_s = 2


class ArchiveAway(RequestError):
    """The archive's files cannot be read here. Ask again later."""

    code = "not_ready"
    status = 503
    retry_after_s = 30


class ClientGone(TickhubError):
    """The client left before its answer."""


class StorageError(TickhubError):
    """The database could not do it."""


class DatabaseAway(StorageError):
    """The database is not reachable or in trouble; nothing was written, try again."""


class LedgerMoved(StorageError):
    """The ledger is not where this flush expected it: somebody else flushed these rows."""
