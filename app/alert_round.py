"""One look of the rules of alerts at what was committed, in one transaction. Lane side.

A rule's state, the alerts that it gave and the place up to which ticks were looked at are written together, with a
check that the writer is still elected. So whoever is elected next goes on exactly there: nothing is told twice, and
nothing is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from app.alerts.evaluate import LATE_US, Alert, Series, Value, evaluate, overdue, silence_s, volume_ratio
from app.alerts.hours import open_since
from app.alerts.rules import TICK_TYPES
from app.errors import StorageError
from app.market.positions import Positions
from app.storage.alert_facts import (
    InstrumentFacts,
    TickRow,
    Wanted,
    instrument_facts,
    is_catching_up,
    minute_volumes,
    now_us,
    ticks_behind,
    values_of,
)
from app.storage.alert_outbox import store
from app.storage.alert_rules import (
    PROGRESS,
    Watched,
    decode_positions,
    encode_positions,
    encode_state,
    watched_rules,
)
from app.storage.connection import Connection
from app.storage.lease import Term, is_held
from app.storage.trade_reader import plan_behind

# One snapshot: what is looked at, and up to where.
_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '1s'"
# A crash of the database takes back states and progress together.
_NOT_URGENT = "SET LOCAL synchronous_commit = off"
_PROGRESS = "SELECT positions::text FROM alert_progress WHERE name = %s"
_SAVE_PROGRESS = """
    INSERT INTO alert_progress (name, positions, term, updated_at) VALUES (%s, %s, %s, now())
    ON CONFLICT (name) DO UPDATE
    SET positions = excluded.positions, term = excluded.term, updated_at = excluded.updated_at
"""
_FORGET_PROGRESS = "DELETE FROM alert_progress WHERE name = %s"
_SAVE_STATES = """
    UPDATE alert_rules r SET state = v.state::jsonb FROM (VALUES %s) AS v (rule_id, state) WHERE r.rule_id = v.rule_id
"""


class NoMoreElected(StorageError):
    """Another process was elected; nothing was written."""


@dataclass(slots=True)
class Round:
    """What a look found. symbols: those whose ticks are looked at.

    window_us: what the next look is to be given; not None: there are ticks left to look at.
    """

    alerts: int = 0
    rules: int = 0
    symbols: frozenset[str] = field(default_factory=frozenset)
    window_us: int | None = None


def look(
    connection: Connection, term: Term, *, has_webhook: bool, window_us: int | None = None, is_steady: bool = True
) -> Round:
    """Let all rules look at what was committed since the last look. Raises NoMoreElected, DatabaseAway.

    window_us: as the look before said. is_steady: whether the database has been there for a while; else that nothing
    came says nothing.
    """
    with connection.transaction() as cur:
        cur.execute(_BEGIN)
        return _look(cur, term, has_webhook=has_webhook, window_us=window_us, is_steady=is_steady)


def _look(cur: Cursor, term: Term, *, has_webhook: bool, window_us: int | None, is_steady: bool) -> Round:
    watched = watched_rules(cur)
    before = {one.rule.rule_id: encode_state(one.state) for one in watched}
    at_us = now_us(cur)
    facts = instrument_facts(cur, sorted({one.symbol_id for one in watched if one.symbol_id is not None}))
    seen = {one.rule.rule_id: one.state.seen_us for one in watched}
    on_ticks = [one for one in watched if one.rule.alert_type in TICK_TYPES]
    alerts, moved, window_us = _look_at_ticks(cur, on_ticks, facts, window_us)
    volumes = minute_volumes(cur, [one.symbol_id for one in _of(watched, "volume_spike") if one.symbol_id is not None])
    values = values_of(cur, [asked for asked in map(_wanted, watched) if asked is not None])
    is_steady = is_steady and window_us is None and bool(watched) and not is_catching_up(cur)
    for one in watched:
        if one.rule.alert_type == "no_tick" and not is_steady:
            continue
        if one.rule.alert_type not in TICK_TYPES:
            alerts += [(one.symbol_id, alert) for alert in _look_at_others(one, facts, volumes, values, at_us)]
        if one.state.seen_us != seen[one.rule.rule_id]:
            one.state.looked_us = at_us
        elif is_steady:
            alerts += [(one.symbol_id, alert) for alert in overdue(one.rule, one.state, at_us)]
    changed = [(one.rule.rule_id, encode_state(one.state)) for one in watched]
    changed = [(rule_id, state) for rule_id, state in changed if state != before[rule_id]]
    stored = 0
    if alerts or changed or moved is not None:
        if not alerts:
            cur.execute(_NOT_URGENT)
        stored = store(cur, alerts, has_webhook=has_webhook)
        if changed:
            execute_values(cur, _SAVE_STATES, changed)
        if moved is not None:
            cur.execute(_SAVE_PROGRESS, (PROGRESS, encode_positions(moved), term.number))
        if not is_held(cur, term):
            raise NoMoreElected
    symbols = frozenset(one.rule.symbol for one in watched if one.rule.symbol is not None)
    return Round(stored, len(watched), symbols, window_us)


def _of(watched: Iterable[Watched], alert_type: str) -> list[Watched]:
    return [one for one in watched if one.rule.alert_type == alert_type]


def _look_at_ticks(
    cur: Cursor, watched: list[Watched], facts: dict[int, InstrumentFacts], window_us: int | None
) -> tuple[list[tuple[int | None, Alert]], Positions | None, int | None]:
    """Return alerts of ticks, the new positions where they moved, and the next window where there are more ticks."""
    cur.execute(_PROGRESS, (PROGRESS,))
    row = cur.fetchone()
    if not watched:
        if row is not None:
            cur.execute(_FORGET_PROGRESS, (PROGRESS,))
        return [], None, None
    if row is None:
        return [], plan_behind(cur, Positions()).until, None
    after = decode_positions(row[0])
    floors: dict[int, int] = {}
    for one in watched:
        assert one.symbol_id is not None
        floor_us = max(0, one.state.seen_us - LATE_US, one.state.newest_us - LATE_US)
        floors[one.symbol_id] = min(floor_us, floors.get(one.symbol_id, floor_us))
    found = ticks_behind(cur, after, floors, len(watched), window_us)
    by_symbol: dict[int, list[TickRow]] = {}
    for tick in found.ticks:
        by_symbol.setdefault(tick.symbol_id, []).append(tick)
    newest = {symbol_id: max(tick.at_us for tick in ticks) for symbol_id, ticks in by_symbol.items()}
    alerts: list[tuple[int | None, Alert]] = []
    made: dict[tuple[int, str, int], Series] = {}
    for one in watched:
        assert one.symbol_id is not None
        # A price is compared with what it was when the rule was made; a spread counts from then on.
        is_spread = one.rule.alert_type == "spread_above"
        after_us = one.created_us if is_spread and not one.state.seen_us else 0
        key = (one.symbol_id, "spread" if is_spread else one.rule.field or "price", after_us)
        its_ticks = by_symbol.get(one.symbol_id, [])
        if key not in made:
            made[key] = Series(_tick_values(its_ticks, facts[one.symbol_id], *key[1:]))
        alerts += [(one.symbol_id, alert) for alert in evaluate(one.rule, one.state, made[key])]
        if its_ticks:
            one.state.newest_us = max(one.state.newest_us, newest[one.symbol_id])
    return alerts, found.until if found.until != after else None, found.window_us


def _tick_values(ticks: Iterable[TickRow], facts: InstrumentFacts, field: str, after_us: int) -> list[Value]:
    """Return what ticks that were received later than after_us say of a field."""
    if field == "spread":
        return [(t.at_us, t.spread) for t in ticks if t.spread is not None and t.received_us > after_us]
    if field == "price":
        field = "last" if facts.has_trades else "bid"
    if field == "last":
        found = [(t.at_us, t.last) for t in ticks if t.is_trade]
    else:
        found = [(t.at_us, t.bid if field == "bid" else t.ask) for t in ticks]
    return [(at_us, price) for at_us, price in found if price is not None and (price > 0 or facts.nonpositive_ok)]


def _look_at_others(
    one: Watched,
    facts: dict[int, InstrumentFacts],
    volumes: dict[int, list[Value]],
    values: dict[int, list[Value]],
    at_us: int,
) -> list[Alert]:
    """Return alerts of a rule that looks at the clock, at bars, or at another dataset."""
    rule, state = one.rule, one.state
    if one.symbol_id is not None and rule.alert_type == "no_tick":
        silent_s = silence_s(at_us, facts[one.symbol_id].newest_us, open_since(at_us, one.exchange), one.created_us)
        return _evaluate_now(one, at_us, silent_s)
    if one.symbol_id is not None and rule.alert_type == "volume_spike":
        ratio = volume_ratio(volumes.get(one.symbol_id, []))
        return [] if ratio is None else _evaluate_now(one, at_us, ratio)
    return evaluate(rule, state, values.get(rule.rule_id, []))


def _wanted(one: Watched) -> Wanted | None:
    """Return what a rule asks of another dataset, None where it asks nothing."""
    rule, about = one.rule, one.rule.subject if one.symbol_id is None else one.symbol_id
    dataset, field = ("basis_history", "basis") if rule.alert_type == "basis_beyond" else (rule.dataset, rule.field)
    if dataset is None or field is None:
        return None
    return Wanted(rule.rule_id, dataset, field, about, one.state.seen_us)


def _evaluate_now(one: Watched, at_us: int, value: float) -> list[Alert]:
    """Return alerts of a value that is looked at by the clock; its state changes only with its watches."""
    seen = msgspec.structs.replace(one.state, seen_us=0, value=None)
    found = evaluate(one.rule, seen, [(at_us, value)])
    one.state.watches = seen.watches
    return found
