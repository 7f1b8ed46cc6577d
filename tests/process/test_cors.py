"""Which web pages may read: none, those of the setting, or all. Asked as a browser asks before it shows an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Server
from tests.process.wire import AWAY, Answer, ask, batch, running, tick

READ = "read-0123456789ab"
OURS, OTHER = "https://desk.example", "http://127.0.0.1:8080"
PATHS = ["/api/quotes", "/udf/config", "/udf/time", "/udf/nothing", "/health", "/openapi.json", "/api/ticks/NONE"]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    keys = {"TICKHUB_API_KEY_READ": READ, "TICKHUB_CORS_ORIGINS": f"{OURS},{OTHER}"}
    with running(data_template, "--database-url", AWAY, environ=keys) as server:
        yield server


@pytest.fixture(scope="module")
def for_all(data_template: Path) -> Iterator[Server]:
    keys = {"TICKHUB_API_KEY_READ": READ}
    with running(data_template, "--database-url", AWAY, "--cors-origins", "*", environ=keys) as server:
        yield server


@pytest.fixture(scope="module")
def closed(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY) as server:
        yield server


def allowed(answer: Answer) -> str | None:
    return answer.headers.get("access-control-allow-origin")


def preflight(server: Server, path: str, origin: str, method: str = "GET", headers: str = "x-api-key") -> Answer:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return ask(server, "OPTIONS", path, headers=asked)


def listed(answer: Answer, name: str) -> set[str]:
    return {text.strip().lower() for text in answer.headers.get(name, "").split(",")}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [OURS, OTHER])
def test_a_page_of_the_setting_may_read_every_answer_errors_too(server: Server, path: str, origin: str) -> None:
    for headers in ({}, {"X-API-Key": READ}):
        answer = ask(server, "GET", path, headers={"Origin": origin, **headers})
        assert allowed(answer) == origin
        assert "origin" in listed(answer, "vary")
        assert {"etag", "x-next-page-token", "retry-after"} <= listed(answer, "access-control-expose-headers")
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://desk.example", f"{OURS}:8443", f"{OURS}.evil.example", "null", "", "*", OURS[:-1]],
)
def test_other_pages_may_not_and_no_cache_mixes_them_up(server: Server, origin: str) -> None:
    for answer in (
        ask(server, "GET", "/udf/config", headers={"Origin": origin, "X-API-Key": READ}),
        preflight(server, "/udf/config", origin),
    ):
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "origin" in listed(answer, "vary")


@pytest.mark.parametrize("path", ["/api/quotes", "/udf/history", "/udf/symbols", "/api/bars/AAPL"])
@pytest.mark.parametrize("header", ["x-api-key", "authorization", "if-none-match,x-api-key"])
def test_a_preflight_is_answered_without_a_key_and_allows_to_send_one(server: Server, path: str, header: str) -> None:
    answer = preflight(server, path, OURS, headers=header)
    assert answer.status == 200
    assert allowed(answer) == OURS
    assert "get" in listed(answer, "access-control-allow-methods")
    assert set(header.split(",")) <= listed(answer, "access-control-allow-headers")
    assert int(answer.headers["access-control-max-age"]) > 0


@pytest.mark.parametrize("path", ["/tick", "/tick/batch", "/api/symbols"])
def test_a_page_that_asks_whether_it_may_send_json_is_told_no(server: Server, for_all: Server, path: str) -> None:
    for reached in (server, for_all):
        answer = preflight(reached, path, OURS, "POST", "content-type,x-api-key")
        assert "post" not in listed(answer, "access-control-allow-methods")
        assert "content-type" not in listed(answer, "access-control-allow-headers")


def test_a_page_of_the_setting_may_send_where_nobody_needs_a_key_and_no_other_may(data_template: Path) -> None:
    with running(data_template, "--database-url", AWAY, "--cors-origins", OURS) as server:
        for origin, status in ((OURS, 200), (OTHER, 403), (f"{OURS}:8443", 403)):
            page = {"Origin": origin, "Content-Type": "text/plain"}
            assert ask(server, "POST", "/tick/batch", batch(tick()), page).status == status


def test_a_key_is_needed_all_the_same(server: Server, for_all: Server) -> None:
    for reached in (server, for_all):
        answer = ask(reached, "GET", "/udf/config", headers={"Origin": OURS})
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("path", PATHS)
def test_a_star_is_every_page(for_all: Server, path: str) -> None:
    for origin in (OURS, "https://evil.example", "null"):
        assert allowed(ask(for_all, "GET", path, headers={"Origin": origin})) == "*"
        assert allowed(preflight(for_all, path, origin)) == "*"


@pytest.mark.parametrize("path", PATHS)
def test_without_the_setting_no_page_may_read(closed: Server, path: str) -> None:
    for answer in (ask(closed, "GET", path, headers={"Origin": OURS}), preflight(closed, path, OURS)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "origin" not in listed(answer, "vary")


def test_who_is_no_page_is_answered_as_ever(server: Server, closed: Server) -> None:
    for reached in (server, closed):
        answer = ask(reached, "GET", "/udf/config", headers={"X-API-Key": READ})
        assert answer.status == 200
        assert allowed(answer) is None
    assert ask(closed, "POST", "/tick/batch", batch(tick())).status == 200
    assert ask(closed, "POST", "/tick/batch", batch(tick()), {"Origin": OURS}).status == 403
