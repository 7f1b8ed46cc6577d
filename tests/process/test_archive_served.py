"""The archive beside a real server: the same answers over HTTP, and small files of real ticks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.process.commands import app
from tests.process.conftest import MakeServer
from tests.process.harness import Server, far_from_now
from tests.process.reading import DAY_MS, bars_path, made_ticks, read, rows_of, store, ticks_path
from tests.waiting import wait_until

REAL = os.environ.get("REAL_MARKET_DATA")
REAL_FILES = {
    "EURUSD": "EURUSD_oanda_20140506-09",
    "NZDUSD": "NZDUSD_oanda_20140506-09",
    "XAUUSD": "XAUUSD_oanda_20140506-09",
    "SPY": "SPY_trades_20131008",
    "IBM": "IBM_20131008-10",
    "GC": "GCZ13_trades_20131007-09",
}
WEEK_MS = 7 * 86_400_000


def pages(server: Server, symbol: str, **params: Any) -> list[Any]:
    """Return every page of a read: rows and tokens."""
    found: list[Any] = []
    while True:
        answer = read(server, ticks_path(symbol), **params)
        assert answer.status == 200, answer
        found.append(answer.json)
        if answer.json["next_page_token"] is None:
            return found
        params["page_token"] = answer.json["next_page_token"]


def answers(server: Server) -> list[Any]:
    found: list[Any] = [pages(server, "TSLA", limit=70, order=order) for order in ("asc", "desc")]
    found.append(pages(server, "TSLA", limit=90, start=DAY_MS - WEEK_MS, end=DAY_MS + 100_000))
    found.append(rows_of(server, bars_path("TSLA"), interval="5s", start=DAY_MS - 4 * WEEK_MS, end=DAY_MS + WEEK_MS))
    for form in ("csv", "ndjson", "arrow", "parquet"):
        for path in (ticks_path("TSLA"), bars_path("TSLA"), "/api/trades"):
            answer = read(server, path, format=form, start=0, end=DAY_MS + WEEK_MS)
            assert answer.status == 200
            found.append(answer.data)
    return found


def first_pages(server: Server) -> list[tuple[str, dict[str, Any], Any]]:
    """Return reads that somebody has begun: where, how, and the first page."""
    found = []
    for path in (ticks_path("TSLA"), bars_path("TSLA"), "/api/trades"):
        for order in ("asc", "desc"):
            params: dict[str, Any] = {"order": order, "limit": 50, "start": DAY_MS - 4 * WEEK_MS, "end": DAY_MS + 9**9}
            if path.startswith("/api/bars"):
                params |= {"interval": "1s"}
            answer = read(server, path, **params)
            assert answer.status == 200, answer
            found.append((path, params, answer.json))
    return found


def rest_of(server: Server, begun: list[tuple[str, dict[str, Any], Any]]) -> list[Any]:
    """Go on with reads that were begun, to their ends."""
    found: list[Any] = []
    for path, params, page in begun:
        while page["next_page_token"] is not None:
            answer = read(server, path, **params, page_token=page["next_page_token"])
            assert answer.status == 200, answer
            page = answer.json
            found.append(page)
    return found


@pytest.mark.long
def test_a_server_answers_from_the_archive_as_before(make_server: MakeServer) -> None:
    server = make_server(environ={"TICKHUB_HOT_DAYS": "1"})
    server.start().wait_ready()
    for week in range(4):
        start = DAY_MS - week * WEEK_MS
        store(server, made_ticks("TSLA", [start + i // 2 * 500 for i in range(120)], seed=week))
        # Without seq: their numbers are made of what they say.
        store(server, [{**tick, "seq": None} for tick in made_ticks("TSLA", [start + 70_000] * 3, seed=week)])
    before = answers(server)
    begun = first_pages(server)
    rest = rest_of(server, begun)
    assert len(rest) > 20
    assert len(rows_of(server, ticks_path("TSLA"), start=0, end=DAY_MS + WEEK_MS, limit=1000)) == 4 * 123
    assert app(server, "archive", "run").count("ticks archived") == 4
    assert server.database.rows("SELECT count(*) FROM ticks") == [(0,)]
    assert answers(server) == before
    assert rest_of(server, begun) == rest, "tokens that are older than the archive"
    begun = first_pages(server)
    assert app(server, "archive", "verify").count("sound") == 4
    middle = "2025-12-31"
    app(server, "archive", "bring-back", "--start", middle, "--end", "2026-01-07")
    assert "nothing was brought back" in app(
        server, "archive", "bring-back", "--start", middle, "--end", "2026-01-07"
    )
    assert server.database.rows("SELECT count(*) FROM ticks") == [(2 * 123,)]
    assert answers(server) == before
    assert rest_of(server, begun) == rest
    listed = app(server, "archive", "list")
    assert listed.count("archived") == 2

    (path,) = (server.home / "archive" / "ticks").glob("20251222-*/ticks-1.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "DAMAGED" in app(server, "archive", "verify", expect=1)
    assert server.stop() == 0
    server.start().wait_ready()  # what was decoded is still right, and would be said
    for trouble in ("damaged", "cannot be read"):
        for where in (ticks_path("TSLA"), bars_path("TSLA"), "/api/trades"):
            params: dict[str, Any] = {"start": DAY_MS - 4 * WEEK_MS, "end": DAY_MS - 2 * WEEK_MS, "limit": 1000}
            if where.startswith("/api/bars"):
                params |= {"interval": "5s"}
            answer = read(server, where, **params)
            assert (answer.status, answer.json["code"]) == (503, "not_ready"), "never an empty answer"
            assert trouble in answer.json["message"]
            assert "Retry-After".lower() in answer.headers
        assert len(rows_of(server, ticks_path("TSLA"), start=DAY_MS - WEEK_MS, end=2 * DAY_MS, limit=1000)) == 246
        assert rows_of(server, bars_path("TSLA"), interval="1h"), "bars are in the database"
        path.unlink(missing_ok=True)
    assert server.stop() == 0
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_late_ticks_over_http_are_merged_into_the_archive(make_server: MakeServer) -> None:
    server = make_server()
    server.start().wait_ready()
    sent = made_ticks("TSLA", range(DAY_MS, DAY_MS + 50))
    store(server, sent)
    app(server, "archive", "run", "--hot-days", "1")
    late = made_ticks("TSLA", range(DAY_MS + 20, DAY_MS + 20 + 60), seed=3)
    late[:30] = sent[20:50]
    store(server, late)
    assert len(rows_of(server, ticks_path("TSLA"), start=0, end=DAY_MS + WEEK_MS)) == 50
    assert "60 late ticks wait" in app(server, "archive", "list")
    assert "30 late ticks merged, 30 were there, 0 set aside" in app(server, "archive", "run")
    found = rows_of(server, ticks_path("TSLA"), start=0, end=DAY_MS + WEEK_MS)
    assert len(found) == 80
    assert sum(bar["ticks"] for bar in rows_of(server, bars_path("TSLA"), interval="1d")) == 80
    stats = server.stats()
    assert stats["ticks_received"] == stats["ticks_processed"] == 110
    assert server.database.rows("SELECT sum(stored)::int, sum(duplicates)::int FROM ingest_log") == [(80, 30)]
    # The server does so by itself, though its settings move nothing.
    store(server, made_ticks("TSLA", range(DAY_MS + 200, DAY_MS + 205)))
    known = "UPDATE jobs SET due_at = due_at - interval '10 minutes' WHERE name = 'merge' RETURNING name"
    wait_until(lambda: server.database.rows(known), what="the job to be known")
    wait_until(lambda: server.database.rows("SELECT count(*) FROM late_ticks") == [(0,)], what="the merge")
    assert len(rows_of(server, ticks_path("TSLA"), start=0, end=DAY_MS + WEEK_MS)) == 85


@pytest.mark.long
def test_the_elected_worker_archives_by_schedule_while_ticks_come_in(make_server: MakeServer) -> None:
    server = make_server(workers=2, environ={"TICKHUB_HOT_DAYS": "1", "TICKHUB_RETENTION_AT": far_from_now()})
    server.start().wait_ready()
    for week in range(3):
        store(server, made_ticks("TSLA", [DAY_MS - week * WEEK_MS + i for i in range(40)]))
    sent, now_ms = 3 * 40, round(time.time() * 1000) - 3_600_000

    def state(number: int) -> bool:
        """Send some ticks, old and new ones; tell whether the job has run so often, or more: for late ticks, too."""
        nonlocal sent
        store(server, made_ticks("TSLA", [DAY_MS - WEEK_MS + 1000 + sent + i for i in range(5)]))
        store(server, made_ticks("TSLA", [now_ms + sent + i for i in range(5)]))
        sent += 10
        done = "SELECT succeeded_at IS NOT NULL AND runs - (state = 'running')::integer >= %s FROM jobs WHERE name = %s"
        return server.database.rows(done, number, "archive") == [(True,)]

    def merged() -> bool:
        """Ask for it again; tell whether it has merged all."""
        server.database.rows("UPDATE jobs SET due_at = due_at - interval '1 day' WHERE name = 'archive'")
        return server.database.rows("SELECT count(*) FROM late_ticks") == [(0,)]

    wait_until(lambda: server.database.rows("SELECT name FROM jobs WHERE name = 'archive'"), what="the job to be known")
    for number in (1, 2):
        server.database.rows("UPDATE jobs SET due_at = due_at - interval '1 day' WHERE name = 'archive'")
        wait_until(lambda number=number: state(number), what="the job to end")  # type: ignore[misc]
    assert server.database.rows("SELECT count(*) FROM tick_ranges WHERE state = 'archived'") == [(3,)]
    wait_until(merged, what="all late ticks to be merged")
    # Every worker knows what the database said when it looked last.
    wait_until(lambda: server.stats()["jobs"][0]["state"] == "ok", what="the last run to be shown")
    asked = {"start": 0, "end": now_ms + WEEK_MS, "limit": 5000}
    found = [row["timestamp"] for row in rows_of(server, ticks_path("TSLA"), **asked)]
    assert len(found) == len(set(found)) == sent
    assert server.stop() == 0
    assert "Traceback" not in server.log()


@pytest.mark.long
@pytest.mark.skipif(not REAL, reason="REAL_MARKET_DATA is not set")
def test_real_ticks_take_less_than_twelve_bytes_each(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    server.database.up()
    for symbol, name in REAL_FILES.items():
        path = Path(str(REAL)) / "ticks" / f"{name}.tsv.gz"
        app(server, "import", "--symbol", symbol, "--add-symbol", str(path))
    export = ("export", "--all", "--format", "csv", "--out")
    app(server, *export, str(tmp_path / "before.csv"))
    app(server, "archive", "run", "--hot-days", "1")
    (left,) = server.database.rows("SELECT count(*) FROM ticks")
    assert left == (0,)
    ((rows, size),) = server.database.rows("SELECT sum(rows)::bigint, sum(bytes)::bigint FROM tick_ranges")
    assert rows > 2_000_000
    assert size / rows < 12, f"{size / rows:.2f} bytes a tick"
    print(f"{size / rows:.2f} bytes a tick")
    app(server, *export, str(tmp_path / "after.csv"))
    assert (tmp_path / "after.csv").read_bytes() == (tmp_path / "before.csv").read_bytes()
