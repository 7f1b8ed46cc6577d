"""A server whose database is behind a real PgBouncer in transaction mode does all that it does without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from app.datasets.registry import DATASETS
from app.storage.schema import HEAD
from tests.dataset_rows import records
from tests.process.conftest import MakeServer
from tests.process.desk import FORMATS, send
from tests.process.harness import ROOT, Database, Server, folder, wait_until
from tests.process.live import client, trade
from tests.process.load import Load, Probe
from tests.process.pgbouncer import PgBouncer
from tests.process.proof import assert_ledger_adds_up, assert_stored_once
from tests.process.reading import DAY_MS, made_ticks, read, rows_of, shown, store, ticks_path
from tests.process.test_query_lanes import MINUTE, Probed, busy, connect
from tests.process.wire import ask, tick

SEED = 11
LONG_AGO_MS = DAY_MS - 3 * 365 * 86_400_000
"""In a week that no partition is made for ahead."""


@pytest.fixture
def pooler(database: Database) -> Iterator[PgBouncer]:
    with folder() as home:
        found = PgBouncer(home, database)
        try:
            yield found
        finally:
            found.kill9()


@pytest.fixture
def behind(make_server: MakeServer, database: Database, pooler: PgBouncer) -> Callable[..., Server]:
    """Return a function that makes a server, not started, which has its database through the pooler."""

    def make(*flags: str, **options: Any) -> Server:
        urls = ("--database-url", pooler.url(), "--direct-database-url", database.url())
        server = make_server(*urls, *flags, **options)
        server.database = database
        return server

    return make


def leader(server: Server, but: int | None = None) -> int:
    """Return the process that is elected, once it is another one than `but`."""
    query = "SELECT holder FROM leases WHERE held_until > clock_timestamp()"

    def look() -> int | None:
        pids = [int(holder.split(":")[1]) for (holder,) in server.database.rows(query)]
        return pids[0] if pids and pids[0] != but else None

    return int(wait_until(look, what="a worker to be elected"))


def run(server: Server, *arguments: str) -> bytes:
    """Run a command with the database of the server."""
    url = server.flags[server.flags.index("--database-url") + 1]
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=server.environ | {"TICKHUB_DATABASE_URL": url},
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout


def values_of(server: Server, symbol: str) -> list[float]:
    """Return the values of a symbol's stored alerts."""
    query = "SELECT value FROM alerts JOIN instruments USING (symbol_id) WHERE symbol = %s ORDER BY alert_id"
    return [value for (value,) in server.database.rows(query, symbol)]


@pytest.mark.long
def test_ticks_records_and_alerts_come_in_and_go_out_through_the_pooler(
    behind: Callable[..., Server], pooler: PgBouncer, database: Database
) -> None:
    pooler.start()
    server = behind(workers=2).start().wait_ready()
    made = made_ticks("TSLA", range(LONG_AGO_MS, LONG_AGO_MS + 3000))
    store(server, made)
    assert rows_of(server, ticks_path("TSLA"), start=LONG_AGO_MS, limit=5000) == [shown(one) for one in made]
    every = {form: read(server, ticks_path("TSLA"), start=LONG_AGO_MS, end=DAY_MS, format=form) for form in FORMATS}
    assert {answer.status for answer in every.values()} == {200}
    assert len(every["csv"].data.splitlines()) == len(every["ndjson"].data.splitlines()) + 1 == len(made) + 1
    exported = run(server, "export", "TSLA", "--out", "-", "--format", "csv")
    assert exported == every["csv"].data

    for name in ("option_quotes", "market_data", "news", "trades"):
        send(server, name, records(DATASETS[name], 40))
        send(server, name, records(DATASETS[name], 40))
        assert len(ask(server, "GET", f"/api/{name}?start=2025-01-01&limit=1000").json["records"]) >= 40
    before = server.stats()
    assert (before["duplicates"], before["rejected"]) == (160, 0)

    rule = {"alert_type": "price_crosses", "direction": "above", "threshold": 100.0, "symbol": "AMD"}
    assert server.post([tick(symbol="AMD", bid=99.0)])[0] == 200
    server.wait_drained()
    assert ask(server, "POST", "/api/alert_rules", json.dumps(rule)).status == 201
    with client(server) as reader:
        reader.subscribe("AMD", channels=["alerts"])
        reader.subscribe("NVDA", channels=["trades"])
        server.post([trade(number, "NVDA") for number in range(100)])
        server.post([tick(symbol="AMD", bid=101.0)])
        said = [reader.next("trade", "alert") for _ in range(101)]
    assert sorted(one["price"] for one in said if one["type"] == "trade") == [float(number) for number in range(100)]
    assert [one["value"] for one in said if one["type"] == "alert"] == [101.0] == values_of(server, "AMD")
    assert "Traceback" not in server.log()
    assert server.stop() == 0
    assert not database.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")
    assert "WARNING" not in pooler.log(), pooler.log()


@pytest.mark.long
def test_only_the_migration_goes_around_the_pooler(
    make_server: MakeServer, database: Database, pooler: PgBouncer
) -> None:
    with closing(database.connect("postgres")) as conn, conn.cursor() as cur:
        conn.autocommit = True
        cur.execute("CREATE DATABASE fresh")
    # What comes in by the pooler may write nothing, nor make a table.
    pooler.start(name="fresh", of_database="connect_query='SET default_transaction_read_only = on'")
    server = make_server("--database-url", pooler.url("fresh"), "--direct-database-url", database.url("fresh"))
    server.start().wait_ready()
    assert database.rows("SELECT version_num FROM alembic_version", name="fresh") == [(HEAD,)]
    rows = [tick() for _ in range(10)]
    assert server.post(rows) == (200, {"status": "success", "received": 10})
    wait_until(lambda: "read-only transaction" in server.log(), what="the flush to be refused")
    assert database.rows("SELECT count(*) FROM ticks", name="fresh") == [(0,)]


@pytest.mark.long
def test_a_query_whose_client_has_left_is_cancelled_in_the_database(
    behind: Callable[..., Server], pooler: PgBouncer
) -> None:
    pooler.start()
    server = behind(environ=MINUTE)
    server.module = Probed.module
    server.start().wait_ready()
    for _ in range(3):
        with connect(server, "/probe/read?s=60"):
            wait_until(lambda: busy(server.database), what="the query")
        wait_until(lambda: not busy(server.database), 20, "the query to be cancelled")
        assert ask(server, "GET", "/probe/read?s=0").status == 200


@pytest.mark.long
def test_whatever_becomes_of_the_pooler_and_of_the_elected_worker_every_tick_is_stored_once(
    behind: Callable[..., Server], pooler: PgBouncer, database: Database
) -> None:
    pooler.start()
    server = behind(workers=2).start().wait_ready()
    with Load(server, SEED, with_seq=False) as load, Probe(server) as probe:
        for _ in range(2):
            load.more(500)
            first = leader(server)
            os.kill(first, signal.SIGKILL)
            leader(server, but=first)
            pooler.kill9()
            load.more(500)
            wait_until(lambda: server.stats()["database_status"] == "disconnected", what="it to be noticed")
            pooler.start()
            server.wait_ready()
            leader(server)
        database.kill9()
        wait_until(lambda: server.stats()["database_status"] == "disconnected", what="it to be noticed")
        load.more(500)
        database.up()
        server.wait_ready()
        load.finish()
        server.wait_drained()
        leader(server)
    assert_stored_once(database, load.expected())
    assert_ledger_adds_up(server, load.acknowledged_rows)
    assert not [why for why in probe.failures if "timed out" in why]
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_with_two_connections_to_the_database_for_all_everything_is_done_one_after_another(
    behind: Callable[..., Server], pooler: PgBouncer, database: Database
) -> None:
    pooler.start(default_pool_size=2)
    server = behind(workers=2).start().wait_ready()
    statuses = Counter[int]()
    with Load(server, SEED, with_seq=True) as load:
        for _ in range(200):
            statuses[ask(server, "GET", "/api/ticks/AAPL?limit=1000").status] += 1
        load.finish()
        server.wait_drained()
    assert statuses == {200: 200}
    leader(server)
    assert_stored_once(database, load.expected())
    backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^tickhub '"
    assert database.rows(backends)[0][0] <= 2
