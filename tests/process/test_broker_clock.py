"""A broker's wall clock and unknown symbols, through a real server into the database."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import Server, wait_until
from tests.process.wire import running, tick, without

ZONE = "America/New_York+7h"
_symbols = itertools.count()


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    clock = {"TICKHUB_TICK_TIMEZONE": ZONE, "TICKHUB_UNKNOWN_SYMBOLS": "register"}
    with running(data_template, environ=clock) as server:
        yield server


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ms(text: str) -> int:
    return int(at(text).timestamp() * 1000)


def store(server: Server, *rows: dict[str, Any]) -> list[datetime]:
    """Send rows with rising seq in one batch; return the times under which they were stored."""
    symbol = f"CLOCK{next(_symbols)}"
    sent = [row | {"symbol": symbol, "seq": n} for n, row in enumerate(rows)]
    assert server.post(sent) == (200, {"status": "success", "received": len(sent)})
    server.wait_drained()
    found = server.database.rows(
        "SELECT time FROM ticks JOIN instruments USING (symbol_id) WHERE symbol = %s ORDER BY seq", symbol
    )
    return [time.astimezone(UTC) for (time,) in found]


# The broker's midnight is 17:00 in New York. There the clocks change at 02:00, on the broker's clock at 09:00.
@pytest.mark.parametrize(
    ("wall", "fold", "utc"),
    [
        ("2025-03-09 08:59:59.999", 0, "2025-03-09 06:59:59.999"),
        (
            "2025-03-09 09:00:00",
            0,
            "2025-03-09 07:00:00",
        ),  # skipped on the clock: read with the offset before
        ("2025-03-09 09:59:59.999", 1, "2025-03-09 07:59:59.999"),
        ("2025-03-09 10:00:00", 0, "2025-03-09 07:00:00"),
        ("2025-07-01 00:00:00", 0, "2025-06-30 21:00:00"),
        ("2025-11-02 07:59:59.999", 0, "2025-11-02 04:59:59.999"),
        ("2025-11-02 08:00:00", 0, "2025-11-02 05:00:00"),
        ("2025-11-02 08:59:59.999", 0, "2025-11-02 05:59:59.999"),
        ("2025-11-02 08:00:00", 1, "2025-11-02 06:00:00"),
        ("2025-11-02 08:59:59.999", 1, "2025-11-02 06:59:59.999"),
        ("2025-11-02 09:00:00", 0, "2025-11-02 07:00:00"),
        ("2025-11-02 09:00:00", 1, "2025-11-02 07:00:00"),
        ("2025-12-01 00:00:00", 0, "2025-11-30 22:00:00"),
    ],
)
def test_wall_clock_times_are_stored_as_utc_over_both_changes(
    server: Server, wall: str, fold: int, utc: str
) -> None:
    naive = tick(fold=fold)
    rows = [
        naive | {"timestamp": wall},
        naive | {"timestamp": wall.replace(" ", "T")},
        naive | {"timestamp": wall.replace("-", ".")},
        naive | {"time_msc": ms(wall)},
        without(naive, "timestamp") | {"time_msc": ms(wall)},
        naive | {"time_msc": ms(wall), "timestamp": "2020-01-01T00:00:00Z"},
    ]
    assert store(server, *rows) == [at(utc)] * len(rows)


def test_times_with_an_offset_and_numbers_are_utc_whatever_the_clock(server: Server) -> None:
    utc = "2025-11-02 06:30:00.250"
    rows = [
        tick(timestamp="2025-11-02T06:30:00.250Z"),
        tick(timestamp="2025-11-02T08:30:00.250+02:00", fold=0),
        tick(timestamp="2025-11-02T01:30:00.250-05:00", fold=1),
        tick(timestamp=ms(utc)),
        tick(timestamp=float(ms(utc)), time_msc=None, fold=1),
    ]
    assert store(server, *rows) == [at(utc)] * len(rows)


def test_both_passes_of_the_repeated_hour_are_kept_apart(server: Server) -> None:
    walls = ["2025-11-02 08:15:00", "2025-11-02 08:45:00"]
    rows = [tick(timestamp=wall, fold=fold) for fold in (0, 1) for wall in walls]
    times = store(server, *rows)
    assert times == sorted(times)
    assert [time - times[0] for time in times] == [timedelta(minutes=minutes) for minutes in (0, 30, 60, 90)]


def test_ticks_from_the_future_are_warned_of_with_the_clock_by_name(server: Server) -> None:
    assert server.stats()["warnings"] == []
    ahead = datetime.now(UTC) + timedelta(hours=2)
    assert server.post([tick(timestamp=ahead.isoformat())])[0] == 200
    (warning,) = server.stats()["warnings"]
    assert ZONE in warning
    assert "tick_timezone" in warning
    wait_until(lambda: "[WARNING] ticks up to" in server.log(), 20, "the log's warning")
    assert server.log().count("[WARNING] ticks up to") == 1
    too_far = datetime.now(UTC) + timedelta(days=2)
    status, answer = server.post([tick(timestamp=too_far.isoformat())])
    assert (status, answer["code"]) == (400, "bad_field")
    assert "tick_timezone" in answer["message"]


def test_an_unknown_symbol_is_registered_once_whatever_its_case(server: Server) -> None:
    names = ["EURUSD.r", "eurusd.R", "#US30", "BTC/USD", "a b&c"]
    assert server.post([tick(symbol=name) for name in names])[1]["received"] == len(names)
    server.wait_drained()
    found = server.database.rows(
        "SELECT symbol FROM instruments WHERE upper(symbol) = ANY(%s) ORDER BY symbol_id",
        [name.upper() for name in names],
    )
    assert sorted(found) == sorted((name,) for name in ["EURUSD.r", "#US30", "BTC/USD", "a b&c"])


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "A\0B", "A\nB", "\u0130STANBUL", "A'; DROP TABLE ticks; --", "%s", 'A"B', "\ud800"]
)
def test_a_name_that_could_do_harm_is_not_registered(server: Server, name: str) -> None:
    before = server.database.rows("SELECT count(*) FROM instruments")
    status, answer = server.post([tick(symbol=name), tick()])
    assert (status, answer["received"]) == (200, 1)
    assert answer["rejected"][0]["code"] == "bad_field"
    server.wait_drained()
    assert server.database.rows("SELECT count(*) FROM instruments") == before


@pytest.mark.long
def test_more_new_symbols_than_one_transaction_adds_are_stored(server: Server) -> None:
    before = server.wait_drained()
    rows = [tick(symbol=f"N{number:05d}") for number in range(1500)]
    assert server.post(rows) == (200, {"status": "success", "received": 1500})
    after = server.wait_drained()
    assert after["stored"] == before["stored"] + 1500
    assert after["errors"] == before["errors"]
