"""Every setting of the server, once: name, default, unit, help, and where its value may come from.

`python -m app.settings` prints them as a table; `setting_sources` reads and checks them. Light on purpose: gunicorn's
configuration imports this before gevent has patched the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from app.setting_sources import check_together, cores, markdown_rows, read_values
from app.setting_values import GIB, KIB, MIB, Setting, text_of

ROOT = Path(__file__).resolve().parent.parent
"""The repository root: beside wsgi.py lives .env, and relative paths of the environment start here."""

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

T = TypeVar("T")


def _setting(
    default: T,
    help: str,
    *,
    kind: str = "",
    unit: str = "",
    env: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> T:
    row: dict[str, Any] = {
        "help": help,
        "kind": kind or type(default).__name__,
        "unit": unit,
        "env": env,
        "flags": flags,
    }
    row |= {"choices": choices, "minimum": minimum, "maximum": maximum, "secret": secret}
    return field(default=default, repr=not secret, metadata=row)


def _keep_days(what: str) -> int:
    return _setting(0, f"how long to keep {what}; 0 = for ever", unit="days", minimum=0, maximum=36_500)


_KEYS_HELP = "API keys that may {}: comma separated, at least 16 characters each"


@dataclass(frozen=True)
class Settings:
    """The settings of one server. `load` makes and checks them; repr and str leave secrets out."""

    host: str = _setting("127.0.0.1", "address to listen on; beyond loopback it needs API keys", kind="host")
    port: int = _setting(5000, "TCP port to listen on", minimum=0, maximum=65535)
    workers: int = _setting(2, "worker processes; 0 = one a core", minimum=0, maximum=256)
    data_dir: Path = _setting(  # noqa: RUF009 - an immutable value
        ROOT / "data", "directory of the journal and the embedded database", kind="path"
    )
    database_url: str = _setting(
        "",
        "postgresql:// URL of the database; empty = the embedded server",
        kind="database",
        flags=("database-url", "db-file"),
        secret=True,
    )
    direct_database_url: str = _setting(
        "", "the database without a transaction pooler, for migrations", kind="database", secret=True
    )
    redis_url: str = _setting(
        "", "redis:// URL for cache and fan-out; empty = none", kind="redis", env=("REDIS_URL",), secret=True
    )
    cache_ttl_s: float = _setting(60.0, "how long Redis keeps an answer", unit="s", minimum=0.1, maximum=86_400)
    log_level: str = _setting(
        "info", "least level that is logged", choices=("debug", "info", "warning", "error", "critical")
    )
    log_format: str = _setting("text", "form of the log: lines for people or JSON", choices=("text", "json"))
    log_file: str = _setting("", "file of the log; empty = stderr", kind="file")
    heartbeat_interval_s: float = _setting(
        30.0, "time between WebSocket heartbeats", unit="s", flags=("heartbeat-interval",), minimum=0.1
    )
    stale_data_timeout_s: float = _setting(
        60.0, "age at which a quote counts as stale", unit="s", flags=("stale-data-timeout",), minimum=0.1
    )
    upstream_url: str = _setting(
        "", "another tickhub, asked where a quote here is stale: http://10.0.0.5:5000; empty = none", kind="upstream"
    )
    upstream_api_key: str = _setting("", "API key of the upstream that may read", kind="secret", secret=True)
    upstream_timeout_s: float = _setting(
        1.0, "longest wait of a request for the upstream", unit="s", minimum=0.05, maximum=60
    )
    max_body_mb: int = _setting(10, "largest request body, also after decompression", unit="MiB", minimum=1)
    access_log: bool = _setting(False, "log every request to stdout", flags=("enable-access-log",))
    ssl_keyfile: str = _setting("", "private key for HTTPS; needs ssl_certfile", kind="file")
    ssl_certfile: str = _setting("", "certificate for HTTPS; needs ssl_keyfile", kind="file")
    cors_origins: tuple[str, ...] = _setting(
        (), "web pages that may read, by origin: https://desk.example, comma separated; * = all", kind="origins"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "names, beside its own address and localhost, that a server without API keys may be asked by: desk.example,"
        " comma separated; * = all",
        kind="hosts",
    )
    dev: bool = _setting(False, "restart workers when the code changes")
    demo: bool = _setting(False, "feed a simulated market")
    insecure: bool = _setting(False, "allow an address beyond loopback, or every web page, without API keys")
    pg_port: int = _setting(
        0, "loopback TCP port of the embedded server, for the read-only role; 0 = none", minimum=0, maximum=65535
    )
    pg_memory_mb: int = _setting(
        0,
        "memory for the embedded server (512, 512MB, 2GB); 0 = by the machine",
        kind="memory",
        unit="MiB",
        flags=("pg-memory",),
        minimum=0,
    )
    pg_cpus: int = _setting(0, "cores for the embedded server; 0 = all", minimum=0)
    pg_max_connections: int = _setting(
        60, "connections the embedded server allows", minimum=20, maximum=10_000
    )
    flush_rows: int = _setting(100, "rows that start a flush", unit="rows", minimum=1)
    flush_interval_s: float = _setting(
        1.0, "longest wait before a flush", unit="s", minimum=0.001, maximum=60
    )
    flush_max_rows: int = _setting(50_000, "most rows in one transaction", unit="rows", minimum=1)
    inflight_max_bytes: int = _setting(
        256 * MIB, "request bodies in flight, a worker", kind="size", unit="bytes", minimum=MIB
    )
    buffer_max_bytes: int = _setting(
        64 * MIB,
        "ticks held in memory for the next flush, a worker",
        kind="size",
        unit="bytes",
        minimum=MIB,
    )
    journal_max_bytes: int = _setting(
        4 * GIB, "size of the whole journal directory", kind="size", unit="bytes", minimum=MIB
    )
    journal_segment_bytes: int = _setting(
        32 * MIB, "size at which a journal segment is sealed", kind="size", unit="bytes", minimum=64 * KIB
    )
    journal_keep_s: float = _setting(
        3600.0, "how long segments stay after the commit of their rows", unit="s", minimum=0
    )
    spool_max_bytes: int = _setting(
        GIB,
        "Parquet answers kept as files for clients that read them in pieces; 0 = none",
        kind="size",
        unit="bytes",
        minimum=0,
    )
    db_pool_size: int = _setting(
        10,
        "most database connections of one worker",
        flags=("db-pool-size",),
        minimum=6,  # flushing, reference, desk, and one for each kind of read: they never wait for each other
        maximum=1000,
    )
    db_connect_timeout_s: int = _setting(5, "longest wait for a database connection", unit="s", minimum=1)
    db_statement_timeout_s: int = _setting(30, "longest run of one statement", unit="s", minimum=1)
    quote_timeout_s: float = _setting(2.0, "longest query of a quote", unit="s", minimum=0.1)
    page_timeout_s: float = _setting(
        10.0, "longest query of a page of ticks, bars or symbols", unit="s", minimum=0.1
    )
    slow_query_s: float = _setting(
        5.0, "queries that take longer are logged; 0 = none", unit="s", minimum=0, maximum=86_400
    )
    export_timeout_s: float = _setting(30.0, "longest query of an export, for each page of it", unit="s", minimum=0.1)
    lane_wait_s: float = _setting(
        5.0, "longest wait of a request while other queries of its kind use all connections", unit="s", minimum=0
    )
    tick_timezone: str = _setting(
        "UTC", "clock of naive tick times: an IANA zone and a shift, as America/New_York+7h", kind="clock"
    )
    unknown_symbols: str = _setting(
        "reject", "what a tick of an unknown symbol meets", choices=("reject", "register")
    )
    max_future_skew_s: int = _setting(86_400, "how far ahead of now a tick may be", unit="s", minimum=0)
    oldest_time: date = _setting(date(1990, 1, 1), "ticks before this day are refused")  # noqa: RUF009 - the same
    option_rate: float = _setting(
        0.04,
        "risk-free rate for volatilities and greeks of options, a year, continuously compounded; 0.04 = 4 %",
        minimum=-1,
        maximum=10,
    )
    option_dividend_yield: float = _setting(
        0.0,
        "dividend yield of underlyings for the same, a year, continuously compounded; 0.01 = 1 %",
        minimum=-1,
        maximum=10,
    )
    shutdown_grace_s: int = _setting(
        30, "time to drain before workers are killed", unit="s", minimum=1, maximum=3600
    )
    worker_connections: int = _setting(1000, "most HTTP connections of one worker", minimum=10)
    ws_max_connections: int = _setting(
        1000, "most WebSocket connections of one worker, beside worker_connections", minimum=0
    )
    ws_deflate: bool = _setting(
        False, "compress what WebSockets send to clients that ask for it; costs much CPU and memory for each"
    )
    symbols_refresh_s: float = _setting(30.0, "time between looks at the symbol map", unit="s", minimum=0.1)
    metrics_interval_s: float = _setting(
        5.0,
        "time between samples of market_data and system_metrics; 0 = none",
        unit="s",
        flags=("metrics-interval",),
        minimum=0,
        maximum=3600,
    )
    alert_webhook_url: str = _setting(
        "", "URL that alerts are posted to, as JSON; empty = none", kind="webhook", secret=True
    )
    backup_dir: str = _setting("", "directory of the backups; empty = `backups` in data_dir", kind="file")
    backup_wal: bool = _setting(True, "with backup_dir set, receive WAL and copy journals there all the time")
    backup_database_url: str = _setting(
        "", "the database as a role with REPLICATION, for backups", kind="database", secret=True
    )
    backup_retention_days: int = _setting(30, "how long backups are kept; 0 = for ever", unit="days", minimum=0)
    backup_keep: int = _setting(0, "full backups that are kept however old they are", minimum=0)
    backup_full_day: str = _setting("sunday", "day of the full backup; incremental ones on the others", choices=DAYS)
    hot_days: int = _setting(
        0, "age at which ticks move into the archive, a week at a time; 0 = never", unit="days", minimum=0
    )
    archive_dir: str = _setting("", "directory of the archive of ticks; empty = `archive` in data_dir", kind="file")
    backup_schedule: bool = _setting(False, "take a backup every day at backup_at, and verify it")
    backup_at: str = _setting("02:00", "time of the daily backup (UTC)", kind="time")
    keep_days_ticks: int = _keep_days("ticks, by the week")
    keep_days_bars: int = _keep_days("bars; not less than ticks")
    keep_days_metrics: int = _keep_days("metrics and their rollups, by the month")
    keep_days_options: int = _keep_days("option quotes, by the month")
    keep_days_alerts: int = _keep_days("alerts that were told")
    keep_days_rejected: int = _keep_days("rejected ticks and records")
    keep_days_audit: int = _keep_days("rows of audit_log")
    retention_at: str = _setting("03:00", "time of the daily look at what is too old (UTC)", kind="time")
    maintain_schedule: bool = _setting(False, "run `maintain` every day at maintain_at")
    maintain_at: str = _setting("04:00", "time of the daily `maintain` (UTC)", kind="time")
    api_key_ingest: tuple[str, ...] = _setting((), _KEYS_HELP.format("send data"), kind="keys", secret=True)
    api_key_read: tuple[str, ...] = _setting((), _KEYS_HELP.format("read"), kind="keys", secret=True)
    api_key_admin: tuple[str, ...] = _setting((), _KEYS_HELP.format("do all"), kind="keys", secret=True)
    require_api_keys: bool = _setting(
        False, "ask for API keys also where none is in the settings: they are made by `python -m app keys`"
    )
    rate_limit_ingest: float = _setting(
        0.0, "most requests that send data, an API key; 0 = no limit", unit="1/s", minimum=0, maximum=1_000_000
    )
    rate_limit_read: float = _setting(
        500.0, "most other requests, an API key; 0 = no limit", unit="1/s", minimum=0, maximum=1_000_000
    )

    fastconnect_url: str = _setting(
        "https://fc-data.ssi.com.vn", "where `import-ohlc` finds SSI FastConnect Data", kind="vendor"
    )
    fastconnect_consumer_id: str = _setting("", "ConsumerID of FastConnect's key", kind="secret", secret=True)
    fastconnect_consumer_secret: str = _setting("", "ConsumerSecret of FastConnect's key", kind="secret", secret=True)
    fastconnect_requests_per_s: float = _setting(
        1.0, "most questions to FastConnect in a second", unit="1/s", minimum=0.01, maximum=100
    )

    @property
    def has_api_keys(self) -> bool:
        """Tell whether any API key is configured."""
        return bool(self.api_key_ingest or self.api_key_read or self.api_key_admin)

    @property
    def asks_for_keys(self) -> bool:
        """Tell whether these settings alone keep out whoever has no API key."""
        return self.has_api_keys or self.require_api_keys

    @property
    def keep_days(self) -> dict[str, int]:
        """Return how many days each retention class is kept; 0: for ever."""
        prefix = "keep_days_"
        return {f.name.removeprefix(prefix): getattr(self, f.name) for f in fields(self) if f.name.startswith(prefix)}

    @property
    def bind(self) -> str:
        """Return host:port as gunicorn takes it, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def listen_url(self) -> str:
        """Return the URL at which a program on this machine reaches the server."""
        scheme = "https" if self.ssl_certfile else "http"
        local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - recognised here, not bound
        host = local.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"{scheme}://{host}:{self.port}"

    def to_environ(self) -> dict[str, str]:
        """Return the TICKHUB_* variables from which `load` makes these settings again, secrets included."""
        return {row.env_names[0]: text_of(getattr(self, row.name)) for row in TABLE}


TABLE: tuple[Setting, ...] = tuple(Setting(f.name, f.default, **f.metadata) for f in fields(Settings))
"""All settings, in the order in which people read them."""

BY_NAME: dict[str, Setting] = {row.name: row for row in TABLE}


def load(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    env_file: Path | None = ROOT / ".env",
) -> Settings:
    """Read the settings: flags before the environment before the .env file before the defaults.

    environ: default os.environ. flags: texts by setting name. env_file: None reads none; it may be missing.
    Relative paths start at the current directory in flags, at the repository root elsewhere; workers = 0
    becomes the number of cores. Raises SettingsError, one line, for anything unknown, invalid, contradictory.
    """
    values = read_values(TABLE, os.environ if environ is None else environ, flags or {}, env_file, ROOT)
    settings = Settings(**values)
    if settings.workers == 0:
        settings = Settings(**values | {"workers": cores()})
    check_together(settings)
    return settings


def markdown_table() -> str:
    """Return the settings as a Markdown table, as README.md shows it."""
    return "\n".join(markdown_rows(TABLE)) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown_table())
