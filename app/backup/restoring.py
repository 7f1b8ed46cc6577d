"""Bring back a database as it was: combine a chain, recover to a moment, look at it, put it in place. Blocking.

What was there is kept beside it. Journals of the present are set aside, and those of the backup put in their place, cut
at the moment: the next start drains them as it drains every journal that nobody owns.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg2

from app.backup import archived, lineage
from app.backup.catalog import Catalog, Note
from app.backup.following import FollowedAlready, alone, following
from app.backup.journals import Cut, copy_new, is_journal, put_back
from app.backup.tools import BackupError, Progress, Tools
from app.backup.verifying import verify
from app.backup.wal import broken_off, keep_histories, left_behind, needed, restore_command
from app.pipeline.journal import sync_directory
from app.storage import embedded
from app.storage.embedded import EmbeddedConfig
from app.storage.embedded_place import UNFINISHED_RESTORE
from app.storage.embedded_restore import (
    Workshop,
    clean_settings,
    clear,
    free_name,
    own,
    put_in_place,
    system_of,
    trial,
    workshop,
)
from app.storage.embedded_user import EmbeddedError
from app.storage.schema import revision

RECOVERY_S = 120.0
"""Without any progress of the recovery."""

FOLLOWER_S = 10.0
"""So long a `backup wal` that is at work has to end, as one of a server that was just stopped, or to copy journals."""

TAIL_BYTES = 1 << 20
"""So much of the WAL may lie behind the end of a recovery: a record whose end was not received yet."""

_NOT_REACHED = "before configured recovery target was reached"

Say = Callable[[str], None]


@dataclass(slots=True)
class Restored:
    """What a restore came to. ticks: stored ones, without the archive's. aside: where what was there is now.

    archive: manifests that the restored database names, with their SHA-256.
    """

    note: Note
    revision: str | None
    ticks: int
    timeline: int
    next_rows: Mapping[str, int] = field(default_factory=dict)
    archive: Mapping[str, str] = field(default_factory=dict)
    journals: list[Cut] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done. at: None: as far as the WAL goes. verify_only: replace nothing.

    without_archive: go on when files of the archive are missing that the restored database names.
    """

    note: Note
    at: datetime | None
    verify_only: bool = False
    without_archive: bool = False


def restore(
    catalog: Catalog, config: EmbeddedConfig, archive_dir: Path, wanted: Wanted, say: Say, progress: Progress
) -> Restored:
    """Restore the embedded database of a data directory, with its journals and its archive.

    The caller is alone in the catalog and has made sure that no server runs. Raises BackupError, EmbeddedError; then
    nothing was replaced.
    """
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
        restored = _recover(catalog, shop, wanted, course, config.data_dir / "restore.log", say)
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
        for line in wrong:
            say(f"archive: {line}")
        if wrong and not (wanted.without_archive or wanted.verify_only):
            raise BackupError("files of the archive are missing (see above): to go on all the same --without-archive")
        if wrong and wanted.verify_only:
            say("a restore would need --without-archive")
        if not wanted.verify_only:
            _keep_histories(catalog, shop, say)
            if not wrong:
                archived.put_back(catalog, archive_dir, restored.archive, say)
            _put_in_place(config, shop, fresh_journals, restored, known, at)
    finally:
        clear(shop)
        shutil.rmtree(fresh_journals, ignore_errors=True)
    return restored


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
    try:
        with alone(catalog, FOLLOWER_S):
            copy_new(live, catalog.journal)
    except FollowedAlready as why:
        followed = following(catalog.root)
        if followed is None or followed.journals_until is None or followed.journals_until < began:
            raise BackupError(f"{why}, and does not copy the journals: end it first") from why
    except OSError as why:
        raise BackupError(f"the last of {live} cannot be copied to {catalog.journal}: {why.strerror}") from why


def _recover(
    catalog: Catalog, shop: Workshop, wanted: Wanted, course: lineage.Undone | None, log: Path, say: Say
) -> Restored:
    """Have a server recover the fresh cluster to the moment, look at it, and stop it."""
    note, at = wanted.note, wanted.at
    log.unlink(missing_ok=True)
    clean_settings(shop)
    (shop.fresh / "recovery.signal").touch(mode=0o600)
    own(shop, shop.fresh)
    wal = _wal(catalog, shop, catalog.chain(note.label)[-1])
    # Never the latest one: a later restore's branches off before the end.
    timeline = note.timeline if course is None else max(course.timeline, note.timeline)
    left = broken_off(catalog.wal, note, timeline)
    if left is not None:
        timeline, lsn = left
        say(
            f"of the WAL behind the restore that left timeline {timeline} at {lsn} the first was not received: ticks"
            " and records since then are whole by their journals; of what else was written to the database (symbols,"
            " rules, keys) nothing comes back"
        )
        target = {"recovery_target_lsn": lsn, "recovery_target_inclusive": "off"}
    else:
        target = _at(at)
    to_the_end = not target
    try:
        with trial(shop, _recovery(wal, target, timeline), log, RECOVERY_S) as url:
            restored = _look(note, url)
    except EmbeddedError as why:
        if not target or _NOT_REACHED not in str(why):
            raise BackupError(str(why)) from why
        # Nothing was committed between the end of the WAL and that moment; what was acknowledged is in journals.
        if at is not None:
            _check_followed(catalog, note, at, say)
        with trial(shop, _recovery(wal, {}, timeline), log, RECOVERY_S) as url:
            restored = _look(note, url)
        to_the_end = True
    clean_settings(shop)
    if to_the_end:
        segment = note.wal_segment_bytes
        ended, bytes_behind = left_behind(catalog.wal, shop.fresh, timeline, restored.timeline, segment)
        if bytes_behind > TAIL_BYTES:
            say(
                f"WAL: {bytes_behind >> 20:,} MiB that were received behind {ended} CANNOT BE READ: a segment from"
                " there on is damaged or missing. Ticks and records since then come back by copies of their journals,"
                " what else was written (symbols, rules, keys, deletions) does not. Try a backup from after it"
            )
    return restored


def _check_followed(catalog: Catalog, note: Note, at: datetime, say: Say) -> None:
    """Raise BackupError unless everything that was acknowledged from the backup to that moment is here."""
    followed = following(catalog.root)
    if (
        followed is None
        or followed.since is None
        or followed.journals_until is None
        or followed.since > note.ended_at
        or followed.journals_until < at
    ):
        until = "no WAL was received"
        if followed is not None and followed.wal_until is not None:
            since = "" if followed.since is None else f" from {followed.since:%Y-%m-%d %H:%M:%S}Z"
            until = f"WAL was received{since} until {followed.wal_until:%Y-%m-%d %H:%M:%S}Z"
        raise BackupError(
            f"the archived WAL ends before {at:%Y-%m-%d %H:%M:%S}Z, or begins behind the backup ({until}): without --at"
            " all that there is comes back"
        )
    if followed.in_gap(at):
        say("journals were not copied at that moment: what was acknowledged shortly before it may be missing")
    if followed.wal_until is not None and followed.wal_until >= at:
        say("no commit after that moment was received: all of the WAL is from before it")
    else:
        until = "nothing" if followed.wal_until is None else f"all until {followed.wal_until:%Y-%m-%d %H:%M:%S}Z"
        say(
            f"of the WAL {until} was received: ticks and records are whole by their journals; of what else was written"
            " to the database after that (symbols, rules, keys) nothing comes back"
        )


def _wal(catalog: Catalog, shop: Workshop, note: Note) -> Path:
    """Return where the recovering server reads WAL: another user than this one needs copies of its own."""
    if os.geteuid() == shop.place.user.uid:
        return catalog.wal
    shop.wal.mkdir(mode=0o700)
    for path in needed(catalog.wal, note):
        shutil.copy2(path, shop.wal)
    own(shop, shop.wal)
    return shop.wal


def _recovery(wal: Path, target: Mapping[str, str], timeline: int) -> dict[str, str]:
    action = {"recovery_target_action": "promote"} if target else {}
    return {"restore_command": restore_command(wal), "recovery_target_timeline": str(timeline), **target, **action}


def _at(moment: datetime | None) -> dict[str, str]:
    if moment is None:
        return {}
    return {
        "recovery_target_time": f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00",
        "recovery_target_inclusive": "on",
    }


def _look(note: Note, url: str) -> Restored:
    """Ask the restored server what it has: it must at least be able to read every tick's key."""
    try:
        with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
            schema = revision(conn)
            cur.execute("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")
            [(timeline,)] = cur.fetchall()
            if schema is None:
                return Restored(note, None, 0, timeline)
            cur.execute("SELECT count(*) FROM ticks")
            [(ticks,)] = cur.fetchall()
            cur.execute("SELECT journal_id, next_row FROM ingest_log")
            next_rows = dict(cur.fetchall())
            return Restored(note, schema, ticks, timeline, next_rows, archived.named(cur))
    except psycopg2.Error as why:
        raise BackupError(f"the restored database cannot be read: {str(why).strip()}") from why


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
