"""Have a server recover a combined backup to a moment, and say what of the time behind it does not come back. Blocking.

A server that recovers takes a segment of WAL that is damaged or missing for the end of all WAL. What was received
behind that end tells that it is none: nobody may take such a database for one of the wanted moment.
"""

from __future__ import annotations

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
from app.backup.following import Following, following
from app.backup.journals import Cut
from app.backup.tools import BackupError
from app.backup.wal import branched_off, broken_off, lsn_number, needed, received_until, restore_command
from app.storage.embedded_restore import Workshop, clean_settings, own, trial
from app.storage.embedded_user import EmbeddedError
from app.storage.schema import revision

RECOVERY_S = 120.0
"""Without any progress of the recovery."""

TAIL_BYTES = 1 << 20
"""So much of the WAL may lie behind the end of a recovery: a record whose end was not received yet."""

MOST_TOLD = 5
"""Of the times in which nobody copied journals, so many are told one by one."""

_NOT_REACHED = "before configured recovery target was reached"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done. at: None: as far as the WAL goes. verify_only: replace nothing.

    without_archive: go on when files of the archive are missing that the restored database names.
    up_to_the_damage: go on when WAL from before the moment cannot be read.
    """

    note: Note
    at: datetime | None
    verify_only: bool = False
    without_archive: bool = False
    up_to_the_damage: bool = False


@dataclass(slots=True)
class Restored:
    """What a restore came to. ticks: stored ones, without the archive's. aside: where what was there is now.

    committed_at: of the last transaction that the WAL brought, None: it brought none. archive: manifests that the
    restored database names, with their SHA-256.
    """

    note: Note
    revision: str | None
    ticks: int
    timeline: int
    committed_at: datetime | None
    next_rows: Mapping[str, int] = field(default_factory=dict)
    archive: Mapping[str, str] = field(default_factory=dict)
    journals: list[Cut] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)


def recover(
    catalog: Catalog, shop: Workshop, wanted: Wanted, course: lineage.Undone | None, log: Path, say: Say
) -> Restored:
    """Have a server recover the fresh cluster to the moment, look at it, and stop it. Raises BackupError."""
    note, at = wanted.note, wanted.at
    log.unlink(missing_ok=True)
    clean_settings(shop)
    (shop.fresh / "recovery.signal").touch(mode=0o600)
    own(shop, shop.fresh)
    # Never the latest one: a later restore's branches off before the end.
    timeline = note.timeline if course is None else max(course.timeline, note.timeline)
    left = broken_off(catalog.wal, note, timeline)
    if left is not None:
        timeline, lsn = left
        target = {"recovery_target_lsn": lsn, "recovery_target_inclusive": "off"}
    else:
        target = _at(at)
    # Before the recovery: while a backup is only tried, more may be received.
    followed = following(catalog.root)
    until = _received_until(catalog, followed, note, timeline)
    wal = _wal(catalog, shop, catalog.chain(note.label)[-1])
    reached = bool(target)
    try:
        with trial(shop, _recovery(wal, target, timeline), log, RECOVERY_S) as url:
            restored = _look(note, url)
    except EmbeddedError as why:
        if not target or _NOT_REACHED not in str(why):
            raise BackupError(str(why)) from why
        # It may be that nothing was committed between the end of the WAL and that moment.
        with trial(shop, _recovery(wal, {}, timeline), log, RECOVERY_S) as url:
            restored = _look(note, url)
        reached = False
    clean_settings(shop)
    since = restored.committed_at or note.ended_at
    if left is not None:
        until = min(until, lsn_number(left[1]))  # what lies behind that was undone
    damage = None if reached else _damage(branched_off(shop.fresh, restored.timeline), until)
    if damage is not None:
        told = by_journals(followed, since, at)
        say(f"WAL: {damage}. The database is as it was at {since:%Y-%m-%d %H:%M:%S}Z: {told}")
    elif left is not None:
        say(
            f"of the WAL behind the restore that left timeline {left[0]} at {left[1]} the first was not received:"
            f" {by_journals(followed, since, at)}"
        )
    if damage is not None and wanted.verify_only:
        say("a restore would need --up-to-the-damage")
    elif damage is not None and not wanted.up_to_the_damage:
        raise BackupError(
            "WAL cannot be read (see above): restore a backup from after the damage, or to a moment before"
            f" {since:%Y-%m-%d %H:%M:%S}Z (--at); to go on all the same --up-to-the-damage"
        )
    if at is not None and not reached:
        _check_followed(followed, note, at)
        if damage is None:
            say(_short_of(followed, since, at))
    return restored


def _received_until(catalog: Catalog, followed: Following | None, note: Note, timeline: int) -> int:
    """Return the place (bytes) up to which a timeline's WAL was received, wherever that is now."""
    reached = None if followed is None else followed.wal_reached
    known = reached[1] if reached is not None and reached[0] == timeline else 0
    return max(known, received_until(catalog.wal, timeline, note.wal_segment_bytes))


def _damage(ended: str, until: int) -> str | None:
    """Return what is wrong where a recovery ended (LSN) before the place (bytes) up to which WAL was received.

    None: nothing, or at most a record whose end was not received is missing. ended: "" where there was none to recover.
    """
    behind = until - lsn_number(ended) if ended else 0
    if behind <= TAIL_BYTES:
        return None
    return (
        f"{behind >> 20:,} MiB that were received behind {ended} CANNOT BE READ: a segment from there on is damaged or"
        " missing"
    )


def by_journals(followed: Following | None, since: datetime, until: datetime | None) -> str:
    """Say what comes back of a time of which no WAL does, and what does not. until: None: up to now."""
    but = ", as far as those were made"
    if followed is not None and followed.journals_until is not None:
        gaps = followed.gaps_in(since, until)
        times = ", ".join(f"{begin:%Y-%m-%d %H:%M:%S}Z to {end:%Y-%m-%d %H:%M:%S}Z" for begin, end in gaps[:MOST_TOLD])
        more = f" and {len(gaps) - MOST_TOLD} times more" if len(gaps) > MOST_TOLD else ""
        # Not is: journals stay for a while after they were committed, and may have been copied later.
        but = f" (what was acknowledged when nobody made those may be missing: {times}{more})" if gaps else ""
    return (
        f"ticks and records since then come back by copies of their journals{but}; imports, and what else was written"
        " to the database (symbols, rules, keys, deletions), do not"
    )


def _check_followed(followed: Following | None, note: Note, at: datetime) -> None:
    """Raise BackupError unless everything that was acknowledged from the backup to that moment was followed."""
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


def _short_of(followed: Following | None, since: datetime, at: datetime) -> str:
    """Say what it means that the WAL, none of which is known to be damaged, has nothing from behind the moment.

    since: when the last of it was committed.
    """
    until = None if followed is None else followed.wal_until
    if followed is None or until is None or until < at:
        received = "nothing" if until is None else f"all until {until:%Y-%m-%d %H:%M:%S}Z"
        return f"of the WAL {received} was received: {by_journals(followed, until or since, at)}"
    words = f"the WAL has no commit from after that moment: its last one is of {since:%Y-%m-%d %H:%M:%S}Z"
    if followed.gaps_in(at, at):
        words += "; journals were not copied at that moment: what was acknowledged shortly before it may be missing"
    return words


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
            cur.execute(
                "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
                " pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC'"
            )
            [(timeline, committed_at)] = cur.fetchall()
            committed_at = None if committed_at is None else committed_at.replace(tzinfo=UTC)
            if schema is None:
                return Restored(note, None, 0, timeline, committed_at)
            cur.execute("SELECT count(*) FROM ticks")
            [(ticks,)] = cur.fetchall()
            cur.execute("SELECT journal_id, next_row FROM ingest_log")
            next_rows = dict(cur.fetchall())
            return Restored(note, schema, ticks, timeline, committed_at, next_rows, archived.named(cur))
    except psycopg2.Error as why:
        raise BackupError(f"the restored database cannot be read: {str(why).strip()}") from why
