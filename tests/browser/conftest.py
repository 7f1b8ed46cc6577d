"""A real browser for pages, and servers for it. Whatever a page asks for beyond 127.0.0.1 fails its test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import ConsoleMessage, Page, Playwright, expect, sync_playwright

from tests.process.conftest import data_template, make_server  # noqa: F401 - fixtures
from tests.waiting import skip_here

ARGUMENTS = [
    "--no-sandbox",  # it refuses to run as root with it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
TIMEOUT_MS = 60_000
"""As long as any test waits: far more than anything here takes."""
expect.set_options(timeout=TIMEOUT_MS)


@dataclass
class Browser:
    """One page without a past, with all that it asked for and complained about."""

    page: Page
    requested: list[str] = field(default_factory=list)
    """URLs, WebSockets too."""
    complaints: list[str] = field(default_factory=list)
    """Errors on its console. A test that provokes some takes them out; any that are left fail it."""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    # Not for the session: while it lives this thread has a running event loop, which no test elsewhere expects.
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="session")
def chromium_path() -> str:
    path = shutil.which("chromium") or "/usr/bin/chromium"
    if not os.access(path, os.X_OK):
        skip_here("Chromium is not installed, so no page is looked at: apt-get install chromium")
    return path


@pytest.fixture(scope="module")
def chromium(chromium_path: str, playwright: Playwright) -> Iterator[Chromium]:
    """Yield one Chromium for a module's tests: to start it takes longer than most of them."""
    found = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
    yield found
    found.close()


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    """Yield a page of a context without a past; at the end it must have asked this machine only, and not complained."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1024})
    try:
        context.set_default_timeout(TIMEOUT_MS)
        found = Browser(context.new_page())

        def said(message: ConsoleMessage) -> None:
            if message.type == "error":
                found.complaints.append(message.text)

        found.page.on("console", said)
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("websocket", lambda socket: found.requested.append(socket.url))
        context.on("request", lambda request: found.requested.append(request.url))
        yield found
        foreign = [url for url in found.requested if not is_ours(url)]
        assert not foreign, "a page must do without the net"
        assert not found.complaints
    finally:
        context.close()


def is_ours(url: str) -> bool:
    """Tell whether a URL leads to this machine, or nowhere."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "about") or parts.hostname == "127.0.0.1"
