"""The words of an alert. Pure."""

from __future__ import annotations

from app.alerts.rules import Rule


def message_of(rule: Rule, direction: str, value: float) -> str:
    """Return what is told when a rule's value went beyond its line of this direction."""
    threshold, shown = number(rule.threshold), number(value)
    match rule.alert_type:
        case "price_crosses":
            way = "upwards" if direction == "above" else "downwards"
            text = f"{rule.symbol} {rule.field} {shown} crossed {threshold} {way}"
        case "spread_above":
            text = f"{rule.symbol} spread {shown} points is above {threshold}"
        case "no_tick":
            text = f"{rule.symbol} had no tick for {_duration(value)} in market hours"
        case "volume_spike":
            text = f"{rule.symbol} volume of a minute is {value:.1f} times the mean of the minutes before"
        case "basis_beyond":
            limit = threshold if direction == "above" else number(-rule.threshold)
            text = f"{rule.subject} basis {shown} is {direction} {limit}"
        case _:
            about = rule.symbol or rule.subject
            text = f"{f'{about} ' if about else ''}{rule.field} {shown} is {direction} {threshold}"
    return f"{rule.name}: {text}" if rule.name else text


def _duration(seconds: float) -> str:
    for unit_s, unit, most in ((1, "s", 600), (60, "min", 180), (3600, "h", 48)):
        if seconds < unit_s * most:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def number(value: float) -> str:
    """Return a number as people write it: without an exponent where it is of a usual size, without a bare .0."""
    text = repr(round(value, 9))
    return text.removesuffix(".0")
