"""The map of coverage on the page at /: drawn of what the server answers, walked with keys, in both themes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Browser
from tests.process.harness import Server
from tests.process.reading import read, store
from tests.process.wire import ask, running, tick

pytestmark = pytest.mark.long

SYMBOL = "EUR/USD"
DAYS = 9
CLOSED = 6
"""Bands of style.css: from 0, all covered, to 5, nothing; 6: closed."""


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    """A server with some days of a currency, each worse than the one before, up to a minute ago."""
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        assert ask(server, "POST", "/api/symbols", b'{"symbol":"EUR/USD","exchange":"FX","digits":5}').status == 201
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        ticks = []
        for day in range(DAYS):
            start = now - timedelta(DAYS - day)
            every = (0.5, 0.9, 1.2, 1.5, 3, 5, 10, 20, 30)[day]
            moments = [start + timedelta(minutes=number * every) for number in range(round(1440 / every))]
            ticks += [tick(symbol=SYMBOL, timestamp=round(at.timestamp() * 1000), seq=0, flags=6) for at in moments]
        store(server, [*ticks, tick(symbol="NVDA", seq=0)])
        yield server


def opened(browser: Browser, server: Server) -> Page:
    page = browser.page
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    expect(page.locator("#symbol")).to_have_text(SYMBOL)
    page.keyboard.press("c")
    expect(page.locator("#coverage-dialog")).to_have_attribute("data-state", "ready")
    return page


def cell(page: Page, row: dict[str, Any]) -> Locator:
    return page.locator(f'#coverage td[data-at="{row["timestamp"]} {row["hour"]}"]')


def band_of(row: dict[str, Any]) -> int:
    if row["coverage"] is None:
        return CLOSED + (row["ticks"] > 0)
    return sum(row["coverage"] < least for least in (0.999, 0.99, 0.95, 0.8, 1e-9))


def colours(page: Page) -> list[str]:
    """Return the colours from all covered to nothing."""
    of_each = "all => all.map(one => getComputedStyle(one).backgroundColor)"
    return list(page.eval_on_selector_all("#coverage-legend i", of_each))[:CLOSED]


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.dataset.at"))


def test_the_map_has_each_hour_of_the_newest_days_in_its_colour(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    hours = read(server, "/api/coverage/EUR%2FUSD/hours", limit=10000).json["hours"]
    today = hours[-1]["timestamp"]
    bands = "all => all.map(one => [one.dataset.at, one.dataset.band])"
    drawn = dict(page.eval_on_selector_all("#coverage td[data-band]", bands))
    # What goes on may have changed meanwhile.
    wanted = {f"{row['timestamp']} {row['hour']}": str(band_of(row)) for row in hours if row["timestamp"] != today}
    assert {at: band for at, band in drawn.items() if not at.startswith(today)} == wanted
    assert len(set(wanted.values())) >= 5
    expect(page.locator("#coverage-legend li")).to_have_count(8)
    expect(page.locator("#coverage-title")).to_have_text(f"Coverage of {SYMBOL}")
    assert len(set(colours(page))) == 6


def test_days_are_as_wide_as_each_other_whatever_their_month_is_called(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    widths = page.eval_on_selector_all("#coverage tbody tr:first-child td", "all => all.map(one => one.offsetWidth)")
    assert len(widths) == 30
    assert max(widths) - min(widths) <= 1
    expect(page.locator("#coverage-open24")).not_to_be_visible()


def test_keys_walk_the_map_and_tell_of_each_hour(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    page.locator("#coverage td[tabindex='0']").focus()
    days = page.eval_on_selector_all("#coverage td[data-at$=' 12']", "all => all.map(one => one.dataset.at)")
    assert len(days) == 30
    assert focused(page) == days[-1]
    page.keyboard.press("Home")
    assert focused(page) == days[0]
    page.keyboard.press("ArrowLeft")
    assert focused(page) == days[0]
    for key in ("End", "ArrowLeft", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert focused(page) == days[-3].replace(" 12", " 11")
    expect(page.locator("#coverage-told")).to_have_text(re.compile("11:00: .*(covered|closed), .* ticks"))
    page.keyboard.press("Tab")
    expect(page.locator("#coverage-dialog .main")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#coverage-dialog")).not_to_be_visible()


def test_of_a_symbol_without_an_exchange_it_is_said_what_that_means(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    page.keyboard.press("Escape")
    page.locator('#watch-rows tr[data-symbol="NVDA"]').click()
    expect(page.locator("#symbol")).to_have_text("NVDA")
    page.locator("#coverage-open").click()
    expect(page.locator("#coverage-open24")).to_be_visible()
    expect(page.locator("#coverage-title")).to_have_text("Coverage of NVDA")


def test_what_the_pointer_is_over_is_told(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    hours = read(server, "/api/coverage/EUR%2FUSD/hours", limit=10000).json["hours"]
    row = next(one for one in reversed(hours[:-48]) if one["coverage"] and one["coverage"] < 0.5)
    cell(page, row).hover()
    text = f"{row['hour']:02}:00: {int(row['coverage'] * 1000) / 10:g} % covered"
    expect(page.locator("#coverage-told")).to_contain_text(text)
    assert text in str(cell(page, row).get_attribute("title"))


def test_a_map_that_is_closed_asks_no_more(browser: Browser, server: Server) -> None:
    page = browser.page
    page.route("**/api/coverage/**", lambda route: None)  # never answered
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#symbol")).to_have_text(SYMBOL)
    page.locator("#coverage-open").click()
    expect(page.locator("#coverage-state")).to_have_text("Reading the newest days …")
    with page.expect_event("requestfailed", lambda request: "/api/coverage/" in request.url):
        page.keyboard.press("Escape")
    expect(page.locator("#coverage-dialog")).to_have_attribute("data-state", "loading")
    browser.complaints.clear()


def test_what_the_server_says_instead_is_shown(browser: Browser, server: Server) -> None:
    page = browser.page
    answer = '{"status":"error","code":"query_timeout","message":"The query took too long."}'
    page.route("**/api/coverage/**", lambda route: route.fulfill(status=503, body=answer))
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#symbol")).to_have_text(SYMBOL)
    page.locator("#coverage-open").click()
    expect(page.locator("#coverage-state")).to_have_text("The query took too long.")
    browser.complaints.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_get_darker_on_white_and_brighter_on_black(browser: Browser, server: Server, theme: str) -> None:
    browser.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # of two literals
    page = opened(browser, server)

    def luminance(colour: str) -> float:
        red, green, blue = (int(number) for number in re.findall(r"\d+", colour)[:3])
        return 0.2126 * (red / 255) ** 2.2 + 0.7152 * (green / 255) ** 2.2 + 0.0722 * (blue / 255) ** 2.2

    found = [luminance(colour) for colour in colours(page)]
    assert found == sorted(found, reverse=theme == "light")
