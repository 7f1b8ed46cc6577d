"""The viewer when something happens meanwhile: an answer that is late, another tab, a page that nobody sees."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.browser.conftest import Browser
from tests.browser.test_viewer_trouble import NOW_S, Wire, bar, opened, rows, until

pytestmark = pytest.mark.long

HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def ready(page: Page) -> None:
    expect(page.locator("#chart")).to_have_attribute("data-state", "ready")


def answer(*bars: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    return {"bars": list(bars), "next_page_token": token}


TOLD_MEANWHILE = """async () => {
  const { Bars } = await import("/viewer/bars.js");
  const asked = [];
  const api = { get: () => new Promise((answer) => asked.push(answer)) };
  const bars = new Bars(api, { reset() {}, anew() {}, update() {}, state() {} });
  const turn = (ms = 0) => new Promise((done) => setTimeout(done, ms));
  const until = async (holds) => {
    for (let left = 3_000; !holds() && left; left -= 1) await turn(20);
  };
  const bar = (minute, close) => ({ timestamp: new Date(1.7e12 + 60_000 * minute).toISOString(), open: 1, high: 9,
    low: 0.5, close, volume: 0, buy_volume: 0, sell_volume: 0, ticks: 1 });
  const page = (close) => ({ bars: [bar(0, 1), bar(1, close)], next_page_token: null });
  const closes = [];
  bars.open("AAPL", "1m", "bid");
  asked.shift()(page(1));
  await until(() => bars.all.length === 2);
  bars.catchUp();
  bars.told({ symbol: "AAPL", interval: "1m", ...bar(1, 7) });
  closes.push(bars.all.at(-1).close);
  asked.shift()(page(1));
  await until(() => asked.length);
  asked.shift()?.(page(7));
  await until(() => bars.all.at(-1).close === 7);
  return [...closes, bars.all.at(-1).close];
}"""


def test_a_bar_that_is_told_while_an_older_answer_is_under_way_stays(browser: Browser) -> None:
    page = opened(browser, Wire())
    assert page.evaluate(TOLD_MEANWHILE) == [7, 7]


def test_bars_of_a_feed_that_is_behind_are_not_read_anew_all_the_time(browser: Browser) -> None:
    whole: list[str] = []
    old_s = NOW_S - 10 * 86_400

    def bars(route: Route) -> None:
        if "start=" not in route.request.url:
            whole.append(route.request.url)
        route.fulfill(json=answer(*(bar(old_s + n, 1.0) for n in range(300))))

    page = opened(browser, Wire(), {"/api/bars": bars}, ["AAPL"], interval="1s")
    ready(page)
    for _ in range(3):
        page.evaluate("tickhub.bars.catchUp()")
    assert len(whole) == 1


def test_tabs_leave_each_other_what_they_chose(browser: Browser) -> None:
    page = opened(browser, Wire())
    found = page.evaluate("""async () => {
      const { Settings } = await import("/viewer/settings.js");
      const kept = new Map();
      const storage = { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
      const [one, other] = [new Settings(storage), new Settings(storage)];
      one.set("watch", ["TSLA"]);
      other.set("theme", "dark");
      const { watch, theme } = new Settings(storage);
      return [watch, theme];
    }""")
    assert found == [["TSLA"], "dark"]


def test_where_storage_is_blocked_a_key_holds_for_the_visit(browser: Browser) -> None:
    page = opened(browser, Wire())
    kept = page.evaluate("""async () => {
      const { storageOf } = await import("/viewer/settings.js");
      Object.defineProperty(window, "sessionStorage", { get() { throw new Error("blocked"); } });
      const storage = storageOf("sessionStorage");
      storage.setItem("key", "abc");
      return [storage.getItem("key"), storage.getItem("other")];
    }""")
    assert kept == ["abc", None]


def test_a_page_that_nobody_sees_stays_without_a_connection(browser: Browser) -> None:
    made: list[WebSocketRoute] = []
    browser.page.clock.install()
    page = opened(browser, Wire(), watch=["AAPL"])
    page.route_web_socket("**/ws", lambda socket: made.append(socket))
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    page.evaluate(HIDE, True)
    page.clock.run_for(61_000)
    made.clear()  # nobody answers its pings here: until now it made connections anew
    page.evaluate("window.dispatchEvent(new Event('online'))")
    page.clock.run_for(2_000)
    assert page.evaluate("tickhub.live.state") == "paused"
    assert made == []
    page.evaluate(HIDE, False)
    until(page, lambda: page.evaluate("tickhub.live.state") == "open", "a connection")
    assert len(made) == 1


def test_names_that_are_read_anew_leave_the_choice_where_it_was(browser: Browser) -> None:
    hold: list[bool] = []
    held: list[Route] = []
    known = rows("AAA1", "AAA2", "AAA3")

    def symbols(route: Route) -> None:
        if hold:
            held.append(route)
        else:
            route.fulfill(json=known)

    browser.page.clock.install()
    page = opened(browser, Wire(), {"/api/symbols": symbols}, ["AAA1"])
    expect(page.locator("#watch-rows tr")).to_have_count(1)
    hold.append(True)
    page.clock.run_for(30_000)
    search = page.locator("#search")
    search.focus()
    until(page, lambda: held, "names to be read anew")
    search.press_sequentially("AAA")
    search.press("ArrowDown")
    chosen = page.locator("#found [aria-selected=true]")
    expect(chosen).to_contain_text("AAA2")
    known["symbols"] = rows("AAA0", "AAA1", "AAA2", "AAA3")["symbols"]
    for route in held:
        route.fulfill(json=known)
    expect(page.get_by_role("option")).to_have_count(5)
    expect(chosen).to_contain_text("AAA2")


def test_keys_do_nothing_behind_a_dialog(browser: Browser) -> None:
    page = opened(browser, Wire(), watch=["AAPL"])
    expect(page.locator("#symbol")).to_have_text("AAPL")
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    for key in ("]", "c"):
        page.keyboard.press(key)
    expect(page.locator("#intervals input:checked")).to_have_value("1m")
    expect(page.locator("#coverage-dialog")).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    expect(page.locator("#intervals input:checked")).to_have_value("3m")


def test_a_chart_of_nothing_says_nothing(browser: Browser) -> None:
    page = opened(browser, Wire(), watch=["AAPL"])
    expect(page.locator("#chart-state")).to_contain_text("No bars yet")
    page.locator("#watch-rows tr").focus()
    page.keyboard.press("Delete")
    expect(page.locator("#watch-empty")).to_contain_text("Nothing to watch yet")
    expect(page.locator("#chart-state")).to_be_empty()
