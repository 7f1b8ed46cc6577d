"""Instruments in the database: names to ids for the writer, the symbol map for those who accept. Lane side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from app.market.sessions import Market
from app.market.symbols import Instrument
from app.storage.connection import Connection

_READ = """
    SELECT i.symbol, i.digits, i.allow_nonpositive,
           coalesce(array_agg(a.alias ORDER BY a.alias) FILTER (WHERE a.alias IS NOT NULL), '{}')
    FROM instruments i LEFT JOIN symbol_aliases a USING (symbol_id)
    GROUP BY i.symbol_id ORDER BY i.symbol_id
"""
_READ_IDS = "SELECT symbol_id, symbol, digits, allow_nonpositive FROM instruments"
_FIND = """
    SELECT symbol_id, symbol, digits, allow_nonpositive FROM instruments WHERE upper(symbol) = upper(%(name)s)
    UNION ALL
    SELECT i.symbol_id, i.symbol, i.digits, i.allow_nonpositive
    FROM symbol_aliases a JOIN instruments i USING (symbol_id) WHERE upper(a.alias) = upper(%(name)s)
    LIMIT 1
"""
_MARKET = "SELECT exchange, timezone FROM instruments WHERE symbol_id = %s"
_CANONICAL = """
    SELECT n.name, coalesce(i.symbol, j.symbol) FROM unnest(%s::text[]) AS n (name)
    LEFT JOIN instruments i ON upper(i.symbol) = upper(n.name)
    LEFT JOIN symbol_aliases a ON upper(a.alias) = upper(n.name) LEFT JOIN instruments j ON j.symbol_id = a.symbol_id
"""
MAX_NEW_PER_CALL = 500
"""Instruments found or added in one go (about a second, each has a view): a request with tens of thousands of new
names is many short calls on the flush lane, not one so long that it is interrupted and begins anew for ever."""

READ_AGAIN_S = 30.0
"""How long digits and allow_nonpositive are believed: whoever changes them need not restart the server."""

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
    """Names to ids, remembered for a while and no longer than a connection lasts."""

    def __init__(self) -> None:
        self._by_name: dict[str, Known] = {}
        self._generation = -1
        self._read_at = 0.0  # monotonic
        self._more_to_add = False

    def resolve(self, connection: Connection, names: Sequence[str]) -> list[Known] | None:
        """Return what is known of each name, in order, or None when more are to be added by further calls.

        Raises DatabaseAway.

        A name in the journal was known when it was accepted: if it was renamed since, its alias leads on; if the
        database does not have it (an older backup, `unknown_symbols=register`), it is added rather than its ticks
        refused.
        """
        connection.open()
        fresh = connection.generation == self._generation and time.monotonic() - self._read_at < READ_AGAIN_S
        if not fresh or any(name not in self._by_name for name in names):
            known = self._by_name if connection.generation == self._generation and self._more_to_add else {}
            with connection.transaction() as cur:
                if not known:
                    self._read_at = time.monotonic()
                    cur.execute(_READ_IDS)
                    known = {one.symbol: one for one in (Known(*row) for row in cur.fetchall())}
                # In one order, so that two who add the same names cannot deadlock.
                missing = sorted(set(names) - known.keys())
                for name in missing[:MAX_NEW_PER_CALL]:
                    known[name] = find_or_add(cur, name)
            self._by_name, self._generation = known, connection.generation
            self._more_to_add = len(missing) > MAX_NEW_PER_CALL
            if self._more_to_add:
                return None
        return [self._by_name[name] for name in names]


def canonical_names(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Return the names of instruments by name or alias, in any case; of those that there are not, one spelling each.

    Raises DatabaseAway.
    """
    spelt: dict[str, str] = {}
    with connection.transaction() as cur:
        cur.execute(_CANONICAL, (list(names),))
        there: dict[str, str] = dict(cur.fetchall())
    return {name: there.get(name) or spelt.setdefault(name.upper(), name) for name in names}


def find(cur: Cursor, name: str) -> Known | None:
    """Return the instrument of this name or alias, in any case as the database sees it."""
    if "\0" in name:  # no text in the database holds one, and the driver refuses it
        return None
    cur.execute(_FIND, {"name": name})
    row = cur.fetchone()
    return None if row is None else Known(*row)


def read_market(cur: Cursor, symbol_id: int) -> Market:
    """Return where an instrument is traded: its exchange and time zone, None where it has none."""
    cur.execute(_MARKET, (symbol_id,))
    exchange, zone = cur.fetchone() or (None, None)
    return exchange, zone


def find_or_add(cur: Cursor, name: str) -> Known:
    """Return the instrument of this name or alias, added when there is none."""
    known = find(cur, name)
    if known is None:
        cur.execute(_ADD, (name,))
        known = find(cur, name)
        assert known is not None
    return known
