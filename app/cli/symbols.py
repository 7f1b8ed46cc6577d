"""`python -m app symbols list|add|alias|import`: the instruments, beside a running server."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from app.cli import COMMON, add_setting_flags, database
from app.cli.symbol_files import read_rows
from app.cli.url import database_url
from app.errors import RequestError
from app.settings import BY_NAME, Settings
from app.storage.connection import Connection
from app.storage.symbols_store import (
    NewSymbol,
    SymbolRow,
    add_alias,
    add_symbol,
    change_symbol,
    find_symbol,
    list_symbols,
)

_STATEMENT_TIMEOUT_S = 60.0
_COLUMNS = SymbolRow.__struct_fields__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, and with which instrument or file."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="show all instruments")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="as JSON")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="as CSV, which `import` takes")
    add = actions.add_parser("add", help="add an instrument")
    add.add_argument("symbol", metavar="NAME", help="its name")
    add.add_argument("--alias", action="append", default=[], help="another name for it; may be given again")
    add.add_argument("--name", help="name for people")
    add.add_argument("--exchange", help="where it is traded: a MIC or a usual name, as XNYS or NASDAQ")
    add.add_argument("--currency", help="currency of its prices (ISO 4217)")
    add.add_argument("--timezone", help="time zone of its exchange (IANA name, as America/New_York)")
    add.add_argument("--digits", type=int, help="decimals of a price: one point is 10^-digits")
    add.add_argument("--sector", help="sector of the economy, as Technology")
    add.add_argument("--industry", help="industry within the sector")
    add.add_argument("--market-cap", type=float, help="market capitalisation, in its currency")
    add.add_argument("--allow-nonpositive", action="store_true", help="its prices may be zero or less")
    alias = actions.add_parser("alias", help="give an instrument one more name")
    alias.add_argument("symbol", metavar="SYMBOL", help="the instrument, by any of its names")
    alias.add_argument("alias", metavar="ALIAS", help="the new name")
    load = actions.add_parser("import", help="add the instruments of a CSV file")
    load.add_argument(
        "file",
        type=Path,
        metavar="FILE.csv",
        help="with a header: symbol, and any of aliases (separated by ; or |), name, exchange, currency, timezone, "
        "digits, allow_nonpositive, sector, industry, market_cap; - reads standard input",
    )
    load.add_argument("--update", action="store_true", help="change those that are there: empty cells change nothing")
    for action in (listing, add, alias, load):  # so that they may stand behind the action too
        add_setting_flags(action, [BY_NAME[common] for common in COMMON])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; a running server knows new names when they are first used.

    Starts the embedded database when it is down, and leaves it running. Returns 1 when a row of a file was refused.
    Raises BadField, Conflict, UnknownSymbol, DatabaseAway, UnreadableFile.
    """
    # Before the database is started: a file that cannot be read needs none.
    rows = read_rows(args.file) if args.action == "import" else []
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: database_url(settings), settings.db_connect_timeout_s, _STATEMENT_TIMEOUT_S, "symbols"
    )
    try:
        if args.action == "import":
            return _import(connection, rows, update=args.update)
        with connection.transaction() as cur:
            if args.action == "list":
                found = list_symbols(cur)
            elif args.action == "add":
                found = [add_symbol(cur, _from_arguments(args))]
            else:
                found = [add_alias(cur, args.symbol, args.alias)]
    finally:
        connection.close()
    if args.action == "list":
        _show(found, args.form)
    else:
        print(f"{found[0].symbol}{_also(found[0])}")
    return 0


def _from_arguments(args: argparse.Namespace) -> NewSymbol:
    return NewSymbol(
        symbol=args.symbol,
        aliases=args.alias,
        name=args.name,
        exchange=args.exchange,
        currency=args.currency,
        timezone=args.timezone,
        digits=args.digits,
        allow_nonpositive=args.allow_nonpositive,
        sector=args.sector,
        industry=args.industry,
        market_cap=args.market_cap,
    )


def _import(connection: Connection, rows: Sequence[tuple[int, NewSymbol | str]], *, update: bool) -> int:
    """Take the rows one by one, each in a transaction of its own, and tell what became of each."""
    counts = {"added": 0, "changed": 0, "there": 0, "refused": 0}
    for line, new in rows:
        try:
            if isinstance(new, str):
                outcome, said = "refused", new
            else:
                outcome, said = _take(connection, new, update=update)
        except RequestError as error:
            outcome, said = "refused", str(error)
        counts[outcome] += 1
        print(f"line {line}: {outcome}: {said}", file=sys.stderr if outcome == "refused" else sys.stdout)
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    return 1 if counts["refused"] else 0


def _take(connection: Connection, new: NewSymbol, *, update: bool) -> tuple[str, str]:
    """Add the instrument, or change it if it is there; return what was done and to which."""
    with connection.transaction() as cur:
        known = find_symbol(cur, new.symbol)
        if known is None:
            added = add_symbol(cur, new)
            return "added", f"{added.symbol}{_also(added)}"
        if not update:
            return "there", known.symbol
        changed = change_symbol(cur, new)
        return ("changed" if changed != known else "there"), f"{changed.symbol}{_also(changed)}"


def _also(row: SymbolRow) -> str:
    return f" (also {', '.join(row.aliases)})" if row.aliases else ""


def _show(rows: Sequence[SymbolRow], form: str | None) -> None:
    if form == "json":
        print(msgspec.json.format(msgspec.json.encode({"symbols": rows})).decode())
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_cells(row, separator=";") for row in rows)
    else:
        _show_table([_COLUMNS, *(_cells(row, separator=" ") for row in rows)])


def _cells(row: SymbolRow, *, separator: str) -> list[str]:
    values = {**msgspec.structs.asdict(row), "aliases": separator.join(row.aliases)}
    values["allow_nonpositive"] = "yes" if row.allow_nonpositive else "no"
    return ["" if values[name] is None else str(values[name]) for name in _COLUMNS]


def _show_table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
