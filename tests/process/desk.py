"""Sending and asking for the desk's data over HTTP, for the tests of endpoints with shapes of their own."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.process.harness import Server, wait_until
from tests.process.reading import read
from tests.process.wire import Answer, post
from tests.real_market import REAL

FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")


def send(server: Server, dataset: str, records: Sequence[dict[str, Any]], query: str = "") -> None:
    """Send records, and wait until they are in the database."""
    answer = post(server, json.dumps(list(records)).encode(), f"/ingest/{dataset}{query}")
    assert (answer.status, answer.json) == (200, {"status": "success", "received": len(records)}), answer
    flushed(server)


def command(server: Server, name: str, **params: Any) -> Answer:
    """Send a command, and wait until its records are in the database. NaN goes as Python writes it."""
    answer = post(server, json.dumps({"command": name, "params": params}).encode(), "/db_command")
    flushed(server)
    return answer


def flushed(server: Server) -> None:
    wait_until(lambda: server.stats()["buffer_size"] == 0, what="the flush")


def get(server: Server, path: str, **params: Any) -> dict[str, Any]:
    """Return the JSON of an answer that must be a success."""
    answer = read(server, path, **params)
    assert answer.status == 200, answer
    return dict(answer.json)


def real_days(symbol: str, as_symbol: str) -> list[dict[str, Any]]:
    """Return the real daily bars of a symbol of the file, as records of price_history of another name."""
    path = Path(str(REAL)) / "daily" / "us_daily_ohlcv_lean_unadjusted.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["symbol"] == symbol]
    prices = ("open", "high", "low", "close", "volume")
    return [
        {"symbol": as_symbol, "interval": "1d", "timestamp": row["date"], "source": "lean"}
        | {name: float(row[name]) for name in prices}
        for row in rows
    ]
