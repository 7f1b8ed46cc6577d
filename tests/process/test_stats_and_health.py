"""What the server says of itself: /stats, /health and /metrics, with a database and without one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.process.harness import Server, wait_until
from tests.process.wire import AWAY, Answer, ask, batch, post, raw_batch, raw_row, running, tick

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
SUCCESS = {"status": "success"}


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        # Each worker looks for itself, once a second.
        wait_until(lambda: server.log().count("the database is connected") == 2, what="both workers' word")
        yield server


@pytest.fixture(scope="module")
def away(data_template: Path) -> Iterator[Server]:
    """A server whose database never comes, with a journal of the smallest size."""
    small = {"TICKHUB_JOURNAL_MAX_BYTES": "1MiB", "TICKHUB_JOURNAL_SEGMENT_BYTES": "64KiB"}
    with running(data_template, "--database-url", AWAY, environ=small) as server:
        yield server


def test_stats_has_every_field_and_adds_up(server: Server) -> None:
    before = server.wait_drained()
    assert post(server, batch(tick(), tick(), tick(symbol="FOO"))).status == 200
    assert post(server, json.dumps(tick(volume=-1)).encode(), "/tick").status == 400
    assert post(server, b"no json").status == 400
    stats = server.wait_drained()
    whole = ["ticks_received", "ticks_processed", "buffer_size", "duplicates", "rejected", "errors"]
    assert [stats[name] - before[name] for name in whole] == [2, 2, 0, 0, 2, 2]
    whole += ["stored", "set_aside", "journal_bytes", "workers", "active_connections", "uptime_seconds"]
    assert all(type(stats[name]) is int and stats[name] >= 0 for name in whole)
    assert RFC3339.fullmatch(stats["last_flush"])
    assert (stats["workers"], stats["database_status"], stats["warnings"]) == (2, "connected", [])
    assert isinstance(stats["ticks_per_second"], float)
    assert {status["pid"] for status in stats["worker_status"]} == set(server.worker_pids())
    for status in stats["worker_status"]:
        assert status["state"] == "running"
        assert 0 <= status["uptime_seconds"] <= stats["uptime_seconds"] + 1


def test_rates_count_what_comes_in(server: Server) -> None:
    def rates() -> bool:
        assert post(server, batch(tick())).status == 200
        stats = server.stats()
        return bool(stats["ticks_per_second"] > 0 and stats["requests_per_second"] > 0)

    wait_until(rates, 20, "rates above 0")


def test_health_is_open_about_the_whole(server: Server) -> None:
    health = ask(server, "GET", "/health").json
    assert type(health.pop("uptime_seconds")) is int
    assert health == {"status": "healthy", "database": "connected", "workers": 2}
    assert ask(server, "GET", "/health/live").status == 200
    assert ask(server, "GET", "/health/ready").status == 200


def metrics_of(server: Server) -> dict[str, float]:
    """Return the samples without labels, and of those with labels the sums; checks the form."""
    answer = ask(server, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.data.decode()):
        assert family.name.startswith("tickhub_")
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total")
            assert family.type == "counter" or not sample.name.endswith("_total")
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.mark.long
def test_metrics_say_what_stats_says_and_outlive_a_worker(server: Server) -> None:
    def agreed() -> dict[str, float]:
        stats, metrics = server.wait_drained(), metrics_of(server)
        names = {
            "ticks_received": "tickhub_ticks_received_total",
            "ticks_processed": "tickhub_ticks_processed_total",
            "stored": "tickhub_ticks_stored_total",
            "duplicates": "tickhub_ticks_duplicate_total",
            "set_aside": "tickhub_ticks_set_aside_total",
            "rejected": "tickhub_rows_rejected_total",
            "errors": "tickhub_errors_total",
            "buffer_size": "tickhub_buffer_ticks",
            "workers": "tickhub_workers",
        }
        assert {name: stats[name] for name in names} == {
            name: metrics[metric] for name, metric in names.items()
        }
        assert metrics["tickhub_database_up"] == 1
        return metrics

    for _ in range(10):  # to both workers
        assert post(server, batch(tick(), tick(symbol="FOO"))).status == 200
    before = agreed()
    assert before["tickhub_ingest_ack_seconds_count"] >= 10
    assert before["tickhub_http_responses_total"] >= 10
    pids = server.worker_pids()
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: len(set(server.worker_pids()) - set(pids)) == 1, what="another worker")
    wait_until(lambda: server.stats()["workers"] == 2, what="two workers")
    assert post(server, batch(tick())).status == 200
    after = agreed()
    assert after["tickhub_ticks_received_total"] == before["tickhub_ticks_received_total"] + 1
    assert after["tickhub_rows_rejected_total"] == before["tickhub_rows_rejected_total"]
    assert after["tickhub_ingest_ack_seconds_count"] > before["tickhub_ingest_ack_seconds_count"]


@pytest.mark.long
def test_an_idle_connection_is_closed_without_a_word_when_the_server_stops(data_template: Path) -> None:
    with running(data_template, "--database-url", AWAY) as server:
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as client:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: client.recv(1000).endswith(b"}"), what="the answer")
            assert server.stop() == 0
            assert client.recv(1000) == b""
        assert "Traceback" not in server.log()


def test_without_a_database_ticks_are_taken_and_health_says_so(away: Server) -> None:
    assert post(away, batch(tick(), tick())).json == SUCCESS | {"received": 2}
    health = ask(away, "GET", "/health")
    assert health.status == 503
    assert health.json.items() >= {"status": "unhealthy", "database": "disconnected", "workers": 1}.items()
    assert ask(away, "GET", "/health/ready").status == 200
    assert ask(away, "GET", "/health/live").status == 200
    stats = ask(away, "GET", "/stats").json
    assert (stats["database_status"], stats["last_flush"]) == ("disconnected", None)
    assert stats["buffer_size"] == stats["ticks_received"] >= 2
    assert metrics_of(away)["tickhub_database_up"] == 0


def test_a_symbol_that_cannot_be_looked_up_is_to_be_sent_again(away: Server) -> None:
    for path, body in (
        ("/tick", json.dumps(tick(symbol="FOO")).encode()),
        ("/tick/batch", batch(tick(symbol="FOO"))),
    ):
        answer = post(away, body, path)
        assert (answer.status, answer.json["code"]) == (503, "not_ready")
    bad_too = post(away, batch(tick(volume=-1), tick(symbol="FOO")))
    assert (bad_too.status, [found["code"] for found in bad_too.json["rejected"]]) == (
        503,
        ["bad_field", "not_ready"],
    )
    partly = post(away, batch(tick(), tick(symbol="FOO")))
    assert (partly.status, partly.json["received"]) == (200, 1)
    assert [(found["index"], found["code"]) for found in partly.json["rejected"]] == [(1, "not_ready")]


def test_a_full_journal_is_a_503_and_says_when_to_come_again(away: Server) -> None:
    def full() -> Answer | None:
        answer = post(away, raw_batch(*[raw_row()] * 4000))
        return answer if answer.status != 200 else None

    answer = wait_until(full, 20, "the journal to be full")
    assert (answer.status, answer.json["code"]) == (503, "buffer_full")
    assert int(answer.headers["retry-after"]) > 0
