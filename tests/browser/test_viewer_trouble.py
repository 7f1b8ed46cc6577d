"""The viewer when it is driven fast, kept long, or told what it did not expect; its files without a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.browser.conftest import Browser
from tests.browser.test_viewer_alone import ADDRESS, ANSWERS, QUOTE, SYMBOLS, served
from tests.process.harness import wait_until

pytestmark = pytest.mark.long

NOW_S = int(time.time()) // 60 * 60
EVIL = "<img src=x onerror=alert(1)>"
LAYOUTS = {
    "desktop": (1440, 900),
    "laptop": (1280, 720),
    "tablet": (820, 1180),
    "phone": (390, 844),
    "turned": (844, 390),
}


class Wire:
    """What the page said on its sockets, and the way to say something to it."""

    def __init__(self, rejected: dict[str, str] | None = None) -> None:
        self.said: list[dict[str, Any]] = []
        self.rejected = rejected or {}
        self.sockets: list[WebSocketRoute] = []

    def take(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)
        socket.on_message(self._answer)

    def tell(self, *messages: Any) -> None:
        self.sockets[-1].send(json.dumps(messages))

    def subscribed(self, channel: str) -> list[list[str]]:
        return [one["symbols"] for one in self.said if one["action"] == "subscribe" and one["channels"] == [channel]]

    def _answer(self, text: str | bytes) -> None:
        said = json.loads(text)
        self.said.append(said)
        if said["action"] == "ping":
            self.tell({"type": "pong"})
        if said["action"] != "subscribe":
            return
        wrong = [name for name in said["symbols"] if name in self.rejected]
        refused = [{"symbol": name, "code": "unknown_symbol", "message": self.rejected[name]} for name in wrong]
        known = [name for name in said["symbols"] if name not in wrong]
        self.tell({"type": "subscribed", "symbols": known, "channels": said["channels"], "rejected": refused})
        if said["channels"] == ["quotes"]:
            self.tell(*(QUOTE | {"symbol": name, "snapshot": True} for name in known))


def rows(*names: str, **changes: Any) -> dict[str, Any]:
    return {"symbols": [SYMBOLS[0] | {"symbol": name} | changes for name in names]}


def bar(time_s: int, close: float, **changes: Any) -> dict[str, Any]:
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time_s))
    new = {"timestamp": at, "open": 1.0, "high": 9.0, "low": 0.5, "close": close, "volume": 0.0, "ticks": 1}
    return new | {"buy_volume": 0.0, "sell_volume": 0.0, "complete": True} | changes


def opened(
    browser: Browser,
    wire: Wire,
    answers: dict[str, Callable[[Route], None] | Any] | None = None,
    watch: list[str] | None = None,
    **settings: Any,
) -> Page:
    """Open the page with answers by path (the symbols of bars do not matter) and what it remembers."""
    page = browser.page

    def answered(route: Route) -> None:
        path = "/" + route.request.url.removeprefix(ADDRESS).partition("?")[0]
        path = "/api/bars" if path.startswith("/api/bars/") else path
        answer = (answers or {}).get(path, ANSWERS["/api/bars/AAPL"] if path == "/api/bars" else None)
        if callable(answer):
            answer(route)
        elif answer is not None:
            route.fulfill(json=answer)
        else:
            served(route)

    page.route("**/*", answered)
    page.route_web_socket("**/ws", wire.take)
    kept = json.dumps({"watch": watch, **settings})
    page.add_init_script(f"localStorage.getItem('tickhub.viewer') ?? localStorage.setItem('tickhub.viewer', {kept!r})")
    page.goto(ADDRESS)
    return page


def until(page: Page, condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds, while the page's requests are answered."""

    def looked() -> Any:
        page.wait_for_timeout(20)  # not time.sleep: in it no request would be answered
        return condition()

    wait_until(looked, 60, what)


def row_text(page: Page, symbol: str, cell: str) -> Any:
    return page.locator(f'#watch-rows tr[data-symbol="{symbol}"] .{cell}')


def test_the_close_of_a_bar_that_is_not_among_the_last_two_is_drawn(browser: Browser) -> None:
    stored = [bar(NOW_S + n, 1.0) for n in range(5)]
    pages = {"bars": stored}
    wire = Wire()

    def bars(route: Route) -> None:
        start = "start=" in route.request.url and route.request.url.split("start=")[1][:24].replace("%3A", ":")
        found = [one for one in pages["bars"] if not start or one["timestamp"][:19] >= str(start)[:19]]
        route.fulfill(json={"bars": found, "next_page_token": None})

    page = opened(browser, wire, {"/api/bars": bars}, ["AAPL"], interval="1s")
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")
    until(page, lambda: wire.subscribed("bars"), "bars to be watched")
    pages["bars"] = [*stored[:2], bar(NOW_S + 2, 7.0), *stored[3:]]
    wire.tell({"type": "bar", "symbol": "AAPL", "interval": "1s", **bar(NOW_S + 2, 7.0)})
    until(page, lambda: page.evaluate("tickhub.chart.candles.data()[2].close") == 7.0, "the late tick")


def test_after_a_long_absence_the_chart_shows_its_end(browser: Browser) -> None:
    begin_s = NOW_S - 10 * 86_400
    stored = [bar(begin_s + n, 1.0) for n in range(300)]

    def bars(route: Route) -> None:
        missed = "start=" in route.request.url  # far more of them than are worth reading
        route.fulfill(json={"bars": stored[:5] if missed else stored, "next_page_token": "more" if missed else None})

    page = opened(browser, Wire(), {"/api/bars": bars}, ["AAPL"], interval="1s")
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")
    page.evaluate("tickhub.chart.api.timeScale().setVisibleLogicalRange({ from: 0, to: 50 })")
    stored[:] = [bar(NOW_S + n - 800, 2.0) for n in range(800)]
    page.evaluate("tickhub.bars.catchUp()")
    until(page, lambda: page.evaluate("tickhub.chart.candles.data().length") == 800, "the new bars")

    def shown() -> list[float]:
        return list(
            page.evaluate("""() => {
              const { from, to } = tickhub.chart.api.timeScale().getVisibleLogicalRange();
              return [from, to];
            }""")
        )

    # The chart moves with the next frame that it draws; until then it shows the place of before, 500 to 550 of 800.
    until(page, lambda: shown()[1] > 799, "the end of the chart")
    assert shown()[0] > 500


def test_bars_that_could_not_be_read_are_read_as_soon_as_the_server_is_there_again(browser: Browser) -> None:
    away = {"status": "error", "code": "not_ready", "message": "Ask again in an hour"}
    bars: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        if bars:
            route.fulfill(json={"bars": bars, "next_page_token": None})
        else:
            route.fulfill(status=503, json=away, headers={"Retry-After": "3600"})

    wire = Wire()
    page = opened(browser, wire, {"/api/bars": answer}, ["AAPL"])
    expect(page.locator("#chart-state")).to_have_text("Ask again in an hour")
    bars.append(bar(NOW_S, 1.0))
    wire.sockets[-1].close()
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")
    expect(page.locator("#chart-state")).to_be_empty()
    browser.complaints.clear()  # of the 503


def test_a_server_that_hangs_is_asked_for_its_figures_once(browser: Browser) -> None:
    wire, asked = Wire(), []
    page = opened(browser, wire, {"/stats": asked.append}, ["AAPL"])  # and never an answer
    until(page, lambda: asked, "the first question")
    page.wait_for_timeout(5_000)  # more than two of its turns
    assert len(asked) == 1


def test_keys_held_down_in_the_list_ask_for_the_bars_of_the_last_symbol_only(browser: Browser) -> None:
    names = [f"S{n:02}" for n in range(40)]
    wire = Wire()
    asked: list[str] = []

    def bars(route: Route) -> None:
        asked.append(route.request.url.partition("?")[0].rpartition("/")[2])
        close = float(names.index(asked[-1]))
        route.fulfill(json={"bars": [bar(NOW_S, close)], "next_page_token": None})

    page = opened(browser, wire, {"/api/symbols": rows(*names), "/api/bars": bars}, names, symbol="S00")
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")
    page.evaluate("""() => {
      document.querySelector("#watch-rows tr").focus();
      const at = performance.now();
      performance.now = () => at; // quickly, on a slow machine too
      for (let n = 0; n < 39; n += 1) {
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
      }
      delete performance.now;
    }""")
    expect(page.locator("#symbol")).to_have_text("S39")
    until(page, lambda: page.evaluate("tickhub.chart.candles.data().map(({close}) => close)") == [39], "its bars")
    until(page, lambda: wire.subscribed("bars")[-1:] == [["S39"]], "its running bar")
    assert set(asked) <= {"S00", "S01", "S39"}
    assert len(wire.subscribed("bars")) <= 3


def test_a_symbol_that_the_server_does_not_know_says_so_and_is_asked_for_again_when_it_does(browser: Browser) -> None:
    known = rows("AAPL")
    wire = Wire({"FOO": "Unknown symbol: FOO"})
    answers = {"/api/symbols": lambda route: route.fulfill(json=known)}
    page = opened(browser, wire, answers, ["AAPL", "FOO"])
    expect(row_text(page, "AAPL", "bid")).to_have_text("1.50")
    expect(row_text(page, "FOO", "symbol")).to_contain_text("unknown")
    expect(page.locator('tr[data-symbol="FOO"]')).to_have_attribute("title", "Unknown symbol: FOO")
    expect(page.locator("#notice")).to_have_text("Unknown symbol: FOO")
    known["symbols"] += rows("FOO")["symbols"]
    wire.rejected.clear()
    page.evaluate("tickhub.freshen()")
    expect(row_text(page, "FOO", "bid")).to_have_text("1.50")
    expect(row_text(page, "FOO", "symbol")).to_have_text("FOO")


def test_a_full_list_says_so(browser: Browser) -> None:
    names = [f"S{n:03}" for n in range(501)]
    page = opened(browser, Wire(), {"/api/symbols": rows(*names)}, names[:500])
    expect(page.locator("#watch-rows tr")).to_have_count(500)
    page.locator("#search").fill("S500")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("full")
    expect(page.locator("#watch-rows tr")).to_have_count(500)


def test_quotes_of_a_symbol_that_was_taken_off_are_not_kept(browser: Browser) -> None:
    wire = Wire()
    page = opened(browser, wire, {"/api/symbols": rows("AAPL", "TSLA")}, ["AAPL", "TSLA"], symbol="AAPL")
    expect(row_text(page, "TSLA", "bid")).to_have_text("1.50")
    page.locator('tr[data-symbol="TSLA"]').hover()
    page.get_by_role("button", name="Take TSLA off the list").click()
    wire.tell(QUOTE | {"symbol": "TSLA", "bid": 2.0}, QUOTE | {"symbol": "AAPL", "bid": 1.55})
    expect(row_text(page, "AAPL", "bid")).to_have_text("1.55")
    assert page.evaluate("tickhub.quotes.get('TSLA')") is None


def test_a_list_whose_last_symbol_was_taken_off_is_empty_and_watches_nothing(browser: Browser) -> None:
    wire = Wire()
    stored = {"bars": [bar(NOW_S, 1.0)], "next_page_token": None}
    page = opened(browser, wire, {"/api/bars": stored}, ["AAPL"])
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")
    until(page, lambda: wire.subscribed("bars"), "bars to be watched")
    page.locator("#watch-rows tr").focus()
    page.keyboard.press("Delete")
    expect(page.locator("#watch-empty")).to_contain_text("Nothing to watch yet")
    expect(page.locator("#chart")).to_have_attribute("aria-label", "Chart")
    assert page.evaluate("tickhub.chart.candles.data()") == []
    gone = [{"action": "unsubscribe", "symbols": ["AAPL"], "channels": ["quotes"]}]
    gone += [{"action": "unsubscribe", "symbols": ["AAPL"], "channels": ["bars"], "interval": "1m"}]
    until(page, lambda: [one for one in wire.said if one["action"] == "unsubscribe"] == gone, "nothing watched")
    page.reload()
    expect(page.locator("#watch-empty")).to_contain_text("Nothing to watch yet")


def test_names_and_messages_are_texts(browser: Browser) -> None:
    wire = Wire()
    page = opened(browser, wire, {"/api/symbols": rows("AAPL", name=EVIL)}, ["AAPL", EVIL])
    wire.rejected[EVIL] = EVIL
    expect(row_text(page, "AAPL", "symbol")).to_contain_text(EVIL)
    wire.tell({"type": "error", "code": "internal", "message": EVIL})
    expect(page.locator("#notice")).to_have_text(EVIL)
    expect(page.locator("#name")).to_have_text(EVIL)
    page.locator("#search").fill("aapl")
    expect(page.get_by_role("option")).to_contain_text(EVIL)
    assert page.locator("img[src=x]").count() == 0


def test_without_the_servers_symbols_the_page_says_why_it_is_empty(browser: Browser) -> None:
    away = {"status": "error", "code": "database_away", "message": "The database is away"}
    answers = {"/api/symbols": lambda route: route.fulfill(status=503, json=away)}
    page = opened(browser, Wire(), answers)
    expect(page.locator("#watch-empty")).to_contain_text("cannot be read yet")
    page.locator("#search").fill("AAPL")
    expect(page.locator("#found")).to_contain_text("cannot be read yet")
    answers["/api/symbols"] = rows("AAPL")
    expect(page.locator("#watch-rows tr")).to_have_count(1)
    expect(page.locator("#notice")).to_be_empty()
    browser.complaints.clear()  # of the 503s


def test_a_symbol_that_is_added_in_small_letters_gets_capitals(browser: Browser) -> None:
    page = opened(browser, Wire(), {"/api/symbols": rows("AAPL")})
    page.locator("#search").fill("eurusd")
    expect(page.get_by_role("option")).to_contain_text("EURUSD")
    page.locator("#search").fill("SpotGas")
    expect(page.get_by_role("option")).to_contain_text("SpotGas")


SLEEPER = """async () => {
  const { Live } = await import("/viewer/socket.js");
  const said = [];
  class Socket {
    readyState = 1;
    constructor() { queueMicrotask(() => this.onopen()); }
    send(text) { said.push(JSON.parse(text).action); }
    close() {}
  }
  let wall = 1e12;
  const live = new Live("", { current: "" }, { state() {}, opened() {}, message() {} }, { Socket, wall: () => wall });
  live.start();
  await new Promise((done) => setTimeout(done, 2500));
  const before = said.splice(0);
  wall += 3_600_000;
  await new Promise((done) => setTimeout(done, 2500));
  return [before, said];
}"""


def test_after_a_sleep_the_connection_is_looked_at_at_once(browser: Browser) -> None:
    page = opened(browser, Wire())
    assert page.evaluate(SLEEPER) == [[], ["ping"]]


def test_brackets_that_are_typed_with_altgr_change_the_interval(browser: Browser) -> None:
    page = opened(browser, Wire(), interval="1m")
    expect(page.locator("#intervals input:checked")).to_have_value("1m")
    page.evaluate("""() => {
      const how = { key: "]", ctrlKey: true, altKey: true, modifierAltGraph: true, bubbles: true };
      document.body.dispatchEvent(new KeyboardEvent("keydown", how));
    }""")
    expect(page.locator("#intervals input:checked")).to_have_value("3m")


@pytest.mark.parametrize("size", LAYOUTS.values(), ids=LAYOUTS)
def test_prices_and_names_have_room(browser: Browser, size: tuple[int, int]) -> None:
    names = ("NAS100", "EURUSD", "SpotCrude")
    told = rows(*names, name="A rather long description of an instrument")
    wire = Wire()
    browser.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = opened(browser, wire, {"/api/symbols": told}, list(names), symbol="NAS100")
    expect(row_text(page, "NAS100", "bid")).to_have_text("1.50")
    quote = QUOTE | {"change": -1250.25, "change_percent": -12.34, "spread": 250}
    wire.tell(*(quote | {"symbol": name, "price": 25700.12, "bid": 25700.12, "ask": 25702.62} for name in names))
    expect(row_text(page, "NAS100", "bid")).to_have_text("25700.12")
    expect(page.locator("#price")).to_have_text("25700.12")
    cut = page.evaluate("""() => [...document.querySelectorAll("#watch td, #symbol, .now")]
      .filter((one) => one.offsetWidth && one.scrollWidth > one.clientWidth)
      .map((one) => `${one.id || one.className}: ${one.textContent}`)""")
    assert cut == []
    boxes = page.evaluate("""() => ["#symbol", ".now", ".choices"].map((name) => {
      const { left, right, top, bottom } = document.querySelector(name).getBoundingClientRect();
      return [left, right, top, bottom];
    })""")
    for at, (left, right, top, bottom) in enumerate(boxes):
        assert right - left > 20
        assert right <= size[0]
        for other in boxes[at + 1 :]:
            apart = (
                right <= other[0] + 0.5 or other[1] <= left + 0.5 or bottom <= other[2] + 0.5 or other[3] <= top + 0.5
            )
            assert apart, "one over the other"


def test_who_wants_no_motion_gets_no_flashing_backgrounds(browser: Browser) -> None:
    browser.page.emulate_media(reduced_motion="reduce")
    wire = Wire()
    page = opened(browser, wire, watch=["AAPL"])
    expect(row_text(page, "AAPL", "bid")).to_have_text("1.50")
    page.evaluate("document.querySelector('#watch-rows .bid').classList.add('flash')")
    page.evaluate("document.querySelector('#watch-rows .bid').dataset.move = 'up'")
    back = "getComputedStyle(document.querySelector('#watch-rows .bid')).backgroundColor"
    assert page.evaluate(back) == "rgba(0, 0, 0, 0)"
    page.emulate_media(reduced_motion="no-preference")
    until(page, lambda: page.evaluate(back) != "rgba(0, 0, 0, 0)", "the flash of all others")


FEED = """async (batches) => {
  const names = Array.from({ length: 500 }, (_, n) => `S${String(n).padStart(3, "0")}`);
  const { received } = tickhub;
  for (let turn = 0; turn < batches; turn += 1) {
    for (const symbol of names) {
      const bid = 100 + Math.random();
      const timestamp = new Date().toISOString();
      received({ type: "quote", symbol, price: bid, bid, ask: bid + 0.02, last: null, spread: 2, volume: 0, timestamp,
        change: bid - 100, change_percent: bid - 100, n: turn });
    }
    const at = Math.floor(Date.now() / 60_000) * 60_000 - (batches - turn) * 1_000;
    received({ type: "bar", symbol: "S000", interval: "1s", timestamp: new Date(at).toISOString(), open: 1, high: 2,
      low: 1, close: 1 + Math.random(), volume: 0, ticks: turn, complete: false });
    await new Promise((done) => requestAnimationFrame(done));
  }
}"""


def test_five_hundred_symbols_that_all_move_leave_nothing_behind(browser: Browser) -> None:
    names = [f"S{n:03}" for n in range(500)]
    stored = {"bars": [bar(NOW_S - 4000, 1.0)], "next_page_token": None}
    answers = {"/api/symbols": rows(*names), "/api/bars": stored}
    page = opened(browser, Wire(), answers, names, symbol="S000", interval="1s")
    expect(page.locator("#watch-rows .bid", has_text="1.50")).to_have_count(500)
    probe = page.context.new_cdp_session(page)
    probe.send("Performance.enable")

    def measured() -> dict[str, float]:
        probe.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in probe.send("Performance.getMetrics")["metrics"]}
        return {name: found[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")}

    page.evaluate(FEED, 30)
    before = measured()
    page.evaluate(FEED, 60)
    after = measured()
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 4_000_000
    assert after["Nodes"] <= before["Nodes"] + 2_000
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 5
