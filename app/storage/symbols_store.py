"""Instruments as people see and make them: list, add, change, name otherwise. Lane side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import psycopg2
from msgspec import Meta
from psycopg2.extensions import cursor as Cursor

from app.errors import BadField, Conflict, QueryTimeout, UnknownSymbol
from app.market.calendars import find_calendar
from app.market.intervals import known_zone
from app.market.rfc3339 import rfc3339
from app.market.symbols import VALID_SYMBOL
from app.storage.instruments import find

MAX_NAME = 64
MAX_TEXT = 200
MAX_DIGITS = 15
MAX_CAP = 1e18
"""In any currency; the whole world's is some 1e14 dollars."""

MAX_ALIASES = 100
_CURRENCY = re.compile(r"[A-Za-z0-9]{3,8}", re.ASCII)
"""ISO 4217, and what comes close to it: GBp for pence, USDT."""

_TEXTS = ("symbol", "name", "exchange", "currency", "timezone", "sector", "industry")

_LIST = """
    SELECT i.symbol, coalesce(a.aliases, '{}'), i.name, i.exchange, i.currency, i.timezone, i.digits,
        (extract(epoch FROM c.last_updated) * 1000000)::bigint, i.allow_nonpositive, i.sector, i.industry, i.market_cap
    FROM instruments i
    LEFT JOIN (SELECT symbol_id, array_agg(alias ORDER BY alias COLLATE "C") AS aliases
               FROM symbol_aliases GROUP BY symbol_id) a USING (symbol_id)
    LEFT JOIN current c ON c.symbol = i.symbol
"""
_LIST_ALL = f'{_LIST} ORDER BY i.symbol COLLATE "C"'
_LIST_ONE = f"{_LIST} WHERE i.symbol_id = %s"
# A name may not be another symbol's alias, which no index can see: who adds names waits for who else does.
_LOCK = "SELECT pg_advisory_xact_lock(x'7469636B68756204'::bigint)"
_TAKEN = """
    WITH wanted AS (SELECT name, upper(name) AS folded FROM unnest(%(names)s::text[]) AS name)
    SELECT w.name, i.symbol, false FROM wanted w JOIN instruments i ON upper(i.symbol) = w.folded
    WHERE i.symbol_id IS DISTINCT FROM %(own)s
    UNION ALL
    SELECT w.name, i.symbol, true
    FROM wanted w JOIN symbol_aliases a ON upper(a.alias) = w.folded JOIN instruments i USING (symbol_id)
    WHERE i.symbol_id IS DISTINCT FROM %(own)s
    LIMIT 1
"""
_ADD = """
    INSERT INTO instruments (symbol, name, exchange, currency, timezone, digits, allow_nonpositive, sector, industry,
        market_cap)
    VALUES (%(symbol)s, %(name)s, %(exchange)s, %(currency)s, %(timezone)s, %(digits)s,
        coalesce(%(allow_nonpositive)s, false), %(sector)s, %(industry)s, %(market_cap)s)
    RETURNING symbol_id
"""
_CHANGE = """
    UPDATE instruments SET name = coalesce(%(name)s, name), exchange = coalesce(%(exchange)s, exchange),
        currency = coalesce(%(currency)s, currency), timezone = coalesce(%(timezone)s, timezone),
        digits = coalesce(%(digits)s, digits), allow_nonpositive = coalesce(%(allow_nonpositive)s, allow_nonpositive),
        sector = coalesce(%(sector)s, sector), industry = coalesce(%(industry)s, industry),
        market_cap = coalesce(%(market_cap)s, market_cap), received_at = now()
    WHERE symbol_id = %(id)s
"""
_ADD_ALIASES = """
    INSERT INTO symbol_aliases (alias, symbol_id)
    SELECT alias, %(id)s FROM unnest(%(aliases)s::text[]) AS alias
    WHERE NOT EXISTS (SELECT FROM symbol_aliases a WHERE upper(a.alias) = upper(alias.alias))
      AND NOT EXISTS (SELECT FROM instruments i WHERE upper(i.symbol) = upper(alias.alias))
"""


class SymbolRow(msgspec.Struct):
    """An instrument; null is what is not known.

    last_updated: time of its newest tick, RFC 3339. market_cap in its currency. calendar: the one of its exchange, by
    which its sessions are; null: it is taken to be open all the time.
    """

    symbol: str
    aliases: list[str]
    name: str | None
    exchange: str | None
    currency: str | None
    timezone: str | None
    digits: int | None
    last_updated: str | None
    allow_nonpositive: bool
    sector: str | None = None
    industry: str | None = None
    market_cap: float | None = None
    calendar: str | None = None


def _meta(description: str, **schema: Any) -> Meta:
    """Return words and bounds for the OpenAPI document; `checked` keeps them."""
    return Meta(description=description, extra_json_schema=schema)


class NewSymbol(msgspec.Struct, kw_only=True):
    """An instrument to be added; what is null or empty is not known."""

    symbol: Annotated[
        str,
        _meta(
            "its name: letters, digits and . _ # & + - / ^ $ ! @, at most 64",
            pattern=r"^[A-Za-z0-9_.#&+\-/^$!@]([A-Za-z0-9_.#&+\-/^$!@ ]{0,62}[A-Za-z0-9_.#&+\-/^$!@])?$",
            examples=["EURUSD"],
        ),
    ]
    aliases: Annotated[
        list[Annotated[str, _meta("at most 64 characters, no comma", pattern="^[^,]*[^, ][^,]*$", maxLength=MAX_NAME)]],
        _meta("other names under which it is sent and asked for", maxItems=MAX_ALIASES),
    ] = []
    name: Annotated[str | None, _meta("name for people", maxLength=MAX_TEXT)] = None
    exchange: Annotated[
        str | None,
        _meta(
            "where it is traded: a MIC or a usual name, as XNYS or NASDAQ; gives its sessions and market hours",
            maxLength=MAX_TEXT,
        ),
    ] = None
    currency: Annotated[str | None, _meta("currency of its prices (ISO 4217)", pattern="^([A-Za-z0-9]{3,8})?$")] = None
    timezone: Annotated[
        str | None, _meta("time zone of its exchange (IANA name)", examples=["America/New_York"])
    ] = None
    digits: Annotated[
        int | None, _meta("decimals of a price: one point is 10^-digits", minimum=0, maximum=MAX_DIGITS)
    ] = None
    allow_nonpositive: Annotated[bool | None, Meta(description="whether a price may be zero or less")] = None
    sector: Annotated[str | None, _meta("sector of the economy, as Technology", maxLength=MAX_TEXT)] = None
    industry: Annotated[str | None, _meta("industry within the sector", maxLength=MAX_TEXT)] = None
    market_cap: Annotated[
        float | None, _meta("market capitalisation, in its currency", minimum=0, maximum=MAX_CAP)
    ] = None


def list_symbols(cur: Cursor) -> list[SymbolRow]:
    """Return all instruments, by name."""
    cur.execute(_LIST_ALL)
    return [_row(found) for found in cur.fetchall()]


def find_symbol(cur: Cursor, name: str) -> SymbolRow | None:
    """Return the instrument of this name or alias, in any case."""
    known = find(cur, name)
    return None if known is None else _read(cur, known.symbol_id)


def add_symbol(cur: Cursor, new: NewSymbol) -> SymbolRow:
    """Add an instrument in the open transaction, and return it.

    Raises BadField for what cannot be stored; Conflict when its name or an alias is a name or alias already, in any
    case: then the transaction is to be rolled back.
    """
    new = checked(new)
    if not VALID_SYMBOL.fullmatch(new.symbol):
        raise BadField(f"symbol is not a usable name: {new.symbol[:MAX_NAME]!r}")
    with _naming(cur, [new.symbol, *new.aliases], None):
        cur.execute(_ADD, msgspec.structs.asdict(new))
        symbol_id = _one(cur)
        cur.execute(_ADD_ALIASES, {"id": symbol_id, "aliases": new.aliases})
    return _read(cur, symbol_id)


def add_symbol_soon(cur: Cursor, new: NewSymbol, wait_s: float) -> SymbolRow:
    """Add an instrument as add_symbol, without waiting longer than `wait_s` for whoever holds names or ticks.

    Raises QueryTimeout too.
    """
    cur.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(wait_s * 1000)}ms",))
    try:
        return add_symbol(cur, new)
    except psycopg2.errors.LockNotAvailable as error:
        raise QueryTimeout("Others are changing symbols or tables. Add it again later.") from error


def change_symbol(cur: Cursor, new: NewSymbol) -> SymbolRow:
    """Change an instrument (by name or alias, in any case) in the open transaction, and return it.

    What is None stays as it was; aliases are added, none is taken away. Raises as add_symbol, and UnknownSymbol.
    """
    new = checked(new)
    known = find(cur, new.symbol)
    if known is None:
        raise UnknownSymbol(f"Unknown symbol: {new.symbol}")
    symbol_id = known.symbol_id
    with _naming(cur, new.aliases, symbol_id):
        cur.execute(_CHANGE, {**msgspec.structs.asdict(new), "id": symbol_id})
        cur.execute(_ADD_ALIASES, {"id": symbol_id, "aliases": new.aliases})
    return _read(cur, symbol_id)


def add_alias(cur: Cursor, symbol: str, alias: str) -> SymbolRow:
    """Give an instrument (by name or alias, in any case) one more alias; one that it has already changes nothing.

    Raises BadField, UnknownSymbol; Conflict when it is another's name or alias.
    """
    return change_symbol(cur, NewSymbol(symbol=symbol, aliases=[alias]))


def checked(new: NewSymbol) -> NewSymbol:
    """Return it with its texts stripped and each alias once. Raises BadField, which names the field."""
    texts = {field: _text(field, getattr(new, field)) for field in _TEXTS}
    symbol = texts["symbol"] or ""
    if len(new.aliases) > MAX_ALIASES:
        raise BadField(f"aliases: at most {MAX_ALIASES} of one symbol")
    aliases: dict[str, str] = {}
    for alias in new.aliases:
        text = _text("aliases", alias)
        if text is None or "," in text or len(text) > MAX_NAME:
            raise BadField(f"aliases: {alias[:MAX_NAME]!r} is not a usable name (1 to {MAX_NAME} characters, no comma)")
        aliases.setdefault(text.upper(), text)
    if texts["currency"] is not None and not _CURRENCY.fullmatch(texts["currency"]):
        raise BadField(f"currency is no code of 3 to 8 letters, as USD: {texts['currency'][:MAX_NAME]!r}")
    if texts["timezone"] is not None and not known_zone(texts["timezone"]):
        raise BadField(
            f"timezone: no time zone is called {texts['timezone'][:MAX_NAME]!r}: give an IANA name, as America/New_York"
        )
    if new.digits is not None and not 0 <= new.digits <= MAX_DIGITS:
        raise BadField(f"digits must be 0 to {MAX_DIGITS}")
    if new.market_cap is not None and not 0 <= new.market_cap <= MAX_CAP:  # NaN neither
        raise BadField(f"market_cap must be 0 to {MAX_CAP:g}")
    return msgspec.structs.replace(new, **texts | {"symbol": symbol}, aliases=list(aliases.values()))


def _text(field: str, text: str | None) -> str | None:
    text = (text or "").strip()
    if len(text) > MAX_TEXT:
        raise BadField(f"{field} is longer than {MAX_TEXT} characters")
    if not text.isprintable():  # neither are surrogates, which cannot be encoded
        raise BadField(f"{field} holds characters that cannot be printed")
    return text or None


@contextmanager
def _naming(cur: Cursor, names: Sequence[str], own: int | None) -> Iterator[None]:
    """Give the names to the instrument `own` (None: a new one) in the block. Raises Conflict."""
    cur.execute(_LOCK)
    cur.execute(_TAKEN, {"names": list(names), "own": own})
    taken = cur.fetchone()
    if taken is not None:
        name, symbol, is_alias = taken
        raise Conflict(f"{name} is an alias of {symbol} already" if is_alias else f"{symbol} is there already")
    try:
        yield
    except psycopg2.errors.UniqueViolation as error:  # somebody who does not know of the lock was faster
        raise Conflict(f"{' or '.join(names)} is there already") from error


def _read(cur: Cursor, symbol_id: int) -> SymbolRow:
    cur.execute(_LIST_ONE, (symbol_id,))
    found = cur.fetchone()
    assert found is not None
    return _row(found)


def _row(found: tuple[Any, ...]) -> SymbolRow:
    symbol, aliases, name, exchange, currency, timezone, digits, updated_us, *more = found
    updated = None if updated_us is None else rfc3339(updated_us)
    calendar = find_calendar(exchange)
    known = None if calendar is None else calendar.name
    return SymbolRow(symbol, aliases, name, exchange, currency, timezone, digits, updated, *[*more, known])


def _one(cur: Cursor) -> int:
    found = cur.fetchone()
    assert found is not None
    return int(found[0])
