"""Where values of settings come from, and whether they fit together: flags, environment, .env file.

Light on purpose, as `settings` is: gunicorn's configuration imports both before gevent has patched the standard
library.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import SettingsError
from app.setting_values import MIB, PREFIX, Setting, parse, suggest, text_of

if TYPE_CHECKING:
    from app.settings import Settings

FIRST_YEAR = 1970

SPARE_CONNECTIONS = 10
"""Connections of the embedded server that workers may not plan with: PostgreSQL keeps 3 for superusers, the
rest serves the keeper's probes, migrations, commands and psql."""


def read_values(
    table: tuple[Setting, ...],
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    env_file: Path | None,
    root: Path,
) -> dict[str, Any]:
    """Return the value of each setting that a source names: flags before environ before env_file.

    flags: texts by setting name. root: where relative paths start, but for those of flags, which start at the
    current directory. Raises SettingsError, one line, for anything unknown or invalid.
    """
    values: dict[str, Any] = {}
    for source, texts in ((".env", _read_env_file(env_file)), ("environment", environ)):
        _refuse_unknown(table, texts, source)
        for row in table:
            for name in reversed(row.env_names):  # the main name is read last, so it wins over its aliases
                _take(values, row, texts.get(name), name, root)
    by_name = {row.name: row for row in table}
    for name, text in flags.items():
        if name not in by_name:
            raise SettingsError(f"unknown setting {name}{suggest(name, by_name)}")
        _take(values, by_name[name], text, (*by_name[name].flag_names, name)[0], Path.cwd())
    return values


def markdown_rows(table: tuple[Setting, ...]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the settings."""
    yield "| environment | flag | default | meaning |"
    yield "|---|---|---|---|"
    for row in table:
        default = "data" if row.name == "data_dir" else text_of(row.default)
        names = ", ".join(f"`{name}`" for name in row.env_names)
        flags = ", ".join(f"`{flag}`" for flag in row.flag_names) or "none"
        choices = f" ({', '.join(row.choices)})" if row.choices else ""
        unit = f" {row.unit}" if row.unit else ""
        yield f"| {names} | {flags} | {default + unit if default else ''} | {row.help}{choices} |"


def _take(values: dict[str, Any], row: Setting, text: str | None, name: str, base: Path) -> None:
    # An empty variable (`TICKHUB_PORT=` in a compose file) means "not set", unless empty is a value.
    if text is None or (not text.strip() and row.default not in ("", ())):
        return
    try:
        values[row.name] = parse(row, text.strip(), base)
    except ValueError as why:
        shown = "" if row.secret else f"={text if text.isprintable() else repr(text)}"
        raise SettingsError(f"{name}{shown}: {why}") from None


def _read_env_file(path: Path | None) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as why:
        raise SettingsError(f"{path.name} cannot be read: {why}") from why
    return {name: text for name, text in found.items() if text is not None}


def _refuse_unknown(table: tuple[Setting, ...], texts: Mapping[str, str], source: str) -> None:
    known = {name for row in table for name in row.env_names}
    for name in texts:
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name}: unknown setting ({source}){suggest(name, known)}")


def check_together(s: Settings) -> None:
    """Raise SettingsError where settings that are each right contradict one another."""
    if not (_is_loopback(s.host) or s.asks_for_keys or s.insecure):
        raise SettingsError(
            f"host={s.host} is reachable from other machines and no API key is set: "
            f"set {PREFIX}API_KEY_INGEST, _READ or _ADMIN, or make keys (python -m app keys) and set "
            f"{PREFIX}REQUIRE_API_KEYS, or allow it with --insecure"
        )
    # A page anywhere on the web would read, through the browser of whoever opens it, what loopback keeps from others.
    if "*" in s.cors_origins and not (s.asks_for_keys or s.insecure):
        raise SettingsError(
            "cors_origins=* lets every web page that somebody opens here read all data, and no API key is set: "
            f"name the origins, set {PREFIX}API_KEY_READ, or allow it with --insecure"
        )
    planned = s.workers * s.db_pool_size + SPARE_CONNECTIONS
    if not s.database_url and planned > s.pg_max_connections:
        raise SettingsError(
            f"{s.workers} workers x db_pool_size {s.db_pool_size} + {SPARE_CONNECTIONS} spare do not fit "
            f"pg_max_connections={s.pg_max_connections}: raise it with --pg-max-connections {planned}"
        )
    if bool(s.ssl_keyfile) != bool(s.ssl_certfile):
        raise SettingsError("ssl_keyfile and ssl_certfile belong together: give both or none")
    for name, path in (("ssl_keyfile", s.ssl_keyfile), ("ssl_certfile", s.ssl_certfile)):
        if path and not os.access(path, os.R_OK):
            raise SettingsError(f"{name}={path}: there is no such file, or it cannot be read")
    # A zipped body counts zipped and unzipped, each twice: for its bytes and for the columns made of them.
    if 4 * s.max_body_mb * MIB > s.inflight_max_bytes:
        raise SettingsError(
            f"4 x max_body_mb={s.max_body_mb} does not fit inflight_max_bytes={s.inflight_max_bytes}"
        )
    if s.oldest_time.year < FIRST_YEAR:
        raise SettingsError(f"oldest_time={s.oldest_time} is before {FIRST_YEAR}: ticks are ordered by time since then")
    if s.keep_days_bars and not 0 < s.keep_days_ticks <= s.keep_days_bars:
        raise SettingsError(
            f"keep_days_bars={s.keep_days_bars} and keep_days_ticks={s.keep_days_ticks}: a tick that came for a bar"
            " that is gone would make a wrong one, so keep ticks no longer than bars"
        )
    if s.journal_segment_bytes > s.journal_max_bytes:
        raise SettingsError(
            f"journal_segment_bytes={s.journal_segment_bytes} does not fit "
            f"journal_max_bytes={s.journal_max_bytes}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
