"""Removing a journal that is done, while another worker comes by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.pipeline.journal import Journal
from app.pipeline.records import Entry
from app.pipeline.recovery import free, take_orphans

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with closing(Journal(tmp_path, ID, 1 << 20)) as journal:
        journal.append([Entry("ticks", 1, 3, b"three rows")])
        yield journal.directory


def removed(directory: Path) -> bool:
    return free(directory, 3, 3, 0.0, 1 << 30, own=False).gone


def test_a_directory_that_another_worker_removed_first_is_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmdir, overtaken = Path.rmdir, list[Path]()

    def overtake(self: Path) -> None:
        if not overtaken:
            # Between the removal of the lock and of the directory another worker looks for journals.
            overtaken.append(self)
            assert take_orphans(directory.parent, frozenset()) == ([], [])
            assert not directory.exists()
        rmdir(self)

    monkeypatch.setattr(Path, "rmdir", overtake)
    assert removed(directory)
    assert overtaken == [directory]
    assert removed(directory), "asked again, it is still gone"


def test_ones_own_directory_that_somebody_removed_is_no_silent_matter(directory: Path) -> None:
    for path in directory.iterdir():
        os.unlink(path)
    directory.rmdir()
    with pytest.raises(FileNotFoundError):
        free(directory, 3, 3, 0.0, 1 << 30, own=True)
