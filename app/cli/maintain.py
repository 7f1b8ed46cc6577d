"""`python -m app maintain [ACTION]`: keep the database tidy, beside a running server."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from app.cli import add_setting_flags, database
from app.cli.delete import actor
from app.cli.stepping_back import step_back
from app.cli.url import database_url
from app.errors import SettingsError
from app.settings import BY_NAME, ROOT, Settings
from app.storage import maintenance, retention
from app.storage.clocks import ClocksDiffer
from app.storage.connection import Connection
from app.storage.maintenance import Done
from app.storage.retention_cuts import CLASSES, Dropped, WouldEmpty

ACTIONS = ("vacuum", "analyze", "statistics", "reindex", "partitions", "order", "retention", "archive", "health", "all")
_ALL = ("partitions", "retention", "archive", "order", "vacuum", "analyze", "reindex", "health")
ORDER_DAYS = 7
"""So many finished days are looked at: late ticks come for those before, too, but few."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do."""
    parser.add_argument(
        "action",
        nargs="?",
        default="all",
        choices=ACTIONS,
        help="vacuum; analyze (or statistics): what the planner goes by; reindex: indexes of tables that changed much;"
        " partitions: those of the next weeks; order: bars of finished days written together; retention: drop what is"
        " older than keep_days_*; archive: move old ticks to files; health: figures, status 1 where one is bad; all",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="retention, archive: only tell what would be dropped or moved"
    )
    parser.add_argument(
        "--allow-empty", action="store_true", help="retention: drop also where nothing is left of a table"
    )
    keep = [BY_NAME[f"keep_days_{name}"] for name in CLASSES]
    add_setting_flags(parser, [BY_NAME["direct_database_url"], *keep])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; return 0, or 1 when the database's health is bad, or one of all actions is unfinished.

    Ingest goes on: what is in use is skipped, and said; of all actions the others are done. Raises SettingsError,
    AnotherRun, Unfinished, WouldEmpty, ClocksDiffer, DatabaseAway.
    """
    if args.dry_run and args.action not in ("retention", "archive"):
        raise SettingsError("--dry-run is for maintain retention and maintain archive")
    if args.allow_empty and args.action != "retention":
        raise SettingsError("--allow-empty is for maintain retention")
    database.run(argparse.Namespace(action="up"), settings)
    actions = _ALL if args.action == "all" else ("analyze",) if args.action == "statistics" else (args.action,)
    # Two connections: dropping a partition may cost one, and with it would go what keeps other runs out.
    keeper, connection = (_connection(settings, name) for name in ("maintain lock", "maintain"))
    status = 0
    try:
        step_back()
        with maintenance.alone(keeper):
            for action in actions:
                try:
                    status |= _do(action, connection, settings, args)
                except (retention.Unfinished, WouldEmpty, ClocksDiffer) as why:
                    if len(actions) == 1:
                        raise
                    print(f"{action}: {why}", file=sys.stderr)
                    status = 1
    finally:
        connection.close()
    return status


def _do(action: str, connection: Connection, settings: Settings, args: argparse.Namespace) -> int:
    if action == "health":
        return _health(connection)
    if action == "retention":
        return _retention(connection, settings, args)
    if action == "archive":
        return _archive(settings, args)
    ways: dict[str, Callable[[], Iterator[Done]]] = {
        "vacuum": lambda: maintenance.vacuum(connection),
        "analyze": lambda: maintenance.analyze(connection),
        "reindex": lambda: maintenance.reindex(connection),
        "partitions": lambda: maintenance.partitions(connection),
        "order": lambda: maintenance.order_bars(connection, ORDER_DAYS),
    }
    count = 0
    for done in ways[action]():
        if done.skipped is None:
            count += 1
        else:
            print(f"{done.what}: {done.name} is left for the next run: {done.skipped}", file=sys.stderr)
    print(f"{action}: {count} done")
    return 0


def _retention(connection: Connection, settings: Settings, args: argparse.Namespace) -> int:
    keep = settings.keep_days
    if not any(keep.values()):
        print("retention: everything is kept for ever (keep_days_*)")
        return 0
    if args.dry_run:
        return _plan(connection, keep, args)
    for found in retention.run(connection, keep, actor(), allow_empty=args.allow_empty):
        print(f"retention: {_told(found)} dropped")
    print("retention: done")
    return 0


def _plan(connection: Connection, keep: dict[str, int], args: argparse.Namespace) -> int:
    idle, refused = {name for name in CLASSES if keep[name]}, None
    try:
        for name, found in retention.plan(connection, keep, allow_empty=args.allow_empty):
            if found.rows or found.partitions or found.archived:
                idle.discard(name)
                print(f"retention: {name}: {_told(found)} would be dropped")
    except WouldEmpty as why:
        refused = why
    for name in CLASSES:
        if name in idle:
            print(f"retention: {name}: nothing would be dropped")
    if refused is not None:
        sys.stdout.flush()  # why comes behind what
        raise refused
    print("retention: nothing was dropped")
    return 0


def _told(found: Dropped) -> str:
    parts = f" in {found.partitions} partitions" if found.partitions else ""
    archived = f" and {found.archived:,} archived ticks" if found.archived else ""
    return f"{found.table} before {found.before:%Y-%m-%d}: {found.rows:,} rows{parts}{archived}"


def _archive(settings: Settings, args: argparse.Namespace) -> int:
    if not settings.hot_days:
        print("archive: ticks are not moved to files")
        return 0
    command = [sys.executable, "-m", "app", "archive", "run", *(["--dry-run"] if args.dry_run else [])]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **settings.to_environ()}, check=False).returncode


def _health(connection: Connection) -> int:
    figures, troubles = maintenance.health(connection)
    for line in figures:
        print(f"health: {line}")
    for line in troubles:
        print(f"health: LOOK AT: {line}")
    return 1 if troubles else 0


def _connection(settings: Settings, name: str) -> Connection:
    def url() -> str:
        return settings.direct_database_url or database_url(settings)

    return Connection(url, settings.db_connect_timeout_s, maintenance.STATEMENT_TIMEOUT_S, name)
