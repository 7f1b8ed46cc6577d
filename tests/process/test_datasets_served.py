"""Every dataset over HTTP, on a real server: in as JSON, NDJSON and CSV, out in every format, kept through a crash."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from tests.dataset_rows import records
from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.wire import Answer, ask, post, running

EVERY = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")
ROWS = 40


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        yield server
        assert "Traceback" not in server.log()


def send(
    server: Server, dataset: Dataset, sent: Sequence[Any], form: str = "json", query: str = "", **headers: str
) -> Answer:
    """Send records in a format."""
    kinds = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}
    body = json.dumps(list(sent)).encode()
    if form == "ndjson":
        body = b"".join(json.dumps(one).encode() + b"\n" for one in sent)
    elif form == "csv":
        text = io.StringIO()
        lines = csv.DictWriter(text, [column.name for column in dataset.columns])
        lines.writeheader()
        lines.writerows({name: _cell(value) for name, value in one.items()} for one in sent)
        body = text.getvalue().encode()
    if headers.get("Content_Encoding") == "gzip":
        body = gzip.compress(body)
    return post(server, body, f"/ingest/{dataset.name}{query}", Content_Type=kinds[form], **headers)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | bool) else value


def read(server: Server, dataset: Dataset, **params: Any) -> list[dict[str, Any]]:
    return fresh(dataset, read_all(server, dataset, **params))


def read_all(server: Server, dataset: Dataset, **params: Any) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in params.items())
    answer = ask(server, "GET", f"/api/{dataset.name}?{query}")
    assert answer.status == 200, answer
    assert answer.json["dataset"] == dataset.name
    return list(answer.json["records"])


def fresh(dataset: Dataset, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records without the instruments that every database begins with."""
    return [one for one in found if not dataset.adds_symbols or one["symbol"].startswith("symbol ")]


def drained(server: Server) -> None:
    wait_until(lambda: server.stats()["buffer_size"] == 0, what="the buffer to drain")


def bits(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return rows as texts that tell 1 from 1.0, and NaN from null."""
    return [[repr(value) for value in row.values()] for row in rows]


def as_rows(dataset: Dataset, form: str, data: bytes) -> list[dict[str, Any]]:
    """Return the records in an answer, with times as microseconds."""
    if form == "json":
        found = json.loads(data)["records"]
    elif form == "ndjson":
        found = [json.loads(line) for line in data.splitlines()]
    elif form == "csv":
        found = [_typed(dataset, row) for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]
    else:
        stream = io.BytesIO(data)
        table = pa.ipc.open_stream(stream).read_all() if form == "arrow" else pq.read_table(stream)
        found = [_plain(dataset, row) for row in table.to_pylist()]
    return [dict(row) for row in found]


def _typed(dataset: Dataset, row: dict[str, str]) -> dict[str, Any]:
    kinds: dict[str, Any] = {"float": float, "int": int, "bool": lambda text: text == "true", "json": json.loads}
    return {name: kinds.get(dataset.by_name[name].kind, str)(text) if text else None for name, text in row.items()}


def _plain(dataset: Dataset, row: dict[str, Any]) -> dict[str, Any]:
    told = dict(row)
    for column in dataset.columns:
        value = told[column.name]
        if value is not None and column.kind == "time":
            told[column.name] = value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        elif value is not None and column.kind == "date":
            told[column.name] = value.isoformat()
        elif value is not None and column.kind == "json":
            told[column.name] = json.loads(value)
    return told


@EVERY
def test_a_dataset_comes_in_and_goes_out_in_every_format(server: Server, dataset: Dataset) -> None:
    sent = records(dataset, ROWS)
    third = ROWS // 3
    parts = {"json": sent[:third], "ndjson": sent[third : 2 * third], "csv": sent[2 * third :]}
    for form, part in parts.items():
        answer = send(server, dataset, part, form)
        assert (answer.status, answer.json) == (200, {"status": "success", "received": len(part)})
    drained(server)
    found = read(server, dataset)
    assert len(found) == ROWS
    keys = [tuple(str(one[name]) for name in dataset.key) for one in sent]
    assert {tuple(str(one[name]) for name in dataset.key) for one in found} == set(keys)
    by_key = {tuple(str(one[name]) for name in dataset.key): one for one in found}
    for key, one in zip(keys, sent, strict=True):
        assert {name: by_key[key][name] for name, value in one.items() if value is not None} == {
            name: value for name, value in one.items() if value is not None
        }
    every = {
        form: fresh(dataset, as_rows(dataset, form, ask(server, "GET", f"/api/{dataset.name}?format={form}").data))
        for form in FORMATS
    }
    assert all(bits(every[form]) == bits(every["json"]) for form in FORMATS), every
    assert every["json"] == found
    # The same again, also from what was read, changes nothing.
    stored = server.stats()["stored"]
    assert send(server, dataset, sent, "json", Content_Encoding="gzip").status == 200
    drained(server)
    assert read(server, dataset) == found
    assert server.stats()["stored"] == stored


@EVERY
def test_pages_go_on_where_the_last_one_ended(server: Server, dataset: Dataset) -> None:
    send(server, dataset, records(dataset, ROWS))
    drained(server)
    whole, found, token = read_all(server, dataset, limit=10_000, order="asc"), [], ""
    for _ in range(100):
        path = f"/api/{dataset.name}?limit=9&order=asc{token}"
        answer = ask(server, "GET", path).json
        found += answer["records"]
        if answer["next_page_token"] is None:
            break
        token = f"&page_token={answer['next_page_token']}"
    assert found == whole
    assert read_all(server, dataset, limit=9) == whole[-9:]
    assert read_all(server, dataset, limit=9, order="desc") == whole[:-10:-1]


@EVERY
def test_bad_records_are_named_and_the_others_are_taken(server: Server, dataset: Dataset) -> None:
    good = records(dataset, 3, first=1000)
    key = next(column.name for column in dataset.keys if column.required)
    missing = {name: value for name, value in good[0].items() if name != key}
    answer = send(server, dataset, [good[0], missing, good[1], 7, good[2]])
    assert answer.status == 200
    said = answer.json
    assert (said["status"], said["received"]) == ("partial", 3)
    assert [(one["index"], one["code"]) for one in said["rejected"]] == [(1, "missing_field"), (3, "bad_field")]
    assert key in said["rejected"][0]["message"]
    if dataset.adds_symbols:
        answer = send(server, dataset, [good[0] | {dataset.symbol: "FOO;"}])
        assert (answer.status, answer.json["code"]) == (400, "bad_field")
    elif dataset.symbol is not None:
        answer = send(server, dataset, [good[0] | {dataset.symbol: "FOO"}])
        assert (answer.status, answer.json["code"]) == (400, "unknown_symbol")
        assert answer.json["message"] == "Unknown symbol: FOO"
        gone = ask(server, "GET", f"/api/{dataset.name}?symbol=FOO")
        assert (gone.status, gone.json["code"]) == (404, "unknown_symbol")
    assert send(server, dataset, []).json == {"status": "success", "received": 0}
    for body in (b"{", b"nothing", b'"x"'):
        assert post(server, body, f"/ingest/{dataset.name}").json["code"] == "bad_json"


@EVERY
def test_what_is_asked_of_duplicates_is_done(server: Server, dataset: Dataset) -> None:
    optional = next(
        (c.name for c in dataset.values if c.kind in ("float", "text") and not (c.required or c.choices)), None
    )
    if optional is None:
        pytest.skip("nothing but the key: there is nothing that a second record could change")
    one = records(dataset, 1, first=2000)[0]
    first, second = (0.25, 0.5) if dataset.by_name[optional].kind == "float" else ("five", "six")

    def stored() -> Any:
        drained(server)
        found = [
            row
            for row in read(server, dataset, limit=10_000, order="asc")
            if all(str(row[name]) == str(one[name]) for name in dataset.key)
        ]
        assert len(found) == 1
        return found[0][optional]

    send(server, dataset, [one | {optional: first}], query="?on_duplicate=update")
    assert stored() == first
    send(server, dataset, [one | {optional: second}], query="?on_duplicate=ignore")
    assert stored() == first
    aside = server.stats()["errors"], server.stats()["stored"]
    send(server, dataset, [one | {optional: second}], query="?on_duplicate=error")
    assert stored() == first
    assert server.stats()["stored"] == aside[1]
    send(server, dataset, [one | {optional: second}], query="?on_duplicate=keep_newest")
    assert stored() == second
    bad = send(server, dataset, [one], query="?on_duplicate=perhaps")
    assert (bad.status, bad.json["code"]) == (400, "bad_parameter")


@EVERY
def test_what_follows_from_a_declaration_is_there(server: Server, dataset: Dataset) -> None:
    document = ask(server, "GET", "/openapi.json").json
    taken = document["paths"][f"/ingest/{dataset.name}"]["post"]
    assert set(taken["requestBody"]["content"]) == {"application/json", "application/x-ndjson", "text/csv"}
    assert {one["name"] for one in taken["parameters"]} == {"on_duplicate"}
    given = document["paths"][f"/api/{dataset.name}"]["get"]
    assert {one["name"] for one in given["parameters"]} >= {"limit", "order", "page_token", "format"}
    assert len(given["responses"]["200"]["content"]) == len(FORMATS)
    send(server, dataset, [*records(dataset, 1), 7])
    metrics = ask(server, "GET", "/metrics").data.decode()
    for outcome in ("accepted", "refused"):
        assert f'tickhub_records_total{{dataset="{dataset.name}",outcome="{outcome}"}}' in metrics


def test_every_dataset_of_the_interface_is_there() -> None:
    assert set(DATASETS) == {
        *("trades", "price_history", "option_quotes", "financial_info", "news", "corporate_actions", "instruments"),
        *("foreign_snapshots", "basis_history", "alerts", "market_data", "strategy_metrics", "execution_metrics"),
        *("system_metrics", "fills", "strategies", "backtests"),
    }


def test_instruments_that_are_sent_are_those_that_ticks_may_have(server: Server) -> None:
    dataset = DATASETS["instruments"]
    about = {"sector": "Energy", "digits": 3, "currency": "USD", "timezone": "America/New_York"}
    assert send(server, dataset, [{"symbol": "NatGas", **about}, {"symbol": "GasOil", **about}]).status == 200
    drained(server)
    # By an alias, in another case; and another one in another case is the same one.
    assert (
        send(server, dataset, [{"symbol": "naTgas", "digits": 4}, {"symbol": "GASOIL", "sector": "Oil"}]).status == 200
    )
    drained(server)
    found = {one["symbol"]: one for one in read_all(server, dataset) if one["symbol"].upper() in ("NATGAS", "GASOIL")}
    assert found.keys() == {"NatGas", "GasOil"}
    wanted = ("Energy", 4, "USD"), ("Oil", 3, "USD")
    assert tuple((one["sector"], one["digits"], one["currency"]) for _, one in sorted(found.items())[::-1]) == wanted
    tick = {"symbol": "gasoil", "bid": 1.5, "ask": 2.5, "spread": None, "volume": 0, "flags": 6}
    assert post(server, json.dumps(tick | {"timestamp": "2026-01-13T05:00:00Z"}).encode(), "/tick").status == 200
    drained(server)
    answer = ask(server, "GET", "/api/ticks?symbol=GASOIL&limit=5").json
    assert (answer["dataset"], answer["next_page_token"]) == ("ticks", None)
    ticks = [(one["symbol"], one["timestamp"], one["bid"], one["spread"]) for one in answer["records"]]
    assert ticks == [("GasOil", "2026-01-13T05:00:00.000000Z", 1.5, 1000.0)]
    as_csv = ask(server, "GET", "/api/ticks?symbol=GASOIL&format=csv").data.decode().splitlines()
    assert as_csv[0].startswith("symbol,timestamp,bid,ask")
    assert as_csv[1].startswith("GasOil,2026-01-13T05:00:00.000000Z,1.5,2.5")
    assert ask(server, "GET", "/api/ticks").json["message"] == "symbol: is required"
    assert ask(server, "GET", "/api/ticks?symbol=FOO").status == 404


def test_an_alert_about_no_symbol_is_one(server: Server) -> None:
    dataset = DATASETS["alerts"]
    alert = {"timestamp": "2026-01-13T06:00:00Z", "alert_type": "disk", "message": "it is full"}
    for symbol in ({}, {"symbol": None}, {"symbol": "AAPL"}, {"symbol": "aapl.us"}):
        assert send(server, dataset, [alert | symbol | {"severity": "critical"}]).status == 200
    drained(server)
    found = read(server, dataset, severity="critical", alert_type="disk")
    assert [one["symbol"] for one in found] == [None, "AAPL"]
    told = ask(server, "GET", "/api/history/alerts?alert_type=disk").json["alerts"]
    assert sorted(str(one["symbol"]) for one in told) == ["AAPL", "None"]
    assert [one["symbol"] for one in read(server, dataset, symbol="AAPL", alert_type="disk")] == ["AAPL"]
    nul = ask(server, "GET", "/api/alerts?severity=%00")
    assert (nul.status, nul.json["code"]) == (400, "bad_parameter")


def test_a_dataset_that_is_none_is_said_to_be_none(server: Server) -> None:
    for method, path in (("GET", "/api/nothing"), ("POST", "/ingest/nothing")):
        answer = ask(server, method, path, b"[]" if method == "POST" else None)
        assert (answer.status, answer.json["code"]) == (404, "unknown_dataset")
        assert answer.json["message"] == "Unknown dataset: nothing"
    assert ask(server, "GET", "/api/nothing/at/all").json["code"] == "not_found"


@pytest.mark.long
def test_what_was_acknowledged_before_a_crash_is_stored_once(make_server: MakeServer) -> None:
    server = make_server(workers=2, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.3"})
    server.start().wait_ready()
    for crash in range(3):
        for dataset in DATASETS.values():
            sent = records(dataset, 10, first=10 * crash)
            for part in (sent[:4], sent[2:]):
                assert send(server, dataset, part).status == 200
        if crash == 1:
            server.database.kill9()
        server.kill9()
        server.start().wait_ready()
    server.wait_drained()
    for dataset in DATASETS.values():
        assert len(read(server, dataset, limit=10_000)) == 30, dataset.name
    ledger = "SELECT sum(next_row), sum(stored + duplicates + set_aside + skipped + lost), sum(stored) FROM ingest_log"
    (done, counted, stored) = server.database.rows(ledger)[0]
    assert done == counted
    assert stored == 30 * len(DATASETS)
    assert server.stop() == 0


@pytest.mark.long
def test_records_are_taken_while_the_database_is_away_and_stored_when_it_is_back(make_server: MakeServer) -> None:
    server = make_server()
    server.start().wait_ready()
    server.database.pause()
    try:
        for dataset in DATASETS.values():
            assert send(server, dataset, records(dataset, 5)).status == 200
    finally:
        server.database.resume()
    server.wait_ready()
    server.wait_drained()
    for dataset in DATASETS.values():
        assert len(read(server, dataset)) == 5


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_ticks_can_be_sent_as_other_datasets_are(server: Server, form: str) -> None:
    number = ("json", "ndjson", "csv").index(form)
    good = {"symbol": "META", "bid": 1.5, "ask": None, "spread": None, "volume": 0, "flags": 2}
    good |= {"timestamp": f"2026-01-13T0{number}:00:00Z", "seq": 3}
    bad = good | {"symbol": "FOO"}
    kinds = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}
    body = json.dumps([good, bad]).encode()
    if form == "ndjson":
        body = b"\n".join([json.dumps(good).encode(), json.dumps(bad).encode()])
    elif form == "csv":
        lines = [",".join("" if value is None else str(value) for value in one.values()) for one in (good, bad)]
        body = "\n".join([",".join(good), *lines]).encode()
    answer = post(server, body, "/ingest/ticks", Content_Type=kinds[form])
    assert answer.json == {
        "status": "partial",
        "received": 1,
        "rejected": [{"index": 1, "code": "unknown_symbol", "message": "Unknown symbol: FOO"}],
    }
    drained(server)
    stored = ask(server, "GET", f"/api/ticks/META?start=2026-01-13T0{number}:00:00Z&limit=1").json["ticks"]
    assert [(one["timestamp"], one["bid"], one["ask"], one["seq"]) for one in stored] == [
        (f"2026-01-13T0{number}:00:00.000000Z", 1.5, None, 3)
    ]
