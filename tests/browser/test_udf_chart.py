"""A chart in a real browser that knows nothing but UDF draws, from another origin, what is stored."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Browser, is_ours
from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, Server
from tests.process.reading import Row, rows_of, store
from tests.process.wire import ask, tick

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
VENDOR = ROOT / "app" / "viewer" / "vendor" / "lightweight-charts"
FILES = {
    "/": (HERE / "udf_chart.html", "text/html"),
    "/udf_chart.js": (HERE / "udf_chart.js", "text/javascript"),
    "/udf_datafeed.js": (HERE / "udf_datafeed.js", "text/javascript"),
    "/lightweight-charts.js": (VENDOR / "lightweight-charts.standalone.production.js", "text/javascript"),
}
PAGE_BARS, MOST_DRAGS = 300, 60
NAMES = ("open", "high", "low", "close")
SIZES = pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])

COLOURS = """() => {
  const drawn = shown.chart.takeScreenshot();
  const { data } = drawn.getContext("2d").getImageData(0, 0, drawn.width, drawn.height);
  const counts = {};
  for (let at = 0; at < data.length; at += 4) {
    const colour = [data[at], data[at + 1], data[at + 2]].join();
    counts[colour] = (counts[colour] || 0) + 1;
  }
  return counts;
}"""
UP, DOWN = "38,166,154", "239,83,80"


class Files(BaseHTTPRequestHandler):
    """Serves the page."""

    def do_GET(self) -> None:
        path, mimetype = FILES[urlsplit(self.path).path]
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", mimetype)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def page_origin() -> Iterator[str]:
    """Serve the page, and yield the origin that it has."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_port}"
        finally:
            site.shutdown()
            thread.join()


def stored(make_server: MakeServer, page_origin: str) -> Server:
    """A server with an instrument of two decimals, and three sessions of quotes, the last one until now."""
    server = make_server("--cors-origins", page_origin).start().wait_ready()
    new = b'{"symbol":"GER40","name":"Germany 40","digits":2}'
    assert ask(server, "POST", "/api/symbols", new).status == 201
    rng, bid, ticks = random.Random(5), 18_000.0, []
    now_ms = time.time_ns() // 1_000_000
    for begins_h, hours in ((200, 4), (60, 3), (3, 3)):
        start_ms = now_ms - begins_h * 3_600_000
        for at_ms in range(start_ms, start_ms + hours * 3_600_000, 15_000):
            bid = round(bid + rng.gauss(0, 2), 2)
            ticks.append(tick(symbol="GER40", bid=bid, ask=bid + 1, timestamp=at_ms))
    store(server, ticks)
    return server


def opened(browser: Browser, server: Server, page_origin: str, size: tuple[int, int], **params: str) -> None:
    browser.page.set_viewport_size({"width": size[0], "height": size[1]})
    feed = f"http://127.0.0.1:{server.port}/udf"
    browser.page.goto(f"{page_origin}/?{urlencode({'feed': feed, 'symbol': 'ger40', **params})}")


def settled(browser: Browser, *states: str) -> None:
    """Wait until the page says that it is in one of these states."""
    said = "states => states.includes(document.querySelector('#state').textContent)"
    browser.page.wait_for_function(said, arg=states)


def drawn(browser: Browser) -> list[Row]:
    return list(browser.page.evaluate("shown.series.data()"))


def values(bars: list[Row]) -> list[tuple[float, ...]]:
    return [(bar["time"], *(bar[name] for name in NAMES)) for bar in bars]


def expected(server: Server, interval: str) -> list[tuple[float, ...]]:
    bars = rows_of(server, "/api/bars/GER40", interval=interval, start=0, limit=10_000)
    return [
        (int(datetime.fromisoformat(bar["timestamp"]).timestamp()), *(bar[name] for name in NAMES)) for bar in bars
    ]


def scrolled_back(browser: Browser) -> None:
    """Drag the chart to the right, as far as there is anything older."""
    box = browser.page.locator("#chart").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    for _ in range(MOST_DRAGS):
        settled(browser, "ready", "complete")
        if browser.page.locator("#state").inner_text() == "complete":
            return
        browser.page.mouse.move(box["x"] + 0.1 * box["width"], y)
        browser.page.mouse.down()
        browser.page.mouse.move(box["x"] + 0.75 * box["width"], y, steps=4)
        browser.page.mouse.up()
    pytest.fail(f"after {MOST_DRAGS} drags there are {len(drawn(browser))} bars")


def coloured(browser: Browser) -> dict[str, int]:
    found: dict[str, int] = browser.page.evaluate(COLOURS)
    return found


@SIZES
def test_it_draws_all_the_candles_that_are_stored_and_follows_new_ticks(
    browser: Browser, make_server: MakeServer, page_origin: str, size: tuple[int, int], tmp_path: Path
) -> None:
    server = stored(make_server, page_origin)
    page = browser.page
    opened(browser, server, page_origin, size)
    settled(browser, "ready")
    every = expected(server, "1m")
    assert len(every) >= 2 * PAGE_BARS
    assert len(drawn(browser)) == PAGE_BARS
    assert values(drawn(browser)) == every[-PAGE_BARS:]
    page.screenshot(path=tmp_path / "newest.png")

    counts = coloured(browser)
    assert counts.get(UP, 0) > 300, "rising candles"
    assert counts.get(DOWN, 0) > 300, "falling candles"
    room = page.evaluate("[document.scrollingElement.scrollWidth, document.scrollingElement.scrollHeight]")
    assert room[0] <= size[0]
    assert room[1] <= size[1]

    # The axis shows the price of the newest bar, the heading that of the quote.
    label = page.locator("#price")
    expect(label).to_have_text(f"{every[-1][4]:.2f}")
    axis = functools.partial(page.evaluate, "shown.series.lastValueData(true).price")
    before, picture = axis(), coloured(browser)
    price = round(before + 7.25, 2)
    store(server, [tick(symbol="GER40", bid=price, ask=price + 1, timestamp=time.time_ns() // 1_000_000)])
    expect(label).to_have_text(f"{price:.2f}")
    page.wait_for_function("price => shown.series.lastValueData(true).price === price", arg=price)
    assert coloured(browser) != picture

    scrolled_back(browser)
    page.screenshot(path=tmp_path / "oldest.png")
    assert values(drawn(browser)) == expected(server, "1m")

    page.locator("#resolution").select_option("60")
    settled(browser, "ready", "complete")
    scrolled_back(browser)
    assert values(drawn(browser)) == expected(server, "1h")

    hosts = {urlsplit(url).netloc for url in browser.requested if urlsplit(url).netloc}
    assert hosts == {urlsplit(page_origin).netloc, f"127.0.0.1:{server.port}"}
    assert all(is_ours(url) for url in browser.requested)


def test_a_page_of_an_origin_that_is_not_in_the_setting_sees_nothing(
    browser: Browser, make_server: MakeServer, page_origin: str
) -> None:
    server = make_server("--cors-origins", "http://127.0.0.1:1").start().wait_ready()
    opened(browser, server, page_origin, (1280, 800), symbol="AAPL")
    expect(browser.page.locator("#state")).to_contain_text("failed: Failed to fetch")
    assert any("CORS policy" in text for text in browser.complaints)
    browser.complaints.clear()


def test_a_page_may_send_an_api_key(browser: Browser, make_server: MakeServer, page_origin: str) -> None:
    key = "read-0123456789ab"
    server = make_server("--cors-origins", page_origin, environ={"TICKHUB_API_KEY_READ": key}).start().wait_ready()
    browser.page.goto(f"{page_origin}/?feed=data:,&symbol=AAPL")
    asked = """async ([feed, headers]) => (await new UdfDatafeed(feed, headers).symbol("AAPL")).name"""
    feed = f"http://127.0.0.1:{server.port}/udf"
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        assert browser.page.evaluate(asked, [feed, headers]) == "AAPL"
    browser.complaints.clear()  # of a feed that was none
