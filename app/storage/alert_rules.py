"""Rules of alerts in the database: added, removed, listed, and read with their states. Lane side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg2.extensions import cursor as Cursor

from app.alerts.evaluate import evaluate
from app.alerts.rules import TICK_TYPES, NewRule, Rule, State, checked
from app.errors import Conflict, NotFound, UnknownSymbol
from app.market.positions import Positions
from app.market.rfc3339 import rfc3339
from app.storage.instruments import find
from app.storage.trade_reader import plan_behind

MOST_RULES = 1000
"""All of them are read at each look."""

PROGRESS = "ticks"

_COLUMNS = """
    r.rule_id, r.name, r.alert_type, i.symbol, r.dataset, r.field, r.subject, r.direction, r.threshold, r.hysteresis,
    r.cooldown_s, r.severity, (extract(epoch FROM r.created_at) * 1000000)::bigint
"""
_FROM = "FROM alert_rules r LEFT JOIN instruments i USING (symbol_id)"
_LIST = f"SELECT {_COLUMNS} {_FROM} ORDER BY r.rule_id"
_ONE = f"SELECT {_COLUMNS} {_FROM} WHERE r.rule_id = %s"
_WITH_STATES = f"""
    SELECT r.state::text, r.symbol_id, i.exchange, {_COLUMNS} {_FROM} ORDER BY r.rule_id
"""
_ADD = """
    INSERT INTO alert_rules (name, alert_type, symbol_id, dataset, field, subject, direction, threshold, hysteresis,
        cooldown_s, severity, state)
    SELECT %(name)s, %(alert_type)s, %(symbol_id)s, %(dataset)s, %(field)s, %(subject)s, %(direction)s, %(threshold)s,
        %(hysteresis)s, %(cooldown_s)s, %(severity)s, %(state)s
    WHERE (SELECT count(*) FROM alert_rules) < %(most)s
    RETURNING rule_id
"""
_REMOVE = "DELETE FROM alert_rules WHERE rule_id = %s"
_PRICES = """
    SELECT bid, bid_key, ask, ask_key, last, last_key, (extract(epoch FROM last_updated) * 1000000)::bigint
    FROM current WHERE symbol = %s
"""
# One that is there is touched, so that a look that is just about to take it away, since there was no rule, fails.
_BEGIN = """
    INSERT INTO alert_progress (name, positions, term, updated_at) VALUES (%s, %s, 0, now())
    ON CONFLICT (name) DO UPDATE SET updated_at = excluded.updated_at
"""


@dataclass(slots=True)
class Watched:
    """A rule with what it has seen, and what is known of its instrument. created_us: UTC microseconds."""

    rule: Rule
    state: State
    symbol_id: int | None
    exchange: str | None
    created_us: int


def list_rules(cur: Cursor) -> list[Rule]:
    """Return all rules in the order in which they were made."""
    cur.execute(_LIST)
    return [_rule(row) for row in cur.fetchall()]


def add_rule(cur: Cursor, new: NewRule) -> Rule:
    """Add a rule in the open transaction, and return it; a price that it is about counts from what it is now.

    Raises BadField, MissingField, UnknownSymbol; Conflict when there are MOST_RULES.
    """
    new = checked(new)
    known = None if new.symbol is None else find(cur, new.symbol)
    if new.symbol is not None and known is None:
        raise UnknownSymbol(f"Unknown symbol: {new.symbol[:64]}")
    values = {**msgspec.structs.asdict(new), "most": MOST_RULES, "state": None}
    values["symbol_id"] = None if known is None else known.symbol_id
    if known is not None and new.alert_type in TICK_TYPES:
        # Before the price is read: what is committed in between is in both, and looked at; else it would be in neither.
        cur.execute(_BEGIN, (PROGRESS, encode_positions(plan_behind(cur, Positions()).until)))
        values["state"] = _baseline(cur, msgspec.structs.replace(new, symbol=known.symbol))
    cur.execute(_ADD, values)
    row = cur.fetchone()
    if row is None:
        raise Conflict(f"there are {MOST_RULES} rules already, which is the most")
    return _read(cur, row[0])


def remove_rule(cur: Cursor, rule_id: int) -> Rule:
    """Remove a rule and return it; its alerts stay. Raises NotFound."""
    found = _read(cur, rule_id)
    cur.execute(_REMOVE, (rule_id,))
    return found


def watched_rules(cur: Cursor) -> list[Watched]:
    """Return all rules with their states."""
    cur.execute(_WITH_STATES)
    return [
        Watched(_rule(row), State() if state is None else decode_state(state), symbol_id, exchange, row[-1])
        for state, symbol_id, exchange, *row in cur.fetchall()
    ]


def encode_state(state: State) -> str:
    """Return a state as it is stored."""
    return msgspec.json.encode(state).decode()


def decode_state(text: str) -> State:
    """Return what `encode_state` wrote."""
    return msgspec.json.decode(text, type=State)


def encode_positions(positions: Positions) -> str:
    """Return positions as they are stored."""
    return msgspec.json.encode({"top_us": positions.top_us, "done_us": positions.done_us}).decode()


def decode_positions(text: str) -> Positions:
    """Return what `encode_positions` wrote."""
    return msgspec.json.decode(text, type=Positions)


def _baseline(cur: Cursor, new: NewRule) -> str | None:
    """Return the state of a rule that is made now; None: the instrument has no tick.

    A price is where it is, so that the next tick can cross.
    """
    cur.execute(_PRICES, (new.symbol,))
    row = cur.fetchone()
    if row is None:
        return None
    *prices, newest_us = row
    state = State(newest_us=newest_us or 0)
    if new.alert_type != "price_crosses":
        return encode_state(state)
    at = dict(zip(("bid", "ask", "last"), zip(prices[::2], prices[1::2], strict=True), strict=True))
    field = new.field or "price"
    price, key = at[("bid" if at["last"][0] is None else "last") if field == "price" else field]
    if price is not None:
        fields = {**msgspec.structs.asdict(new), "rule_id": 0, "created_at": ""}
        evaluate(Rule(**fields), state, [(int.from_bytes(key[:8], "big"), price)])
    return encode_state(state)


def _read(cur: Cursor, rule_id: int) -> Rule:
    cur.execute(_ONE, (rule_id,))
    row = cur.fetchone()
    if row is None:
        raise NotFound(f"there is no alert rule {rule_id}")
    return _rule(row)


def _rule(row: Sequence[Any]) -> Rule:
    fields = dict(zip(Rule.__struct_fields__, row, strict=True))  # in the order of the columns
    fields["created_at"] = rfc3339(fields["created_at"])
    return Rule(**fields)
