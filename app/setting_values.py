"""One setting: what is known of it, and how its value is read from text and written as text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

PREFIX = "TICKHUB_"

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|b|kb|kib|mb|mib|gb|gib)", re.IGNORECASE)
_SIZE_UNIT = {"": 1, "b": 1, "kb": KIB, "kib": KIB, "mb": MIB, "mib": MIB, "gb": GIB, "gib": GIB}


_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; kind says how its text is read, flags are written without their dashes."""

    name: str
    default: Any
    help: str
    kind: str
    unit: str
    env: tuple[str, ...]
    flags: tuple[str, ...]
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    secret: bool

    @property
    def env_names(self) -> tuple[str, ...]:
        """Return the environment names, the main one first."""
        return (PREFIX + self.name.upper(), *self.env)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """Return the flags with their dashes, the main one first; none for keys, which `ps` would show."""
        if self.kind in ("keys", "secret"):
            return ()
        return tuple(dict.fromkeys(f"--{flag}" for flag in (*self.flags, self.name.replace("_", "-"))))


def parse(row: Setting, text: str, base: Path) -> Any:
    """Read a setting's value; relative paths start at base. Raises ValueError that says what is allowed."""
    match row.kind:
        case "int":
            value: Any = _number(row, text, int, "a whole number")
        case "float":
            value = _number(row, text, float, "a number")
        case "size" | "memory":
            value = _size(row, text)
        case "bool":
            value = {"true": True, "1": True, "yes": True, "on": True}.get(text.lower())
            if value is None and text.lower() not in ("false", "0", "no", "off"):
                raise ValueError("must be true or false")
            value = bool(value)
        case "date":
            value = _date(text)
        case "path":
            value = (base / Path(text).expanduser()).resolve()
        case "file":
            value = str((base / Path(text).expanduser()).resolve()) if text else ""
        case "keys":
            value = _keys(text)
        case "origins":
            value = _origins(text)
        case "hosts":
            value = _hosts(text)
        case "database":
            value = _database_url(text)
        case "webhook":
            value = _one_of_schemes(text, ("https", "http"))
        case "redis":
            value = _one_of_schemes(text, ("redis", "rediss", "unix"))
        case "upstream":
            value = _upstream_url(text)
        case "vendor":
            value = _vendor_url(text)
        case "host":
            value = _host(text)
        case "clock":
            value = _clock(text)
        case "time":
            value = _time_of_day(text)
        case _:
            value = text.lower() if row.choices else text
            if row.choices and value not in row.choices:
                raise ValueError(f"must be one of {', '.join(row.choices)}{suggest(value, row.choices)}")
    return value


def _time_of_day(text: str) -> str:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text, re.ASCII):
        raise ValueError("must be a time of day such as 02:00")
    return text


def _number(row: Setting, text: str, convert: type[int] | type[float], what: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        raise ValueError(f"must be {what}{_span(row)}") from None
    return _within(row, value, what)


def _within(row: Setting, value: float, what: str) -> float:
    low, high = row.minimum, row.maximum
    # Written so that NaN fails as well.
    if not ((low is None or value >= low) and (high is None or value <= high) and abs(value) != float("inf")):
        raise ValueError(f"must be {what}{_span(row)}")
    return value


def _span(row: Setting) -> str:
    low = "" if row.minimum is None else f" from {text_of(row.minimum)}"
    high = "" if row.maximum is None else f" to {text_of(row.maximum)}"
    return low + high + (f" ({row.unit})" if row.unit else "")


def _size(row: Setting, text: str) -> int:
    # As PostgreSQL reads them: KB and KiB are both 1024 bytes. A bare number is in the setting's own unit.
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("must be a size such as 512MB or 2GB")
    own_unit = MIB if row.kind == "memory" else 1
    unit = _SIZE_UNIT[found[2].lower()] if found[2] else own_unit
    return int(_within(row, int(float(found[1]) * unit) // own_unit, "a size"))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a day such as 1990-01-01") from None


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(",") if key.strip())
    if any(len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise ValueError("every API key needs at least 16 characters, ASCII without spaces")
    return keys


def _origins(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_origin(part.strip()) for part in text.split(",") if part.strip()))
    if "*" in found and len(found) > 1:
        raise ValueError("* is every origin: leave the others out")
    return found


def _origin(text: str) -> str:
    """Return an origin as browsers write it: in lower case, without the port that its scheme has anyway."""
    if text == "*":
        return text
    found = _ORIGIN.fullmatch(text.lower())
    if found is None or int(found[3] or 1) not in range(1, 65536):
        raise ValueError(f"{text[:60]!r} is no origin: write it as https://desk.example or http://127.0.0.1:8080")
    scheme, host, port = found.groups()
    if port is None or int(port) == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def _hosts(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for name in found:
        if name != "*" and not re.fullmatch(r"(?!-)[a-z0-9_.-]{1,253}(?<!-)", name):
            raise ValueError(f"{name[:60]!r} is no name of a host: write it as desk.example, without scheme and port")
    return found


def _database_url(text: str) -> str:
    if text.lower().startswith("questdb:"):
        raise ValueError(
            "questdb:// is not supported; use postgresql:// or leave it out for the embedded server"
        )
    url = _one_of_schemes(text, ("postgresql", "postgres"))
    # SQLAlchemy knows only the long name.
    return re.sub(r"^postgres://", "postgresql://", url)


def _one_of_schemes(text: str, schemes: tuple[str, ...]) -> str:
    if text and not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
    return text


def _upstream_url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^/@?#\s]+(/[^?#\s]*)?", text):
        raise ValueError("must be a URL such as http://10.0.0.5:5000, without a name, a password or parameters")
    return text.rstrip("/")


def _vendor_url(text: str) -> str:
    """Take an address that credentials are sent to: in clear text only to this machine itself."""
    local = re.fullmatch(r"http://(127(\.\d{1,3}){3}|localhost|\[::1\])(:\d{1,5})?(/.*)?", text)
    if not local and not re.fullmatch(r"https://[^/@?#\s]+(/[^?#\s]*)?", text):
        raise ValueError("must be a URL that begins with https:// (http:// only for this machine)")
    return text.rstrip("/")


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[0-9A-Za-z_.:%-]+", host):
        raise ValueError("must be a host name or an IP address")
    return host


def _clock(text: str) -> str:
    if text != "UTC":
        from app.market.clock import BrokerClock  # numpy comes with it, and the default needs none of it

        BrokerClock(text)
    return text


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for a near miss, else nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def text_of(value: Any) -> str:
    """Write a value so that `parse` reads the same again."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        case tuple():
            return ",".join(value)
        case _:
            return str(value)
