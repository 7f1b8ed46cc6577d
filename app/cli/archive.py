"""`python -m app archive run|list|verify|bring-back`: old ticks as Parquet files, and back into the database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tqdm import tqdm

from app.archive.archiver import Archiver
from app.archive.place import ArchiveError
from app.archive.weeks import Range
from app.cli import add_setting_flags, database
from app.cli.arguments import time_argument
from app.cli.backup import catalog_of
from app.cli.stepping_back import step_back
from app.errors import ArchiveAway, SettingsError
from app.runtime_config import archive_dir, database_url
from app.settings import BY_NAME, Settings
from app.storage.connection import Connection

_STATEMENT_TIMEOUT_S = 600.0
_FETCHERS = ("rows 1", "rows 2")
"""Connections that read rows side by side; more than two would be faster than what is done with the rows."""

_SETTINGS = ("hot_days", "archive_dir", "backup_dir", "direct_database_url")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do."""
    parser.add_argument(
        "action",
        choices=("run", "list", "verify", "bring-back"),
        help="run: finish what was begun, move ticks older than hot_days, merge late ones; list: what is where; verify:"
        " read every file and compare it with its checksum; bring-back: put a range back into the database",
    )
    when = "RFC 3339 with offset, a date (midnight UTC), or epoch s, ms, us, ns"
    parser.add_argument("--start", type=time_argument, metavar="TIME", help=f"bring-back: from when on: {when}")
    parser.add_argument("--end", type=time_argument, metavar="TIME", help="bring-back: before when; by whole weeks")
    parser.add_argument("--dry-run", action="store_true", help="run: only tell which weeks would move")
    add_setting_flags(parser, [BY_NAME[name] for name in _SETTINGS])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; return 0, or 1 when verifying found damage.

    Starts the embedded database when it is down, and leaves it running. Raises SettingsError, ArchiveError,
    ClocksDiffer, DatabaseAway.
    """
    given = [one for one in (args.start, args.end) if one is not None]
    if len(given) != (2 if args.action == "bring-back" else 0):
        raise SettingsError("archive bring-back needs --start and --end, the others take neither")
    if given and args.start >= args.end:
        raise SettingsError("--end must be later than --start")
    if args.dry_run and args.action != "run":
        raise SettingsError("--dry-run is for archive run")
    database.run(argparse.Namespace(action="up"), settings)

    def connect(name: str) -> Connection:
        url = settings.direct_database_url or database_url(settings)
        return Connection(lambda: url, settings.db_connect_timeout_s, _STATEMENT_TIMEOUT_S, f"archive {name}")

    own, guard, *fetchers = every = [connect(name) for name in ("work", "guard", *_FETCHERS)]
    try:
        with _shown() as progress:
            backups = catalog_of(settings).root
            copies = backups / "archive" if backups.exists() else None
            root = archive_dir(settings)
            step_back()
            archiver = Archiver(own, guard, fetchers, root, say=_say, progress=progress, copies=copies)
            actions: dict[str, Callable[[], int]] = {
                "run": lambda: (_due if args.dry_run else _run)(archiver, settings.hot_days),
                "list": lambda: _list(archiver),
                "verify": lambda: _verify(archiver),
                "bring-back": lambda: _bring_back(archiver, args.start, args.end),
            }
            return actions[args.action]()
    except ArchiveAway as error:
        raise ArchiveError(str(error)) from error
    finally:
        for connection in every:
            connection.close()


@contextmanager
def _shown() -> Iterator[Callable[[int], None]]:
    """Give what counts rows on a terminal: each is written, and read back."""
    with tqdm(unit="tick", unit_scale=True, disable=None, file=sys.stderr) as bar:

        def progress(rows: int) -> None:
            bar.update(rows)

        yield progress


def _say(line: str) -> None:
    tqdm.write(line)


def _run(archiver: Archiver, hot_days: int) -> int:
    archiver.run(hot_days)
    return 0


def _due(archiver: Archiver, hot_days: int) -> int:
    for week, rows in archiver.due(hot_days):
        _say(f"{week.name}: {rows:,} ticks would move")
    _say("nothing was moved")
    return 0


def _bring_back(archiver: Archiver, start_us: int, end_us: int) -> int:
    archiver.bring_back(start_us, end_us)
    return 0


def _list(archiver: Archiver) -> int:
    count = 0
    for one, late in archiver.listed():
        count += 1
        waiting = f"  {late:,} late ticks wait" if late else ""
        files = ""
        if one.rows is not None and one.bytes is not None:
            files = f"  {one.rows:>14,} ticks  {one.bytes:>14,} bytes  {one.manifest}"
        _say(f"{_day(one.start_us)}..{_day(one.end_us)}  {one.state:<9}{files}{waiting}")
    if not count:
        print("nothing is archived", file=sys.stderr)
    return 0


def _verify(archiver: Archiver) -> int:
    failed = 0
    for one, wrong in archiver.verify():
        failed += wrong is not None
        _say(f"{_words(one)}  {'sound' if wrong is None else f'DAMAGED: {wrong}'}")
    return 1 if failed else 0


def _words(one: Range) -> str:
    return f"{_day(one.start_us)}..{_day(one.end_us)}  {one.rows or 0:>14,} ticks"


def _day(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1_000_000, UTC):%Y-%m-%d}"
