"""The map of coverage on the page at /: drawn of what the server answers, walked with keys, through the days."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.conftest import Browser
from tests.process.harness import Server
from tests.process.reading import read, store
from tests.process.wire import ask, running, tick

pytestmark = pytest.mark.long

SYMBOL = "EUR/USD"
DAYS = 9
HOLES_S = (0, 120, 600, 2400, 3600)
CLOSED = 6
"""Bands of style.css: from 0, all covered, to 5, nothing; 6: closed."""


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    """A server with some days of a currency, up to a minute ago: one hour is whole, the next ones have longer holes."""
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        bodies = (
            b'{"symbol":"EUR/USD","exchange":"FX","digits":5}',
            b'{"symbol":"EMPTY","exchange":"FX"}',
            b'{"symbol":"SOMEWHERE","exchange":"MyBroker"}',
        )
        for body in bodies:
            assert ask(server, "POST", "/api/symbols", body).status == 201
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        hours = [now.replace(minute=0) - timedelta(hours=number) for number in range(24 * DAYS)]
        moments = [
            hour + timedelta(seconds=second) for hour in hours for second in range(0, 3600 - HOLES_S[hour.hour % 5], 30)
        ]
        past = [round(at.timestamp() * 1000) for at in moments if at <= now]
        ticks = [tick(symbol=SYMBOL, timestamp=at, seq=0, flags=6) for at in past]
        store(server, [*ticks, tick(symbol="NVDA", seq=0), tick(symbol="SOMEWHERE", seq=0)])
        yield server


def opened(browser: Browser, server: Server) -> Page:
    page = browser.page
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    expect(page.locator("#symbol")).to_have_text(SYMBOL)
    page.keyboard.press("c")
    ready(page)
    return page


def cell(page: Page, row: dict[str, Any]) -> Locator:
    return page.locator(f'#coverage td[data-at="{place_of(row)}"]')


def place_of(row: dict[str, Any]) -> str:
    return f"{row['timestamp'][:10]} {row['hour']}"


def drawn(page: Page) -> dict[str, str]:
    """Return the bands of all cells that have one, by their place."""
    bands = "all => all.map(one => [one.dataset.at, one.dataset.band])"
    return dict(page.eval_on_selector_all("#coverage td[data-band]", bands))


def days_of(page: Page) -> list[str]:
    places = page.eval_on_selector_all("#coverage td[data-hour='12']", "all => all.map(one => one.dataset.at)")
    return [place.partition(" ")[0] for place in places]


def before(day: str, days: int) -> str:
    return str(date.fromisoformat(day) - timedelta(days))


def between(first: str, end: str) -> int:
    return (date.fromisoformat(end) - date.fromisoformat(first)).days


def choice(page: Page, count: int) -> Locator:
    return page.locator(f"#coverage-count input[value='{count}']")


def ready(page: Page) -> None:
    expect(page.locator("#coverage-dialog")).to_have_attribute("data-state", "ready")


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
    # What goes on may have changed meanwhile.
    wanted = {place_of(row): str(band_of(row)) for row in hours if row["timestamp"] != today}
    found = drawn(page)
    assert {at: band for at, band in found.items() if not at.startswith(today[:10])} == wanted
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
    days = [f"{day} 12" for day in days_of(page)]
    assert len(days) == 30
    assert focused(page) == days[-1]  # from the beginning
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


@pytest.mark.parametrize("symbol", ["NVDA", "SOMEWHERE"])
def test_of_a_symbol_without_an_exchange_that_is_known_it_is_said_what_that_means(
    browser: Browser, server: Server, symbol: str
) -> None:
    page = opened(browser, server)
    page.keyboard.press("Escape")
    page.locator(f'#watch-rows tr[data-symbol="{symbol}"]').click()
    expect(page.locator("#symbol")).to_have_text(symbol)
    page.locator("#coverage-open").click()
    expect(page.locator("#coverage-open24")).to_be_visible()
    expect(page.locator("#coverage-title")).to_have_text(f"Coverage of {symbol}")


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
    expect(page.locator("#coverage-state")).to_have_text("Reading …")
    with page.expect_event("requestfailed", lambda request: "/api/coverage/" in request.url):
        page.keyboard.press("Escape")
    expect(page.locator("#coverage-dialog")).to_have_attribute("data-state", "loading")
    browser.complaints.clear()


def test_what_the_server_says_instead_is_shown_and_it_can_be_asked_again(browser: Browser, server: Server) -> None:
    page = browser.page
    answer = '{"status":"error","code":"query_timeout","message":"The query took too long."}'
    page.route("**/api/coverage/**", lambda route: route.fulfill(status=503, body=answer))
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#symbol")).to_have_text(SYMBOL)
    page.locator("#coverage-open").click()
    expect(page.locator("#coverage-state")).to_have_text("The query took too long.")
    browser.complaints.clear()
    page.unroute("**/api/coverage/**")
    page.get_by_role("button", name="Try again").click()
    ready(page)
    assert len(days_of(page)) == 30
    expect(page.locator("#coverage-again")).to_be_hidden()


def test_buttons_and_keys_lead_to_older_days_and_back(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    newest = days_of(page)[-1]
    older, newer = page.locator("#coverage-older"), page.locator("#coverage-newer")
    for button in (older, newer):  # all that there is, is shown
        expect(button).to_have_attribute("aria-disabled", "true")
    choice(page, 7).check()
    assert days_of(page) == [before(newest, days) for days in range(6, -1, -1)]
    older.click()
    ready(page)
    shown = days_of(page)
    assert shown == [before(newest, days) for days in range(13, 6, -1)]
    expect(older).to_have_attribute("aria-disabled", "true")  # ticks began nine days ago
    answer = read(server, "/api/coverage/EUR%2FUSD/hours", start=shown[0], end=before(newest, 6)).json
    assert drawn(page) == {place_of(row): str(band_of(row)) for row in answer["hours"]}
    page.locator(f'#coverage td[data-at="{shown[-1]} 12"]').focus()
    page.keyboard.press("PageDown")
    assert focused(page) == f"{newest} 12"
    expect(newer).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("PageUp")
    assert focused(page) == f"{shown[-1]} 12"


def test_of_days_without_ticks_it_is_said_where_there_are_some(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    page.locator("#coverage-to").fill("2020-01-15")
    expect(page.locator("#coverage-note")).to_contain_text("No ticks in these days")
    assert days_of(page)[-1] == "2020-01-15"
    assert set(drawn(page).values()) == {"5", "6"}
    page.get_by_role("button", name="Show them").click()
    expect(page.locator("#coverage-note")).to_be_empty()
    ready(page)
    assert page.evaluate("document.activeElement.closest('#coverage') !== null")
    assert "0" in drawn(page).values()
    page.keyboard.press("Escape")
    page.locator("#search").fill("EMPTY")
    page.keyboard.press("Enter")
    expect(page.locator("#symbol")).to_have_text("EMPTY")
    page.locator("#coverage-open").click()
    expect(page.locator("#coverage-note")).to_have_text("EMPTY has no ticks yet.")


def test_of_quick_steps_only_the_last_is_asked_for(browser: Browser, server: Server) -> None:
    page = browser.page
    asked: list[tuple[str, str]] = []
    held: list[Route] = []
    failed: list[Request] = []
    holding = False

    def answered(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        (start,), (end,) = query["start"], query["end"]
        if holding and not held:
            held.append(route)  # and never answered
            return
        asked.append((start, end))
        today = str(datetime.now(UTC).date())
        days = [before(end, number) for number in range(between(start, end), 0, -1)]
        row = {"hour": 12, "ticks": 1, "session_s": 3600, "coverage": 1, "gaps_s": 0}
        route.fulfill(json={"hours": [row | {"timestamp": f"{day}T00:00:00.000000Z"} for day in days if day <= today]})

    first = [{"timestamp": "1999-01-01T00:00:00.000000Z"}]
    page.route("**/api/ticks/**", lambda route: route.fulfill(json={"ticks": first, "next_page_token": None}))
    page.route("**/api/coverage/**", answered)
    page.on("requestfailed", lambda request: failed.append(request))
    opened(browser, server)
    newest = days_of(page)[-1]
    holding = True
    asked.clear()
    with page.expect_request("**/api/coverage/**"):
        page.locator("#coverage-older").click()
    page.evaluate("""async () => {
      for (let step = 0; step < 20; step += 1) {
        document.getElementById("coverage-older").click();
        await new Promise((done) => setTimeout(done)); // due before what the click has put off
      }
    }""")
    ready(page)
    assert days_of(page) == [before(newest, 21 * 30 + days) for days in range(29, -1, -1)]
    assert [one.url for one in failed] == [held[0].request.url]
    assert asked[0][1] == before(newest, 21 * 30 - 1)
    assert asked[-1][0] == before(newest, 21 * 30 + 29)
    assert sum(between(start, end) for start, end in asked) == 30
    browser.complaints.clear()


def test_nothing_is_cut_and_dates_are_above_their_days_in_any_window(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    for size in ((390, 844), (844, 390), (768, 1024), (1600, 900)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        for count in (14, 30) if size[0] == 390 else (30, 90):
            choice(page, count).check()
            ready(page)
            beyond, apart = page.evaluate("""() => {
              const dialog = document.getElementById("coverage-dialog");
              const { left, right } = dialog.getBoundingClientRect();
              const seen = [...dialog.querySelectorAll("*")].filter((one) => one.getClientRects().length);
              const box = (one) => one.getBoundingClientRect();
              const beyond = seen.filter((one) => box(one).left < left || box(one).right > right);
              const dates = [...document.querySelectorAll("#coverage th[scope=col]")].map((one) => box(one).left);
              const days = [...document.querySelectorAll("#coverage td[data-hour='0']")].map((one) => box(one).left);
              const apart = days.map((left, at) => Math.abs(left - dates[at]));
              return [beyond.map((one) => one.outerHTML.slice(0, 80)), apart];
            }""")
            assert beyond == [], size
            assert len(apart) == count
            assert max(apart) < 1, size
    page.keyboard.press("Escape")
    for size in ((390, 844), (844, 390), (1600, 900)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        expect(page.locator("#coverage-open")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_get_darker_on_white_and_brighter_on_black(browser: Browser, server: Server, theme: str) -> None:
    browser.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # of two literals
    page = opened(browser, server)

    def luminance(colour: str) -> float:
        red, green, blue = (int(number) for number in re.findall(r"\d+", colour)[:3])
        return 0.2126 * (red / 255) ** 2.2 + 0.7152 * (green / 255) ** 2.2 + 0.0722 * (blue / 255) ** 2.2

    found = [luminance(colour) for colour in colours(page)]
    assert found == sorted(found, reverse=theme == "light")
