"""A server that takes tick batches, keeps what it acknowledged, and fails in the ways it is told to."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Row = dict[str, object]
Identity = tuple[object, object, object, object]


class StandInServer:
    """tickhub as API.md describes `POST /tick/batch`, in memory.

    faults: taken one by one by the next requests; each is an HTTP status (with optional headers and body),
    "drop" (store, then close without an answer), "cut" (close without storing) or "html" (200, not tickhub's).
    refuse: row -> (code, message) or None. most_rows: more in one request are answered 413.
    """

    def __init__(self, port: int = 0) -> None:
        self.rows: list[Row] = []
        self.by_identity: dict[Identity, Row] = {}
        self.conflicts: list[tuple[Row, Row]] = []
        self.requests: list[int] = []
        self.arrived: list[tuple[float, int]] = []
        """Of each request when it came (time.monotonic(), seconds), and its number of rows."""
        self.connections = 0
        self.api_key = ""
        self.most_rows = 1_000_000
        self.faults: list[str | tuple[int, dict[str, str], bytes]] = []
        self.refuse: Callable[[Row], tuple[str, str] | None] = lambda row: None
        self.lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                stand_in.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with stand_in.lock:
                    answer = stand_in.take(self.path, self.headers.get("X-API-Key", ""), body)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a bridge killed in the middle of a request is what the tests do

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, path: str, api_key: str, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        if path != "/tick/batch":
            return answer(404, {"status": "error", "code": "not_found", "message": path})
        if self.api_key and api_key != self.api_key:
            return answer(401, {"status": "error", "code": "unauthorized", "message": "An API key is needed"})
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, tuple):
            self.requests.append(0)
            return fault
        if fault == "cut":
            return None
        if fault == "html":
            return 200, {"Content-Type": "text/html"}, b"<html>Please sign in</html>"
        rows = json.loads(gzip.decompress(body))["ticks"]
        self.requests.append(len(rows))
        self.arrived.append((time.monotonic(), len(rows)))
        if len(rows) > self.most_rows:
            return answer(413, {"status": "error", "code": "too_large", "message": "too large"})
        rejected = []
        for index, row in enumerate(rows):
            refused = self.refuse(row)
            if refused:
                rejected.append({"index": index, "code": refused[0], "message": refused[1]})
            else:
                self.store(row)
        if fault == "drop":
            return None
        received = len(rows) - len(rejected)
        if rejected and not received:
            message = rejected[0]["message"]
            return answer(
                400, {"status": "error", "code": "bad_field", "message": message, "rejected": rejected}
            )
        if rejected:
            return answer(200, {"status": "partial", "received": received, "rejected": rejected})
        return answer(200, {"status": "success", "received": received})

    def store(self, row: Row) -> None:
        identity = (row["symbol"], row["time_msc"], row["seq"], row.get("fold", 0))
        known = self.by_identity.setdefault(identity, row)
        if known != row:
            self.conflicts.append((known, row))
        self.rows.append(row)

    def stored(self) -> list[Row]:
        """Every tick once, in the order of its identity."""
        with self.lock:
            return [self.by_identity[identity] for identity in sorted(self.by_identity, key=order)]


def order(identity: Identity) -> tuple[str, int, int, int]:
    symbol, time_msc, seq, fold = identity
    return str(symbol), int(str(fold)), int(str(time_msc)), int(str(seq))


def answer(status: int, body: object) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()
