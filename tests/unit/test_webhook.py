"""Posting an alert: what is sent, what counts as taken, and that the URL, which may be a secret, is in no message."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app import webhook
from app.storage.alert_outbox import StoredAlert
from app.webhook import NotPosted, post

ALERT = StoredAlert(7, "AAPL", "2026-01-13T12:00:00.000000Z", "price_crosses", "AAPL price 100 ↑", "warning", 3, 100.0)


class Hook(ThreadingHTTPServer):
    """Answers with a status, and keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.came: list[tuple[str, dict[str, str], Any]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.came.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", self.server.url("/elsewhere"))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_an_alert_is_posted_as_json_with_its_number(hook: Hook) -> None:
    post(hook.url("/a/b?token=x"), ALERT)
    ((path, headers, body),) = hook.came
    assert path == "/a/b?token=x"
    assert (headers["Content-Type"], headers["Idempotency-Key"]) == ("application/json", "7")
    assert body == {
        "alert_id": 7,
        "symbol": "AAPL",
        "timestamp": "2026-01-13T12:00:00.000000Z",
        "alert_type": "price_crosses",
        "message": "AAPL price 100 ↑",
        "severity": "warning",
        "rule_id": 3,
        "value": 100.0,
        "text": "AAPL price 100 ↑",
    }


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500])
def test_anything_but_2xx_is_not_taken_and_nothing_is_followed(hook: Hook, status: int) -> None:
    hook.status = status
    with pytest.raises(NotPosted, match=str(status)):
        post(hook.url("/"), ALERT)
    assert len(hook.came) == 1


def test_an_address_that_is_away_or_says_nonsense_is_told_without_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        urls = [f"http://127.0.0.1:{port}/?token=secret"]  # takes connections, and never answers
        with closing(socket.create_server(("127.0.0.1", 0))) as gone:
            urls.append(f"http://127.0.0.1:{gone.getsockname()[1]}/?token=secret")
        urls += ["http://127.0.0.1:99999/?token=secret", f"https://127.0.0.1:{port}/?token=secret"]
        urls += ["http://a..b/?token=secret", "http://127.0.0.1:1/a b?token=secret", "http://[::1?token=secret"]
        for url in urls:
            with pytest.raises(NotPosted) as caught:
                post(url, ALERT)
            assert "secret" not in str(caught.value)
