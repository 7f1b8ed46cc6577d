"""Instruments in the database: names to ids for the writer, the symbol map for those who accept. Lane side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from app.market.symbols import Instrument
from app.storage.connection import Connection

_READ = """
    SELECT i.symbol, i.digits, i.allow_nonpositive,
           coalesce(array_agg(a.alias ORDER BY a.alias) FILTER (WHERE a.alias IS NOT NULL), '{}')
    FROM instruments i LEFT JOIN symbol_aliases a USING (symbol_id)
    GROUP BY i.symbol_id ORDER BY i.symbol_id
"""
_READ_IDS = "SELECT upper(symbol), symbol_id, symbol, digits, allow_nonpositive FROM instruments"
_ADD = "INSERT INTO instruments (symbol) VALUES (%s) ON CONFLICT DO NOTHING"


@dataclass(slots=True, frozen=True)
class Known:
    """What the writer needs of an instrument."""

    symbol_id: int
    symbol: str
    digits: int | None
    nonpositive_ok: bool


def read_instruments(connection: Connection) -> list[Instrument]:
    """Return all instruments with their aliases, for the symbol map. Raises DatabaseAway."""
    with connection.transaction() as cur:
        cur.execute(_READ)
        return [Instrument(*row) for row in cur.fetchall()]


class InstrumentIds:
    """Names to ids, remembered for a connection."""

    def __init__(self) -> None:
        self._by_name: dict[str, Known] = {}
        self._generation = -1

    def resolve(self, connection: Connection, names: Iterable[str]) -> list[Known]:
        """Return what is known of each name, in order. Raises DatabaseAway.

        A name in the journal was known when it was accepted: if the database does not have it (an older backup,
        `unknown_symbols=register`), it is added rather than its ticks refused.
        """
        connection.open()
        wanted = [name.upper() for name in names]
        if connection.generation != self._generation or any(name not in self._by_name for name in wanted):
            self._generation = connection.generation
            with connection.transaction() as cur:
                self._by_name = _read_ids(cur)
                missing = [name for name in names if name.upper() not in self._by_name]
                if missing:
                    _add(cur, missing)
                    self._by_name = _read_ids(cur)
        return [self._by_name[name] for name in wanted]

    def forget(self) -> None:
        """Read the instruments anew at the next use."""
        self._generation = -1


def _read_ids(cur: Cursor) -> dict[str, Known]:
    cur.execute(_READ_IDS)
    return {upper: Known(*rest) for upper, *rest in cur.fetchall()}


def _add(cur: Cursor, names: Sequence[str]) -> None:
    for name in sorted(set(names)):
        cur.execute(_ADD, (name,))
