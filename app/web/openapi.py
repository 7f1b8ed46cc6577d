"""The OpenAPI 3.1 document, made of the declared endpoints: of the types that validate requests and shape answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.errors import (
    BadParameter,
    Conflict,
    Forbidden,
    NotFound,
    OutOfRange,
    PreconditionFailed,
    RateLimited,
    RequestError,
    TooLarge,
    Unauthorized,
)
from app.formats.encoders import MIMETYPES, Format
from app.market.decode import Rejected
from app.row_stream import PAGE_ROWS
from app.web.answers import NEXT_PAGE_HEADER
from app.web.api import Endpoint
from app.web.params import TIME_SCHEMA, Time, choices_of

Json = dict[str, Any]

REF = "#/components/schemas/{name}"

DESCRIPTION = """\
Times in answers are RFC 3339, UTC, with six fraction digits. A symbol goes by its name or any of its aliases, in any
case, and answers carry the name.

Every error has the same shape; `code` is stable, `message` is for people. What any address may answer, beyond what
its operations list: 404 `not_found`, 405 `method_not_allowed`, 414 and 431 `too_large` (address, headers), and 400 for
what is no HTTP."""

GROUPS = {
    "ingest": "Ticks come in. A 2xx means that they are on disk.",
    "datasets": "The desk's other data: records in, row by row, and out in every format.",
    "market": "Symbols, quotes, ticks and bars go out.",
    "alerts": "What somebody wants to be told.",
    "udf": "The same for TradingView's charts.",
    "stats": "What the server did.",
    "health": "How the server is. No key needed.",
    "documentation": "What there is.",
}

PARTS: Mapping[str, Json] = {
    "symbol": {
        "description": "the symbol's name or any of its aliases, in any case; may hold slashes, sent as %2F",
        "schema": {"type": "string", "minLength": 1},
        "example": "AAPL",
    },
    "ticker": {
        "description": "the symbol of a share or an underlying: its name or any of its aliases, in any case",
        "schema": {"type": "string", "minLength": 1},
        "example": "AAPL",
    },
}

FORMAT_WORDS: Mapping[Format, str] = {
    "json": "",
    "ndjson": "one JSON object a line, a row each",
    "csv": "a header line, then a line a row; null is nothing between the commas",
    "arrow": "an Arrow IPC stream; times are timestamp[us, UTC]",
    "parquet": "a Parquet file; times are timestamp[us, UTC]. HEAD and Range are understood, as polars sends them",
}

CODE_WORDS = {"too_old": "timestamp is before 1990-01-01", "unknown_symbol": "Unknown symbol: FOO"}
"""Messages of codes that no error class stands for, or says too little about."""

STATUS_WORDS: Mapping[int, Mapping[str, str]] = {
    409: {"conflict": "the file that was begun has made room for others: begin again, at its end or with HEAD"},
    412: {"conflict": PreconditionFailed.__doc__ or ""},
    414: {"too_large": "this is not a request that can be read: the address is too long"},
    416: {"bad_parameter": "Range: the answer has 1234 bytes"},
}
"""Messages that a code has with this status only."""

PIECES_ERRORS = (Conflict, PreconditionFailed, OutOfRange)
"""Of requests for pieces of a Parquet answer."""

RETRY_AFTER: Json = {
    "description": "when to ask again, s",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
ETAG: Json = {
    "description": "weak; send it back as If-None-Match. Answers whose range is closed have one",
    "schema": {"type": "string"},
}
NEXT_PAGE: Json = {
    "description": "what `next_page_token` is in JSON; only where there is a next page, and never for a `limit` above "
    f"{PAGE_ROWS}, unless a Parquet file is read in pieces",
    "schema": {"type": "string"},
}
SECURITY_SCHEMES: Json = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


class Error(Struct):
    """What every error looks like."""

    status: Literal["error"]
    code: str
    message: str

    @classmethod
    def of(cls, code: str, message: str) -> Self:
        """Return the error with this code and message."""
        return cls("error", code, message)


class RowsRefused(Error):
    """An error that may be about rows."""

    rejected: Annotated[list[Rejected], Meta(description="every refused row of a batch")] | UnsetType = UNSET


def document(endpoints: Iterable[Endpoint], *, version: str, with_keys: bool) -> Json:
    """Return the document. with_keys: API keys are configured, so operations with a scope ask for one."""
    listed = in_order(endpoints)
    types = [Error, RowsRefused, *(kind for declared in listed for kind in _types_of(declared))]
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema_of, ref_template=REF)
    of_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Json] = {}
    for declared in listed:
        paths.setdefault(declared.path, {})[declared.method.lower()] = _operation(declared, of_type, with_keys)
    groups = dict.fromkeys(declared.group for declared in listed)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tickhub", "version": version, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": group, "description": GROUPS[group]} for group in groups],
        "paths": paths,
        "components": {"schemas": components, **({"securitySchemes": SECURITY_SCHEMES} if with_keys else {})},
    }


def in_order(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the endpoints group by group, each group in the order of declaration."""
    groups = list(GROUPS)
    return sorted(endpoints, key=lambda declared: groups.index(declared.group))


def parameters_of(params: type[Struct]) -> list[Json]:
    """Return the query parameters of a type, as OpenAPI has them."""
    _, components = msgspec.json.schema_components([params], schema_hook=_schema_of, ref_template=REF)
    properties: Json = components[params.__name__]["properties"]
    found = []
    for field in msgspec.structs.fields(params):
        schema = _never_null(properties[field.encode_name])
        description = schema.pop("description", "")
        if choices := choices_of(field.type):
            # In their own order: 1s, 5s, 15s.
            schema |= {"type": "string", "enum": list(choices)}
        found.append(
            {
                "name": field.encode_name,
                "in": "query",
                "required": field.required,
                **({"description": description} if description else {}),
                "schema": schema,
            }
        )
    return found


def errors_of(declared: Endpoint, *, with_keys: bool) -> dict[int, list[str]]:
    """Return the codes that an endpoint may answer with, by status."""
    errors: list[type[RequestError]] = [*declared.errors]
    if "parquet" in declared.formats:
        errors += PIECES_ERRORS
    if declared.params is not None:
        errors.append(BadParameter)
    if declared.scope and with_keys:
        errors += [Unauthorized, Forbidden, RateLimited]
    elif declared.scope:
        errors.append(Forbidden)  # a web page of elsewhere, or a name that is not this server's
    found: dict[int, list[str]] = {}
    for error in errors:
        found.setdefault(error.status, []).append(error.code)
    if declared.parts:
        found.setdefault(404, []).append(NotFound.code)  # a part that cannot be one
    if declared.params is not None or declared.parts:
        found[414] = [TooLarge.code]
    if declared.row_codes:
        found.setdefault(400, []).extend(declared.row_codes)
    return {status: sorted(set(codes)) for status, codes in sorted(found.items())}


def _types_of(declared: Endpoint) -> list[Any]:
    kinds = (declared.body, declared.answer, declared.error, *declared.also.values())
    return [kind for kind in kinds if kind is not None]


def _schema_of(kind: type) -> Json:
    assert kind is Time, kind  # the only type of a parameter or answer that msgspec does not know
    return dict(TIME_SCHEMA)


def _operation(declared: Endpoint, of_type: Mapping[int, Json], with_keys: bool) -> Json:
    parts = [{"name": name, "in": "path", "required": True, **PARTS[name]} for name in declared.parts]
    parameters = [*parts, *(parameters_of(declared.params) if declared.params is not None else ())]
    words = re.sub(r"\W+", "_", declared.path).strip("_") or "index"
    operation: Json = {
        "operationId": f"{declared.method.lower()}_{words}",
        "tags": [declared.group],
        "summary": declared.summary,
        **({"description": declared.description} if declared.description else {}),
        **({"parameters": parameters} if parameters else {}),
    }
    if declared.body is not None:
        body = of_type[id(declared.body)]
        content: Json = {"application/json": {"schema": body}}
        content |= {mimetype: {"schema": {"type": "string"}} for mimetype in declared.body_formats}
        operation["requestBody"] = {"required": True, "content": content}
    operation["responses"] = _responses(declared, of_type, with_keys)
    if with_keys:
        roles = [declared.scope]
        operation["security"] = [{name: roles} for name in SECURITY_SCHEMES] if declared.scope else []
    return {**operation, **declared.more}


def _responses(declared: Endpoint, of_type: Mapping[int, Json], with_keys: bool) -> Json:
    success: Json = {"description": HTTPStatus(declared.status).phrase, "content": _content(declared, of_type)}
    headers = {
        **({"ETag": ETAG} if declared.etag or declared.formats else {}),
        **({NEXT_PAGE_HEADER: NEXT_PAGE} if declared.formats else {}),
    }
    if headers:
        success["headers"] = headers
    found: dict[int, Json] = {declared.status: success}
    if "ETag" in headers:
        found[304] = {"description": "Not Modified: If-None-Match names the answer", "headers": {"ETag": ETAG}}
    if "parquet" in declared.formats:
        mimetype = _plain(MIMETYPES["parquet"])
        piece = {"schema": {"type": "string", "contentMediaType": mimetype}}
        found[206] = {"description": "Partial Content: the bytes that Range asks for", "content": {mimetype: piece}}
    kind = declared.error or (RowsRefused if declared.row_codes else Error)
    for status, codes in errors_of(declared, with_keys=with_keys).items():
        found[status] = _response(status, **_error(status, kind, of_type[id(kind)], codes))
    for status, kind in declared.also.items():
        found[status] = _response(status, schema=of_type[id(kind)])
    return {str(status): response for status, response in sorted(found.items())}


def _content(declared: Endpoint, of_type: Mapping[int, Json]) -> Json:
    content: Json = {}
    if declared.answer is not None:
        content["application/json"] = {"schema": of_type[id(declared.answer)]}
    for name in declared.formats:
        if words := FORMAT_WORDS[name]:
            mimetype = _plain(MIMETYPES[name])
            content[mimetype] = {"schema": {"type": "string", "description": words}}
            if not _is_text(name):
                content[mimetype]["schema"]["contentMediaType"] = mimetype
    if declared.mimetype:
        content[_plain(declared.mimetype)] = {"schema": {"type": "string"}}
    return content


def _response(status: int, **content: Json) -> Json:
    response: Json = {"description": HTTPStatus(status).phrase, "content": {"application/json": content}}
    if status in (429, 503):
        response["headers"] = {"Retry-After": RETRY_AFTER}
    return response


def _error(status: int, kind: type[Error], schema: Json, codes: Sequence[str]) -> Json:
    """Return the media type of an error with one of these codes: its schema, and an example of each."""
    words = {error.code: error.__doc__ or "" for error in RequestError.__subclasses__()} | CODE_WORDS
    words |= STATUS_WORDS.get(status, {})
    examples = {code: {"value": msgspec.to_builtins(kind.of(code, words[code]))} for code in codes}
    of_codes = {"type": "object", "properties": {"code": {"type": "string", "enum": list(codes)}}}
    return {"schema": {"allOf": [schema, of_codes]}, "examples": examples}


def _plain(mimetype: str) -> str:
    return mimetype.split(";")[0]


def _is_text(name: Format) -> bool:
    return name in ("ndjson", "csv")


def _never_null(schema: Mapping[str, Any]) -> Json:
    """Return a schema without null, which no query can hold, nor as a default."""
    found = {name: value for name, value in schema.items() if name != "default" or value is not None}
    choices = [choice for choice in found.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**choices[0], **found}
    return {**found, **({"anyOf": choices} if choices else {})}
