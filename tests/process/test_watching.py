"""What a running server tells those who watch it: metrics, request ids, logs, slow queries."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.sync.client import connect

from tests.backup_notes import a_note
from tests.process.conftest import MakeServer
from tests.process.harness import Server
from tests.process.samples import metrics, value
from tests.process.wire import ask, batch, running, tick
from tests.waiting import wait_until


def lines(server: Server) -> list[dict[str, Any]]:
    """Return the log's lines that are JSON; all of them are, from the server's own start on."""
    return [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    flags = ("--log-format", "json", "--access-log", "--slow-query-s", "0.000001")
    with running(data_template, *flags, workers=2) as server:
        wait_until(lambda: server.log().count("the database is connected") == 2, what="both workers' word")
        yield server


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_requests_are_counted_by_route_and_made_up_paths_make_no_series(server: Server) -> None:
    before = metrics(server)
    for number in range(5):
        assert ask(server, "GET", "/api/bars/AAPL?interval=1m&limit=1").status == 200
        assert ask(server, "GET", f"/made/up/{number}").status == 404
        assert ask(server, "BREW", f"/api/bars/X{number}").status == 405
    after = metrics(server)

    def more(**labels: str) -> float:
        name = "tickhub_http_responses_total"
        return value(after, name, **labels) - value(before, name, **labels)

    assert more(route="/api/bars/{symbol}", method="GET", status="200") == 5
    assert more(route="none", method="GET", status="404") == 5
    assert more(route="none", method="other", status="405") == 5
    assert not any("made" in part for having in after["tickhub_http_responses_total"] for _, part in having)
    seconds = "tickhub_http_request_seconds_count"
    assert value(after, seconds, route="/api/bars/{symbol}") - value(before, seconds, route="/api/bars/{symbol}") == 5


def test_senders_are_told_apart_and_how_far_behind_they_are(server: Server) -> None:
    late = datetime.fromtimestamp(time.time() - 100, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sent = {"X-Source": "bridge-7", "Content-Type": "application/json"}
    assert ask(server, "POST", "/tick/batch", batch(tick(timestamp=late)), sent).status == 200
    for number in range(60):
        headers = {"X-Source": f"made-up-{number}", "Content-Type": "application/json"}
        assert ask(server, "POST", "/tick/batch", batch(tick()), headers).status == 200
    found = metrics(server)
    assert value(found, "tickhub_source_lag_seconds_count", source="bridge-7") == 1
    assert 99 < value(found, "tickhub_source_lag_seconds_sum", source="bridge-7") < 200
    heard = value(found, "tickhub_source_heard_timestamp_seconds", source="bridge-7")
    assert heard - value(found, "tickhub_source_newest_tick_timestamp_seconds", source="bridge-7") > 99
    sources = {part for having in found["tickhub_source_lag_seconds_count"] for _, part in having}
    assert len(sources) <= 2 * 21
    assert value(found, "tickhub_source_lag_seconds_count", source="other") > 0


def test_a_feeds_newest_tick_is_told_whichever_worker_took_it(server: Server) -> None:
    assert server.post([tick(symbol="NVDA", timestamp=now_text())])[0] == 200

    def fresh() -> bool:
        at = value(metrics(server), "tickhub_feed_newest_tick_timestamp_seconds", symbol="NVDA")
        return time.time() - at < 60

    for _ in range(8):
        wait_until(fresh, 20, "the feed")
    found = metrics(server)
    assert value(found, "tickhub_feed_open_seconds", symbol="NVDA") > 1e9, "no exchange is known of it: always open"


@pytest.mark.long
def test_the_database_is_told_of_by_every_worker_and_ages_when_it_is_away(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()

    def told() -> bool:
        return "tickhub_database_size_bytes" in metrics(server)

    for _ in range(10):
        wait_until(told, 60, "the database's figures")
    found = metrics(server)
    assert found["tickhub_database_statements_known"][frozenset()] == 1, "the embedded server keeps books"
    assert value(found, "tickhub_database_table_bytes", table="instruments") > 0
    assert value(found, "tickhub_database_connections") >= 2
    assert 0 < found["tickhub_database_cache_hit_ratio"][frozenset()] <= 1
    assert any(dict(labels)["query"] for labels in found["tickhub_database_statement_seconds_total"])
    server.database.pause()
    try:
        wait_until(lambda: value(metrics(server), "tickhub_database_up") == 0, 60, "it to be away")
        size = value(found, "tickhub_database_size_bytes")
        aged = wait_until(
            lambda: value(last := metrics(server), "tickhub_database_figures_age_seconds") > 20 and last, 90, "ageing"
        )
        assert value(aged, "tickhub_database_size_bytes") == pytest.approx(size, rel=0.5)
        assert value(aged, "tickhub_disk_free_bytes", of="data") > 0
    finally:
        server.database.resume()


@pytest.mark.long
def test_room_on_the_disk_and_backups_are_told_of(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    base = server.home / "backups" / "base"
    began_at = datetime(2026, 1, 13, 2, tzinfo=UTC)
    note = a_note(began_at, ended_at=began_at + timedelta(minutes=1), bytes=12345)
    (base / note.label).mkdir(parents=True)
    (base / f"{note.label}.json").write_bytes(msgspec.json.encode(note))
    (base / "broken.json").write_text("{")
    ended = "tickhub_backup_newest_timestamp_seconds"
    found = wait_until(lambda: ended in (found := metrics(server)) and found, 30, "the backup")
    assert value(found, ended, kind="full") == datetime(2026, 1, 13, 2, 1, tzinfo=UTC).timestamp()
    assert value(found, "tickhub_backup_newest_bytes", kind="full") == 12345
    assert value(found, "tickhub_backups", state="sound") == 1
    assert value(found, "tickhub_backups", state="damaged") == 1
    for of in ("data", "backup"):
        assert 0 < value(found, "tickhub_disk_free_bytes", of=of) <= value(found, "tickhub_disk_size_bytes", of=of)


@pytest.mark.long
def test_websockets_and_lanes_are_told_of(server: Server) -> None:
    before = value(metrics(server), "tickhub_websocket_messages_sent_total")
    with connect(f"ws://127.0.0.1:{server.port}/ws") as socket:
        socket.send(json.dumps({"action": "subscribe", "symbols": ["AAPL"], "channels": ["quotes"]}))

        def sent() -> bool:
            assert server.post([tick(timestamp=now_text())])[0] == 200
            found = metrics(server)
            more = value(found, "tickhub_websocket_messages_sent_total") > before
            return more and value(found, "tickhub_websocket_connections") == 1

        wait_until(sent, 30, "updates")
    wait_until(lambda: value(metrics(server), "tickhub_websocket_connections") == 0, 30, "it to be closed")
    found = metrics(server)
    assert {dict(labels)["kind"] for labels in found["tickhub_query_lanes"]} == {"quote", "page", "export"}
    assert value(found, "tickhub_query_lanes") == 2 * 7
    assert value(found, "tickhub_query_lanes_busy") <= 14


@pytest.mark.long
def test_what_waits_for_a_database_that_is_away_has_a_lag(data_template: Path) -> None:
    with running(data_template, "--database-url", "postgresql://nobody@127.0.0.1:1/none") as away:
        assert value(metrics(away), "tickhub_flush_lag_seconds") == 0
        assert away.post([tick()])[0] == 200
        wait_until(lambda: value(metrics(away), "tickhub_flush_lag_seconds", worker="0") > 2, 30, "the lag")
        found = metrics(away)
        assert value(found, "tickhub_buffer_bytes") > 0
        assert value(found, "tickhub_journal_bytes") < value(found, "tickhub_journal_max_bytes")
        assert "tickhub_database_size_bytes" not in found


def test_a_request_keeps_its_id_or_gets_one(server: Server) -> None:
    assert ask(server, "GET", "/health/live", headers={"X-Request-Id": "desk-42"}).headers["x-request-id"] == "desk-42"
    made = [ask(server, "GET", "/health/live").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in made)
    for bad in ("two words", 'quo"te', "x" * 129, "é"):
        answer = ask(server, "GET", "/nowhere", headers={"X-Request-Id": bad.encode("latin-1").decode("latin-1")})
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"]), bad


def test_every_line_of_a_json_log_is_json_and_access_lines_have_the_ids(server: Server) -> None:
    ids = [f"line-{number}" for number in range(3)]
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as client:
        for one in ids:
            client.request("GET", f"/nothing/{one}%22%0A", headers={"X-Request-Id": one})
            assert client.getresponse().read()

    def written() -> list[dict[str, Any]]:
        return [line for line in lines(server) if line["logger"] == "gunicorn.access" and line["request_id"] in ids]

    found = wait_until(lambda: len(written()) == 3 and written(), 20, "the access lines")
    assert [line["request_id"] for line in found] == ids
    for line in found:
        assert (line["method"], line["status"]) == ("GET", 404)
        assert line["target"] == f"/nothing/{line['request_id']}%22%0A"
        assert 0 <= line["seconds"] < 60
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
    begun = server.log().index("tickhub listens on")
    behind = server.log()[server.log().rindex("\n", 0, begun) + 1 :]
    assert [line for line in behind.splitlines() if not line.startswith("{")] == []


def test_a_slow_query_is_logged_with_the_request_that_waited_for_it(server: Server) -> None:
    assert ask(server, "GET", "/api/bars/AAPL?limit=3", headers={"X-Request-Id": "slow-1"}).status == 200

    def slow() -> list[dict[str, Any]]:
        return [line for line in lines(server) if "[SLOW]" in line["message"] and line.get("request_id") == "slow-1"]

    found = wait_until(slow, 20, "the slow query's line")
    assert found[0]["request"] == "GET /api/bars/AAPL?limit=3"
    assert found[0]["level"] == "warning"
    assert "page" in found[0]["message"]


def test_slow_statements_are_in_the_databases_own_log(server: Server) -> None:
    server.database.rows("SELECT pg_sleep(0.02), 'found by this'")
    log = server.home / "postgres.log"
    wait_until(lambda: re.search(r"duration: \d+\.\d+ ms .*'found by this'", log.read_text()), 20, "the statement")


@pytest.mark.long
def test_lines_for_people_name_the_request_too(make_server: MakeServer) -> None:
    server = make_server("--access-log", "--slow-query-s", "0.000001").start().wait_ready()
    assert ask(server, "GET", "/api/bars/AAPL?limit=3", headers={"X-Request-Id": "slow-2"}).status == 200
    wait_until(lambda: re.search(r"\[SLOW\].*GET /api/bars/AAPL.* \[request slow-2\]\n", server.log()), 20, "the line")
    wait_until(lambda: re.search(r'"GET /api/bars/AAPL\?limit=3 HTTP/1.1" 200 .* slow-2\n', server.log()), 20, "access")
    assert "{" not in server.log().split("slow-2")[0].splitlines()[-1]
    assert ask(server, "GET", f"/stats?key=th_k3x9q0az_{'x' * 43}").status == 200
    wait_until(lambda: '"GET /stats?key=th_k3x9q0az_... HTTP/1.1" 200' in server.log(), 20, "the line without the key")
