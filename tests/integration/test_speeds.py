"""What follows from other fields where it was not sent: speeds of foreign trading, and the basis."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.dataset_source import DatasetSource
from app.datasets.registry import DATASETS
from app.row_stream import ALL
from app.storage.connection import Connection
from app.storage.sink import DatabaseSink
from app.storage.writers import writers
from tests.dataset_rows import RecordFeeder

OPEN = datetime(2026, 1, 13, 2, tzinfo=UTC)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    made = Connection(lambda: database_url, 5, 30, "test")
    yield made
    made.close()


def write(connection: Connection, name: str, records: list[dict[str, Any]]) -> None:
    sink, feeder = DatabaseSink(connection, writers()), RecordFeeder()
    entry = sink.ledger(feeder.journal_id)
    moved = sink.write(feeder.journal_id, entry, feeder.records((DATASETS[name], "update", records)))[0]
    assert moved.set_aside == 0


def read(connection: Connection, name: str) -> list[dict[str, Any]]:
    with connection.reading(10) as cur:
        page = DatasetSource(DATASETS[name], None, None).read(cur, ALL, after=None, descending=False, max_rows=10_000)
    names = [field.name for field in page.table.fields]
    columns = [values if isinstance(values, list) else values.tolist() for values in page.table.columns]
    rows = zip(*columns, strict=True)
    return [{name: None if v != v else v for name, v in zip(names, row, strict=True)} for row in rows]


def snapshot(at: datetime, bought: float | None, sold: float | None = None, **more: Any) -> dict[str, Any]:
    return {"symbol": "AAPL", "timestamp": at.isoformat(), "f_buy_vol": bought, "f_sell_vol": sold} | more


def test_volumes_of_another_day_are_no_growth(connection: Connection) -> None:
    late = OPEN.replace(hour=23, minute=59)
    nights = [snapshot(late, 100.0), snapshot(late + timedelta(minutes=2), 300.0)]
    write(connection, "foreign_snapshots", [*nights, snapshot(late + timedelta(minutes=3), 350.0)])
    assert [one["buy_speed_per_min"] for one in read(connection, "foreign_snapshots")] == [None, None, 50.0]


@pytest.mark.parametrize("seed", range(3))
def test_speeds_are_what_a_look_at_every_snapshot_finds(connection: Connection, seed: int) -> None:
    rng, at, sent = random.Random(seed), OPEN, {}
    for _ in range(80):
        at += timedelta(seconds=rng.choice([1, 15, 60, 600, 30_000]))
        symbol = rng.choice(["AAPL", "TSLA"])
        volumes = [None, 0.0, 5e-324, float(rng.randrange(10_000)), float(rng.randrange(10_000))]
        bought, sold = rng.choice(volumes), rng.choice(volumes)
        more = rng.choice([{}, {}, {"buy_speed_per_min": 7.0}, {"sell_speed_per_min": None, "f_net_vol": 3.0}])
        sent[symbol, at] = snapshot(at, bought, sold, **more) | {"symbol": symbol}
    records = list(sent.values())
    rng.shuffle(records)
    write(connection, "foreign_snapshots", records[:40])
    write(connection, "foreign_snapshots", records[40:])

    def speed(symbol: str, at: datetime, field: str) -> float | None:
        now = sent[symbol, at][field]
        before = [t for (name, t), one in sent.items() if name == symbol and t < at and one[field] is not None]
        if now is None or not before or max(before).date() != at.date() or sent[symbol, max(before)][field] > now:
            return None
        return (now - sent[symbol, max(before)][field]) / ((at - max(before)).total_seconds() / 60)

    found = read(connection, "foreign_snapshots")
    assert len(found) == len(sent)
    computed = 0
    for one in found:
        at = datetime.fromtimestamp(one["timestamp"] / 1e6, UTC)
        record = sent[one["symbol"], at]
        for side in ("buy", "sell"):
            given = record.get(f"{side}_speed_per_min")
            expected = given if given is not None else speed(one["symbol"], at, f"f_{side}_vol")
            near = None if expected is None else pytest.approx(expected, rel=1e-12, abs=1e-90)
            assert one[f"{side}_speed_per_min"] == near
            computed += given is None and expected is not None
        both = None not in (record["f_buy_vol"], record["f_sell_vol"])
        net = record["f_buy_vol"] - record["f_sell_vol"] if both else None
        assert one["f_net_vol"] == record.get("f_net_vol", net)
    assert computed > 10


def test_the_basis_is_the_future_less_its_spot_unless_it_was_sent(connection: Connection) -> None:
    prices = [(1250.5, 1248.0, {}), (1250.5, None, {}), (None, 1248.0, {}), (1250.5, 1248.0, {"basis": 9.0})]
    records = [
        {"futures_symbol": "VN30F1M", "timestamp": (OPEN + timedelta(minutes=at)).isoformat()}
        | {"futures_price": future, "spot_value": spot}
        | more
        for at, (future, spot, more) in enumerate(prices)
    ]
    write(connection, "basis_history", records)
    assert [one["basis"] for one in read(connection, "basis_history")] == [2.5, None, None, 9.0]
