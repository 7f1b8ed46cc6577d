"""`python -m app backup full|incremental|daily|dump|wal|list|verify|prune`: backups of database and journals."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from app.backup import dumps, lineage
from app.backup.catalog import Catalog, Kind, Note, full_is_due
from app.backup.following import FollowedAlready, Follower, alone
from app.backup.pruning import prune
from app.backup.taking import can_be_incremental, take
from app.backup.tools import BackupError, Progress, Tools
from app.backup.verifying import verify
from app.cli import add_setting_flags, database
from app.cli.stepping_back import step_back
from app.runtime_config import archive_dir, database_url
from app.settings import BY_NAME, DAYS, Settings
from app.storage.embedded_place import installed_binaries

_SETTINGS = (
    "backup_dir",
    "backup_database_url",
    "backup_retention_days",
    "backup_keep",
    "backup_full_day",
    "archive_dir",
)
LINE_EVERY_S = 10.0
FOLLOWED_ALREADY = 75
"""Exit status of `backup wal` when another one is at work (EX_TEMPFAIL)."""

DAILY_WAITS_S = 2 * 3600.0
"""How long the day's backup waits for another command's end; other jobs wait with it."""

TAKE_OVER_S = 15.0
"""How long a server's `backup wal` waits for the end of another one, of a worker that is gone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do."""
    parser.add_argument(
        "action",
        choices=("full", "incremental", "daily", "dump", "wal", "list", "verify", "prune"),
        help="full, incremental: take a physical backup; daily: what the day asks for, then prune; dump: a logical one,"
        " for other versions and servers; wal: receive WAL and copy journals until it is ended, for restores to any"
        " moment; list; verify: check files against their manifests; prune: remove what is too old",
    )
    # The server's: it ends when that process is gone.
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    parser.add_argument("label", nargs="?", help="for verify: only this backup and what it needs (default: all)")
    add_setting_flags(parser, [BY_NAME[name] for name in _SETTINGS])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; return 0, or 1 when verifying found damage. Raises BackupError, EmbeddedError, DatabaseAway."""
    if args.label is not None and args.action != "verify":
        raise BackupError(f"backup {args.action} takes no label")
    catalog = catalog_of(settings)
    actions: dict[str, Callable[[], int]] = {
        "full": lambda: _take(catalog, settings, "full"),
        "incremental": lambda: _take(catalog, settings, "incremental"),
        "daily": lambda: _daily(catalog, settings),
        "dump": lambda: _dump(catalog, settings),
        "wal": lambda: _wal(catalog, settings, args.parent),
        "list": lambda: _list(catalog),
        "verify": lambda: _verify(catalog, args.label),
        "prune": lambda: _prune(catalog, settings),
    }
    return actions[args.action]()


def catalog_of(settings: Settings) -> Catalog:
    """Return the backups of these settings."""
    return Catalog(Path(settings.backup_dir) if settings.backup_dir else settings.data_dir / "backups")


def tools_of(settings: Settings) -> Tools:
    """Return PostgreSQL's programs for the database of these settings, past a transaction pooler."""
    url = settings.backup_database_url or settings.direct_database_url or database_url(settings)
    return Tools(installed_binaries(), url)


def bring_up(settings: Settings) -> None:
    """Have the embedded database run; one of its own is left as it is."""
    if not settings.database_url:
        database.run(argparse.Namespace(action="up"), settings)


@contextmanager
def shown(words: str) -> Iterator[Progress]:
    """Give what shows how many bytes of how many are done: a bar on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(words)
        return
    with tqdm(desc=words, unit="B", unit_scale=True, file=sys.stderr) as bar:

        def progress(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield progress


def _lines(words: str) -> Progress:
    said_s = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= LINE_EVERY_S:
            said_s = time.monotonic()
            share = f"{100 * done // of} % of " if of else ""
            print(f"{words}: {share}{max(of, done) / 1e9:.1f} GB", file=sys.stderr, flush=True)

    return progress


def _take(catalog: Catalog, settings: Settings, kind: Kind) -> int:
    bring_up(settings)
    step_back()
    tools = tools_of(settings)
    with catalog.alone(), shown(kind) as progress:
        lineage.adopt(settings.data_dir, catalog.root)
        note = take(catalog, tools, kind, progress, archive_dir(settings), {})
    _say(note)
    return 0 if note.whole else 1


def _daily(catalog: Catalog, settings: Settings) -> int:
    bring_up(settings)
    step_back()
    tools = tools_of(settings)
    now = datetime.now(UTC)
    # Somebody may be checking old ones for hours: refused at once, a day would be without a backup.
    with catalog.alone(DAILY_WAITS_S), shown("backup") as progress:
        lineage.adopt(settings.data_dir, catalog.root)
        reason = can_be_incremental(catalog, tools)
        full = full_is_due(catalog.notes(), now, DAYS.index(settings.backup_full_day))
        if reason is not None and not full:
            print(f"a full backup, because: {reason}", file=sys.stderr)
        kind: Kind = "full" if full or reason is not None else "incremental"
        files: dict[str, str | None] = {}
        try:
            note = take(catalog, tools, kind, progress, archive_dir(settings), files)
        except BackupError as why:
            # It may be for want of room, which nothing would ever make any more: what is too old goes all the same.
            if not _tell_pruned(catalog, settings):
                raise
            print(f"once more, because: {why}", file=sys.stderr)
            note = take(catalog, tools, kind, progress, archive_dir(settings), files)
        checked = verify(catalog, tools, note.label, progress, files)
        _say(checked[-1])
        _tell_pruned(catalog, settings)
    return 0 if all(one.whole for one in checked) else 1


def _dump(catalog: Catalog, settings: Settings) -> int:
    bring_up(settings)
    step_back()
    with catalog.alone():
        path = dumps.dump(catalog, tools_of(settings))
    print(f"{path.name}: {path.stat().st_size:,} bytes in {path.parent}")
    return 0


def _wal(catalog: Catalog, settings: Settings, parent: int | None) -> int:
    """Receive WAL and copy journals until SIGTERM or Ctrl-C, or until the server is gone that wanted it."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        with alone(catalog, 0.0 if parent is None else TAKE_OVER_S):
            follower = Follower(catalog, tools_of(settings), settings.data_dir, say)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: follower.stop())
            follower.run(lambda: parent is None or os.getppid() == parent)
    except FollowedAlready as why:
        say(str(why))
        return FOLLOWED_ALREADY
    return 0


def _list(catalog: Catalog) -> int:
    notes = catalog.notes()
    if not notes:
        print(f"no backups in {catalog.root}", file=sys.stderr)
    for note in notes:
        _say(note)
    for path in sorted(catalog.dumps.glob("*.dump")) if catalog.dumps.exists() else []:
        print(f"{path.name:<32} dump         {path.stat().st_size:>16,} bytes")
    return 0


def _verify(catalog: Catalog, label: str | None) -> int:
    step_back()
    tools = Tools(installed_binaries(), "")
    failed = 0
    with catalog.alone(), shown("verify") as progress:
        seen: set[str] = set()
        files: dict[str, str | None] = {}
        for wanted in [label] if label else [note.label for note in reversed(catalog.notes())]:
            if wanted in seen:
                continue
            for note in verify(catalog, tools, wanted, progress, files):
                if note.label not in seen:
                    _say(note)
                    failed += not note.whole
                seen.add(note.label)
        for path in sorted(catalog.dumps.glob("*.dump")) if label is None and catalog.dumps.exists() else []:
            try:
                print(f"{path.name:<32} dump         {dumps.check(tools, path):>16,} entries, sound")
            except BackupError as why:
                failed += 1
                print(f"{path.name:<32} dump         DAMAGED: {why}")
    return 1 if failed else 0


def _prune(catalog: Catalog, settings: Settings) -> int:
    with catalog.alone():
        _tell_pruned(catalog, settings)
    return 0


def _tell_pruned(catalog: Catalog, settings: Settings) -> bool:
    """Remove what may go, and tell; return whether there was anything."""
    keep_days, keep_count = settings.backup_retention_days, settings.backup_keep
    gone = prune(catalog, archive_dir(settings), datetime.now(UTC), keep_days, keep_count)
    for label in gone.labels:
        print(f"removed {label}")
    others = {
        "WAL segments": gone.wal_segments,
        "journal segments": gone.journal_segments,
        "weeks of the archive": gone.archive,
        "dumps": gone.dumps,
    }
    for what, count in others.items():
        if count:
            print(f"removed {count:,} {what}")
    return bool(gone.labels or any(others.values()))


def _say(note: Note) -> None:
    state = "sound" if note.sound else "not verified" if note.damage is None else f"DAMAGED: {note.damage}"
    if note.archive_damage is not None:
        state += f"; the archive beside it is DAMAGED: {note.archive_damage}"
    print(
        f"{note.label:<32} {note.kind:<12} {note.bytes:>16,} bytes"
        f"  {note.ended_at:%Y-%m-%d %H:%M:%S}Z  schema {note.schema_revision or '-'}  {state}"
    )
