"""A rule as it is sent, checked, stored and answered. Pure."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from app.alerts.crossing import Line, Watch
from app.errors import BadField, MissingField

AlertType = Literal["price_crosses", "spread_above", "no_tick", "volume_spike", "basis_beyond", "metric_beyond"]
Direction = Literal["above", "below", "both"]
Severity = Literal["info", "warning", "critical"]

METRICS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "market_data": ("symbol", ("last_price", "bid", "ask", "volume", "trades", "spread_bps")),
    "strategy_metrics": ("strategy_name", ("pnl", "daily_pnl", "positions", "signals", "win_rate")),
    "execution_metrics": (
        None,
        (
            *("orders_submitted", "orders_filled", "orders_cancelled", "orders_rejected"),
            *("fill_rate", "avg_latency_ms", "avg_slippage_bps"),
        ),
    ),
    "system_metrics": ("host", ("cpu_percent", "memory_percent", "disk_usage_percent", "uptime_seconds")),
}
"""Datasets that metric_beyond takes: what their rows are about, and the fields that are numbers."""

PRICES = ("price", "bid", "ask", "last")
TICK_TYPES = ("price_crosses", "spread_above")
SYMBOL_TYPES = (*TICK_TYPES, "no_tick", "volume_spike")

DEFAULT_HYSTERESIS = 0.001
"""Share of the threshold: a tenth of a percent of a price is more than the noise of a quote."""
DEFAULT_COOLDOWN_S = 60.0
MAX_COOLDOWN_S = 366 * 86_400.0
MAX_TEXT = 200


class NewRule(Struct, forbid_unknown_fields=True):
    """A rule as it is sent. What it needs depends on `alert_type`."""

    alert_type: Annotated[AlertType, Meta(description="what it looks at")]
    threshold: Annotated[
        float,
        Meta(
            description="price; spread in points (spread_above); seconds (no_tick); multiple of the mean volume of the "
            "minutes before (volume_spike); of the basis or of the field (basis_beyond, metric_beyond)"
        ),
    ]
    symbol: Annotated[
        str | None, Meta(description="name or alias; required but for basis_beyond and metrics without symbol")
    ] = None
    direction: Annotated[
        Direction | None,
        Meta(description="for price_crosses, basis_beyond, metric_beyond; default: both, for metrics above"),
    ] = None
    field: Annotated[
        str | None,
        Meta(description="price_crosses: price (default), bid, ask or last; metric_beyond: a field of the dataset"),
    ] = None
    dataset: Annotated[str | None, Meta(description=f"metric_beyond: one of {', '.join(METRICS)}")] = None
    subject: Annotated[
        str | None, Meta(description="basis_beyond: the futures symbol; metric_beyond: the strategy, or the host")
    ] = None
    hysteresis: Annotated[
        float | None,
        Meta(description="how far back the value must go to alert again; default: a thousandth of the threshold"),
    ] = None
    cooldown_s: Annotated[
        float, Meta(description="least time between two alerts of one direction, s", extra_json_schema={"minimum": 0})
    ] = DEFAULT_COOLDOWN_S
    severity: Severity = "warning"
    name: Annotated[
        str | None,
        Meta(
            description="for people; the messages begin with it",
            extra_json_schema={"minLength": 1, "maxLength": MAX_TEXT},
        ),
    ] = None


class Rule(Struct):
    """A rule as it is stored and answered. created_at: RFC 3339."""

    rule_id: int
    name: str | None
    alert_type: AlertType
    symbol: str | None
    dataset: str | None
    field: str | None
    subject: str | None
    direction: Direction
    threshold: float
    hysteresis: float
    cooldown_s: float
    severity: Severity
    created_at: str


class State(Struct):
    """What a rule has seen: the newest value and its time (UTC microseconds, 0: none), and of each line.

    looked_us: when that value was looked at, by the database's clock. newest_us: of the symbol's newest tick, whatever
    the rule takes of it.
    """

    seen_us: int = 0
    value: float | None = None
    looked_us: int = 0
    newest_us: int = 0
    watches: dict[str, Watch] = msgspec.field(default_factory=dict)


def checked(new: NewRule) -> NewRule:
    """Return the rule with all that it left out. Raises BadField, MissingField; the symbol is not looked up."""
    for name in ("threshold", "hysteresis", "cooldown_s"):
        value = getattr(new, name)
        if value is not None and not math.isfinite(value):
            raise BadField(f"{name} must be a finite number")
    for name in ("name", "field", "dataset", "subject"):
        text = getattr(new, name)
        if text is not None and (not 1 <= len(text) <= MAX_TEXT or not text.isprintable()):
            raise BadField(f"{name} must have 1 to {MAX_TEXT} characters that can be printed")
    if not 0 <= new.cooldown_s <= MAX_COOLDOWN_S:
        raise BadField(f"cooldown_s must be from 0 to {MAX_COOLDOWN_S:.0f}")
    hysteresis = abs(new.threshold) * DEFAULT_HYSTERESIS if new.hysteresis is None else new.hysteresis
    if hysteresis < 0:
        raise BadField("hysteresis must not be negative")
    if new.alert_type in ("no_tick", "volume_spike", "basis_beyond", "spread_above") and new.threshold < 0:
        raise BadField(f"threshold of {new.alert_type} must not be negative")
    if new.alert_type == "no_tick" and new.threshold < 1:
        raise BadField("threshold of no_tick must be 1 s at least")
    _check_subject(new)
    allowed = ("price_crosses", "basis_beyond", "metric_beyond")
    if new.alert_type not in allowed and new.direction not in (None, "above"):
        raise BadField(f"direction of {new.alert_type} is above")
    direction = new.direction or ("both" if new.alert_type in allowed[:2] else "above")
    field = (new.field or "price") if new.alert_type == "price_crosses" else new.field
    return msgspec.structs.replace(new, hysteresis=hysteresis, direction=direction, field=field)


def _check_subject(new: NewRule) -> None:
    """Raise BadField, MissingField where what the rule is about does not fit its type."""
    if new.alert_type in SYMBOL_TYPES:
        _needs(new, "symbol")
        _has_no(new, "dataset", "subject", *(() if new.alert_type == "price_crosses" else ("field",)))
        if new.alert_type == "price_crosses" and new.field not in (None, *PRICES):
            raise BadField(f"field of price_crosses must be one of {', '.join(PRICES)}")
    elif new.alert_type == "basis_beyond":
        _needs(new, "subject")
        _has_no(new, "symbol", "dataset", "field")
    else:
        _needs(new, "dataset", "field")
        if new.dataset not in METRICS:
            raise BadField(f"dataset must be one of {', '.join(METRICS)}")
        key, fields = METRICS[new.dataset]
        if new.field not in fields:
            raise BadField(f"field of {new.dataset} must be one of {', '.join(fields)}")
        wanted = {"symbol": ("symbol", "subject"), None: (None, "subject")}.get(key, ("subject", "symbol"))
        if wanted[0]:
            _needs(new, wanted[0])
        _has_no(new, wanted[1] or "symbol", *(() if wanted[0] else ("symbol",)))


def _needs(new: NewRule, *names: str) -> None:
    missing = [name for name in names if getattr(new, name) is None]
    if missing:
        raise MissingField(f"Missing required fields: {', '.join(missing)} ({new.alert_type} needs them)")


def _has_no(new: NewRule, *names: str) -> None:
    for name in names:
        if getattr(new, name) is not None:
            raise BadField(f"{name} means nothing to {new.alert_type}")


def lines(rule: Rule) -> dict[str, Line]:
    """Return the lines of a rule, by direction."""
    is_price = rule.alert_type == "price_crosses"
    found = {}
    for direction, sign in (("above", 1), ("below", -1)):
        if rule.direction in (direction, "both"):
            # The basis may be beyond on either side of zero.
            below_zero = rule.alert_type == "basis_beyond" and sign < 0
            found[direction] = Line(
                -rule.threshold if below_zero else rule.threshold,
                sign,
                rule.hysteresis,
                round(rule.cooldown_s * 1e6),
                touches=is_price,
                edge=is_price,
            )
    return found
