"""Symbols in the database: a name is one instrument's, in whatever case, whoever comes at the same time."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg2.extensions import connection as PgConnection

from app.errors import BadField, Conflict, UnknownSymbol
from app.market.symbols import SEED
from app.storage.connection import Connection
from app.storage.instruments import read_instruments
from app.storage.symbols_store import (
    NewSymbol,
    SymbolRow,
    add_alias,
    add_symbol,
    change_symbol,
    find_symbol,
    list_symbols,
)
from tests.batches import NOON_US, Feeder, Tick, execute, new_sink, rows_of, write_all


def done(own: Connection, fn: Any, *args: Any) -> Any:
    with own.transaction() as cur:
        return fn(cur, *args)


def names(own: Connection) -> list[str]:
    return [row.symbol for row in done(own, list_symbols)]


def test_the_seeded_symbols_are_listed_by_name_with_their_aliases(own: Connection) -> None:
    found = done(own, list_symbols)
    assert [row.symbol for row in found] == sorted(one.symbol for one in SEED)
    assert {row.symbol: row.aliases for row in found} == {one.symbol: one.aliases for one in SEED}
    assert {row.last_updated for row in found} == {None}


def test_last_updated_is_the_time_of_the_newest_tick(own: Connection, database_url: str) -> None:
    sink = new_sink(database_url)
    write_all(sink, Feeder(), [Tick(time_us=NOON_US + 5), Tick(time_us=NOON_US + 3)])
    sink.close()
    updated = {row.symbol: row.last_updated for row in done(own, list_symbols)}
    assert (updated["TSLA"], updated["NVDA"]) == ("2026-01-13T12:00:00.000005Z", None)


def test_what_was_added_is_listed_as_it_was_given(own: Connection) -> None:
    new = NewSymbol(
        symbol="EURUSD",
        aliases=["EURUSD.r", "eur/usd"],
        name="Euro vs US Dollar",
        exchange="FX",
        currency="USD",
        timezone="Europe/London",
        digits=5,
        sector="Currencies",
        industry="Majors",
        market_cap=1.5e12,
    )
    row = SymbolRow(
        "EURUSD",
        ["EURUSD.r", "eur/usd"],
        "Euro vs US Dollar",
        "FX",
        "USD",
        "Europe/London",
        5,
        None,
        False,
        "Currencies",
        "Majors",
        1.5e12,
        "FX",
    )
    assert done(own, add_symbol, new) == row
    assert done(own, find_symbol, "EUR/USD") == row
    assert row in done(own, list_symbols)
    (known,) = [one for one in read_instruments(own) if one.symbol == "EURUSD"]
    assert (known.digits, known.nonpositive_ok, sorted(known.aliases)) == (5, False, ["EURUSD.r", "eur/usd"])


def test_a_symbol_added_so_may_trade_below_zero(own: Connection) -> None:
    assert done(own, add_symbol, NewSymbol(symbol="CL-HO", allow_nonpositive=True)).allow_nonpositive
    assert next(one for one in read_instruments(own) if one.symbol == "CL-HO").nonpositive_ok


@pytest.mark.parametrize(
    ("symbol", "aliases", "message"),
    [
        ("tsla", [], "TSLA is there already"),
        ("tsla.us", [], "tsla.us is an alias of TSLA already"),
        ("NEW", ["nvda"], "NVDA is there already"),
        ("NEW", ["FRESH", "Nvda.Us"], "Nvda.Us is an alias of NVDA already"),
    ],
)
def test_a_name_or_alias_that_is_there_in_any_case_is_a_conflict_and_nothing_is_added(
    own: Connection, conn: PgConnection, symbol: str, aliases: list[str], message: str
) -> None:
    before = names(own)
    with pytest.raises(Conflict, match=f"^{re.escape(message)}$"):
        done(own, add_symbol, NewSymbol(symbol=symbol, aliases=aliases))
    assert names(own) == before
    assert rows_of(conn, "SELECT count(*) FROM symbol_aliases") == [(15,)]


def test_an_alias_given_twice_or_equal_to_the_name_is_one(own: Connection) -> None:
    added = done(own, add_symbol, NewSymbol(symbol="GOLD", aliases=["gold", "XAU", "xau", " XAUUSD "]))
    assert added.aliases == ["XAU", "XAUUSD"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("symbol", ""),
        ("symbol", "  "),
        ("symbol", "A,B"),
        ("symbol", "Ä"),
        ("symbol", "A" * 65),
        ("symbol", "A\0"),
        ("symbol", "A'; DROP TABLE ticks; --"),
        ("aliases", [""]),
        ("aliases", ["A,B"]),
        ("aliases", ["A" * 65]),
        ("aliases", ["A\x07B"]),
        ("aliases", ["\ud800"]),
        ("aliases", [f"A{number}" for number in range(101)]),
        ("name", "x" * 201),
        ("name", "a\0b"),
        ("exchange", "a\nb"),
        ("currency", "US"),
        ("currency", "US DOLLAR"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "America"),
        ("timezone", "../../etc/passwd"),
        ("digits", -1),
        ("digits", 16),
        ("sector", "x" * 201),
        ("industry", "a\nb"),
        ("market_cap", -1.0),
        ("market_cap", float("nan")),
        ("market_cap", float("inf")),
    ],
)
def test_what_cannot_be_stored_is_refused_by_the_name_of_its_field(own: Connection, field: str, value: Any) -> None:
    before = names(own)
    with pytest.raises(BadField, match=f"^{field}"):
        done(own, add_symbol, NewSymbol(**{"symbol": "NEW", field: value}))
    assert names(own) == before


def test_empty_texts_are_not_known(own: Connection) -> None:
    added = done(own, add_symbol, NewSymbol(symbol=" NEW ", name=" ", exchange="", currency="", timezone=""))
    assert added == SymbolRow("NEW", [], None, None, None, None, None, None, False)


def test_a_change_leaves_what_it_does_not_name(own: Connection) -> None:
    done(own, add_symbol, NewSymbol(symbol="GOLD", aliases=["XAU"], name="Gold", digits=2, allow_nonpositive=True))
    changed = done(own, change_symbol, NewSymbol(symbol="xau", aliases=["XAUUSD"], currency="USD", digits=3))
    assert changed == SymbolRow("GOLD", ["XAU", "XAUUSD"], "Gold", None, "USD", None, 3, None, True)
    changed = done(own, change_symbol, NewSymbol(symbol="gold", timezone="UTC", allow_nonpositive=False))
    assert changed == SymbolRow("GOLD", ["XAU", "XAUUSD"], "Gold", None, "USD", "UTC", 3, None, False)
    done(own, change_symbol, NewSymbol(symbol="gold", sector="Metals", market_cap=0.0))
    changed = done(own, change_symbol, NewSymbol(symbol="gold", industry="Precious"))
    assert (changed.sector, changed.industry, changed.market_cap) == ("Metals", "Precious", 0.0)


def test_an_alias_may_be_given_again_but_not_to_another(own: Connection) -> None:
    assert done(own, add_alias, "tsla.us", "TSLA.O").aliases == ["TSLA.O", "TSLA.US"]
    assert done(own, add_alias, "TSLA", "tsla.o").aliases == ["TSLA.O", "TSLA.US"]
    assert done(own, add_alias, "TSLA", "tsla").aliases == ["TSLA.O", "TSLA.US"]
    assert done(own, add_alias, "tsla.us", "Tsla").aliases == ["TSLA.O", "TSLA.US"]
    with pytest.raises(Conflict, match=r"TSLA\.O is an alias of TSLA already"):
        done(own, add_alias, "NVDA", "TSLA.O")
    with pytest.raises(Conflict, match="NVDA is there already"):
        done(own, add_alias, "TSLA", "nvda")
    with pytest.raises(UnknownSymbol, match="FOO"):
        done(own, add_alias, "FOO", "BAR")


def test_an_instrument_with_an_unusual_name_can_have_aliases(own: Connection, conn: PgConnection) -> None:
    execute(conn, "INSERT INTO instruments (symbol) VALUES ('黄金')")
    assert done(own, add_alias, "黄金", "GOLD").aliases == ["GOLD"]


@pytest.mark.parametrize(
    "both",
    [
        (NewSymbol(symbol="NEW"), NewSymbol(symbol="new")),
        (NewSymbol(symbol="NEW"), NewSymbol(symbol="OTHER", aliases=["new"])),
        (NewSymbol(symbol="ONE", aliases=["NEW"]), NewSymbol(symbol="OTHER", aliases=["new"])),
    ],
)
def test_of_two_who_add_one_name_at_the_same_moment_one_is_told_of_the_conflict(
    database_url: str, own: Connection, both: tuple[NewSymbol, NewSymbol]
) -> None:
    barrier = threading.Barrier(2)
    before = len(names(own))

    def add(new: NewSymbol) -> str:
        connection = Connection(lambda: database_url, 5, 30, "test")
        try:
            with connection.transaction() as cur:
                barrier.wait(30)
                add_symbol(cur, new)
                return "added"
        except Conflict as error:
            return str(error)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(add, both), key=lambda outcome: outcome == "added")
    assert outcomes[1] == "added"
    assert "already" in outcomes[0]
    assert len(names(own)) == before + 1


def test_a_name_that_a_tick_registers_at_the_same_moment_is_a_conflict(own: Connection, conn: PgConnection) -> None:
    """The writer of ticks knows of no lock: only the index tells."""
    outcome = []

    def add() -> None:
        try:
            done(own, add_symbol, NewSymbol(symbol="new"))
        except Conflict as error:
            outcome.append(str(error))

    with conn, conn.cursor() as cur:
        cur.execute("INSERT INTO instruments (symbol) VALUES ('NEW')")
        thread = threading.Thread(target=add)
        thread.start()
        while True:  # until it waits for this transaction
            cur.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if (cur.fetchone() or (0,))[0]:
                break
    thread.join(30)
    assert outcome == ["new is there already"]
