"""Which database and directories the settings mean; light, for whoever needs no Runtime."""

from __future__ import annotations

from pathlib import Path

from app.settings import Settings
from app.storage import embedded
from app.storage.connection import Connection
from app.storage.role_names import WRITE


def database_url(settings: Settings) -> str:
    """Return the libpq URL of the database that the server uses; of the embedded one as its owner."""
    return settings.database_url or embedded.url(embedded_config(settings))


def server_url(settings: Settings) -> str:
    """Return the URL by which the server comes in; into the embedded one as the role that writes."""
    return settings.database_url or embedded.url(embedded_config(settings), WRITE)


def connection(settings: Settings, statement_timeout_s: float, name: str) -> Connection:
    """Return a connection, not opened, to that database and to the archive of ticks."""
    return Connection(
        lambda: server_url(settings),
        settings.db_connect_timeout_s,
        statement_timeout_s,
        name,
        archive_dir(settings),
    )


def archive_dir(settings: Settings) -> Path:
    """Return where the archive of ticks is."""
    return Path(settings.archive_dir) if settings.archive_dir else settings.data_dir / "archive"


def embedded_config(settings: Settings) -> embedded.EmbeddedConfig:
    """Return how the embedded server is to run."""
    return embedded.EmbeddedConfig(
        data_dir=settings.data_dir,
        memory_mb=settings.pg_memory_mb,
        cpus=settings.pg_cpus,
        max_connections=settings.pg_max_connections,
        tcp_port=settings.pg_port,
        slow_query_s=settings.slow_query_s,
    )
