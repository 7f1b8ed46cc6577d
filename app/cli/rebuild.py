"""`python -m app rebuild bars|current`: compute them again from the stored ticks, beside a running server."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from app.cli import add_setting_flags, database
from app.cli.url import owner_url
from app.settings import BY_NAME, Settings
from app.storage import rebuild
from app.storage.connection import Connection
from app.storage.import_job import UnknownSymbol, find_instruments
from app.storage.instruments import Known

_STATEMENT_TIMEOUT_S = 3600.0
"""Without an index the newest trade of a symbol that has none is found by reading all its ticks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to compute, and of which symbol."""
    parser.add_argument("what", choices=("bars", "current"), help="the table to compute again")
    parser.add_argument("--symbol", help="only of this instrument (name or alias; default: all)")
    add_setting_flags(parser, [BY_NAME["direct_database_url"]])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Compute them again; it can be cut off and begun again at any moment.

    Starts the embedded database when it is down, and leaves it running. Raises UnknownSymbol, DatabaseAway.
    """
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: owner_url(settings), settings.db_connect_timeout_s, _STATEMENT_TIMEOUT_S, "rebuild"
    )
    try:
        instruments = _instruments(connection, args.symbol)
        _bars(connection, instruments) if args.what == "bars" else _current(connection, instruments)
        if not args.symbol:
            rebuild.delete_what_has_no_instrument(connection, args.what)
    finally:
        connection.close()
    return 0


def _instruments(connection: Connection, symbol: str | None) -> list[Known]:
    if not symbol:
        return rebuild.all_instruments(connection)
    try:
        return find_instruments(connection, [symbol], add=False)
    except UnknownSymbol as error:
        raise UnknownSymbol(f"unknown symbol: {symbol}") from error  # without the importer's advice to add it


def _bars(connection: Connection, instruments: list[Known]) -> None:
    ticks = days = 0
    expected = sum(rebuild.count_days(connection, instrument) for instrument in instruments)
    with tqdm(total=expected, unit="day", disable=None, file=sys.stderr) as progress:
        for instrument in instruments:
            progress.set_description(instrument.symbol)
            for rows in rebuild.rebuild_bars(connection, instrument):
                ticks += rows
                days += 1
                progress.update()
    print(f"bars of {len(instruments)} symbols computed from {ticks:,} ticks of {days:,} days")


def _current(connection: Connection, instruments: list[Known]) -> None:
    for instrument in tqdm(instruments, unit="symbol", disable=None, file=sys.stderr):
        rebuild.rebuild_current(connection, instrument)
    print(f"current computed for {len(instruments)} symbols")
