"""`python -m app database up|down|status`: start, stop or look at the embedded database."""

from __future__ import annotations

import argparse
import sys

from app.cli import add_setting_flags
from app.runtime_config import embedded_config
from app.settings import BY_NAME, Settings
from app.storage import embedded

_SETTINGS = ("direct_database_url", "pg_port", "pg_memory_mb", "pg_cpus", "pg_max_connections")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, and the settings of the embedded server."""
    parser.add_argument(
        "action",
        choices=("up", "down", "status"),
        help="up: start or adopt it and migrate; down: stop it, whoever started it; status: does it run",
    )
    add_setting_flags(parser, [BY_NAME[name] for name in _SETTINGS])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it, telling on stderr what was done; return 0 when the database is as asked for, else 1.

    All three are idempotent. With a database URL set, `up` only migrates and the others only say so.
    Raises EmbeddedError, DatabaseAway, StorageError.
    """
    action = {"up": _up, "down": _down, "status": _status}[args.action]
    return action(settings)


def _up(settings: Settings) -> int:
    # Imported here: stopping a server needs none of it.
    from app.storage.embedded_writer import admit
    from app.storage.schema import migrate
    from app.storage.statement_books import keep_statements

    url = settings.direct_database_url or settings.database_url
    if not settings.database_url:
        config = embedded_config(settings)
        _say(*embedded.start(config))
        url = embedded.url(config)
    _say(*migrate(url))
    if not settings.database_url:
        _say(*keep_statements(url))
        admit(url)
    if settings.pg_port:
        _admit_readers(settings)
    return 0


def _admit_readers(settings: Settings) -> None:
    from app.storage.embedded_reader import admit

    if settings.database_url:
        _say("--pg-port is for the embedded server, and --database-url names another: ignored")
        return
    config = embedded_config(settings)
    admit(config)
    if embedded.tcp_port(config) == settings.pg_port:
        _say(f"SQL for reading on 127.0.0.1:{settings.pg_port}; its URL: python -m app url --read-only")


def _down(settings: Settings) -> int:
    if settings.database_url:
        _say("the database is not ours: nothing to stop")
        return 0
    down = embedded.stop(embedded_config(settings))
    _say("PostgreSQL is down" if down else "PostgreSQL is still shutting down")
    return 0 if down else 1


def _status(settings: Settings) -> int:
    if settings.database_url:
        _say("the database is not ours: no embedded server is used")
        return 0
    running = embedded.is_running(embedded_config(settings))
    _say("PostgreSQL is running" if running else "PostgreSQL is down")
    return 0 if running else 1


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)
