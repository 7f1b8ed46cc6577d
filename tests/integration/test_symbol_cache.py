"""The symbol map of a worker: from disk without a database, from the database as soon as it answers."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from psycopg2.extensions import connection as PgConnection

from app import symbol_cache
from app.errors import DatabaseAway
from app.lanes import Lane
from app.market.symbols import SEED, Instrument
from app.storage.connection import Connection
from app.storage.instruments import read_instruments
from app.symbol_cache import SymbolCache
from tests.waiting import run_until

MakeCache = Callable[[Callable[[], list[Instrument]]], SymbolCache]


@pytest.fixture
def make_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCache]:
    monkeypatch.setattr(symbol_cache, "MISS_TIMEOUT_S", 60.0)
    lane = Lane("test")

    def make(read: Callable[[], list[Instrument]]) -> SymbolCache:
        return SymbolCache(tmp_path / "symbols.json", lane, read, lambda: None)

    with gevent.Timeout(60):
        yield make
    lane.stop()


@pytest.fixture
def reading(own: Connection) -> Callable[[], list[Instrument]]:
    return lambda: read_instruments(own)


def away() -> list[Instrument]:
    raise DatabaseAway("nobody there")


def add(conn: PgConnection, symbol: str, *aliases: str) -> None:
    with conn, conn.cursor() as cur:
        cur.execute("INSERT INTO instruments (symbol) VALUES (%s) RETURNING symbol_id", (symbol,))
        (symbol_id,) = cur.fetchone() or (0,)
        for alias in aliases:
            cur.execute("INSERT INTO symbol_aliases (alias, symbol_id) VALUES (%s, %s)", (alias, symbol_id))


def test_a_fresh_server_knows_the_seeded_symbols_and_the_database_the_same(
    make_cache: MakeCache, reading: Callable[[], list[Instrument]]
) -> None:
    cache = make_cache(reading)
    seeded = cache.map.names
    assert seeded == [instrument.symbol for instrument in SEED]
    assert cache.refresh(10)
    assert sorted(cache.map.names) == sorted(seeded)
    for instrument in SEED:
        for alias in instrument.aliases:
            assert cache.map.names[cache.map.index(alias.lower())] == instrument.symbol


def test_a_symbol_of_the_database_is_known_after_a_miss_and_then_without_a_database(
    make_cache: MakeCache, reading: Callable[[], list[Instrument]], conn: PgConnection
) -> None:
    cache = make_cache(reading)
    add(conn, "EURUSD", "EURUSD.r")
    assert cache.map.index("eurusd.R") == -1
    assert cache.know_better()
    assert cache.map.names[cache.map.index("eurusd.R")] == "EURUSD"
    later = make_cache(away)
    assert later.map.names[later.map.index("EURUSD.R")] == "EURUSD"


def test_without_a_database_nothing_is_known_better_and_the_map_stays(make_cache: MakeCache) -> None:
    cache = make_cache(away)
    before = cache.map
    assert not cache.know_better()
    assert cache.map is before


def test_a_symbol_added_elsewhere_is_known_after_a_miss_however_fresh_the_map_is(
    make_cache: MakeCache, reading: Callable[[], list[Instrument]], conn: PgConnection
) -> None:
    cache, of_another_worker = make_cache(reading), make_cache(reading)
    for number in range(5):
        assert cache.refresh(10)
        add(conn, f"NEW{number}")
        assert of_another_worker.refresh(10)
        assert of_another_worker.map.index(f"NEW{number}") >= 0
        assert cache.know_better()
        assert cache.map.index(f"NEW{number}") >= 0


def test_what_was_being_read_when_a_miss_came_in_is_not_good_enough(make_cache: MakeCache) -> None:
    stored, asked = list(SEED), []

    def read() -> list[Instrument]:
        found = list(stored)
        asked.append(time.monotonic())
        time.sleep(0.2)  # so slow that a miss comes in meanwhile
        return found

    cache = make_cache(read)
    before = gevent.spawn(cache.know_better)
    run_until(lambda: asked)
    stored.append(Instrument("EURUSD"))
    assert cache.know_better()
    assert cache.map.index("EURUSD") >= 0
    assert before.get()
    assert len(asked) == 2


def test_misses_share_one_look_and_looks_keep_their_distance_however_many_they_are(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbol_cache, "MISS_INTERVAL_S", 0.1)
    began: list[float] = []

    def read() -> list[Instrument]:
        began.append(time.monotonic())
        return list(SEED)

    cache = make_cache(read)
    assert cache.refresh(10)
    for _ in range(3):
        before = len(began)
        misses = [gevent.spawn(cache.know_better) for _ in range(50)]
        gevent.joinall(misses)
        assert [miss.value for miss in misses] == [True] * 50
        # The first of them looks at once where the interval is over: the others came after that look began.
        assert before + 1 <= len(began) <= before + 2
    assert min(after - before for before, after in itertools.pairwise(began)) >= 0.1


def test_misses_wait_for_nothing_when_the_database_was_away_just_now(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbol_cache, "MISS_INTERVAL_S", 3600.0)
    asked: list[bool] = []

    def read() -> list[Instrument]:
        asked.append(True)
        return away()

    cache = make_cache(read)
    for _ in range(2):
        misses = [gevent.spawn(cache.know_better) for _ in range(50)]
        gevent.joinall(misses)
        assert [miss.value for miss in misses] == [False] * 50
        assert len(asked) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"a":1}', b'[{"name":"AAPL"}]', b"[1]"])
def test_a_damaged_copy_on_disk_is_as_good_as_none_and_mended(
    make_cache: MakeCache, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "symbols.json").write_bytes(data)
    cache = make_cache(lambda: [Instrument("AAPL"), Instrument("OIL", nonpositive_ok=True, digits=2)])
    assert cache.map.index("tsla.us") >= 0
    assert cache.refresh(10)
    assert cache.map.index("tsla.us") == -1
    kept = json.loads((tmp_path / "symbols.json").read_bytes())
    assert [instrument["symbol"] for instrument in kept] == ["AAPL", "OIL"]
    again = make_cache(away).map
    assert again.instruments[again.index("oil")] == Instrument("OIL", nonpositive_ok=True, digits=2)
    assert [path.name for path in tmp_path.iterdir()] == ["symbols.json"]


def test_a_map_that_did_not_change_is_neither_replaced_nor_written(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    cache = make_cache(lambda: list(SEED))
    assert cache.refresh(10)
    kept, written = cache.map, (tmp_path / "symbols.json").stat().st_mtime_ns
    assert cache.refresh(10)
    assert cache.map is kept
    assert (tmp_path / "symbols.json").stat().st_mtime_ns == written


def test_a_disk_that_takes_no_copy_takes_nothing_from_the_map(tmp_path: Path, make_cache: MakeCache) -> None:
    cache = make_cache(lambda: [Instrument("OIL")])
    (tmp_path / f"symbols.{os.getpid()}.new").mkdir()  # where the copy is written first
    assert cache.refresh(10)
    assert cache.map.names == ["OIL"]
    (tmp_path / f"symbols.{os.getpid()}.new").rmdir()
    assert cache.refresh(10)
    assert make_cache(away).map.names == ["OIL"]
