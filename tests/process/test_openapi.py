"""The OpenAPI document and its page: whole, true to the routes, served to everybody, and without the net."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from app import create_app
from app.web.api import ENDPOINTS
from app.web.market import Interval
from app.web.openapi import document
from tests.process.harness import ROOT, Server
from tests.process.wire import AWAY, CODES, ask, exchange, get, running

KEYS = {"TICKHUB_API_KEY_READ": "read-0123456789ab", "TICKHUB_API_KEY_ADMIN": "admin-0123456789a"}
FILES_OF_PAGES = {"/docs/<file>", "/viewer/<path:file>"}
"""Rules that are no interface."""

SOCKETS = {"/ws", "/ws/metrics"}
"""OpenAPI has no words for what is said on a WebSocket."""

APP = create_app()
DOCUMENTS = {with_keys: document(ENDPOINTS, version="0", with_keys=with_keys) for with_keys in (False, True)}
ANY = pytest.mark.parametrize("made", DOCUMENTS.values(), ids=["open", "with keys"])


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def keyed(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY, environ=KEYS) as server:
        yield server


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def routed() -> set[tuple[str, str]]:
    """Every method and path that Flask knows, as the document writes them."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in APP.url_map.iter_rules()
        if rule.rule not in FILES_OF_PAGES | SOCKETS
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


@ANY
def test_the_document_is_openapi_3_1(made: dict[str, Any]) -> None:
    assert made["openapi"] == "3.1.0"
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(made)] == []


@ANY
def test_every_schema_in_it_is_one_and_leads_to_others_that_are_there(made: dict[str, Any]) -> None:
    schemas = made["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
    for _, _, operation in operations(made):
        for parameter in operation.get("parameters", ()):
            jsonschema_rs.meta.validate(parameter["schema"])
            assert parameter["description"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(made)))
    assert named <= set(schemas)
    assert not any("." in name for name in schemas), "two types of one name: give one of them another"


def test_what_is_routed_is_in_the_document_and_the_other_way_round() -> None:
    assert {(method, path) for method, path, _ in operations(DOCUMENTS[False])} == routed()


@ANY
def test_every_error_has_the_common_shape_and_a_code_of_the_list(made: dict[str, Any]) -> None:
    for _, path, operation in operations(made):
        for status, response in operation["responses"].items():
            if int(status) < 400 or (path, status) == ("/health", "503"):
                continue
            shape, of_code = response["content"]["application/json"]["schema"]["allOf"]
            assert shape["$ref"].endswith(("/UdfError",) if path.startswith("/udf/") else ("/Error", "/RowsRefused"))
            codes = of_code["properties"]["code"]["enum"]
            assert codes
            assert set(codes) <= CODES, (path, status)
            assert ("Retry-After" in response.get("headers", ())) == (status in ("429", "503"))


def test_keys_are_asked_for_where_a_scope_is_declared_and_only_when_there_are_any() -> None:
    scopes = {(declared.method, declared.path): declared.scope for declared in ENDPOINTS}
    assert "securitySchemes" not in DOCUMENTS[False]["components"]
    for method, path, operation in operations(DOCUMENTS[True]):
        scope = scopes[method, path]
        assert operation["security"] == ([{"key": [scope]}, {"bearer": [scope]}] if scope else [])
        assert ({"401", "403"} <= set(operation["responses"])) == bool(scope)
    for method, path, operation in operations(DOCUMENTS[False]):
        assert "security" not in operation
        # Without keys, names that are not the server's are refused, and pages of elsewhere that send data.
        assert {"401", "403"} & set(operation["responses"]) == ({"403"} if scopes[method, path] else set())


def test_the_parameters_are_those_that_the_requests_are_checked_with() -> None:
    bars = DOCUMENTS[False]["paths"]["/api/bars/{symbol}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in bars] == [
        *("symbol", "start", "end", "limit", "order", "page_token", "format", "interval", "price", "tz", "fill"),
    ]
    by_name = {parameter["name"]: parameter for parameter in bars}
    assert by_name["symbol"]["in"] == "path"
    assert by_name["symbol"]["required"]
    intervals = list(get_args(Interval))
    assert intervals[:3] == ["1s", "5s", "15s"]
    assert by_name["interval"]["schema"] == {"type": "string", "enum": intervals, "default": "1m"}
    assert by_name["limit"]["schema"] == {"type": "integer", "minimum": 1}
    assert by_name["fill"]["schema"] == {"type": "string", "enum": ["previous"]}


def test_the_server_serves_it_and_says_when_it_is_the_same(server: Server) -> None:
    answer = ask(server, "GET", "/openapi.json")
    assert answer.json | {"info": None} == json.loads(json.dumps(DOCUMENTS[False])) | {"info": None}
    tag = answer.headers["etag"]
    assert tag.startswith('W/"')
    same = ask(server, "GET", "/openapi.json", headers={"If-None-Match": tag})
    assert (same.status, same.data, same.headers["etag"]) == (304, b"", tag)
    assert ask(server, "GET", "/openapi.json", headers={"If-None-Match": 'W/"another"'}).status == 200


def test_with_keys_the_document_and_the_page_are_open_and_the_calls_are_not(keyed: Server) -> None:
    served = ask(keyed, "GET", "/openapi.json").json
    assert served | {"info": None} == json.loads(json.dumps(DOCUMENTS[True])) | {"info": None}
    assert get(keyed, "/docs").status == 200
    assert ask(keyed, "GET", "/").status == 200
    for method, path, operation in operations(served):
        if operation["security"]:
            # Before anything else of the request is looked at.
            asked = path.replace("{symbol}", "AAPL") + "?nonsense=1"
            assert ask(keyed, method, asked, None if method == "GET" else b"no json").status == 401, path


def test_the_index_and_the_readme_name_what_there_is(server: Server) -> None:
    listed = ask(server, "GET", "/").json["endpoints"]
    assert {(one["method"], one["path"]) for one in listed} == routed()
    assert all(one["what"] for one in listed)
    readme = (ROOT / "README.md").read_text()
    adapter = APP.url_map.bind("localhost")
    paths = set(re.findall(r"(?:localhost|127\.0\.0\.1|SERVER):5000(/[\w./-]+)", readme))
    assert "/docs" in paths
    for path in paths:
        assert any(adapter.test(path, method) for method in ("GET", "POST")), path


def test_the_page_and_its_files_come_from_the_server_alone(server: Server) -> None:
    page = get(server, "/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = page.data.decode()
    linked = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(linked) == 4
    assert not re.search(r"https?:|//|<script>|<style| on\w+=", text)
    kinds = {"css": "text/css", "js": "text/javascript", "png": "image/png"}
    for path in linked:
        answer = get(server, path)
        assert answer.status == 200, path
        assert answer.headers["content-type"].split(";")[0] == kinds[path.rpartition(".")[2]]
        assert len(answer.data) == int(answer.headers["content-length"]) > 100
        assert answer.headers["x-content-type-options"] == "nosniff"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "file", ["index.html", "oauth2-redirect.html", "../settings.py", "..%2f..%2fapp.py", "swagger-ui.js", "%00", ""]
)
def test_no_other_file_is_served(server: Server, file: str) -> None:
    answer = ask(server, "GET", f"/docs/{file}")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/api/ticks", "/api/bars", "/api/quotes"])
@pytest.mark.parametrize(
    "name",
    [
        *("FOO", "EUR/USD", "EUR%2FUSD", "a//b", "a/", ".", "%00", "AAPL%00", "%0A"),
        *("%ED%A0%80", "%FF", "%F0%9F%92%B0"),
        *("';%20DROP%20TABLE%20ticks;--", "%25", "*", "%2e%2e", "x" * 7000),
    ],
)
def test_a_name_that_is_no_symbol_is_a_404_whatever_is_in_it(server: Server, path: str, name: str) -> None:
    answer = ask(server, "GET", f"{path}/{name}")
    assert answer.status == 404
    assert answer.json["code"] in ("unknown_symbol", "not_found")


@pytest.mark.parametrize("path", ["/health//live", "/tick//batch", "/api//ticks/AAPL", "/api/ticks//AAPL"])
def test_slashes_too_many_are_a_404_and_no_redirect(server: Server, path: str) -> None:
    answers = exchange(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert [(answer.status, answer.json["code"]) for answer in answers] == [(404, "not_found")]


@pytest.mark.parametrize("name", ["start", "limit", "order", "format", "fill", "page_token"])
def test_null_is_no_value_of_a_parameter(server: Server, name: str) -> None:
    answer = ask(server, "GET", f"/api/bars/AAPL?{name}=null")
    assert (answer.status, answer.json["code"]) == (400, "bad_parameter")
    assert answer.json["message"].startswith(f"{name}: ")
