"""The page at / in a real browser on a real server: quotes, candles, keys, restarts, on a desktop and a phone."""

from __future__ import annotations

import json
import random
import re
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Browser
from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.reading import Row, rows_of, store
from tests.process.wire import AWAY, ask, tick

pytestmark = pytest.mark.long

DESKTOP, PHONE = (1440, 900), (390, 844)
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
READ_KEY, ADMIN_KEY = "read-0123456789ab", "admin-0123456789a"
NAMES = ("open", "high", "low", "close")
MOST_DRAGS = 40

COLOURS = """() => {
  const drawn = tickhub.chart.api.takeScreenshot();
  const { data } = drawn.getContext("2d").getImageData(0, 0, drawn.width, drawn.height);
  const counts = {};
  for (let at = 0; at < data.length; at += 4) {
    const colour = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
    counts[colour] = (counts[colour] || 0) + 1;
  }
  const { upColor, downColor } = tickhub.chart.candles.options();
  return [counts[upColor] || 0, counts[downColor] || 0];
}"""


COUNT_WRITES = """async () => {
  // A page that is really hidden gets no frames: what was to be drawn in some is, before anything counts.
  for (let n = 0; n < 4; n += 1) await new Promise(requestAnimationFrame);
  window.writes = [];
  const told = ({ type, target, attributeName }) => `${type} ${target.id || target.className} ${attributeName ?? ""}`;
  const observer = new MutationObserver((all) => writes.push(...all.map(told)));
  observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""


def opened(browser: Browser, server: Server, size: tuple[int, int] = DESKTOP) -> Page:
    """Open the page, and wait until it is connected."""
    page = browser.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(f"http://127.0.0.1:{server.port}/")
    connected(page)
    return page


def connected(page: Page) -> None:
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")


def holds(page: Page, condition: str, argument: Any = None) -> None:
    """Wait until a condition holds. Not the page's own waiting: that evaluates texts, which its policy forbids."""
    wait_until(lambda: page.evaluate(condition, argument), 60, condition)


def unseen(page: Page, hidden: bool) -> None:
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def answered(held: list[Route]) -> None:
    for route in held:
        route.continue_()
    held.clear()


def row_of(page: Page, symbol: str) -> Locator:
    return page.locator(f'#watch-rows tr[data-symbol="{symbol}"]')


def listed(page: Page) -> list[str]:
    return list(page.eval_on_selector_all("#watch-rows tr", "rows => rows.map(row => row.dataset.symbol)"))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def quoted(server: Server, symbol: str, bid: float, **changes: Any) -> None:
    """Send a quote of now."""
    new = tick(symbol=symbol, bid=bid, ask=round(bid + 0.05, 2), spread=5, timestamp=now_ms()) | changes
    assert server.post([new])[0] == 200


def without_scrolling(page: Page, size: tuple[int, int]) -> None:
    """The page itself must fit; its parts scroll by themselves."""
    room = page.evaluate("[document.scrollingElement.scrollWidth, document.scrollingElement.scrollHeight]")
    assert (room[0], room[1]) <= size


def with_history(make_server: MakeServer) -> Server:
    """A server with an instrument of two decimals and 1,500 minutes of it, trades of both sides among them."""
    server = make_server().start().wait_ready()
    assert ask(server, "POST", "/api/symbols", b'{"symbol":"GER40","name":"Germany 40","digits":2}').status == 201
    rng, bid, ticks = random.Random(5), 18_000.0, []
    start_ms = now_ms() - 1500 * 60_000
    for at_ms in range(start_ms, start_ms + 1499 * 60_000, 30_000):
        bid = round(bid + rng.gauss(0, 2), 2)
        new: Row = tick(symbol="GER40", bid=bid, ask=bid + 1, timestamp=at_ms)
        ticks.append(new | ({"last": bid, "volume": 3, "flags": rng.choice((56, 88))} if rng.random() < 0.5 else {}))
    store(server, ticks)
    return server


def chosen(page: Page, symbol: str) -> None:
    row_of(page, symbol).click()
    expect(page.locator("#symbol")).to_have_text(symbol)
    drawn_all(page)


def drawn_all(page: Page) -> None:
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")


def drawn(page: Page) -> list[tuple[float, ...]]:
    candles = page.evaluate("tickhub.chart.candles.data()")
    return [(bar["time"], *(bar[name] for name in NAMES)) for bar in candles]


def stored_bars(server: Server, symbol: str, **params: Any) -> list[tuple[float, ...]]:
    bars = rows_of(server, f"/api/bars/{symbol}", start=0, limit=10_000, **params)
    return [(int(datetime.fromisoformat(bar["timestamp"]).timestamp()), *(bar[name] for name in NAMES)) for bar in bars]


@SIZES
def test_quotes_appear_and_change(browser: Browser, make_server: MakeServer, size: tuple[int, int]) -> None:
    server = make_server(workers=2).start().wait_ready()
    store(server, [tick(symbol="AAPL", bid=190.1, ask=190.15, spread=5, timestamp=now_ms())])
    page = opened(browser, server, size)
    aapl = row_of(page, "AAPL")
    expect(aapl.locator(".bid")).to_have_text("190.10")
    expect(aapl.locator(".ask")).to_have_text("190.15")
    expect(aapl.locator(".age")).to_have_text(re.compile(r"^(now|\d+s)$"))
    expect(page.locator("#symbol")).to_have_text("AAPL")

    # What flashes is seen by an observer: it is over when a test looks.
    page.evaluate("""() => {
      window.flashes = [];
      const seen = (all) => all.forEach(({ target }) => flashes.push(`${target.className} ${target.dataset.move}`));
      new MutationObserver(seen).observe(document.querySelector("#watch-rows"),
        { subtree: true, attributeFilter: ["class"] });
    }""")
    quoted(server, "AAPL", 190.32)
    expect(aapl.locator(".bid")).to_have_text("190.32")
    expect(aapl.locator(".spread")).to_have_text("5")
    expect(aapl.locator(".change")).to_have_text("+0.12%")
    expect(page.locator("#price")).to_have_text("190.32")
    page.wait_for_timeout(700)  # a cell rests between two flashes
    quoted(server, "AAPL", 190.05)
    expect(aapl.locator(".bid")).to_have_text("190.05")
    expect(aapl.locator(".change")).to_have_text("−0.03%")
    flashes = page.evaluate("flashes")
    assert "bid flash up" in flashes
    assert "bid flash down" in flashes
    expect(aapl.locator(".flash")).to_have_count(0)

    expect(page.locator("#status .database dd")).to_have_text("connected")
    expect(page.locator("#status .buffer dd")).to_have_text("0")
    without_scrolling(page, size)


@SIZES
def test_the_chart_draws_the_stored_bars_back_to_the_first_and_follows_new_ticks(
    browser: Browser, make_server: MakeServer, size: tuple[int, int]
) -> None:
    server = with_history(make_server)
    page = opened(browser, server, size)
    drawn_all(page)
    every = stored_bars(server, "GER40", interval="1m")
    assert drawn(page) == every[-1000:]
    up, down = page.evaluate(COLOURS)
    assert up > 300, "rising candles"
    assert down > 300, "falling candles"
    assert sum(bar["value"] for bar in page.evaluate("tickhub.chart.volumes[0].data()")) > 0
    expect(page.locator("#legend .close dd")).to_have_text(f"{every[-1][4]:.2f}")

    price = round(every[-1][4] + 7.25, 2)
    quoted(server, "GER40", price)
    expect(row_of(page, "GER40").locator(".bid")).to_have_text(f"{price:.2f}")
    holds(page, "price => tickhub.chart.candles.data().at(-1)?.close === price", price)
    expect(page.locator("#legend .close dd")).to_have_text(f"{price:.2f}")

    box = page.locator("#chart").bounding_box()
    assert box is not None
    for _ in range(MOST_DRAGS):
        if page.evaluate("tickhub.bars.complete"):
            break
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
    holds(page, "tickhub.bars.complete")
    assert drawn(page) == stored_bars(server, "GER40", interval="1m")

    page.locator("#intervals").get_by_label("1h", exact=True).check()
    page.locator("#sides").get_by_label("ask", exact=True).check()
    holds(page, "tickhub.bars.complete && tickhub.bars.side === 'ask'")
    assert drawn(page) == stored_bars(server, "GER40", interval="1h", price="ask")
    quoted(server, "GER40", price + 1)
    holds(page, "ask => tickhub.chart.candles.data().at(-1)?.close === ask", round(price + 1.05, 2))
    without_scrolling(page, size)


@SIZES
def test_a_restart_of_the_server_is_survived(browser: Browser, make_server: MakeServer, size: tuple[int, int]) -> None:
    server = make_server(workers=2).start().wait_ready()
    store(server, [tick(symbol="AAPL", bid=190.1, ask=190.15, timestamp=now_ms())])
    page = opened(browser, server, size)
    expect(row_of(page, "AAPL").locator(".bid")).to_have_text("190.10")
    drawn_all(page)
    assert server.stop() == 0
    expect(page.locator("#connection-text")).to_have_text(re.compile("reconnecting|connecting"))
    expect(row_of(page, "AAPL").locator(".bid")).to_have_text("190.10")
    server.start().wait_ready()
    quoted(server, "AAPL", 191.5)
    connected(page)
    expect(row_of(page, "AAPL").locator(".bid")).to_have_text("191.50")
    holds(page, "tickhub.chart.candles.data().at(-1)?.close === 191.5")
    quoted(server, "AAPL", 191.75)
    expect(row_of(page, "AAPL").locator(".bid")).to_have_text("191.75")
    assert not [text for text in browser.complaints if "Failed to load" not in text and "/ws" not in text]
    browser.complaints.clear()  # of the tries meanwhile


def test_with_keys_it_asks_for_one_and_puts_it_into_no_address(browser: Browser, make_server: MakeServer) -> None:
    keys = {"TICKHUB_API_KEY_READ": READ_KEY, "TICKHUB_API_KEY_INGEST": "ingest-0123456789"}
    server = make_server("--database-url", AWAY, environ=keys).start().wait_accepting()
    page = browser.page
    page.goto(f"http://127.0.0.1:{server.port}/")
    dialog = page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    page.keyboard.type("wrong-0123456789a")
    page.keyboard.press("Enter")
    expect(page.locator("#key-why")).to_contain_text("this API key is not known")
    page.keyboard.type(READ_KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    connected(page)
    expect(page.locator("#status .database dd")).to_have_text("disconnected")
    page.reload()
    connected(page)
    expect(dialog).to_be_hidden()
    assert not [url for url in browser.requested if READ_KEY in url]
    assert page.evaluate("JSON.stringify(localStorage)").find(READ_KEY) < 0
    browser.complaints.clear()  # of the 401 and the database


def test_who_gives_no_key_is_not_asked_again_until_they_want(browser: Browser, make_server: MakeServer) -> None:
    keys = {"TICKHUB_API_KEY_READ": READ_KEY}
    server = make_server("--database-url", AWAY, environ=keys).start().wait_accepting()
    page = browser.page
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.locator("#key-dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#connection-text")).to_have_text("needs a key")
    page.wait_for_timeout(4_000)  # longer than the first tries
    expect(page.locator("#key-dialog")).to_be_hidden()
    page.locator("#connection").click()
    page.locator("#key").fill(READ_KEY)
    page.keyboard.press("Enter")
    connected(page)
    browser.complaints.clear()  # of the 401 and the database


def test_symbols_are_found_added_moved_and_taken_off_by_keys_alone(browser: Browser, make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    store(server, [tick(symbol=symbol, bid=100.0, timestamp=now_ms()) for symbol in ("AAPL", "TSLA")])
    page = opened(browser, server)
    wait_until(lambda: listed(page) == ["AAPL", "TSLA"], what="the list of what has prices")
    page.keyboard.press("/")
    page.keyboard.type("nvda.us")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")
    wait_until(lambda: listed(page) == ["AAPL", "TSLA", "NVDA"], what="the new symbol")
    expect(page.locator("#symbol")).to_have_text("NVDA")
    quoted(server, "NVDA", 182.5)
    expect(row_of(page, "NVDA").locator(".bid")).to_have_text("182.50")

    page.keyboard.press("Alt+ArrowUp")
    assert listed(page) == ["AAPL", "NVDA", "TSLA"]
    page.keyboard.press("ArrowUp")
    expect(page.locator("#symbol")).to_have_text("AAPL")
    page.keyboard.press("Delete")
    assert listed(page) == ["NVDA", "TSLA"]
    expect(page.locator("#symbol")).to_have_text("NVDA")
    page.keyboard.press("]")
    expect(page.locator("#intervals input:checked")).to_have_value("3m")
    page.reload()
    connected(page)
    wait_until(lambda: listed(page) == ["NVDA", "TSLA"], what="the list that was left")
    expect(page.locator("#intervals input:checked")).to_have_value("3m")
    expect(row_of(page, "NVDA")).to_have_attribute("aria-selected", "true")


def test_a_new_instrument_is_made_only_after_a_question(browser: Browser, make_server: MakeServer) -> None:
    keys = {"TICKHUB_API_KEY_READ": READ_KEY, "TICKHUB_API_KEY_ADMIN": ADMIN_KEY}
    server = make_server(environ=keys).start().wait_ready()
    key = {"X-API-Key": ADMIN_KEY}
    browser.page.add_init_script(
        f"sessionStorage.getItem('tickhub.key') ?? sessionStorage.setItem('tickhub.key', '{READ_KEY}')"
    )
    page = opened(browser, server)
    page.keyboard.press("/")
    page.keyboard.type("EURUSD")
    page.keyboard.press("Enter")
    dialog = page.locator("#add-dialog")
    expect(dialog).to_contain_text("EURUSD")
    dialog.get_by_label("Description").fill("Euro / US Dollar")
    dialog.get_by_label("Decimals").fill("5")
    dialog.get_by_role("button", name="Add to the server").click()
    expect(dialog.get_by_role("alert")).to_have_text("this API key does not allow admin")
    known = ask(server, "GET", "/api/symbols", headers=key).json["symbols"]
    assert "EURUSD" not in [row["symbol"] for row in known]
    browser.complaints.clear()  # of the 403

    page.evaluate(f"sessionStorage.setItem('tickhub.key', '{ADMIN_KEY}')")
    dialog.get_by_role("button", name="Add to the server").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#name")).to_have_text("Euro / US Dollar")
    body = json.dumps(tick(symbol="EURUSD", bid=1.0855, ask=1.0856, spread=1, timestamp=now_ms())).encode()
    assert ask(server, "POST", "/tick", body, key).status == 200
    expect(row_of(page, "EURUSD").locator(".bid")).to_have_text("1.08550")


def test_theme_and_clock_are_chosen_and_remembered(browser: Browser, make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    page = browser.page
    page.emulate_media(color_scheme="light")
    opened(browser, server)
    back = "getComputedStyle(document.body).backgroundColor"
    panel = "tickhub.chart.api.options().layout.background.color"
    light = page.evaluate(f"[{back}, {panel}]")
    page.emulate_media(color_scheme="dark")
    holds(page, f"before => {panel} !== before", light[1])
    dark = page.evaluate(f"[{back}, {panel}]")
    assert dark[0] != light[0]
    page.keyboard.press("t")
    assert page.evaluate(f"[{back}, {panel}]") == light
    page.keyboard.press("u")
    expect(page.locator("#zone")).to_have_text("UTC")
    page.reload()
    assert page.evaluate(f"[{back}, {panel}]") == light
    expect(page.locator("#zone")).to_have_text("UTC")
    browser.complaints.clear()  # of the database, which is away


def test_an_unseen_page_writes_nothing(browser: Browser, make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    store(server, [tick(symbol="AAPL", bid=190.1, ask=190.15, timestamp=now_ms())])
    page = opened(browser, server)
    bid = row_of(page, "AAPL").locator(".bid")
    expect(bid).to_have_text("190.10")
    drawn_all(page)
    unseen(page, True)
    page.evaluate(COUNT_WRITES)
    asked = len(browser.requested)
    quoted(server, "AAPL", 191.0)
    holds(page, "tickhub.quotes.get('AAPL').bid === 191")
    page.wait_for_timeout(2_500)  # longer than any of its clocks
    assert page.evaluate("writes") == []
    assert browser.requested[asked:] == []
    unseen(page, False)
    expect(bid).to_have_text("191.00")
    holds(page, "tickhub.chart.candles.data().at(-1)?.close === 191")


def test_answers_that_come_to_an_unseen_page_are_written_when_it_is_seen(
    browser: Browser, make_server: MakeServer
) -> None:
    server = make_server().start().wait_ready()
    store(server, [tick(symbol="AAPL", bid=190.1, ask=190.15, timestamp=now_ms())])
    page = opened(browser, server)
    drawn_all(page)
    held: list[Route] = []
    page.route(re.compile("/(stats|history/alerts|bars/AAPL|symbols)"), lambda route: held.append(route))
    asked_all = {"stats", "alerts", "AAPL", "symbols"}

    def names() -> set[str]:
        page.evaluate("1")  # routes are told while the page is spoken to
        return {urlsplit(route.request.url).path.rsplit("/", 1)[-1] for route in held}

    page.evaluate("tickhub.bars.refresh(); tickhub.bars.refresh(); void tickhub.freshen()")  # the second read is owed
    wait_until(lambda: names() == asked_all, 60, "all are asked for")
    quoted(server, "AAPL", 191.0)
    expect(row_of(page, "AAPL").locator(".bid")).to_have_text("191.00")  # and flashes
    unseen(page, True)
    page.evaluate(COUNT_WRITES)
    asked = len(browser.requested)
    page.evaluate("tickhub.received({ type: 'error', message: 'told unseen' })")
    answered(held)
    page.wait_for_timeout(2_500)  # longer than a flash, and than bars wait until they are read again
    assert page.evaluate("writes") == []
    assert browser.requested[asked:] == []
    unseen(page, False)
    expect(page.locator("#notice")).to_have_text("told unseen")
    expect(page.locator("td.flash")).to_have_count(0)
    wait_until(lambda: names() >= asked_all - {"symbols"}, 60, "what is shown is asked for again")
    page.unroute_all()  # and lets them through
    holds(page, "tickhub.chart.candles.data().at(-1)?.close === 191")


@SIZES
def test_alerts_are_counted_told_and_listed(browser: Browser, make_server: MakeServer, size: tuple[int, int]) -> None:
    server = make_server().start().wait_ready()
    store(server, [tick(symbol="AAPL", bid=99.0, timestamp=now_ms())])
    with browser.page.expect_response(lambda one: "/history/alerts" in one.url and one.ok):
        page = opened(browser, server, size)
    flag = page.locator("#alerts-open")
    expect(page.locator("#watch-rows tr")).to_have_count(1)
    expect(flag).to_be_hidden()
    new = {"alert_type": "price_crosses", "symbol": "AAPL", "threshold": 100, "direction": "above", "cooldown_s": 0}
    named = {"severity": "critical", "name": "<b>up</b>"}
    assert ask(server, "POST", "/api/alert_rules", json.dumps(new | named).encode()).status == 201
    quoted(server, "AAPL", 101.0)
    told = "<b>up</b>: AAPL price 101 crossed 100 upwards"
    expect(page.locator("#notice")).to_have_text(told)
    expect(flag).to_have_text(re.compile(r"^\s*⚑ 1\s*$"))
    for bid in (98.0, 102.0):
        quoted(server, "AAPL", bid)
        server.wait_drained()
    expect(flag).to_have_text(re.compile(r"^\s*⚑ 2\s*$"))
    flag.click()
    rows = page.locator("#alerts-list li")
    expect(rows.locator("span")).to_have_text([re.compile("price 102 crossed"), re.compile("price 101 crossed")])
    expect(rows.first).to_have_attribute("data-severity", "critical")
    without_scrolling(page, size)
    page.keyboard.press("Escape")
    expect(flag).to_have_text(re.compile(r"^\s*⚑\s*$"))
    page.reload()
    connected(page)
    expect(flag).to_be_visible()
    expect(flag).to_have_attribute("aria-label", "Alerts")
    without_scrolling(page, size)
