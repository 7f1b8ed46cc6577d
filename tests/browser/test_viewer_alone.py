"""The viewer's files without a server: what it does when a server misbehaves, and what it keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from app.web.viewer import FOLDER, HEADERS, TYPES
from tests.browser.conftest import Browser
from tests.process.harness import wait_until

pytestmark = pytest.mark.long

ADDRESS = "http://127.0.0.1:5999/"
"""Where nobody is asked: every request is answered here."""
SYMBOLS = [{"symbol": "AAPL", "aliases": [], "name": None, "digits": 2, "last_updated": "2026-01-13T00:00:00.000000Z"}]
ANSWERS: dict[str, Any] = {
    "/api/symbols": {"symbols": SYMBOLS},
    "/stats": {"ticks_per_second": 0, "buffer_size": 0, "database_status": "connected", "errors": 0, "workers": 1}
    | {"uptime_seconds": 1, "warnings": []},
    "/api/history/alerts": {"alerts": [], "next_page_token": None},
    "/api/bars/AAPL": {"bars": [], "next_page_token": None},
}
QUOTE = {"type": "quote", "symbol": "AAPL", "price": 1.5, "bid": 1.5, "ask": 1.6, "last": None, "spread": 10}
QUOTE |= {"volume": 0, "timestamp": "2026-01-13T00:00:00.000000Z", "change": None, "change_percent": None, "n": 1}


def served(route: Route) -> None:
    path = "/" + route.request.url.removeprefix(ADDRESS).partition("?")[0]
    if path in ANSWERS:
        route.fulfill(json=ANSWERS[path])
        return
    file = FOLDER / (path.removeprefix("/viewer/") if path != "/" else "index.html")
    kind = TYPES.get(file.suffix, "text/html")
    route.fulfill(body=file.read_bytes(), headers=HEADERS | {"Content-Type": kind})


def opened(browser: Browser, on_socket: Callable[[WebSocketRoute], None]) -> Page:
    page = browser.page
    page.route("**/*", served)
    page.route_web_socket("**/ws", on_socket)
    page.goto(ADDRESS)
    return page


def test_it_subscribes_in_one_message_and_shows_the_snapshot(browser: Browser) -> None:
    heard: list[Any] = []

    def on_socket(socket: WebSocketRoute) -> None:
        def on_message(text: str | bytes) -> None:
            heard.append(json.loads(text))
            if heard[-1].get("channels") == ["quotes"]:
                socket.send(json.dumps([QUOTE | {"snapshot": True}]))

        socket.on_message(on_message)

    page = opened(browser, on_socket)
    expect(page.locator("#watch-rows .bid")).to_have_text("1.50")
    quotes = {"action": "subscribe", "symbols": ["AAPL"], "channels": ["quotes"], "conflate_ms": 100, "batch": True}
    bars = {"action": "subscribe", "symbols": ["AAPL"], "channels": ["bars"], "interval": "1m"}
    assert heard == [quotes, bars]


def test_a_connection_that_went_silent_is_given_up_and_made_anew(browser: Browser) -> None:
    made: list[list[str]] = []

    def on_socket(socket: WebSocketRoute) -> None:
        heard: list[str] = []
        made.append(heard)
        socket.on_message(lambda text: heard.append(str(json.loads(text)["action"])))  # and never an answer

    browser.page.clock.install()
    page = opened(browser, on_socket)
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    for _ in range(3):
        page.clock.run_for(6_000)
    wait_until(lambda: page.evaluate("tickhub.live.state") == "open", 60, "a new connection")
    assert len(made) >= 2
    assert "ping" in made[0]
    assert made[1][0] == "subscribe"


def test_waiting_times_double_to_a_bound_and_differ(browser: Browser) -> None:
    page = opened(browser, lambda socket: None)
    waits = page.evaluate("""async () => {
      const { backoffMs } = await import("/viewer/socket.js");
      return [0, 1, 5, 50].map((tries) => [backoffMs(tries, () => 0), backoffMs(tries, () => 1)]);
    }""")
    assert waits == [[250, 500], [500, 1000], [7500, 15000], [7500, 15000]]


def test_what_is_kept_is_bounded(browser: Browser) -> None:
    page = opened(browser, lambda socket: None)
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    kept = page.evaluate("""() => {
      const { bars, chart, quotes } = tickhub;
      const at = (n) => new Date(1.7e12 + 60_000 * n).toISOString();
      const bar = { symbol: "AAPL", interval: "1m", open: 1, high: 2, low: 1, close: 2, volume: 0, ticks: 1 };
      bars.all = Array.from({ length: 20_000 }, (_, n) => ({ ...bar, time: 1.7e9 + 60 * n, buy: 0, sell: 0 }));
      chart.reset(bars.all);
      for (let n = 20_000; n < 23_000; n += 1) bars.told({ ...bar, timestamp: at(n) });
      for (let n = 0; n < 5_000; n += 1) quotes.take({ symbol: "AAPL", bid: n, timestamp: at(0) });
      return [bars.all.length, chart.candles.data().length, bars.all.at(-1).time];
    }""")
    assert 20_000 <= kept[0] == kept[1] <= 21_000
    assert kept[2] == 1_700_000_000 + 60 * 22_999


def test_an_axis_in_the_browsers_zone_begins_days_at_its_midnight(browser: Browser) -> None:
    page = opened(browser, lambda socket: None)
    weights = page.evaluate("""async () => {
      const { localWeight } = await import("/viewer/timescale.js");
      const at = (...parts) => new Date(...parts).getTime() / 1000;
      return [
        localWeight(at(2026, 0, 1), at(2025, 11, 31, 23, 59)),
        localWeight(at(2026, 1, 1), at(2026, 0, 31, 23, 59)),
        localWeight(at(2026, 1, 2), at(2026, 1, 1, 23, 59)),
        localWeight(at(2026, 1, 2, 12), at(2026, 1, 2, 11, 59)),
        localWeight(at(2026, 1, 2, 12, 1), at(2026, 1, 2, 12)),
      ];
    }""")
    assert weights == [70, 60, 50, 33, 20]


def test_numbers_and_ages_are_as_people_read_them(browser: Browser) -> None:
    page = opened(browser, lambda socket: None)
    texts = page.evaluate("""async () => {
      const f = await import("/viewer/format.js");
      return [f.price(1.5, 2), f.price(-1.5, 1), f.price(null, 2), f.signed(-0.004, 2), f.percent(1.234), f.points(4),
        f.points(4.25), f.compact(999), f.compact(12345), f.compact(1.5e6), f.age(999), f.age(59_999), f.age(3.6e6),
        f.milliseconds(12.4), f.milliseconds(1500), f.price(1e15, 2), f.dateOf(0, true),
        f.clockTime(3_661_000, true, true)];
    }""")
    assert texts == [
        *("1.50", "−1.5", "–", "0.00", "+1.23%", "4", "4.3", "999", "12.3k", "1.5M", "now", "59s", "1h", "12 ms"),
        *("1.5 s", "1000000000000000.00", "1970-01-01", "01:01:01"),
    ]


def test_the_clock_of_the_server_is_bounded_by_what_it_tells(browser: Browser) -> None:
    page = opened(browser, lambda socket: None)
    offsets = page.evaluate("""async () => {
      const { Clock } = await import("/viewer/clock.js");
      let now = 1e12;
      const clock = new Clock(() => now);
      const found = [];
      clock.told(now - 20);
      found.push(clock.offset()); // late by the way here, as it should be
      clock.answered(new Date(now + 60_000).toUTCString(), now);
      found.push(clock.offset()); // a minute ahead, at least
      clock.told(now + 60_400);
      found.push(clock.offset());
      clock.answered(new Date(now - 3_600_000).toUTCString(), now);
      found.push(clock.offset()); // it was set
      return found;
    }""")
    assert offsets == [0, 60_000, 60_400, -3_599_000]
