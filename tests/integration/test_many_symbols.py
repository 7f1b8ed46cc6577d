"""Many new symbols at once: added in short steps, each of which lasts."""

from __future__ import annotations

import pytest
from psycopg2.extensions import connection as PgConnection

from app.storage import instruments
from app.storage.connection import Connection
from app.storage.instruments import InstrumentIds


def ids_in(conn: PgConnection) -> dict[str, int]:
    with conn, conn.cursor() as cur:
        cur.execute("SELECT symbol, symbol_id FROM instruments")
        return dict(cur.fetchall())


def test_names_are_added_in_steps_and_then_known(
    own: Connection, conn: PgConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "MAX_NEW_PER_CALL", 10)
    ids, names = InstrumentIds(), [f"N{number}" for number in range(35)] + ["AAPL", "tsla"]
    seeded = len(ids_in(conn))
    for calls in range(1, 4):
        assert ids.resolve(own, names) is None
        assert len(ids_in(conn)) == seeded + calls * 10, (
            "what a step added lasts, whatever the next one meets"
        )
    found = ids.resolve(own, names)
    stored = ids_in(conn)
    assert found is not None
    assert [known.symbol_id for known in found] == [stored[name] for name in [*names[:-1], "TSLA"]]
    assert len(stored) == seeded + 35


def test_aliases_too_many_for_one_step_are_found_in_the_end(
    own: Connection, conn: PgConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "MAX_NEW_PER_CALL", 2)
    ids, names = InstrumentIds(), ["aapl.us", "Aapl", "msft", "orcl", "ORCL.US"]
    assert [ids.resolve(own, names) for _ in range(2)] == [None, None]
    found = ids.resolve(own, names)
    assert found is not None
    assert [known.symbol for known in found] == ["AAPL", "AAPL", "MSFT", "ORCL", "ORCL"]
