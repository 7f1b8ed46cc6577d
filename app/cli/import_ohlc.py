"""`python -m app import-ohlc`: daily bars from files or from SSI FastConnect into price_history, each once."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from tqdm import tqdm

from app.cli import add_setting_flags, database
from app.cli.fastconnect import Access, FastConnect
from app.cli.ohlc_sources import FileBars, Tally, Target, VendorDays
from app.cli.symbol_lists import SHIPPED, read_list
from app.cli.url import database_url
from app.errors import TickhubError
from app.market.daily_bars import DAY_ORDERS, FIRST_DAY
from app.settings import BY_NAME, Settings
from app.storage.connection import Connection

STATEMENT_TIMEOUT_S = 600.0
VENDOR = "ssi_fastconnect"
VENDOR_ZONE = ZoneInfo("Asia/Ho_Chi_Minh")

DAY_IS_DONE_AT_HOUR = 18
"""In the exchange's time. It closes at 15:00; until the vendor has settled a day, its bar is not asked for: the ledger
would take it for final."""

LATE_DAYS = 7
"""A day that the vendor does not have so soon after it may still come; with a holiday it is asked for in vain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="CSV (also .gz, .zip) or Parquet")
    parser.add_argument("--symbol", help="instrument of the bars (name or alias), where a file does not say")
    parser.add_argument(
        "--day-order", choices=DAY_ORDERS, default="dmy", help="how a file's 04/05/2020 is read (default: dmy, 4 May)"
    )
    parser.add_argument("--source", default="import", help="name of the bars' maker, for files (default: import)")
    parser.add_argument("--fastconnect", action="store_true", help="ask SSI FastConnect instead of reading files")
    parser.add_argument("--symbols", metavar="A,B", help="what to ask for; of files: all else is left out")
    parser.add_argument(
        "--symbols-file", metavar="LIST", help=f"the same from a file, or a list that is shipped: {', '.join(SHIPPED)}"
    )
    parser.add_argument("--from", dest="first", type=_day, metavar="DAY", help="first day to ask for, YYYY-MM-DD")
    parser.add_argument(
        "--to", dest="last", type=_day, metavar="DAY", help="last day (default: the last one that is over)"
    )
    parser.add_argument("--again", action="store_true", help="import once more what the ledger has as done")
    parser.add_argument("--add-symbol", action="store_true", help="add symbols that are not known yet")
    parser.add_argument(
        "--reject-dir", type=Path, default=Path(), metavar="DIR", help="where NAME.rejects goes (default: here)"
    )
    add_setting_flags(parser, [BY_NAME[name] for name in ("fastconnect_url", "fastconnect_requests_per_s")])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Import; return 1 when a file or a symbol failed, the others are imported all the same.

    Starts the embedded database when it is down, and leaves it running. Raises TickhubError.
    """
    wanted = _wanted(args)
    _check(args, wanted)
    # Before the database is started: what is asked wrongly needs none.
    vendor = _vendor(settings) if args.fastconnect else None
    last = args.last or last_day_over(datetime.now(UTC))
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: database_url(settings), settings.db_connect_timeout_s, STATEMENT_TIMEOUT_S, "import"
    )
    target = Target(connection, args.add_symbol, args.again)
    try:
        if vendor is None:
            return _files(args, target, wanted)
        return _days(args, target, vendor, f"{VENDOR} {settings.fastconnect_url}", wanted, last)
    finally:
        connection.close()


def last_day_over(now: datetime) -> date:
    """Return the last day that is over on Vietnam's exchanges, whether or not it was a trading day."""
    there = now.astimezone(VENDOR_ZONE)
    return there.date() if there.hour >= DAY_IS_DONE_AT_HOUR else there.date() - timedelta(1)


def _files(args: argparse.Namespace, target: Target, wanted: list[str]) -> int:
    failed = False
    for path in args.files:
        source = FileBars(path, args.source, args.symbol, args.day_order, wanted, args.reject_dir)
        try:
            with tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
                tally = source.run(target, bar.update, bar.reset)
            print(_summary(str(path), tally))
        except (TickhubError, OSError) as error:
            failed = True
            print(f"{path}: {error}", file=sys.stderr)
    return int(failed)


def _days(
    args: argparse.Namespace, target: Target, vendor: FastConnect, name: str, wanted: list[str], last: date
) -> int:
    total, failed = Tally(), 0
    settled = last_day_over(datetime.now(UTC)) - timedelta(LATE_DAYS)
    with tqdm(total=len(wanted) * ((last - args.first).days + 1), unit="day", desc="FastConnect", disable=None) as bar:
        for symbol in wanted:
            bar.set_postfix_str(symbol, refresh=False)
            source = VendorDays(vendor, name, VENDOR, symbol, args.first, last, args.reject_dir, settled)
            try:
                tally = source.run(target, bar.update)
                total += tally
                print(_summary(symbol, tally))
            except TickhubError as error:
                failed += 1
                print(f"{symbol}: {error}", file=sys.stderr)
    print(_summary(f"{len(wanted) - failed} of {len(wanted)} symbols", total))
    return int(failed > 0)


def _summary(name: str, tally: Tally) -> str:
    if not tally.rows and tally.done_before:
        return f"{name}: already imported, nothing to do (--again imports it once more)"
    line = f"{name}: {tally.stored} stored, {tally.duplicates} there already"
    if tally.set_aside:
        line += f", {tally.set_aside} set aside (see rejected_records)"
    line += f", {tally.rejected} rejected"
    if tally.rejected:
        line += f" (see {tally.rejects})" if tally.rejects else ""
    return line + (f", {tally.left_out} of other symbols" if tally.left_out else "")


def _wanted(args: argparse.Namespace) -> list[str]:
    named = [name.strip() for name in (args.symbols or "").split(",") if name.strip()]
    if args.symbols_file:
        listed, title = read_list(args.symbols_file)
        print(f"{args.symbols_file}: {len(listed)} symbols{f' ({title})' if title else ''}")
        named += listed
    return list(dict.fromkeys(named))


def _check(args: argparse.Namespace, wanted: list[str]) -> None:
    if args.fastconnect == bool(args.files):
        raise TickhubError("give either files or --fastconnect")
    if not args.fastconnect:
        if args.first or args.last:
            raise TickhubError("--from and --to are for --fastconnect: of a file, all its days are imported")
        return
    if not wanted:
        raise TickhubError("say which symbols: --symbols VCB,FPT or --symbols-file vn30")
    if args.first is None:
        raise TickhubError("say from which day: --from 2020-01-01")
    over = last_day_over(datetime.now(UTC))
    if args.last and args.last > over:
        raise TickhubError(f"--to {args.last} is not over yet: {over} is the last day that can be had whole")
    if args.first > (args.last or over):
        raise TickhubError(f"--from {args.first} is after the last day, {args.last or over}")


def _vendor(settings: Settings) -> FastConnect:
    access = Access(
        settings.fastconnect_url,
        settings.fastconnect_consumer_id,
        settings.fastconnect_consumer_secret,
        settings.fastconnect_requests_per_s,
    )
    access.check()
    return FastConnect(access, tell=lambda line: tqdm.write(line, file=sys.stderr))


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write it as 2020-01-31") from None
    if day < max(FIRST_DAY, date(1970, 1, 1)):
        raise argparse.ArgumentTypeError(f"{day} is too far back")
    return day
