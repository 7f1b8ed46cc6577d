"""The server as the role that writes: all that it does by day, with no right beyond."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from app.datasets.registry import DATASETS
from app.storage.role_names import WRITE
from tests.dataset_rows import records
from tests.process.conftest import MakeServer
from tests.process.harness import (
    Database,
    Server,
    running_database,
)
from tests.process.live import client
from tests.process.wire import ask, batch, post, tick
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def database(data_template: Path) -> Iterator[Database]:
    with running_database(data_template) as found:
        yield found


@pytest.fixture
def server(database: Database, make_server: MakeServer) -> Iterator[Server]:
    url = database.url().replace("user=tickhub", f"user={WRITE}")
    environ = {"TICKHUB_METRICS_INTERVAL_S": "0.2", "TICKHUB_UNKNOWN_SYMBOLS": "register"}
    server = make_server("--database-url", url, workers=2, environ=environ).start().wait_ready()
    before = (database.home / "postgres.log").stat().st_size
    yield server
    with (database.home / "postgres.log").open(errors="replace") as log:
        log.seek(before)
        refused = [line for line in log if "permission denied" in line or "must be owner" in line]
    assert not refused
    assert "permission denied" not in server.log()
    assert "Traceback" not in server.log()


def stored(server: Server) -> dict[str, int]:
    def drained() -> dict[str, int] | None:
        stats = server.stats()
        return stats if stats["buffer_size"] == 0 else None

    return dict(wait_until(drained, what="the flush"))


def test_ticks_of_new_weeks_and_new_symbols_are_stored_and_read(server: Server, database: Database) -> None:
    times = [f"{year}-0{month}-15T12:00:00Z" for year in (1995, 2019) for month in (1, 5)]
    rows = [tick(symbol=symbol, timestamp=time) for time in times for symbol in ("AAPL", "NEW.1")]
    assert post(server, batch(*rows)).status == 200
    again = batch(*rows, tick(symbol="AAPL"))
    assert post(server, again).status == 200
    stats = stored(server)
    assert (stats["stored"], stats["duplicates"]) == (9, 8)
    assert stats["rejected"] == stats["errors"] == 0
    assert {f"ticks_{day}" for day in ("19950109", "19950515", "20190114", "20190513")} <= {
        name
        for (name,) in database.rows("SELECT relname FROM pg_class WHERE relname LIKE 'ticks_%%' AND relispartition")
    }
    for path in (
        "/api/ticks/AAPL?start=1995-01-01",
        "/api/bars/AAPL?interval=1d&start=1995-01-01",
        "/api/bars/NEW.1?interval=1m&start=1995-01-01",
        "/api/quotes",
        "/udf/history?symbol=AAPL&resolution=1D&from=0&to=1900000000",
        "/api/stock_info/AAPL",
        "/api/metrics/current",
        "/metrics",
    ):
        assert ask(server, "GET", path).status == 200, path
    assert len(ask(server, "GET", "/api/ticks/NEW.1?start=1995-01-01").json["ticks"]) == 4
    added = ask(server, "POST", "/api/symbols", json.dumps({"symbol": "ADDED", "digits": 2, "aliases": ["ADD.US"]}))
    assert added.status == 201
    assert database.rows("SELECT count(*) FROM added_history") == [(0,)]
    # What cannot be stored is set aside: another tick under the same seq.
    for bid in (1.0, 2.0):
        assert post(server, batch(tick(symbol="AAPL", seq=7, bid=bid, timestamp=times[0]))).status == 200
    assert stored(server)["errors"] == 0
    assert database.rows("SELECT code FROM rejected_ticks") == [("seq_conflict",)]


@pytest.mark.parametrize("policy", ["ignore", "update", "keep_newest"])
def test_every_dataset_is_stored_changed_and_read(server: Server, policy: str) -> None:
    for dataset in DATASETS.values():
        for seed in (1, 2):
            body = json.dumps(records(dataset, 10, seed)).encode()
            answer = post(server, body, f"/ingest/{dataset.name}?on_duplicate={policy}")
            assert answer.status in (200, 400), answer
            if answer.status == 400:  # it has no such policy
                assert "on_duplicate" in answer.json["message"], answer
        assert ask(server, "GET", f"/api/{dataset.name}").status == 200
    assert stored(server)["errors"] == 0
    asked = {"time_range": "DAY_1", "metric_types": ["system", "market_data"], "interval": "1m"}
    assert ask(server, "POST", "/api/metrics/history", json.dumps(asked)).status in (200, 400)


@pytest.mark.long
def test_rules_are_made_alerts_told_and_rules_removed(server: Server, database: Database) -> None:
    assert post(server, batch(tick(symbol="TSLA", bid=99.0, ask=99.1))).status == 200
    stored(server)
    rule = {"alert_type": "price_crosses", "symbol": "TSLA", "threshold": 100.0, "direction": "above", "cooldown_s": 0}

    def added() -> int:
        answer = ask(server, "POST", "/api/alert_rules", json.dumps({**rule, "hysteresis": 1.0}))
        return int(answer.json["rule_id"]) if answer.status == 201 else 0

    number = wait_until(added, 30, "a worker that knows the database")
    with client(server) as reader:
        reader.subscribe("TSLA", channels=["alerts"])
        assert post(server, batch(tick(symbol="TSLA", bid=101.0, ask=101.1))).status == 200
        assert reader.next("alert")["symbol"] == "TSLA"
    wait_until(lambda: database.rows("SELECT count(*) FROM alert_outbox") == [(0,)], what="the outbox to be cleared")
    assert ask(server, "DELETE", f"/api/alert_rules?rule_id={number}").status == 200


def test_the_elected_worker_collects_and_sums_up(server: Server, database: Database) -> None:
    for table in ("system_metrics", "leases"):
        wait_until(partial(database.rows, f"SELECT 1 FROM {table} LIMIT 1"), 60, table)


@pytest.mark.long
def test_a_newer_schema_is_asked_of_the_owner_and_not_tried_for_ever_in_silence(
    database: Database, make_server: MakeServer
) -> None:
    with closing(database.connect()) as conn, conn.cursor() as cur:
        conn.autocommit = True
        cur.execute("CREATE DATABASE empty")
    url = database.url("empty").replace("user=tickhub", f"user={WRITE}")
    server = make_server("--database-url", url).start().wait_accepting()
    wait_until(lambda: "Migrate as the owner" in server.log(), 30, "the remedy in the log")
    assert post(server, batch(tick())).status == 200
    direct = make_server("--database-url", url, environ={"TICKHUB_DIRECT_DATABASE_URL": database.url("empty")})
    direct.start().wait_ready()
    assert direct.post([tick()])[0] == 200
    assert stored(direct)["errors"] == 0
