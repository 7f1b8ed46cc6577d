"""What backups write gets to the disk while it is written, all of it, and what cannot is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.backup import syncing
from app.backup.syncing import synced_meanwhile
from app.backup.tools import BackupError
from tests.waiting import wait_until


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How large each file and directory was when it was synced last."""
    found: dict[str, int] = {}
    real = os.fsync

    def fsync(fd: int) -> None:
        found[os.readlink(f"/proc/self/fd/{fd}")] = os.fstat(fd).st_size
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


@pytest.fixture
def portions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offset and size of each portion that was written while the file grew."""
    monkeypatch.setattr(syncing, "PORTION_BYTES", 1 << 16)
    found: list[tuple[int, int]] = []
    real = syncing.mmap.mmap

    class Seen(real):  # type: ignore[misc, valid-type] # the class that the module uses
        def __new__(cls, fd: int, length: int, *, offset: int) -> Seen:
            self = super().__new__(cls, fd, length, offset=offset)
            self.at = (offset, length)
            return self  # type: ignore[no-any-return] # of an untyped base

        def flush(self) -> None:
            found.append(self.at)
            super().flush()

    monkeypatch.setattr(syncing.mmap, "mmap", Seen)
    return found


def test_all_that_was_written_is_synced(tmp_path: Path, synced: dict[str, int]) -> None:
    root = tmp_path / "backup"
    with synced_meanwhile(root):
        (root / "base" / "1").mkdir(parents=True)
        (root / "base" / "1" / "2604").write_bytes(b"a" * 300_000)
        (root / "empty").touch()
        (root / "late.tmp").write_bytes(b"b" * 10)
        (root / "late.tmp").rename(root / "late")
    files = {str(path): path.stat().st_size for path in [root, *root.rglob("*")]}
    assert synced == files


def test_what_a_tablespace_holds_is_synced(tmp_path: Path, synced: dict[str, int]) -> None:
    root, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    with synced_meanwhile(root):
        (root / "pg_tblspc").mkdir(parents=True)
        elsewhere.mkdir()
        (root / "pg_tblspc" / "16500").symlink_to(elsewhere)
        (elsewhere / "2604").write_bytes(b"a" * 10)
    assert synced[str(elsewhere / "2604")] == 10
    assert str(elsewhere) in synced


def test_a_file_is_synced_in_portions_while_it_grows(tmp_path: Path, portions: list[tuple[int, int]]) -> None:
    with synced_meanwhile(tmp_path), (tmp_path / "1").open("wb", buffering=0) as file:
        file.write(b"a" * 100_000)
        wait_until(lambda: len(portions) == 2, what="the first two portions are synced")
        file.write(b"b" * 50_000)
        wait_until(lambda: len(portions) == 4, what="the second one again, and a third")
        # What was written before is written over: the fsync at the end has it.
        os.pwrite(file.fileno(), b"c", 0)
    assert portions == [(0, 65536), (65536, 34464), (65536, 65536), (131072, 18928)]


def test_without_mappings_a_file_is_synced_at_once(
    tmp_path: Path, synced: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing.mmap, "mmap", fails)
    with synced_meanwhile(tmp_path):
        (tmp_path / "1").write_bytes(b"a" * 10)
        wait_until(lambda: synced, what="the file to be synced")
        assert synced == {str(tmp_path / "1"): 10}


def test_what_cannot_be_synced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(BackupError, match="disk: No space left"), synced_meanwhile(tmp_path):
        (tmp_path / "1").write_bytes(b"a")
    with pytest.raises(ValueError, match="of its own"), synced_meanwhile(tmp_path):
        raise ValueError("of its own")


def fails(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
