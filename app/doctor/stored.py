"""What is on disk: journals that wait to be stored, backups, the archive's files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from app.backup.catalog import Catalog, Note
from app.backup.following import following
from app.backup.tools import BackupError
from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail, ok, warn
from app.pipeline import journal, reader
from app.pipeline.books import MARK_FIELDS, Book
from app.runtime_config import archive_dir
from app.storage.schema import HEAD

JOURNAL_WARN_SHARE, JOURNAL_FAIL_SHARE = 0.6, 0.9
"""Of the bound. What is committed is kept while it takes less than half, so more than that is a backlog."""

BACKUP_MOST_DAYS = 2
"""Daily ones, and one may be late."""

_JOURNAL = re.compile(r"[0-9a-f]{32}")
_NEXT_ROWS = "SELECT journal_id::text, next_row FROM ingest_log WHERE journal_id = ANY(%s)"
_CLUSTER = "SELECT system_identifier::text, timeline_id FROM pg_control_system(), pg_control_checkpoint()"
_ARCHIVED = "SELECT manifest FROM tick_ranges WHERE state = 'archived' ORDER BY range"


def journals(case: Case) -> Iterator[Finding]:
    """No journal is left that nobody drains, and there is room for more."""
    root, settings = case.settings.data_dir / "journal", case.settings
    if not root.exists():
        yield ok("journals", "none yet")
        return
    names = sorted(entry.name for entry in os.scandir(root) if _JOURNAL.fullmatch(entry.name))
    size, ends, unreadable = 0, dict[str, int](), list[str]()
    for name in names:
        try:
            size += journal.disk_bytes(root / name)
            if (end := _end_if_unowned(root / name)) is not None:
                ends[name] = end
        except FileNotFoundError:
            continue  # drained and removed meanwhile
        except (OSError, ValueError, msgspec.MsgspecError) as why:
            unreadable.append(f"{name}: {why}")
    found = f"{len(names)} with {size / (1 << 20):,.1f} MiB of {settings.journal_max_bytes / (1 << 20):,.0f}"
    if unreadable:
        yield fail("journals", f"cannot be read: {'; '.join(unreadable)}", f"keep a copy of {root}, then see the cause")
    if size > JOURNAL_FAIL_SHARE * settings.journal_max_bytes:
        yield fail("journal room", found, "see why nothing is stored (database, disk), or raise --journal-max-bytes")
    elif size > JOURNAL_WARN_SHARE * settings.journal_max_bytes:
        yield warn("journal room", found, "ticks come faster than they are stored: docs/troubleshooting.md, Journal")
    else:
        yield ok("journal room", found)
    if not unreadable:
        yield _left_over(case, ends)


def backups(case: Case) -> Iterator[Finding]:
    """There is a sound backup, not older than it should be."""
    catalog, settings = Catalog(case.backup_dir), case.settings
    system = timeline = None
    if case.database_trouble is None:
        [(system, timeline)] = case.rows(_CLUSTER)
    if not os.access(catalog.root, os.R_OK | os.X_OK) and catalog.root.exists():
        yield fail("backups", f"{catalog.root} cannot be read by this user", "run the doctor as the server's user")
        return
    try:
        notes = catalog.notes()
    except BackupError as why:
        yield fail("backups", str(why), "remove that note and its directory, take a full backup")
        return
    sound = [note for note in notes if note.sound and _is_of(note, system)]
    damaged = [note.label for note in notes if not note.whole]
    dumps = sorted(catalog.dumps.glob("*.dump")) if catalog.dumps.exists() else []
    late = fail if settings.backup_schedule else warn
    if damaged:
        remedy = "take a full one: python -m app backup full; look after the disk"
        yield fail("backups", f"damaged: {', '.join(damaged)} in {catalog.root}", remedy)
    elif settings.database_url and not notes and dumps:
        yield _aged("backups", f"newest dump {dumps[-1].name}", _changed(dumps[-1]), late, "python -m app backup dump")
    elif not sound:
        of = "none of this database" if notes else "none"
        yield late("backups", f"{of} in {catalog.root}", "python -m app backup full, and TICKHUB_BACKUP_SCHEDULE=true")
    else:
        newest = max(sound, key=lambda note: note.ended_at)
        found = f"{len(sound)} sound, newest {newest.label}"
        if timeline not in (None, newest.timeline):
            of = f"none can be taken: {newest.label} is from before the database was restored"
            yield warn("incremental backups", of, "python -m app backup full")
        yield _aged("backups", found, newest.ended_at, late, "python -m app backup daily; see jobs in /stats")


def point_in_time(case: Case) -> Iterator[Finding]:
    """What comes in is followed, where that was begun: without it a restore goes to a backup's end only."""
    known, settings = following(case.backup_dir), case.settings
    if known is None:
        if settings.backup_dir and settings.backup_wal and case.server_pid is not None:
            yield warn("point in time", "the server has followed nothing yet", "see `backup wal` in its log")
        return
    state = known.state(datetime.now(UTC))
    until = "never" if known.wal_until is None else f"until {known.wal_until:%Y-%m-%d %H:%M:%S}Z"
    if state == "stopped":
        remedy = "start the server with backup_dir set and backup_wal on, or python -m app backup wal as a service"
        yield warn("point in time", f"nothing follows the WAL; it was, {until}", remedy)
    elif state == "trouble":
        yield fail("point in time", f"WAL here {until}: {known.trouble}", "see the log of python -m app backup wal")
    else:
        since = "" if known.since is None else f" since {known.since:%Y-%m-%d %H:%M}Z"
        yield ok("point in time", f"followed{since}, {until}")


def archive(case: Case) -> Iterator[Finding]:
    """The files that archived ticks are in are here."""
    if case.revision != HEAD:
        return
    named = [str(manifest) for (manifest,) in case.rows(_ARCHIVED)]
    root = archive_dir(case.settings)
    missing = [name for name in named if not (root / name).is_file()]
    if missing:
        yield fail(
            "archive",
            f"{len(missing)} of {len(named)} weeks are not in {root}: {missing[0]}",
            "set the --archive-dir that has them, or python -m app archive run, which gets them from the backups",
        )
    elif named:
        yield ok("archive", f"{len(named)} weeks in {root}")
    elif case.settings.hot_days:
        yield ok("archive", f"nothing yet; ticks move there after {case.settings.hot_days} days")


CHECKS: tuple[Check, ...] = (journals, backups, point_in_time)
OF_DATABASE: tuple[Check, ...] = (archive,)


def _end_if_unowned(directory: Path) -> int | None:
    """Return the number behind the last row of a journal that nobody owns; None: a worker has it."""
    # Held for a moment only: a worker that wants it then comes again two seconds later.
    fd = journal.acquire(directory)
    if fd is None:
        return None
    os.close(fd)
    return reader.end_row(directory)


def _left_over(case: Case, ends: dict[str, int]) -> Finding:
    """Say how many rows wait in journals that nobody owns. ends: the number behind the last row of each."""
    if not ends:
        return ok("journals left over", "none")
    if case.database_trouble is not None or case.revision is None:
        done, by = {name: _marked(case.settings.data_dir / "journal" / name) for name in ends}, ", by their own marks"
    else:
        done, by = dict(case.rows(_NEXT_ROWS, (list(ends),))), ""
    rows = {name: end - done.get(name, 0) for name, end in ends.items()}
    waiting = {name: count for name, count in rows.items() if count > 0}
    if not waiting:
        return ok("journals left over", f"{len(ends)}, all of whose rows are stored{by}")
    told = f"{sum(waiting.values()):,} rows in {len(waiting)} that nobody owns wait to be stored{by}"
    return warn("journals left over", told, _drain(case))


def _marked(directory: Path) -> int:
    """Return how far a journal's owner saw the database get."""
    try:
        mark = Book(directory / "mark", MARK_FIELDS, create=False)
    except FileNotFoundError:
        return 0
    try:
        return mark["next_row"]
    finally:
        mark.close()


def _drain(case: Case) -> str:
    if case.server_pid is None:
        return "start the server: it stores them"
    return "ask again in some seconds; if it stays so, its log says `cannot be taken over` and why"


def _aged(name: str, found: str, moment: datetime, late: Callable[[str, str, str], Finding], remedy: str) -> Finding:
    age = datetime.now(UTC) - moment
    found = f"{found}, {age / timedelta(hours=1):,.0f} hours old"
    if age > timedelta(days=BACKUP_MOST_DAYS):
        return late(name, found, remedy)
    return ok(name, found)


def _is_of(note: Note, system: str | None) -> bool:
    return system is None or note.system_identifier == system


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
