"""The classic receiver, written for the comparison: what most teams write first.

Flask with threads, a list of dicts under a lock, and a background flusher that INSERTs row by row and updates
`current` once a tick. An acknowledged tick is in memory only, so it promises less than tickhub does.
Run by gunicorn with one threaded worker: `tests.bench.classic:create_app()`.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
from flask import Flask, Response, jsonify, request

from tests.bench.rows import SYMBOLS
from tests.bench.server import Server, free_port

FLUSH_ROWS, FLUSH_INTERVAL_S = 100, 1.0
URL_VARIABLE = "BENCH_CLASSIC_URL"

SCHEMA = """
CREATE TABLE ticks (
    symbol_id int NOT NULL, time timestamptz NOT NULL, seq bigint NOT NULL,
    bid float8, ask float8, last float8, spread float8,
    volume float8 NOT NULL, buy_volume float8 NOT NULL, sell_volume float8 NOT NULL, flags int NOT NULL,
    journal_no int NOT NULL, received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, time, seq)
);
CREATE TABLE current (symbol text PRIMARY KEY, bid float8, ask float8, last float8, last_updated timestamptz);
"""
INSERT = """
INSERT INTO ticks (symbol_id, time, seq, bid, ask, last, spread, volume, buy_volume, sell_volume, flags,
                   journal_no, received_at)
VALUES (%(symbol_id)s, %(time)s, %(seq)s, %(bid)s, %(ask)s, %(last)s, %(spread)s, %(volume)s, %(buy_volume)s,
        %(sell_volume)s, %(flags)s, 1, %(received_at)s)
ON CONFLICT DO NOTHING
"""
UPDATE = """
UPDATE current SET bid = %(bid)s, ask = %(ask)s, last = %(last)s, last_updated = %(time)s
WHERE symbol = %(symbol)s
"""


class Receiver:
    """The buffer and its flusher thread."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg2.connect(url)
        with self._conn, self._conn.cursor() as cur:
            cur.execute(SCHEMA)
            cur.executemany("INSERT INTO current (symbol) VALUES (%s)", [(name,) for name in SYMBOLS])
        self._ids = {name: index + 1 for index, name in enumerate(SYMBOLS)}
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._buffer: list[dict[str, Any]] = []
        self.received = self.processed = 0
        threading.Thread(target=self._flush_forever, daemon=True).start()

    def accept(self, ticks: list[dict[str, Any]]) -> int:
        rows = []
        now = datetime.now(UTC)
        for tick in ticks:
            trade, flags = tick["flags"] & 8, tick["flags"]
            rows.append(
                {
                    **tick,
                    "symbol_id": self._ids[tick["symbol"]],
                    "time": datetime.fromtimestamp(tick["time_msc"] / 1000, UTC),
                    "buy_volume": tick["volume"] if trade and flags & 32 else 0.0,
                    "sell_volume": tick["volume"] if trade and flags & 64 else 0.0,
                    "received_at": now,
                }
            )
        with self._lock:
            self._buffer += rows
            self.received += len(rows)
            if len(self._buffer) >= FLUSH_ROWS:
                self._ready.notify()
        return len(rows)

    def waiting(self) -> int:
        with self._lock:
            return self.received - self.processed

    def _flush_forever(self) -> None:
        while True:
            with self._lock:
                self._ready.wait_for(lambda: len(self._buffer) >= FLUSH_ROWS, FLUSH_INTERVAL_S)
                rows, self._buffer = self._buffer, []
            if not rows:
                continue
            with self._conn, self._conn.cursor() as cur:
                psycopg2.extras.execute_batch(cur, INSERT, rows)
                psycopg2.extras.execute_batch(cur, UPDATE, rows)
            with self._lock:
                self.processed += len(rows)


def create_app() -> Flask:
    """Return the receiver's application; the database's URL comes from the environment."""
    app = Flask(__name__)
    receiver = Receiver(os.environ[URL_VARIABLE])

    @app.post("/tick/batch")
    def batch() -> Response:
        return jsonify(status="success", received=receiver.accept(request.get_json()["ticks"]))

    @app.get("/stats")
    def stats() -> Response:
        return jsonify(ticks_processed=receiver.processed, buffer_size=receiver.waiting())

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="healthy")

    return app


def classic(directory: Path, database_url: str, threads: int) -> Server:
    """Return the classic receiver as a server process with a thread for each of the senders' connections."""
    port = free_port()
    directory.mkdir()
    command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--workers", "1"]
    command += ["--threads", str(threads), "--keep-alive", "75", "--no-control-socket"]
    command += ["--config", os.devnull, "tests.bench.classic:create_app()"]
    return Server(command, directory / "server.log", {URL_VARIABLE: database_url}, port)
