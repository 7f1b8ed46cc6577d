"""Errors as JSON: one shape for all, `{"status":"error","code":...,"message":...}`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from app.errors import BadParameter, ClientGone, DatabaseAway, DatabaseNeeded, RequestError, UnknownDataset

CODES = {
    400: "bad_json",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_encoding",
    429: "rate_limited",
    503: "not_ready",
}

RETRY_AFTER_S = 2
"""What a 429 or 503 advises that knows nothing better."""

CLIENT_GONE = 499
"""nginx's status for it; there is no standard one, since nobody is there to read it."""

_DATASET = re.compile(r"/(?:api|ingest)/([^/]+)")
"""Where datasets are: a name that leads nowhere there is that of none."""

log = logging.getLogger("tickhub")


class JsonResponse(Response):
    """What Flask makes itself, the answer to OPTIONS say, is no HTML either."""

    default_mimetype = "application/json"


def answer(value: Any, status: int = 200) -> Response:
    """Return a value as a JSON answer."""
    return Response(encode(value), status, mimetype="application/json")


def encode(value: Any) -> bytes:
    """Return a value as JSON; half of a surrogate pair, which a client can send, becomes a question mark."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_sound(msgspec.to_builtins(value)))


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _sound(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sound(item) for item in value]
    return value


def error_answer(
    code: str,
    message: str,
    status: int,
    retry_after_s: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Return an error in the shape that every error has, with `more` fields."""
    response = answer({"status": "error", "code": code, "message": message, **(more or {})}, status)
    if retry_after_s is None and status in (429, 503):
        retry_after_s = RETRY_AFTER_S
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def register(app: Flask) -> None:
    """Map every exception of a request to an answer."""
    app.response_class = JsonResponse

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        text = str(error) or (type(error).__doc__ or "")
        return error_answer(error.code, text, error.status, error.retry_after_s)

    @app.errorhandler(DatabaseAway)
    def away(error: DatabaseAway) -> Response:
        log.debug("%s %s: %s", request.method, request.path, error)
        return refused(DatabaseNeeded())

    @app.errorhandler(ClientGone)
    def gone(error: ClientGone) -> Response:
        # Only a client that half-closed its connection sees it.
        message = "the connection was closed at your end while the query ran: keep it open until the answer is there"
        return error_answer("client_gone", message, CLIENT_GONE)

    @app.errorhandler(WebsocketMismatch)
    def mismatch(error: WebsocketMismatch) -> Response:
        is_one = request.headers.get("Upgrade", "").lower() != "websocket"
        what = "is a WebSocket: connect to it with ws:// or wss://" if is_one else "is no WebSocket"
        return error_answer(BadParameter.code, f"{request.path} {what}", BadParameter.status)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        if status == 404 and (asked := _DATASET.fullmatch(request.path)):
            return error_answer(UnknownDataset.code, f"Unknown dataset: {asked[1][:64]}", status)
        if status == 404:
            message = f"nothing is at {request.path}"
        elif status == 405:
            message = f"{request.path} does not take {request.method}"
        else:
            message = error.description or error.name
        response = error_answer(CODES.get(status, "bad_parameter"), message, status)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        log.exception("a request failed: %s %s", request.method, request.path)
        return error_answer("internal", "the server failed on this request; its log says why", 500)
