"""Take a physical backup with pg_basebackup: into a hidden directory, checked, then in place. Blocking."""

from __future__ import annotations

import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.backup import archived
from app.backup.catalog import Catalog, Kind, Note
from app.backup.syncing import synced_meanwhile
from app.backup.tools import BackupError, Progress, Tools, free_bytes
from app.backup.verifying import verify_files
from app.storage.schema import revision

_HIDDEN = ".taking-"
_SPARE = 1.1
"""So much more than the database's size has to be free."""


class _WalRange(msgspec.Struct, rename={"timeline": "Timeline", "start": "Start-LSN", "end": "End-LSN"}):
    timeline: int
    start: str
    end: str


class _Manifest(msgspec.Struct, rename={"system": "System-Identifier", "wal": "WAL-Ranges"}):
    """Of backup_manifest what a note wants: https://www.postgresql.org/docs/18/backup-manifest-toplevel.html"""

    wal: list[_WalRange]
    system: int | None = None


def take(
    catalog: Catalog,
    tools: Tools,
    kind: Kind,
    progress: Progress,
    archive_dir: Path,
    seen: dict[str, str | None],
) -> Note:
    """Take a backup and verify it; return its note. The caller is alone in the catalog.

    An incremental one holds what changed since the newest sound backup of this server. Raises BackupError, also when
    there is none, or when the server keeps no WAL summaries. seen: files of the archive that were checked, as for
    `verify`.
    """
    for left in catalog.unfinished():
        shutil.rmtree(left)
    parent = _parent(catalog, tools) if kind == "incremental" else None
    label, began_at = _free_label(catalog, kind)
    if kind == "full":
        _room(catalog, tools)
    fresh = catalog.base / f"{_HIDDEN}{label}"
    more = [] if parent is None else [f"--incremental={catalog.path(parent.label) / 'backup_manifest'}"]
    try:
        with synced_meanwhile(fresh):
            tools.run(
                "pg_basebackup",
                f"--pgdata={fresh}",
                "--format=plain",
                "--wal-method=stream",
                "--checkpoint=fast",
                f"--label={label}",
                "--progress",
                "--no-password",
                "--no-sync",
                *more,
                progress=progress,
            )
        verify_files(tools, fresh)
        # Behind the database's part: what it names is in the archive by now.
        archived.copy_all(catalog, archive_dir)
        note = _note(fresh, tools, label, kind, parent, began_at)
        note = msgspec.structs.replace(note, archive_damage=archived.damage(catalog, note.archive, seen))
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    fresh.rename(catalog.path(label))
    catalog.sync()
    catalog.save(note)
    return note


def _free_label(catalog: Catalog, kind: Kind) -> tuple[str, datetime]:
    """Return a name that no backup has, which may take a second, and its moment."""
    while True:
        now = datetime.now(UTC)
        label = f"{now:%Y%m%dT%H%M%SZ}-{kind}"
        if not catalog.path(label).exists():
            return label, now
        time.sleep(0.1)


def can_be_incremental(catalog: Catalog, tools: Tools) -> str | None:
    """Return why a backup has to be full, None when an incremental one can be taken."""
    try:
        _parent(catalog, tools)
    except BackupError as why:
        return str(why)
    return None


def _parent(catalog: Catalog, tools: Tools) -> Note:
    version, summaries, system, timeline = tools.row(
        "SELECT current_setting('server_version_num')::int, current_setting('summarize_wal', true),"
        " (SELECT system_identifier::text FROM pg_control_system()),"
        " (SELECT timeline_id FROM pg_control_checkpoint())"
    )
    if version < 170000:
        raise BackupError("incremental backups need PostgreSQL 17 or newer")
    if summaries != "on":
        raise BackupError("incremental backups need the server's setting summarize_wal = on")
    notes = [note for note in catalog.sound() if note.system_identifier == system]
    if not notes:
        raise BackupError("there is no verified backup of this server yet that an incremental one could build on")
    if notes[-1].timeline != timeline:
        raise BackupError("the database was restored since its newest backup: the next one has to be a full one")
    return notes[-1]


def _room(catalog: Catalog, tools: Tools) -> None:
    (size,) = tools.row("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")
    free = free_bytes(catalog.root)
    if free < size * _SPARE:
        raise BackupError(
            f"the database has {size / 1e9:.1f} GB, and {catalog.root} only {free / 1e9:.1f} GB free: prune, or set"
            " another backup_dir"
        )


def _note(files: Path, tools: Tools, label: str, kind: Kind, parent: Note | None, began_at: datetime) -> Note:
    try:
        manifest = msgspec.json.decode((files / "backup_manifest").read_bytes(), type=_Manifest)
    except (OSError, msgspec.MsgspecError) as why:
        raise BackupError(f"pg_basebackup left no manifest that can be read: {why}") from why
    started = re.search(r"START TIMELINE: (\d+)", (files / "backup_label").read_text())
    version, segment_bytes, system = tools.row(
        "SELECT current_setting('server_version'), pg_size_bytes(current_setting('wal_segment_size')),"
        " (SELECT system_identifier::text FROM pg_control_system())"
    )
    with tools.connection() as conn, conn.cursor() as cur:
        schema, archive = revision(conn), archived.named(cur)
    return Note(
        label=label,
        kind=kind,
        parent=None if parent is None else parent.label,
        began_at=began_at,
        ended_at=datetime.now(UTC),
        start_lsn=manifest.wal[0].start,
        end_lsn=manifest.wal[-1].end,
        timeline=int(started[1]) if started else manifest.wal[-1].timeline,
        wal_segment_bytes=segment_bytes,
        bytes=sum(path.stat().st_size for path in files.rglob("*") if path.is_file()),
        server_version=str(version),
        system_identifier=str(system),
        schema_revision=schema,
        verified_at=datetime.now(UTC),
        archive=archive,
    )
