"""`python -m app backup full|incremental|daily|dump|wal|list|verify|prune`: backups of database and journals."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from app.backup import dumps, journals
from app.backup.catalog import Catalog, Note
from app.backup.pruning import prune
from app.backup.taking import can_be_incremental, take
from app.backup.tools import BackupError, Progress, Tools
from app.backup.verifying import verify
from app.backup.wal import WalReceiver, note_following
from app.cli import add_setting_flags, database
from app.runtime_config import database_url
from app.settings import BY_NAME, DAYS, Settings
from app.storage.embedded_place import installed_binaries

_SETTINGS = ("backup_dir", "backup_retention_days", "backup_keep", "backup_full_day")
COPY_INTERVAL_S = 1.0
RESTART_FIRST_S, RESTART_MOST_S = 1.0, 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do."""
    parser.add_argument(
        "action",
        choices=("full", "incremental", "daily", "dump", "wal", "list", "verify", "prune"),
        help="full, incremental: take a physical backup; daily: what the day asks for, then prune; dump: a logical one,"
        " for other versions and servers; wal: receive WAL and copy journals until it is ended, for restores to any"
        " moment; list; verify: check files against their manifests; prune: remove what is too old",
    )
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
        "wal": lambda: _wal(catalog, settings),
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
    return Tools(installed_binaries(), settings.direct_database_url or database_url(settings))


@contextmanager
def shown(words: str) -> Iterator[Progress]:
    """Give what shows how many bytes of how many are done, on a terminal."""
    with tqdm(desc=words, unit="B", unit_scale=True, disable=None, file=sys.stderr) as bar:

        def progress(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield progress


def _take(catalog: Catalog, settings: Settings, kind: str) -> int:
    database.run(argparse.Namespace(action="up"), settings)
    tools = tools_of(settings)
    with catalog.alone(), shown(kind) as progress:
        note = take(catalog, tools, "full" if kind == "full" else "incremental", progress)
    _say(note)
    return 0


def _daily(catalog: Catalog, settings: Settings) -> int:
    database.run(argparse.Namespace(action="up"), settings)
    tools = tools_of(settings)
    now = datetime.now(UTC)
    with catalog.alone(), shown("backup") as progress:
        reason = can_be_incremental(catalog, tools)
        full = DAYS[now.weekday()] == settings.backup_full_day
        if reason is not None and not full:
            print(f"a full backup, because: {reason}", file=sys.stderr)
        note = take(catalog, tools, "full" if full or reason is not None else "incremental", progress)
        checked = verify(catalog, tools, note.label, progress)
        _say(checked[-1])
        _tell_pruned(catalog, settings)
    return 0 if all(one.damage is None for one in checked) else 1


def _dump(catalog: Catalog, settings: Settings) -> int:
    database.run(argparse.Namespace(action="up"), settings)
    with catalog.alone():
        path = dumps.dump(catalog, tools_of(settings))
    print(f"{path.name}: {path.stat().st_size:,} bytes in {path.parent}")
    return 0


def _wal(catalog: Catalog, settings: Settings) -> int:
    """Receive WAL and copy journals until SIGTERM or Ctrl-C; what is received then is synced."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    receiver = WalReceiver(tools_of(settings), catalog.wal)
    pause_s, again_s, elapsed_s = RESTART_FIRST_S, 0.0, 0.0
    running, last, since = False, False, None
    try:
        while True:
            if running and receiver.ended is not None:
                running = False
                print(f"pg_receivewal ended with status {receiver.ended}", file=sys.stderr)
            if not running and elapsed_s >= again_s:
                try:
                    if receiver.start():
                        since = datetime.now(UTC)
                        print("WAL from before now is not kept: take a full backup", file=sys.stderr)
                    print(f"receiving WAL into {catalog.wal}", file=sys.stderr)
                    running, pause_s = True, RESTART_FIRST_S
                except BackupError as why:
                    print(f"no WAL yet: {why}", file=sys.stderr)
                    again_s, pause_s = elapsed_s + pause_s, min(2 * pause_s, RESTART_MOST_S)
            until = datetime.now(UTC)
            journals.copy_new(settings.data_dir / "journal", catalog.journal)
            if running and receiver.ended is None:
                note_following(catalog.wal, since, until)
                since = None
            if last:
                break
            # Once more when it was told to end: what was acknowledged until then is followed.
            last = ended.wait(COPY_INTERVAL_S)
            elapsed_s += COPY_INTERVAL_S
    finally:
        receiver.stop()
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
    tools = Tools(installed_binaries(), "")
    failed = 0
    with catalog.alone(), shown("verify") as progress:
        seen: set[str] = set()
        for wanted in [label] if label else [note.label for note in reversed(catalog.notes())]:
            if wanted in seen:
                continue
            for note in verify(catalog, tools, wanted, progress):
                if note.label not in seen:
                    _say(note)
                    failed += note.damage is not None
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


def _tell_pruned(catalog: Catalog, settings: Settings) -> None:
    gone = prune(catalog, datetime.now(UTC), settings.backup_retention_days, settings.backup_keep)
    for label in gone.labels:
        print(f"removed {label}")
    others = {"WAL segments": gone.wal_segments, "journal segments": gone.journal_segments, "dumps": gone.dumps}
    for what, count in others.items():
        if count:
            print(f"removed {count:,} {what}")


def _say(note: Note) -> None:
    state = "sound" if note.sound else "not verified" if note.damage is None else f"DAMAGED: {note.damage}"
    print(
        f"{note.label:<32} {note.kind:<12} {note.bytes:>16,} bytes"
        f"  {note.ended_at:%Y-%m-%d %H:%M:%S}Z  schema {note.schema_revision or '-'}  {state}"
    )
