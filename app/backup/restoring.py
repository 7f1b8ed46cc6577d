"""Bring back a database as it was: combine a chain, recover to a moment, look at it, put it in place. Blocking.

What was there is kept beside it. Journals of the present are set aside, and those of the backup put in their place, cut
at the moment: the next start drains them as it drains every journal that nobody owns.
"""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from app.backup import archived, lineage
from app.backup.catalog import Catalog, Note
from app.backup.following import FollowedAlready, alone, following
from app.backup.journals import copy_new, is_journal, put_back
from app.backup.recovering import Restored, Say, Wanted, recover
from app.backup.tools import BackupError, Progress, Tools
from app.backup.verifying import verify
from app.backup.wal import keep_histories
from app.pipeline.journal import sync_directory
from app.storage import embedded
from app.storage.embedded import EmbeddedConfig
from app.storage.embedded_place import UNFINISHED_RESTORE
from app.storage.embedded_restore import Workshop, clear, free_name, put_in_place, system_of, workshop
from app.storage.embedded_user import EmbeddedError

FOLLOWER_S = 10.0
"""So long a `backup wal` that is at work has to end, as one of a server that was just stopped, or to copy journals."""

ROOM_BYTES = 1 << 16
"""So much has to be free where a restore is noted: a history of timelines has a line for each restore."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def choose(catalog: Catalog, label: str | None, at: datetime | None) -> Note:
    """Return the backup to begin with: the named one, else the newest sound one that ended before the moment.

    Raises BackupError when there is none.
    """
    if label is not None:
        note = catalog.note(label)
        if at is not None and note.ended_at > at:
            raise BackupError(f"backup {label} ended at {note.ended_at:%Y-%m-%d %H:%M:%S}Z, after the moment asked for")
        return note
    known = lineage.restores(catalog.root / lineage.IN_BACKUPS)
    found = [
        note
        for note in catalog.sound()
        if (at is None or note.ended_at <= at) and lineage.happened(known, note.ended_at, at)
    ]
    if not found:
        when = "" if at is None else f" that ended before {at:%Y-%m-%d %H:%M:%S}Z"
        raise BackupError(f"there is no verified backup{when} in {catalog.root}: python -m app backup list")
    return found[-1]


def restore(
    catalog: Catalog, config: EmbeddedConfig, archive_dir: Path, wanted: Wanted, say: Say, progress: Progress
) -> Restored:
    """Restore the embedded database of a data directory, with its journals and its archive.

    The caller is alone in the catalog and has made sure that no server runs. Raises BackupError, EmbeddedError; then
    nothing was replaced.
    """
    if not wanted.verify_only:
        _check_room(catalog)
    shop = workshop(config)
    tools = Tools(shop.place.binaries, "")
    note, at = wanted.note, wanted.at
    chain = catalog.chain(note.label)
    checked = verify(catalog, tools, note.label, progress, must_be_noted=False)
    damaged = [one for one in checked if one.damage is not None]
    if damaged:
        raise BackupError(f"backup {damaged[0].label} is damaged: {damaged[0].damage}")
    say(f"{note.label}: verified, {len(chain)} backup{'s' if len(chain) > 1 else ''} in its chain")
    known = lineage.restores(catalog.root / lineage.IN_BACKUPS)
    seen_from = at
    if not lineage.happened(known, note.ended_at, at):
        if at is not None:
            raise BackupError(f"what {note.label} holds was undone by a restore before {at:%Y-%m-%d %H:%M:%S}Z")
        seen_from = note.ended_at
    course = lineage.last(known, seen_from)
    if not wanted.verify_only:
        _copy_the_rest(catalog, shop, config.data_dir / "journal", note, say)
    fresh_journals = config.data_dir / "journal.restoring"
    try:
        tools.run("pg_combinebackup", "--output", shop.fresh, *(catalog.path(one.label) for one in chain))
        restored = recover(catalog, shop, wanted, course, config.data_dir / "restore.log", say)
        shutil.rmtree(shop.wal, ignore_errors=True)
        shutil.rmtree(fresh_journals, ignore_errors=True)
        restored.journals = put_back(
            catalog.journal,
            fresh_journals,
            restored.next_rows,
            None if at is None else _us(at),
            lambda us: lineage.happened(known, datetime.fromtimestamp(us / 1e6, UTC), seen_from),
        )
        wrong = archived.missing(catalog, archive_dir, restored.archive)
        for line in wrong.values():
            say(f"archive: {line}")
        if wrong and not (wanted.without_archive or wanted.verify_only):
            raise BackupError("files of the archive are missing (see above): to go on all the same --without-archive")
        if wrong and wanted.verify_only:
            say("a restore would need --without-archive")
        if not wanted.verify_only:
            _keep_histories(catalog, shop, say)
            archived.put_back(
                catalog,
                archive_dir,
                {path: sha256 for path, sha256 in restored.archive.items() if path not in wrong},
                say,
            )
            _put_in_place(config, shop, fresh_journals, restored, known, at)
    finally:
        clear(shop)
        shutil.rmtree(fresh_journals, ignore_errors=True)
    return restored


def _check_room(catalog: Catalog) -> None:
    """Raise BackupError where the restore could not be noted at its end, but in backups that can only be read.

    Unnoted, the next restore would give its timeline the same number, and the WAL of the two would be mixed.
    """
    room = catalog.wal / "room.new"
    try:
        catalog.wal.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with room.open("wb") as file:
                file.write(bytes(ROOM_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            room.unlink(missing_ok=True)
    except OSError as why:
        if why.errno != errno.EROFS:
            remedy = f": {ROOM_BYTES >> 10} KiB have to be free there" if why.errno in _NO_ROOM else ""
            raise BackupError(f"the restore cannot be noted in {catalog.wal}: {why.strerror}{remedy}") from why


def _keep_histories(catalog: Catalog, shop: Workshop, say: Say) -> None:
    try:
        keep_histories(shop.fresh, catalog.wal)
    except OSError as why:
        if why.errno != errno.EROFS:
            raise BackupError(f"the restore cannot be noted in {catalog.wal}: {why.strerror}") from why
        say(f"{catalog.root} can only be read: give the restored server a backup_dir of its own")


def _copy_the_rest(catalog: Catalog, shop: Workshop, live: Path, note: Note, say: Say) -> None:
    """Have the copies of the present journals whole: at the last, nobody may have followed. No server runs."""
    names = [path.name for path in live.iterdir() if is_journal(path)] if live.exists() else []
    is_known = any((catalog.journal / name).exists() for name in names)
    if not names or not (is_known or system_of(shop) == note.system_identifier):
        if names:
            say(f"{live} is not known to be of this database: it is set aside, and nothing of it comes back")
        return
    began = datetime.now(UTC)
    without = f"or, to do without what is only in {live}, move that away"
    try:
        with alone(catalog, FOLLOWER_S):
            copy_new(live, catalog.journal)
    except FollowedAlready as why:
        followed = following(catalog.root)
        if followed is None or followed.journals_until is None or followed.journals_until < began:
            raise BackupError(f"{why}, and does not copy the journals: end it first") from why
    except OSError as why:
        words = f"the last of {live} cannot be copied to {catalog.journal}: {why.strerror}"
        if why.errno == errno.EROFS:
            words += f". Copy the backups to where they can be written and name that (--backup-dir), {without}"
        elif why.errno in _NO_ROOM:
            words += f". Make room there, {without}"
        raise BackupError(words) from why


def _put_in_place(
    config: EmbeddedConfig,
    shop: Workshop,
    fresh_journals: Path,
    restored: Restored,
    known: list[lineage.Undone],
    at: datetime | None,
) -> None:
    now = datetime.now(UTC)
    journals = config.data_dir / "journal"
    if not embedded.stop(config):
        raise BackupError("PostgreSQL does not stop: see postgres.log")
    # From here to the end a server would find a database without its journals: none starts meanwhile.
    unfinished = config.data_dir / UNFINISHED_RESTORE
    was_unfinished = unfinished.exists()
    unfinished.touch(mode=0o600)
    sync_directory(config.data_dir)
    aside = free_name(journals, now)
    if journals.exists():
        journals.rename(aside)
        restored.aside.append(aside)
    done = lineage.Undone(at=at or now, done_at=now, timeline=restored.timeline, cluster=now)
    try:
        lineage.save(shop.fresh / lineage.IN_CLUSTER, [*known, done])
        cluster = put_in_place(config, shop, now)
    except (OSError, EmbeddedError) as why:
        if restored.aside:
            aside.rename(journals)
        if not was_unfinished:
            unfinished.unlink()
        raise BackupError(f"the restored database cannot be put in place: {why}") from why
    if cluster is not None:
        restored.aside.append(cluster)
    if fresh_journals.exists():
        fresh_journals.rename(journals)
    sync_directory(config.data_dir)
    unfinished.unlink()


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
