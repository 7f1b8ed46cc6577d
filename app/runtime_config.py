"""Which database the settings mean; light, for whoever needs no Runtime."""

from __future__ import annotations

from app.settings import Settings
from app.storage import embedded


def database_url(settings: Settings) -> str:
    """Return the libpq URL of the database that the server uses."""
    return settings.database_url or embedded.url(embedded_config(settings))


def embedded_config(settings: Settings) -> embedded.EmbeddedConfig:
    """Return how the embedded server is to run."""
    return embedded.EmbeddedConfig(
        data_dir=settings.data_dir,
        memory_mb=settings.pg_memory_mb,
        cpus=settings.pg_cpus,
        max_connections=settings.pg_max_connections,
        tcp_port=settings.pg_port,
    )
