"""Talking to a server byte by byte, and what every answer of it must be."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.harness import Server, copy_template, folder, wait_until

STATUSES = {200, 201, 206, 304, 400, 401, 403, 404, 405, 409, 412, 413, 414, 415, 416, 417, 429, 431, 503}
CODES = {
    "bad_json",
    "missing_field",
    "bad_field",
    "unknown_symbol",
    "unknown_dataset",
    "unknown_command",
    "bad_parameter",
    "not_found",
    "method_not_allowed",
    "too_large",
    "unsupported_encoding",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "buffer_full",
    "not_ready",
    "too_old",
    "conflict",
    "query_timeout",
    "database_away",
}
AWAY = "postgresql://nobody@127.0.0.1:1/none"
"""Where no database is: nothing may listen on port 1."""


@dataclass
class Answer:
    """A response; the names of its headers in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.data)


@contextmanager
def running(
    template: Path,
    *flags: str,
    workers: int = 1,
    environ: Mapping[str, str] | None = None,
    module: str = Server.module,
) -> Iterator[Server]:
    """A started server that accepts ticks, with its database unless the flags give another one."""
    with folder() as parent:
        server = Server(copy_template(template, parent / "data"), *flags, workers=workers, environ=environ)
        server.module = module
        try:
            server.start()
            yield server.wait_accepting() if "--database-url" in flags else server.wait_ready()
        finally:
            server.close()


def ask(
    server: Server,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    chunked: bool = False,
) -> Answer:
    """Send a request and return its answer, whose form is checked. With `chunked` the body is a list of chunks."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
        client.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
        return checked(_answer(client.getresponse()))


def get(server: Server, path: str, wanted: str | None = None, method: str = "GET", **headers: str) -> Answer:
    """Ask for what may be HTML, or a part (wanted: the Range); headers by keyword, with _ for -."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as client:
        client.request(method, path, headers=sent | ({} if wanted is None else {"Range": wanted}))
        return _answer(client.getresponse())


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): text for name, text in response.getheaders()}
    return Answer(response.status, headers, response.read())


def checked(answer: Answer) -> Answer:
    """What holds for every answer: a known status, no HTML, one shape of errors, and when to come again."""
    assert answer.status in STATUSES, answer
    assert "html" not in answer.headers.get("content-type", ""), answer
    assert ("retry-after" in answer.headers) == (answer.status in (429, 503)), answer
    if answer.status >= 400 and answer.data:
        error = answer.json
        if error["status"] != "unhealthy":
            assert error["status"] == "error"
            assert error["code"] in CODES, answer
            assert error["message"]
            own = {"s": "error", "errmsg": error["message"]} if "s" in error else {}  # of UDF
            assert {name: error[name] for name in own} == own
            assert set(error) - set(own) <= {"status", "code", "message", "rejected"}
    return answer


def post(server: Server, body: bytes, path: str = "/tick/batch", **headers: str) -> Answer:
    """Send a body; headers by keyword, with _ for -."""
    return ask(server, "POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})


def exchange(
    server: Server, data: bytes, *, half_close: bool = False, timeout_s: float = 20.0
) -> list[Answer]:
    """Send bytes as they are, and return the answers until the server closes the connection."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s)) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return read_answers(client)


def read_answers(client: socket.socket) -> list[Answer]:
    """Return the answers on a connection until the server closes it."""
    data = b""
    while piece := client.recv(65536):
        data += piece
    return [checked(answer) for answer in _split(data)]


def _split(data: bytes) -> Iterator[Answer]:
    left = data
    while left:
        head, _, rest = left.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines[1:])
        }
        status, size = int(lines[0].split()[1]), int(headers.get("content-length", "0"))
        left = rest[size:]
        if status != 100:
            yield Answer(status, headers, rest[:size])


_numbers = itertools.count(1)
_started_ms = int(time.time() * 1000) - 3_600_000


def tick(**changes: Any) -> dict[str, Any]:
    """A good tick, each at a millisecond of its own within the last hour."""
    good = {
        "symbol": "AAPL",
        "bid": 190.1,
        "ask": 190.2,
        "spread": 10,
        "volume": 0,
        "flags": 6,
        "timestamp": _started_ms + next(_numbers),
    }
    return good | changes


def without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def batch(*rows: Any) -> bytes:
    return json.dumps({"ticks": rows}).encode()


def raw_row(**texts: str) -> str:
    """A good tick with some fields as raw JSON text."""
    fields = {name: json.dumps(value) for name, value in tick().items()} | texts
    return "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"


def raw_batch(*rows: str) -> bytes:
    return ('{"ticks":[' + ",".join(rows) + "]}").encode()


def assert_well(server: Server) -> None:
    """The server takes a good tick, and stores it."""
    stored = server.stats()["stored"]
    assert server.post([tick()]) == (200, {"status": "success", "received": 1})
    wait_until(lambda: server.stats()["stored"] > stored, 20, "the flush of a good tick")
