"""`python -m app url`: the URL of the database, for psql, pandas or DuckDB."""

from __future__ import annotations

import argparse

from app.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing beside the common flags."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the URL as the last line of stdout; the server need not be running."""
    print(database_url(settings))
    return 0


def database_url(settings: Settings) -> str:
    """Return the configured URL, or that of the embedded server under the data directory."""
    if settings.database_url:
        return settings.database_url
    from app.storage.embedded import EmbeddedConfig, url  # a configured database needs none of it

    return url(EmbeddedConfig(data_dir=settings.data_dir))
