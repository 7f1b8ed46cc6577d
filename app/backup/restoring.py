"""Bring back a database as it was: combine a chain, recover to a moment, look at it, put it in place. Blocking.

What was there is kept beside it. Journals of the present are set aside, and those of the backup put in their place, cut
at the moment: the next start drains them as it drains every journal that nobody owns.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg2

from app.backup.catalog import Catalog, Note
from app.backup.journals import Cut, put_back
from app.backup.tools import BackupError, Progress, Tools
from app.backup.verifying import verify
from app.backup.wal import following, needed, restore_command
from app.storage import embedded
from app.storage.embedded import EmbeddedConfig
from app.storage.embedded_restore import Workshop, clean_settings, clear, own, put_in_place, trial, workshop
from app.storage.embedded_user import EmbeddedError
from app.storage.schema import revision

RECOVERY_S = 120.0
"""Without any progress of the recovery."""

_NOT_REACHED = "before configured recovery target was reached"

Say = Callable[[str], None]


@dataclass(slots=True)
class Restored:
    """What a restore came to. ticks: stored ones. aside: where what was there is now."""

    note: Note
    revision: str | None
    ticks: int
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
    found = [note for note in catalog.notes() if note.sound and (at is None or note.ended_at <= at)]
    if not found:
        when = "" if at is None else f" that ended before {at:%Y-%m-%d %H:%M:%S}Z"
        raise BackupError(f"there is no verified backup{when} in {catalog.root}: python -m app backup list")
    return found[-1]


def restore(
    catalog: Catalog,
    config: EmbeddedConfig,
    journals: Path,
    note: Note,
    at: datetime | None,
    *,
    verify_only: bool,
    say: Say,
    progress: Progress,
) -> Restored:
    """Restore the embedded database to a moment, None: as far as its WAL goes; `verify_only`: replace nothing.

    journals: of the data directory. The caller is alone in the catalog and has made sure that no server runs. Raises
    BackupError, EmbeddedError; then nothing was replaced.
    """
    shop = workshop(config)
    tools = Tools(shop.place.binaries, "")
    chain = catalog.chain(note.label)
    damaged = [one for one in verify(catalog, tools, note.label, progress) if one.damage is not None]
    if damaged:
        raise BackupError(f"backup {damaged[0].label} is damaged: {damaged[0].damage}")
    say(f"{note.label}: verified, {len(chain)} backup{'s' if len(chain) > 1 else ''} in its chain")
    log = config.data_dir / "restore.log"
    log.unlink(missing_ok=True)
    try:
        tools.run("pg_combinebackup", "--output", shop.fresh, *(catalog.path(one.label) for one in chain))
        clean_settings(shop)
        (shop.fresh / "recovery.signal").touch(mode=0o600)
        own(shop, shop.fresh)
        wal = _wal(catalog, shop, chain[-1])
        try:
            restored, next_rows = _recover(shop, note, wal, at, log)
        except EmbeddedError as why:
            if at is None or _NOT_REACHED not in str(why):
                raise BackupError(str(why)) from why
            _check_followed(catalog, note, at)
            # Nothing was committed between the end of the WAL and that moment; what was acknowledged is in journals.
            say("no commit after that moment was received: all of the WAL is from before it")
            restored, next_rows = _recover(shop, note, wal, None, log)
        clean_settings(shop)
    except BaseException:
        clear(shop)
        raise
    shutil.rmtree(shop.wal, ignore_errors=True)
    fresh_journals = config.data_dir / "journal.restoring"
    shutil.rmtree(fresh_journals, ignore_errors=True)
    until_us = None if at is None else round(at.timestamp() * 1e6)
    restored.journals = put_back(catalog.journal, fresh_journals, next_rows, until_us)
    if verify_only:
        clear(shop)
        shutil.rmtree(fresh_journals, ignore_errors=True)
        return restored
    _put_in_place(config, shop, journals, fresh_journals, restored)
    return restored


def _recover(
    shop: Workshop, note: Note, wal: Path, at: datetime | None, log: Path
) -> tuple[Restored, dict[str, int]]:
    with trial(shop, _recovery(wal, at), log, RECOVERY_S) as url:
        return _look(note, url)


def _check_followed(catalog: Catalog, note: Note, at: datetime) -> None:
    """Raise BackupError unless everything from the backup to that moment was received."""
    followed = following(catalog.wal)
    if followed is None or followed.since > note.ended_at or followed.until < at:
        until = "no WAL was received" if followed is None else f"WAL was received until {followed.until:%H:%M:%S}Z"
        raise BackupError(
            f"the archived WAL ends before {at:%Y-%m-%d %H:%M:%S}Z ({until}): without --at all that there is comes back"
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


def _recovery(wal: Path, at: datetime | None) -> dict[str, str]:
    settings = {"restore_command": restore_command(wal), "recovery_target_timeline": "latest"}
    if at is not None:
        settings |= {
            "recovery_target_time": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00",
            "recovery_target_inclusive": "on",
            "recovery_target_action": "promote",
        }
    return settings


def _look(note: Note, url: str) -> tuple[Restored, dict[str, int]]:
    """Ask the restored server what it has: it must at least be able to read every tick's key."""
    try:
        with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
            schema = revision(conn)
            if schema is None:
                return Restored(note, None, 0), {}
            cur.execute("SELECT count(*) FROM ticks")
            [(ticks,)] = cur.fetchall()
            cur.execute("SELECT journal_id, next_row FROM ingest_log")
            return Restored(note, schema, ticks), dict(cur.fetchall())
    except psycopg2.Error as why:
        raise BackupError(f"the restored database cannot be read: {str(why).strip()}") from why


def _put_in_place(config: EmbeddedConfig, shop: Workshop, journals: Path, fresh: Path, restored: Restored) -> None:
    now = datetime.now(UTC)
    if not embedded.stop(config):
        raise BackupError("PostgreSQL does not stop: see postgres.log")
    # Journals first: killed between the two, the database of the present has no journal that is not its own's past.
    if journals.exists():
        aside = journals.with_name(f"{journals.name}.before-{now:%Y%m%dT%H%M%SZ}")
        journals.rename(aside)
        restored.aside.append(aside)
    cluster = put_in_place(config, shop, now)
    if cluster is not None:
        restored.aside.append(cluster)
    if fresh.exists():
        fresh.rename(journals)
