"""`python -m app psql`: the embedded server's own psql, on the database of this server."""

from __future__ import annotations

import argparse
import os

from psycopg2.extensions import make_dsn, parse_dsn

from app.cli.url import database_url
from app.settings import Settings
from app.storage.embedded_place import installed_binaries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take psql's own arguments after `--`."""
    parser.add_argument(
        "--read-only", action="store_true", help="begin every transaction read-only, so that nothing changes by mistake"
    )
    parser.add_argument("psql", nargs="*", help="arguments for psql, after --: -- -c 'SELECT 1'")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Replace this process by psql. Raises EmbeddedError when the package is not there."""
    dsn = parse_dsn(database_url(settings))
    # A password on the command line would show in `ps`.
    if "password" in dsn:
        os.environ["PGPASSWORD"] = dsn.pop("password")
    if args.read_only:
        # Not in the environment alone: options of the URL would win.
        before = dsn.get("options") or os.environ.get("PGOPTIONS", "")
        dsn["options"] = f"{before} -c default_transaction_read_only=on".strip()
    binary = str(installed_binaries() / "psql")
    os.execv(binary, [binary, "-d", make_dsn(**dsn), *args.psql])  # noqa: S606 - no shell is wanted
