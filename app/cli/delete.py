"""`python -m app delete SYMBOL --start T --end T`: remove ticks, beside a running server."""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
from datetime import UTC, datetime, timedelta

from app.cli import add_setting_flags, database
from app.cli.url import owner_url
from app.errors import BadParameter
from app.market.time_params import parse_time
from app.settings import BY_NAME, Settings
from app.storage import deleting
from app.storage.connection import Connection
from app.storage.import_job import UnknownSymbol, find_instruments
from app.storage.instruments import Known

_STATEMENT_TIMEOUT_S = 3600.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take whose ticks, and which."""
    parser.add_argument("symbol", help="the instrument (name or alias)")
    parser.add_argument("--start", required=True, help="the first time: 2026-01-13T17:54:43Z, or a day (UTC)")
    parser.add_argument("--end", required=True, help="the time behind the last one")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be deleted")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_setting_flags(parser, [BY_NAME["direct_database_url"]])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Delete them, or only count them; return 0, or 1 when the question was not answered with yes.

    Raises BadParameter, UnknownSymbol, Conflict, DatabaseAway.
    """
    start_us, end_us = _time("--start", args.start), _time("--end", args.end)
    if start_us >= end_us:
        raise BadParameter("--end must be later than --start")
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: owner_url(settings), settings.db_connect_timeout_s, _STATEMENT_TIMEOUT_S, "delete"
    )
    try:
        instrument = _find(connection, args.symbol)
        what = f"{instrument.symbol}, {_shown(start_us)} to {_shown(end_us)}"
        if args.dry_run or not args.yes:
            found = deleting.count(connection, instrument, start_us, end_us)
            print(f"{what}: {_told(found)}")
            if args.dry_run or not _agreed():
                print("nothing was deleted")
                return 0 if args.dry_run else 1
        found = deleting.delete(connection, instrument, start_us, end_us, actor())
    finally:
        connection.close()
    print(f"deleted of {what}: {_told(found)}")
    return 0


def actor() -> str:
    """Return who runs this, as the audit log has it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"  # a container's user may have no name
    return f"{user}@{socket.gethostname()}"


def _time(flag: str, text: str) -> int:
    try:
        return parse_time(text)
    except BadParameter as why:
        raise BadParameter(f"{flag}: {why}") from why


def _find(connection: Connection, symbol: str) -> Known:
    try:
        return find_instruments(connection, [symbol], add=False)[0]
    except UnknownSymbol as error:
        raise UnknownSymbol(f"unknown symbol: {symbol}") from error  # without the importer's advice to add it


def _agreed() -> bool:
    print("delete them for good? [yes/no] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _told(found: deleting.Deletion) -> str:
    current = ", and the newest prices" if found.current else ""
    return f"{found.ticks:,} ticks, {found.bars:,} bars that have them{current}"


def _shown(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).isoformat(sep=" ")
