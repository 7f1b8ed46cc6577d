"""Attempts to have something else than a read done, in every parameter and path: nothing is done, nothing breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.process.harness import Server
from tests.process.reading import DAY_MS, made_ticks, store
from tests.process.wire import Answer, ask, running

PAYLOADS = [
    "'",
    '"',
    "''",
    "'; DROP TABLE ticks; --",
    "AAPL'; DELETE FROM ticks WHERE 'a' = 'a",
    "AAPL' OR '1'='1",
    "AAPL') UNION SELECT usename, passwd FROM pg_shadow --",
    "1; COPY (SELECT 1) TO PROGRAM 'touch {marker}'",
    "1) TO STDOUT; COPY (SELECT 1) TO PROGRAM 'touch {marker}'; --",
    "AAPL'; COPY ticks TO '{marker}'; --",
    "0 UNION SELECT pg_sleep(30)",
    "(SELECT pg_sleep(30))",
    "AAPL/* comment */",
    "AAPL--",
    "\\'; DROP TABLE bars; --",
    "\\",
    "\\x27",
    "E'\\x27'",
    "$$; DROP TABLE ticks; $$",
    "$1",
    "%s",
    "%(symbol_id)s",
    "%(x)s",
    "%",
    "%%",
    "%d%n%p",
    "{0}",
    "{order}",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/a}",
    "\x00",
    "AAPL\x00'; DROP TABLE ticks; --",
    "\u2019; DROP TABLE ticks; --",
    "\u02bc OR 1=1",
    "\uff07; DROP TABLE ticks; --",
    "\xbf'; DROP TABLE ticks; --",
    "\ud800'",
    "\r\nX-Injected: yes\r\n\r\nHTTP/1.1 200 OK",
    "../../../etc/passwd",
    "<script>alert(1)</script>",
    "infinity",
    "-infinity",
    "epoch",
    "now()",
    "NaN",
    "1e308",
]
PARAMETERS = {
    "/api/ticks/AAPL": ["start", "end", "limit", "order", "page_token", "format"],
    "/api/bars/AAPL": ["start", "end", "limit", "order", "page_token", "format", "interval", "price", "tz", "fill"],
    "/api/quotes": ["symbols"],
    "/udf/symbols": ["symbol", "currencyCode", "unitId"],
    "/udf/search": ["query", "type", "exchange", "limit"],
    "/udf/history": ["symbol", "resolution", "from", "to", "countback", "currencyCode", "unitId"],
    "/udf/quotes": ["symbols"],
}
GOOD = {"/udf/search": "query=A", "/udf/history": "symbol=AAPL&resolution=5&from=0&to=1", "/udf/symbols": "symbol=AAPL"}


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        store(server, made_ticks("AAPL", range(DAY_MS, DAY_MS + 100)))
        yield server
        assert "Traceback" not in server.log()


def everything(server: Server) -> list[object]:
    """What an attempt could have changed: rows, tables, roles, settings."""
    found: list[object] = []
    for query in (
        "SELECT oid, relname, relkind, relacl::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_' "
        "ORDER BY 1",
        "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles ORDER BY 1",
        "SELECT count(*), sum(bid), sum(seq) FROM ticks",
        "SELECT symbol_id, symbol FROM instruments ORDER BY 1",
        "SELECT count(*), sum(version), sum(bid_close) FROM bars",
        "SELECT symbol, bid, last_updated FROM current ORDER BY 1",
        "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
    ):
        found.append(server.database.rows(query))
    return found


def escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def ask_all(server: Server, paths: list[str]) -> Iterator[Answer]:
    """Ask several at a time: those with unknown names wait for each other's look."""
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(lambda path: ask(server, "GET", path), paths)


@pytest.fixture
def unchanged(server: Server, tmp_path: Path) -> Iterator[str]:
    """Give a file that must not come to be; check that nothing else did either."""
    # A place where PostgreSQL's user may write.
    folder = tmp_path
    folder.chmod(0o777)
    marker = folder / "marker"
    before = everything(server)
    yield str(marker)
    assert everything(server) == before
    assert not marker.exists()


@pytest.mark.parametrize("path", PARAMETERS)
def test_no_parameter_can_do_more_than_say_what_to_read(server: Server, path: str, unchanged: str) -> None:
    for name in PARAMETERS[path]:
        others = "&".join(part for part in GOOD.get(path, "").split("&") if part and not part.startswith(f"{name}="))
        texts = [payload.replace("{marker}", unchanged) for payload in PAYLOADS]
        paths = [f"{path}?{name}={escaped(text)}" + (f"&{others}" if others else "") for text in texts]
        for payload, answer in zip(PAYLOADS, ask_all(server, paths), strict=True):
            assert answer.status in (200, 400, 404), (name, payload, answer)
            assert "x-injected" not in answer.headers
            if answer.status == 200:
                assert_names_no_secret(answer.data)


@pytest.mark.parametrize("path", ["/api/ticks/", "/api/bars/", "/api/quotes/"])
def test_no_symbol_in_a_path_can_either(server: Server, path: str, unchanged: str) -> None:
    texts = [payload.replace("{marker}", unchanged) for payload in PAYLOADS]
    names = [*texts, *(f"AAPL{text}" for text in texts)]
    for name, answer in zip(names, ask_all(server, [path + escaped(name) for name in names]), strict=True):
        assert answer.status == 404, (name, answer)
        assert answer.json["code"] in ("unknown_symbol", "not_found")
        assert "x-injected" not in answer.headers


def test_no_name_of_a_parameter_can_either(server: Server, unchanged: str) -> None:
    for payload in PAYLOADS:
        name = escaped(payload.replace("{marker}", unchanged))
        for path in ("/api/ticks/AAPL", "/api/bars/AAPL", "/api/quotes", "/udf/quotes"):
            answer = ask(server, "GET", f"{path}?{name}=1")
            assert (answer.status, answer.json["code"]) == (400, "bad_parameter"), (payload, answer)


def test_no_header_that_is_read_can_either(server: Server, unchanged: str) -> None:
    for payload in PAYLOADS:
        text = payload.replace("{marker}", unchanged).encode("utf-8", "surrogatepass").decode("latin-1")
        if any(char in text for char in "\r\n\x00"):
            continue  # what no client library sends; tests/process/test_http_contract.py has what is no HTTP
        for name in ("Accept", "Accept-Encoding", "If-None-Match", "Range", "If-Range"):
            answer = ask(server, "GET", f"/api/ticks/AAPL?end={DAY_MS + 50}&limit=3", headers={name: text})
            assert answer.status == 200, (name, payload, answer)
            assert len(answer.json["ticks"]) == 3


@pytest.mark.parametrize("field", ["symbol", "name", "exchange", "currency", "timezone", "digits", "aliases"])
def test_a_new_symbol_is_what_it_is_called_and_no_more(server: Server, field: str) -> None:
    before = everything(server)[2:3]
    added = []
    for number, payload in enumerate(PAYLOADS):
        value: object = [payload] if field == "aliases" else payload
        body = json.dumps({"symbol": f"{field}{number}", field: value}).encode()
        answer = ask(server, "POST", "/api/symbols", body, {"Content-Type": "application/json"})
        assert answer.status in (201, 400, 409), (payload, answer)
        if answer.status == 201:
            added.append(answer.json["symbol"])
    assert everything(server)[2:3] == before
    listed = {row["symbol"] for row in ask(server, "GET", "/api/symbols").json["symbols"]}
    assert {*added} <= listed
    assert {"AAPL", "VIX"} <= listed


def assert_names_no_secret(data: bytes) -> None:
    for word in (b"root:", b"SCRAM-", b"PostgreSQL"):
        assert word not in data
