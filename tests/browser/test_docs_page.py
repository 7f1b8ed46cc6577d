"""/docs in a real browser: it shows every operation and tries them, with nothing from anywhere else."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from app import create_app
from app.web.api import ENDPOINTS
from tests.browser.conftest import Browser, is_ours
from tests.process.conftest import MakeServer
from tests.process.harness import Server
from tests.process.wire import AWAY, tick

pytestmark = pytest.mark.long

READ_KEY = "read-0123456789ab"


def opened(browser: Browser, server: Server) -> None:
    """Open the page, and wait until it shows the operations."""
    browser.page.goto(f"http://127.0.0.1:{server.port}/docs")
    browser.page.locator(".opblock").first.wait_for()


def executed(browser: Browser, operation: str, **parameters: str) -> Locator:
    """Try an operation out; return the row of its answer: status, body, headers."""
    block = browser.page.locator(f"#operations-{operation}")
    if not block.locator(".opblock-body").count():
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
    for name, text in parameters.items():
        row = block.locator(f'tr[data-param-name="{name}"]')
        if row.locator("select").count():
            row.locator("select").select_option(text)
        else:
            row.locator("input").fill(text)
    with browser.page.expect_response(lambda response: response.request.resource_type == "fetch"):
        block.get_by_role("button", name="Execute").click()
    return block.locator("table.live-responses-table tr.response")


def test_it_shows_every_operation_and_tries_them(browser: Browser, make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    assert server.post([tick(bid=190.25), tick(bid=190.5)])[0] == 200
    server.wait_drained()
    opened(browser, server)
    create_app()
    expect(browser.page.locator(".opblock")).to_have_count(len(ENDPOINTS))
    expect(browser.page.get_by_role("button", name="Authorize")).to_have_count(0)

    health = executed(browser, "health-get_health")
    expect(health.locator(".response-col_status")).to_contain_text("200")
    expect(health).to_contain_text('"healthy"')

    ticks = executed(browser, "market-get_api_ticks_symbol", symbol="aapl", limit="1", order="desc")
    expect(ticks.locator(".response-col_status")).to_contain_text("200")
    expect(ticks).to_contain_text("190.5")
    assert any("/api/ticks/aapl?limit=1&order=desc" in url for url in browser.requested)
    assert all(is_ours(url) for url in browser.requested)


def test_with_keys_the_page_is_open_and_its_calls_need_one(browser: Browser, make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, environ={"TICKHUB_API_KEY_READ": READ_KEY}).start().wait_accepting()
    opened(browser, server)
    page = browser.page
    stats = executed(browser, "stats-get_stats")
    expect(stats.locator(".response-col_status")).to_contain_text("401")
    expect(stats).to_contain_text("unauthorized")
    browser.complaints.clear()  # of the 401

    page.locator(".auth-wrapper .authorize").click()
    dialog = page.locator(".modal-ux")
    dialog.locator("input").first.fill(READ_KEY)
    dialog.get_by_role("button", name="Apply credentials").first.click()
    dialog.get_by_role("button", name="Close").last.click()
    stats = executed(browser, "stats-get_stats")
    expect(stats.locator(".response-col_status")).to_contain_text("200")
    expect(stats).to_contain_text("ticks_received")
    assert not any(READ_KEY in url for url in browser.requested)
