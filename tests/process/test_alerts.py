"""Alerts on real servers: told once to everybody, whatever becomes of the worker that is elected."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, Database, Server, wait_until
from tests.process.live import Client, client
from tests.process.proxy import Proxy
from tests.process.wire import ask, get, running, tick

READERS = 6
"""So many that each of two workers has some."""


class Hook:
    """A webhook that refuses as often as it is told to, and keeps what it took."""

    def __init__(self) -> None:
        self.failures = 0
        self.tries = 0
        self.took: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.tries += 1
                refused = hook.failures > 0
                if refused:
                    hook.failures -= 1
                else:
                    assert self.headers["Idempotency-Key"] == str(body["alert_id"])
                    hook.took.append(body)
                self.send_response(500 if refused else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(data_template: Path, hook: Hook) -> Iterator[Server]:
    with running(data_template, workers=2, environ={"TICKHUB_ALERT_WEBHOOK_URL": hook.url}) as server:
        yield server
        assert "Traceback" not in server.log()
        assert "token=secret" not in server.log()


def rule(server: Server, **fields: Any) -> dict[str, Any]:
    body = {"alert_type": "price_crosses", "direction": "above", "hysteresis": 1.0, "cooldown_s": 0, **fields}

    def added() -> Any:
        answer = ask(server, "POST", "/api/alert_rules", json.dumps(body))
        assert answer.status in (201, 503), answer
        return answer.json if answer.status == 201 else None  # 503: a worker that has just begun

    return dict(wait_until(added, 30, "a worker that knows the database"))


def quote(server: Server, symbol: str, *bids: float) -> None:
    """Send quotes one by one: each may be another worker's."""
    for bid in bids:
        status, answer = server.post([tick(symbol=symbol, bid=bid, ask=bid + 0.1)])
        assert status == 200, answer


def alerts(server: Server, symbol: str) -> list[float]:
    """Return the values of the stored alerts."""
    query = "SELECT value FROM alerts JOIN instruments USING (symbol_id) WHERE symbol = %s ORDER BY alert_id"
    return [value for (value,) in server.database.rows(query, symbol)]


def leader(server: Server, but: int | None = None) -> int:
    """Return the process that is elected, once it is another one than `but`."""

    def look() -> int | None:
        rows = server.database.rows("SELECT holder FROM leases WHERE held_until > clock_timestamp()")
        pids = [int(holder.split(":")[1]) for (holder,) in rows]
        return pids[0] if pids and pids[0] != but else None

    return int(wait_until(look, 60, "a worker to be elected"))


@pytest.mark.long
def test_a_noisy_price_is_told_once_to_every_reader_and_to_the_webhook(server: Server, hook: Hook) -> None:
    hook.failures = 2
    quote(server, "NVDA", 99.0)
    server.wait_drained()
    made = rule(server, symbol="nvda.us", threshold=100.0, name="round number")
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for _ in range(READERS)]
        for number, reader in enumerate(readers):
            if number:
                reader.subscribe("NVDA", channels=["alerts"])
            else:
                reader.say(action="subscribe", channels=["alerts"], conflate_ms=0)
                assert reader.next("subscribed")["channels"] == ["alerts"]
        quote(server, "NVDA", *[100 + 0.5 * (number % 3 - 1) for number in range(60)])
        said = [reader.next("alert") for reader in readers]
        server.wait_drained()
        wait_until(lambda: hook.took, 30, "the webhook")
        quote(server, "NVDA", 99.0, 103.0)
        again = [reader.next("alert") for reader in readers]
        assert [reader.sync() for reader in readers] == [[]] * READERS
    assert all(one == said[0] for one in said)
    assert all(one == again[0] for one in again)
    assert said[0]["rule_id"] == made["rule_id"]
    assert said[0]["message"] == f"round number: NVDA price {said[0]['value']:g} crossed 100 upwards"
    assert (said[0]["symbol"], said[0]["severity"], said[0]["alert_type"]) == ("NVDA", "warning", "price_crosses")
    assert again[0]["value"] == 103
    assert alerts(server, "NVDA") == [said[0]["value"], 103]
    wait_until(lambda: len(hook.took) == 2, 30, "the webhook")
    assert {one["alert_id"]: one["text"] for one in hook.took} == {
        one["alert_id"]: one["message"] for one in (said[0], again[0])
    }
    assert hook.tries == 4
    posts = 'alert_posts_total{{result="{}"}} 2.0'
    for line in ("alerts_total 2.0", posts.format("posted"), posts.format("failed")):
        # What it took is counted once its answer has arrived.
        wait_until(lambda line=line: f"\ntickhub_{line}\n" in ask(server, "GET", "/metrics").data.decode(), 30, line)
    wait_until(lambda: server.database.rows("SELECT count(*) FROM alert_outbox") == [(0,)], 30, "the outbox")


@pytest.mark.long
def test_rules_are_made_listed_and_removed_over_http_and_by_command(server: Server) -> None:
    made = rule(server, symbol="AMD", threshold=150)
    listed = ask(server, "GET", "/api/alert_rules").json["alert_rules"]
    assert made in listed

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app", "alerts", *arguments, "--data-dir", str(server.home)],
            cwd=ROOT,
            env=server.environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    added = command("add", "spread_above", "25", "--symbol", "AMD")
    assert "alert_type=spread_above symbol=AMD" in added
    assert json.loads(command("list", "--json"))["alert_rules"][:-1] == listed
    number = added.split("rule_id=")[1].split()[0]
    assert command("remove", number).startswith(f"removed: rule_id={number} ")
    assert "spread_above" not in command("list")
    answer = ask(server, "DELETE", f"/api/alert_rules?rule_id={made['rule_id']}")
    assert (answer.status, answer.json) == (200, made)
    assert ask(server, "DELETE", f"/api/alert_rules?rule_id={made['rule_id']}").status == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_field"),
        ('{"alert_type":"price_crosses"}', "missing_field"),
        ('{"alert_type":"price_crosses","threshold":1}', "missing_field"),
        ('{"alert_type":"price_crosses","threshold":1,"symbol":"NOPE"}', "unknown_symbol"),
        ('{"alert_type":"moon","threshold":1}', "bad_field"),
        ('{"alert_type":"price_crosses","threshold":1,"symbol":"AMD","colour":"red"}', "bad_field"),
        ('{"alert_type":"price_crosses","threshold":1,"symbol":"AMD","name":"\\ud800"}', "bad_json"),
        ('{"alert_type":"price_crosses","threshold":1e308,"symbol":"AMD","cooldown_s":1e300}', "bad_field"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_its_code(server: Server, body: str, code: str) -> None:
    answer = ask(server, "POST", "/api/alert_rules", body)
    assert (answer.status, answer.json["code"]) == (400, code), answer


def test_what_is_wrong_with_a_rule_is_said_with_what_would_be_right(server: Server) -> None:
    def told(**fields: object) -> str:
        return str(ask(server, "POST", "/api/alert_rules", json.dumps(fields)).json["message"])

    assert told(alert_type="moon", threshold=1).startswith("alert_type: 'moon' is none of price_crosses, spread_above,")
    assert told(alert_type="no_tick", threshold=1, colour="red").startswith("colour: unknown field; there are: alert_")
    assert told(alert_type="no_tick", threshold="x") == "threshold: cannot be used: Expected float, got str"
    assert told(alert_type="no_tick") == "Missing required fields: threshold"


def test_stored_alerts_are_read_by_symbol_type_severity_and_page(server: Server) -> None:
    quote(server, "CSCO", 49.0)
    server.wait_drained()
    rule(server, symbol="CSCO", threshold=50, severity="critical")
    for _ in range(5):
        quote(server, "CSCO", 51.0, 48.0)
        server.wait_drained()  # of ticks that are committed in no order some crossings are passed over
    wait_until(lambda: len(alerts(server, "CSCO")) == 5, 30, "the alerts")
    path = "/api/history/alerts?symbol=csco.us&alert_type=price_crosses&severity=critical"
    whole = ask(server, "GET", path).json
    assert [one["value"] for one in whole["alerts"]] == [51.0] * 5
    assert [one["timestamp"] for one in whole["alerts"]] == sorted(one["timestamp"] for one in whole["alerts"])
    pages, token = [], ""
    while token is not None:
        page = ask(server, "GET", f"{path}&order=asc&limit=2{token and f'&page_token={token}'}").json
        pages += page["alerts"]
        token = page["next_page_token"]
    assert pages == whole["alerts"]
    records = ask(server, "GET", path.replace("/history", "")).json["records"]
    assert [{name: one[name] for name in records[0]} for one in pages] == records
    assert ask(server, "GET", f"{path}&severity=x".replace("&severity=critical", "")).json["alerts"] == []
    assert len(ask(server, "GET", f"{path}&format=csv").data.splitlines()) == 6
    assert ask(server, "GET", f"{path}&end={pages[0]['timestamp']}").json["alerts"] == []
    assert ask(server, "GET", "/api/history/alerts?symbol=NOPE").status == 404
    assert ask(server, "GET", "/api/history/alerts?severity=%00").status == 400
    assert ask(server, "GET", "/api/history/alerts?page_token=AAAAAAAAAAAA").status == 400


def test_a_parquet_file_of_alerts_is_made_anew_when_one_of_them_changed(server: Server) -> None:
    alert = {"timestamp": "2026-01-13T10:00:00Z", "alert_type": "watch", "message": "the feed is slow"}
    for severity in ("info", "critical"):
        body = json.dumps([{**alert, "severity": severity}])
        assert ask(server, "POST", "/ingest/alerts?on_duplicate=update", body).status == 200
        server.wait_drained()
        answer = get(server, "/api/history/alerts?alert_type=watch&format=parquet", "bytes=0-")
        assert answer.status == 206
        assert pq.read_table(io.BytesIO(answer.data))["severity"].to_pylist() == [severity]


def test_which_rule_to_remove_must_be_said(server: Server) -> None:
    assert ask(server, "DELETE", "/api/alert_rules").json["code"] == "bad_parameter"
    assert ask(server, "DELETE", "/api/alert_rules?rule_id=x").json["code"] == "bad_parameter"


@pytest.mark.long
def test_of_a_leader_that_is_killed_the_next_one_goes_on(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    quote(server, "AMD", 99.0)
    server.wait_drained()
    rule(server, symbol="AMD", threshold=100.0)
    crossings = []
    for number in range(3):
        first = leader(server)
        quote(server, "AMD", 101.0 + number)
        crossings.append(101.0 + number)
        os.kill(first, signal.SIGKILL)  # before, while or after it looked at that
        leader(server, but=first)
        wait_until(lambda: alerts(server, "AMD") == crossings, 60, "the alert")
        quote(server, "AMD", 98.0)
        server.wait_drained()
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_leader_that_freezes_is_replaced_and_tells_nothing_when_it_wakes(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    quote(server, "AMD", 99.0)
    server.wait_drained()
    rule(server, symbol="AMD", threshold=100.0)
    frozen = leader(server)
    process = psutil.Process(frozen)
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for _ in range(READERS)]
        for reader in readers:
            reader.subscribe("AMD", channels=["alerts"])
        process.suspend()
        stack.callback(process.resume)
        leader(server, but=frozen)
        _quote_somewhere(server, "AMD", 101.0)
        wait_until(lambda: alerts(server, "AMD") == [101.0], 60, "the alert")
        process.resume()
        server.wait_drained()
        assert [reader.next("alert")["value"] for reader in readers] == [101.0] * READERS
        quote(server, "AMD", 101.5, 98.0, 102.0)
        assert [reader.next("alert")["value"] for reader in readers] == [102.0] * READERS
        assert [reader.sync() for reader in readers] == [[]] * READERS
    assert alerts(server, "AMD") == [101.0, 102.0]
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_crossing_is_told_once_though_its_leader_freezes_or_all_are_killed_over_it(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    quote(server, "AMD", 99.0)
    server.wait_drained()
    rule(server, symbol="AMD", threshold=100.0)
    crossings = []
    for number in range(4):
        first = leader(server)
        quote(server, "AMD", 101.0 + number)
        crossings.append(101.0 + number)
        if number % 2:
            server.kill9()
            server.start().wait_ready()
        else:
            process = psutil.Process(first)
            process.suspend()
            try:
                leader(server, but=first)
            finally:
                process.resume()  # it may have the tick, and may have been about to look at it
        wait_until(lambda: alerts(server, "AMD") == crossings, 60, "the alert")
        quote(server, "AMD", 101.0 + number, 98.0)
        server.wait_drained()
    assert alerts(server, "AMD") == crossings
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_what_crossed_while_the_database_was_away_is_told_once_when_it_is_back(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url, workers=2)
    server.database = database
    proxy.open()
    server.start().wait_ready()
    quote(server, "AMD", 99.0)
    server.wait_drained()
    rule(server, symbol="AMD", threshold=100.0)
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for _ in range(READERS)]
        for reader in readers:
            reader.subscribe("AMD", channels=["alerts"])
        told = []
        for number in range(2):
            proxy.close()
            wait_until(lambda: server.status("/health") == 503, what="the loss to be noticed")
            quote(server, "AMD", 99.0, *[100.5 + 0.1 * (step % 7) for step in range(30)])
            proxy.open()
            server.wait_ready()
            server.wait_drained()
            said = [reader.next("alert") for reader in readers]
            assert said == [said[0]] * READERS, number
            told.append(said[0]["value"])  # whichever worker wrote first
            quote(server, "AMD", 98.0)
        server.wait_drained()
        assert [reader.sync() for reader in readers] == [[]] * READERS
    assert alerts(server, "AMD") == told
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_of_two_hosts_without_a_bus_one_looks_and_both_tell_their_readers(
    make_server: MakeServer, database: Database
) -> None:
    hosts = [make_server("--database-url", database.url(), workers=1) for _ in range(2)]
    for server in hosts:
        server.database = database
        server.start().wait_ready()
    quote(hosts[0], "AMD", 99.0)
    hosts[0].wait_drained()
    rule(hosts[0], symbol="AMD", threshold=100.0)
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for server in hosts]
        for reader in readers:
            reader.subscribe("AMD", channels=["alerts"])
        _settle(readers)
        for number, server in enumerate([*hosts, *hosts]):
            quote(server, "AMD", 101.0 + number, 101.2 + number)
            assert [reader.next("alert")["value"] for reader in readers] == [101.0 + number] * 2
            quote(server, "AMD", 98.0)
            server.wait_drained()
        assert [reader.sync() for reader in readers] == [[], []]
    assert alerts(hosts[0], "AMD") == [101.0, 102.0, 103.0, 104.0]


def _settle(readers: list[Client]) -> None:
    """Wait until the workers have looked where the alerts are: what is told from now on is found, whoever tells it."""
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        for reader in readers:
            assert reader.sync() == []
        time.sleep(0.1)  # nothing tells that they have looked; they do each second


def _quote_somewhere(server: Server, symbol: str, bid: float) -> None:
    """Send a quote, to whoever answers: one of the workers takes connections and never reads."""
    row = tick(symbol=symbol, bid=bid, ask=bid + 0.1, seq=0)

    def sent() -> bool:
        try:
            return server.request("POST", "/tick/batch", json.dumps({"ticks": [row]}).encode(), timeout_s=1)[0] == 200
        except OSError:
            return False

    wait_until(sent, 60, "a worker that answers")
