"""The symbol map: names and aliases, in any case."""

from __future__ import annotations

import importlib
import random

import msgspec
import pytest

from app.market.symbols import SEED, VALID_SYMBOL, Instrument, SymbolMap


def test_a_name_and_its_aliases_are_found_in_any_case() -> None:
    known = SymbolMap(SEED)
    for name in ("TSLA", "tsla", "TsLa", "TSLA.US", "tsla.us", "Tsla.Us"):
        assert known.names[known.index(name)] == "TSLA"
    for name in ("NATGAS", "natgas", "NatGas"):
        assert known.names[known.index(name)] == "NatGas"
    assert known.names[known.index("crudeoil")] == "SpotCrude"
    assert known.names[known.index("spotcrude")] == "SpotCrude"


@pytest.mark.parametrize("name", ["", "TSL", "TSLA ", "TSLA.U", "VIX.US", "\0", "ＴＳＬＡ"])
def test_what_is_not_in_the_map_is_not_found(name: str) -> None:
    known = SymbolMap(SEED)
    assert known.index(name) == -1
    assert known.missing(["TSLA", name])
    assert not known.missing(["TSLA", "natgas"])


def test_the_seeded_map_is_what_the_first_migration_puts_into_the_database() -> None:
    spec = importlib.util.spec_from_file_location("seed", "sql/versions/0003_seed.py")
    assert spec is not None
    assert spec.loader is not None
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    assert [(i.symbol, i.aliases) for i in SEED] == migration.SEED


def test_a_name_wins_over_another_instruments_alias_whatever_their_order() -> None:
    instruments = [Instrument("GOLD", aliases=["XAU"]), Instrument("XAU")]
    for order in (instruments, instruments[::-1]):
        known = SymbolMap(order)
        assert known.names[known.index("xau")] == "XAU"
        assert known.names[known.index("Gold")] == "GOLD"


def test_names_beyond_ascii_are_found_in_any_case() -> None:
    known = SymbolMap([Instrument("Öl.DE", aliases=["straße"])])
    for name in ("Öl.DE", "öl.de", "ÖL.DE", "STRASSE", "Straße"):
        assert known.index(name) == 0


def test_a_registered_name_is_found_at_once_and_the_others_stay() -> None:
    known = SymbolMap(SEED)
    before = known.index("TSLA")
    index = known.register("ZBT25")
    assert known.index("zbt25") == known.index("ZBT25") == index == len(SEED)
    assert known.names[index] == known.instruments[index].symbol == "ZBT25"
    assert known.index("TSLA") == before
    assert len(SEED) == 17, "the seed is not the map's own list"


def test_spellings_are_remembered_up_to_a_bound() -> None:
    """A client that sends one name in ever new spellings fills no memory, and is still answered."""
    known = SymbolMap([Instrument("ABCDEFGHIJKLMNOPQRST")])
    rng = random.Random(1)
    for _ in range(120_000):
        bits = rng.getrandbits(20)
        spelling = "".join(c.lower() if bits >> at & 1 else c for at, c in enumerate("ABCDEFGHIJKLMNOPQRST"))
        assert known.index(spelling) == 0
    assert len(known._exact) <= 100_000


def test_unknown_names_are_not_remembered() -> None:
    known = SymbolMap(SEED)
    for number in range(1000):
        assert known.index(f"NO{number}") == -1
    assert known._exact == {}


def test_the_cached_map_reads_back_as_it_was() -> None:
    instruments = [*SEED, Instrument("WTI", 3, True, ["cl", "Öl"])]
    assert SymbolMap.from_json(SymbolMap(instruments).to_json()).instruments == instruments


@pytest.mark.parametrize("damaged", [b"", b"[", b"{}", b'[{"digits":3}]', b'[{"symbol":7}]', b"\xff"])
def test_a_damaged_cache_is_refused(damaged: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        SymbolMap.from_json(damaged)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("EURUSD.a", True),
        ("US500", True),
        ("#AAPL", True),
        ("BRK-B", True),
        ("@ES", True),
        ("A" * 64, True),
        ("A" * 65, False),
        ("", False),
        ("A'B", False),
        ('A"B', False),
        ("A\nB", False),
        ("A\n", False),
        ("Öl", False),
        ("A;B", False),
        ("A%s", False),
    ],
)
def test_a_symbol_that_registers_itself_has_a_brokers_name(name: str, valid: bool) -> None:
    assert bool(VALID_SYMBOL.fullmatch(name)) is valid
