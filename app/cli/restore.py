"""`python -m app restore [BACKUP] [--at TIME]`: bring the database back as it was; what is there now is kept aside."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.backup import archived, dumps
from app.backup.journals import rows_behind
from app.backup.recovering import Wanted
from app.backup.restoring import choose, restore
from app.backup.tools import BackupError, Tools
from app.cli import add_setting_flags
from app.cli.backup import bring_up, catalog_of, shown
from app.cli.url import owner_url
from app.runtime_config import archive_dir, embedded_config
from app.settings import BY_NAME, Settings
from app.storage.embedded_place import installed_binaries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to restore, to which moment, and what may be replaced."""
    parser.add_argument(
        "backup",
        nargs="?",
        help="label of a backup (python -m app backup list), or the path of a dump; default: the newest verified one",
    )
    parser.add_argument(
        "--at", metavar="TIME", help='the moment, with an offset: "2026-01-13 17:54:43+00"; default: all there is'
    )
    parser.add_argument("--verify-only", action="store_true", help="restore beside what is there, replace nothing")
    parser.add_argument(
        "--drop-existing",
        action="store_true",
        help="replace a database that is there; it is kept under another name all the same",
    )
    parser.add_argument(
        "--without-archive", action="store_true", help="restore the database though files of its archive are missing"
    )
    parser.add_argument(
        "--up-to-the-damage",
        action="store_true",
        help="restore the database though WAL from before the moment is damaged or missing: as it was before that,"
        " with ticks and records by their journals",
    )
    add_setting_flags(parser, [BY_NAME[name] for name in ("backup_dir", "archive_dir", "direct_database_url")])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Restore, telling what came back. Raises BackupError, EmbeddedError; then nothing was replaced."""
    path = Path(args.backup) if args.backup else None
    if path is not None and path.is_file():
        return _dump(path, args, settings)
    if settings.database_url:
        raise BackupError(
            "a database of your own is restored physically by whoever keeps it; a dump can be restored into it:"
            " python -m app restore FILE.dump"
        )
    at = _moment(args.at)
    catalog = catalog_of(settings)
    if not args.verify_only and (settings.data_dir / "postgres").exists() and not args.drop_existing:
        raise BackupError(
            f"{settings.data_dir} holds a database: to put the restored one in its place say --drop-existing (it is"
            " kept aside), to only try the backup say --verify-only"
        )
    with catalog.alone(), _no_server(settings.data_dir, needed=not args.verify_only), shown("verify") as progress:
        restored = restore(
            catalog,
            embedded_config(settings),
            archive_dir(settings),
            Wanted(choose(catalog, args.backup, at), at, args.verify_only, args.without_archive, args.up_to_the_damage),
            say=lambda line: print(line, file=sys.stderr),
            progress=progress,
        )
    weeks = f", {len(restored.archive):,} weeks in the archive" if restored.archive else ""
    print(f"{restored.note.label}: schema {restored.revision or '-'}, {restored.ticks:,} ticks{weeks}")
    rows = sum(cut.rows for cut in restored.journals)
    print(f"journals: {rows:,} acknowledged rows of {len(restored.journals)} are stored at the next start")
    for aside in restored.aside:
        print(f"what was there is in {aside}")
    print("nothing was replaced" if args.verify_only else "restored: start the server, then take a full backup")
    return 0


def _dump(path: Path, args: argparse.Namespace, settings: Settings) -> int:
    if not dumps.is_dump(path):
        raise BackupError(f"{path} is no dump: give one of `python -m app backup dump`, or a backup's label")
    if args.at:
        raise BackupError("a dump is of one moment: --at goes with physical backups")
    if args.verify_only:
        entries = dumps.check(Tools(installed_binaries(), ""), path)
        print(f"{path.name}: {entries:,} entries, sound; nothing was replaced")
        return 0
    with _no_server(settings.data_dir, needed=True):
        bring_up(settings)
        tools = Tools(installed_binaries(), owner_url(settings))
        ticks, aside = dumps.restore_dump(tools, path, drop_existing=args.drop_existing)
        # At once: whatever fails from here on, the database is replaced.
        print(f"{path.name}: {ticks:,} ticks; what was there is in the database {aside}", flush=True)
        try:
            if weeks := archive_of(tools, settings):
                print(f"archive: {weeks:,} weeks are named")
        except (BackupError, OSError) as why:
            print(f"archive: {why}; {_lacking(settings)}", file=sys.stderr)
        try:
            with tools.connection() as conn, conn.cursor() as cur:
                cur.execute("SELECT journal_id, next_row FROM ingest_log")
                rows = rows_behind(settings.data_dir / "journal", dict(cur.fetchall()))
        except (BackupError, OSError) as why:
            print(f"journals: how many rows of them are not in the dump cannot be told: {why}", file=sys.stderr)
            rows = 0
    if rows:
        print(
            f"journals: {rows:,} acknowledged rows that are not in the dump are stored at the next start; to do without"
            f" them move {settings.data_dir / 'journal'} away before"
        )
    return 0


def archive_of(tools: Tools, settings: Settings) -> int:
    """Have the archive's files that a restored dump names, as far as they can be had here; return how many weeks.

    Raises BackupError, OSError; then some of them may be there.
    """
    with tools.connection() as conn, conn.cursor() as cur:
        named = archived.named(cur)
    if not named:
        return 0
    catalog, place = catalog_of(settings), archive_dir(settings)
    wrong = archived.missing(catalog, place, named)
    for line in wrong.values():
        print(f"archive: {line}", file=sys.stderr)
    if wrong:
        print(f"archive: {_lacking(settings)}", file=sys.stderr)
    there = {path: sha256 for path, sha256 in named.items() if path not in wrong}
    archived.put_back(catalog, place, there, lambda line: print(f"archive: {line}", file=sys.stderr))
    return len(named)


def _lacking(settings: Settings) -> str:
    return (
        f"ticks of weeks whose files are not in {archive_dir(settings)} cannot be read until they are, a dump has none"
        " of them: bring ticks/ of the old archive_dir, or archive/ of a backup_dir, then python -m app archive verify"
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # As all that is said of it: a message that has another clock's hour with a Z would mislead.
        moment = moment if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BackupError(f'--at {text}: give a time with its offset, as "2026-01-13 17:54:43+00"') from None
    if moment.tzinfo is None:
        raise BackupError(f'--at {text}: say which clock that is, as "{moment.isoformat(" ")}+00"')
    if moment > datetime.now(UTC):
        raise BackupError(f"--at {text} is in the future")
    return moment


@contextmanager
def _no_server(data_dir: Path, *, needed: bool) -> Iterator[None]:
    """Hold the data directory as a server would, so that none runs or starts. Raises BackupError while one does."""
    if not needed:
        yield
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"a server runs on {data_dir}: stop it first") from None
        yield
    finally:
        os.close(fd)
