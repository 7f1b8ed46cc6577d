"""What a real browser sends for a page: of elsewhere nothing that counts, of the server itself what it should."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.browser.conftest import Browser
from tests.process.conftest import MakeServer
from tests.process.harness import Server
from tests.process.samples import metrics
from tests.process.wire import AWAY, tick
from tests.waiting import wait_until

pytestmark = pytest.mark.long

WAYS = {
    "fetch": "async ([url, body]) => { await fetch(url, {method: 'POST', mode: 'no-cors', body}).catch(() => {}); }",
    "beacon": "async ([url, body]) => { navigator.sendBeacon(url, body); }",
    "form": """async ([url, body]) => {
        const form = document.body.appendChild(document.createElement("form"));
        Object.assign(form, {method: "post", action: url, enctype: "text/plain", target: "hidden"});
        const field = form.appendChild(document.createElement("input"));
        [field.name, field.value] = [body.slice(0, -1) + ', "x": "', '"}'];
        form.submit();
    }""",
}
"""How a page sends without a question before. The form puts a = between name and value: in the middle of a text."""

HTML = b'<!doctype html><link rel="icon" href="data:,"><title>x</title><iframe name="hidden"></iframe>'


class Page(BaseHTTPRequestHandler):
    """Serves the page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(HTML)))
        self.end_headers()
        self.wfile.write(HTML)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Serve the page; yield its address. On this machine: pages of others this browser keeps from it by itself."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_port}/"
        finally:
            site.shutdown()
            thread.join()


def sent(browser: Browser, server: Server, way: str) -> list[str]:
    """Have the page that is open send a tick; return the statuses that were answered.

    The server tells: its header Cross-Origin-Resource-Policy keeps the answer from the page.
    """
    browser.page.evaluate(WAYS[way], [f"http://127.0.0.1:{server.port}/tick", json.dumps(tick())])

    def statuses() -> list[str]:
        answers = metrics(server).get("tickhub_http_responses_total", {})
        return [dict(labels)["status"] for labels in answers if {("route", "/tick"), ("method", "POST")} <= labels]

    wait_until(lambda: bool(statuses()), what="the answer")
    return statuses()


@pytest.mark.parametrize("way", WAYS)
def test_a_page_of_elsewhere_has_nothing_stored(
    browser: Browser, make_server: MakeServer, elsewhere: str, way: str
) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    browser.page.goto(elsewhere)
    assert sent(browser, server, way) == ["403"]
    assert server.stats()["ticks_received"] == 0
    browser.complaints.clear()  # of what was refused


def test_the_page_that_tries_the_calls_may_send(browser: Browser, make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    browser.page.goto(f"http://127.0.0.1:{server.port}/docs")
    status = browser.page.evaluate(
        """async (body) => (await fetch("/tick", {method: "POST", body,
            headers: {"Content-Type": "application/json"}})).status""",
        json.dumps(tick()),
    )
    assert status == 200
    assert server.stats()["ticks_received"] == 1
