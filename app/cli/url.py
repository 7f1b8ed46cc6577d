"""`python -m app url`: the URL of the database, for psql, pandas or DuckDB."""

from __future__ import annotations

import argparse

from app.errors import SettingsError
from app.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take which of the two URLs is meant."""
    parser.add_argument(
        "--read-only",
        action="store_true",
        help="the URL of the role that only reads, on 127.0.0.1 and the port of --pg-port. Its password is part of it:"
        " whoever sees the line can read everything",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the URL as the last line of stdout; the server need not be running.

    Raises SettingsError, EmbeddedError, DatabaseAway when --read-only has nothing to name.
    """
    print(_read_only_url(settings) if args.read_only else database_url(settings))
    return 0


def database_url(settings: Settings) -> str:
    """Return the configured URL, or that of the embedded server under the data directory."""
    if settings.database_url:
        return settings.database_url
    from app.storage.embedded import EmbeddedConfig, url  # a configured database needs none of it

    return url(EmbeddedConfig(data_dir=settings.data_dir))


def owner_url(settings: Settings) -> str:
    """Return the URL of the database's owner, for what the server's role may not do, where the settings name one."""
    return settings.direct_database_url or database_url(settings)


def _read_only_url(settings: Settings) -> str:
    from app.runtime_config import embedded_config
    from app.storage.embedded_reader import read_only_url

    if settings.database_url:
        raise SettingsError(
            "--read-only is for the embedded server; docs/sql.md says how to let people into a database of your own"
        )
    return read_only_url(embedded_config(settings))
