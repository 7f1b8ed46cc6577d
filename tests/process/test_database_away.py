"""The database goes, hangs, crawls or forgets to answer: ticks are taken all along and stored once afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from contextlib import closing

import pytest

from app.pipeline.books import JOURNAL_FIELDS, Book, Shelf
from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.load import Load, Probe, Ticks, content
from tests.process.proof import assert_ledger_adds_up, assert_stored_once, wait_for_line
from tests.process.proxy import Proxy

SEED = 7
WAIT_AT_COMMIT = """
    CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER wait_at_commit AFTER UPDATE ON ingest_log DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_at_commit();
"""
WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'tickhub flush' AND wait_event_type = 'Lock' AND state = 'active'
"""


def behind(
    proxy: Proxy, database: Database, make_server: MakeServer, *flags: str, workers: int = 1
) -> Server:
    """Make a server that reaches its database through the proxy."""
    server = make_server("--database-url", proxy.url, *flags, workers=workers)
    server.database = database
    return server


def books(server: Server) -> list[Book]:
    shelf = Shelf(server.home / "run" / "books", JOURNAL_FIELDS)
    shelf.refresh()
    return list(shelf.books())


def check(server: Server, load: Load) -> None:
    """Finish the load, let everything drain, and compare."""
    load.finish()
    server.wait_drained()
    assert_stored_once(server.database, load.expected())
    assert_ledger_adds_up(server, load.acknowledged_rows)


def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = behind(proxy, database, make_server)
    proxy.open()
    server.start().wait_ready()
    with Load(server, SEED, with_seq=False) as load:
        for lost in range(1, 4):
            proxy.lose_commits(1)
            wait_until(lambda lost=lost: proxy.commits_lost == lost, what="a COMMIT to be lost")
        check(server, load)
    assert "[ERROR] Database flush failed: " in server.log()


@pytest.mark.long
def test_a_cut_or_slow_connection_to_the_database_costs_no_tick_and_no_answer(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = behind(proxy, database, make_server, workers=2)
    proxy.open()
    server.start().wait_ready()
    with Load(server, SEED, with_seq=True) as load, Probe(server) as probe:
        for _ in range(5):
            load.more(300)
            proxy.cut()
        proxy.delay_s = 0.05
        load.more(500)
        proxy.delay_s = 0.0
        check(server, load)
    assert not probe.failures
    assert probe.answers > 10


@pytest.mark.long
def test_a_database_that_never_answers_stops_neither_acceptance_nor_the_event_loop(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = behind(proxy, database, make_server, workers=1)
    proxy.open()
    server.start().wait_ready()
    with Load(server, SEED, with_seq=True) as load, Probe(server) as probe:
        load.more(200)
        proxy.swallow()
        wait_until(lambda: proxy.swallowed >= 2, what="flusher and keeper to hang")
        wait_until(lambda: server.stats()["database_status"] == "disconnected", what="it to be noticed")
        answers = probe.answers
        load.more(2000)
        wait_until(lambda: probe.answers > answers + 50, what="answers while the database hangs")
        assert server.status("/health/ready") == 200
        proxy.open()
        check(server, load)
    assert not probe.failures


@pytest.mark.long
def test_a_batch_sent_again_to_another_worker_while_the_first_copy_is_only_in_a_journal_is_stored_once(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = behind(proxy, database, make_server, workers=2)
    server.start().wait_accepting()
    wait_until(lambda: len(books(server)) == 2, what="both workers")
    batch = Ticks(SEED, 0, with_seq=False).batch(100)
    body = json.dumps({"ticks": batch}).encode()
    head = f"POST /tick/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + body)
        # Closed with the answer unread, as a client does whose network broke.
    wait_until(lambda: server.stats()["ticks_received"] == len(batch), what="the first copy")

    def both_have_it() -> bool:
        assert server.post(batch) == (200, {"status": "success", "received": len(batch)})
        return all(book["received"] for book in books(server))

    wait_until(both_have_it, what="the other worker to get the batch")
    proxy.open()
    stats = server.wait_drained()
    assert stats["stored"] == len(batch)
    assert stats["duplicates"] == stats["ticks_received"] - len(batch) > 0
    assert_stored_once(database, Counter(map(content, batch)))


@pytest.mark.long
@pytest.mark.parametrize("at", ["its COMMIT", "a lock before it"])
def test_a_killed_worker_whose_transaction_still_runs_and_its_successor_store_once(
    make_server: MakeServer, at: str
) -> None:
    server = make_server(workers=2)
    server.start().wait_ready()
    database = server.database
    if at == "its COMMIT":
        database.rows(WAIT_AT_COMMIT)
    batch = Ticks(SEED, 0, with_seq=False).batch(100)
    with closing(database.connect()) as holder, holder.cursor() as cur:
        cur.execute(
            "SELECT pg_advisory_xact_lock(42)" if at == "its COMMIT" else "LOCK current IN EXCLUSIVE MODE"
        )
        assert server.post(batch)[0] == 200
        first = wait_until(lambda: database.rows(WAITING), what="the flush to wait")
        (owner,) = [book["owner_pid"] for book in books(server) if book["received"]]
        os.kill(owner, signal.SIGKILL)
        wait_for_line(server, "took over journal")
        wait_until(
            lambda: len(database.rows(WAITING)) > len(first), what="the successor to wait for the dead"
        )
        holder.rollback()
    stats = server.wait_drained()
    assert stats["ticks_received"] == stats["stored"] == len(batch)
    assert stats["duplicates"] == 0
    assert_stored_once(database, Counter(map(content, batch)))
    assert_ledger_adds_up(server, len(batch), exactly=True)
