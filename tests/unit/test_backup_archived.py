"""Copies of the archive's files: which go with old backups, and what is said of damaged ones."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from app.backup.archived import copy_all, damage, missing, put_back, remove_unneeded
from app.backup.catalog import Catalog, Note
from app.backup.tools import BackupError
from app.storage.archive_files import FORMAT, Manifest, TickFile, encode, file_sha256
from tests.backup_notes import a_note

NOW = datetime(2026, 1, 14, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "backups").mkdir()
    return Catalog(tmp_path / "backups")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def week(archive: Path, name: str, written_at: datetime = NOW) -> dict[str, str]:
    """Make a directory of the archive; return its manifest's path and checksum."""
    folder = archive / "ticks" / name
    folder.mkdir(parents=True)
    file = folder / "ticks-1.parquet"
    file.write_bytes(name.encode() * 100)
    made = TickFile(file.name, 1, file.stat().st_size, file_sha256(file), {}, [], (0, 0))
    data, sha256 = encode(Manifest(FORMAT, 0, 1, 1, 0, made.bytes, "", [], [made]))
    (folder / "manifest-1.json").write_bytes(data)
    for path in folder.iterdir():
        os.utime(path, (written_at.timestamp(), written_at.timestamp()))
    return {f"ticks/{name}/manifest-1.json": sha256}


def note(archive: dict[str, str], began_at: datetime = NOW) -> Note:
    return a_note(began_at, label="one", archive=archive, verified_at=None)


def copies(catalog: Catalog) -> list[str]:
    return sorted(path.name for path in catalog.archive.iterdir())


def test_a_copy_goes_when_neither_a_kept_backup_nor_the_archive_has_it(catalog: Catalog, archive: Path) -> None:
    old = NOW - timedelta(days=40)
    named, live, gone = (week(archive, name, old) for name in ("named-1", "live-1", "gone-1"))
    young = week(archive, "young-1", NOW - timedelta(hours=12))
    (archive / "ticks" / ".new-1").mkdir()
    copy_all(catalog, archive)
    copy_all(catalog, archive)
    assert copies(catalog) == ["gone-1", "live-1", "named-1", "young-1"]
    for path in (*named, *gone, *young):
        (archive / path).parent.rename(archive / "ticks" / f".{Path(path).parent.name}")
    assert remove_unneeded(catalog, archive, []) == []
    assert remove_unneeded(catalog, archive, [note({**named, **live})]) == ["gone-1"]
    # A moment behind the oldest backup may need what is younger than that one.
    assert copies(catalog) == ["live-1", "named-1", "young-1"]


def test_what_is_lost_or_damaged_comes_back_from_its_copy(catalog: Catalog, archive: Path) -> None:
    lost, bad, fine = (week(archive, name) for name in ("lost-1", "bad-1", "fine-1"))
    copy_all(catalog, archive)
    for path in archive.glob("ticks/lost-1/*"):
        path.unlink()
    other = archive / "ticks" / "bad-1" / "ticks-1.parquet"
    other.unlink()  # else its copy, which may be the same file, were damaged too
    other.write_bytes(b"bad")
    every = {**lost, **bad, **fine}
    assert missing(catalog, archive, every) == {}
    said: list[str] = []
    put_back(catalog, archive, every, said.append)
    assert [line.split(":")[0] for line in said] == ["lost-1", "bad-1"]
    assert other.read_bytes() == b"bad-1" * 100
    assert (archive / "unused" / "bad-1.damaged" / "ticks-1.parquet").read_bytes() == b"bad"


def test_what_is_damaged_in_both_places_is_named(catalog: Catalog, archive: Path) -> None:
    bad = week(archive, "bad-1")
    copy_all(catalog, archive)
    seen: dict[str, str | None] = {}
    assert damage(catalog, bad, seen) is None
    file = archive / "ticks" / "bad-1" / "ticks-1.parquet"
    file.write_bytes(b"x" + file.read_bytes()[1:])  # in place: a hard link of one file system
    assert damage(catalog, bad, seen) is None, "what was looked at is not read again"
    assert "is not what was archived" in str(damage(catalog, bad, {}))
    other = week(archive, "other-1")
    [(path, why)] = missing(catalog, archive, bad | other).items()
    assert {path} == bad.keys()
    assert "beside the backups" in why
    with pytest.raises(BackupError, match="no better"):
        put_back(catalog, archive, bad, lambda _: None)


def test_notes_of_before_there_was_an_archive_are_read() -> None:
    data = msgspec.json.decode(msgspec.json.encode(note({})))
    del data["archive"], data["archive_damage"]
    assert msgspec.convert(data, Note) == note({})
