"""What following says when its disk is in trouble."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.backup.catalog import Catalog
from app.backup.following import TROUBLE, Follower, Following
from app.backup.recovering import _check_followed, _damage, _received_until, by_journals
from app.backup.tools import BackupError, Tools
from tests.backup_notes import a_note


def test_a_disk_that_takes_nothing_is_told_once_and_not_every_second(tmp_path: Path) -> None:
    live, backups = tmp_path / "data" / "journal" / ("0" * 32), tmp_path / "backups"
    live.mkdir(parents=True)
    (live / f"{0:020}.seg").write_bytes(b"a record")
    backups.mkdir()
    for name in ("journal", "wal"):
        (backups / name).touch()  # no directory: nothing can be written there
    said: list[str] = []
    follower = Follower(Catalog(backups), Tools(Path(), ""), tmp_path / "data", said.append)
    for _ in range(3):
        follower._look()
    assert [line.partition(":")[2][:24] for line in said] == [" journals are not copied", f" {backups}"[:24]]
    assert all(line.startswith(TROUBLE) for line in said)
    for name in ("journal", "wal"):
        (backups / name).unlink()
    follower._look()
    assert said[2:] == ["journals are copied again", f"{backups} is written again"]


def test_a_backup_from_before_the_wal_is_refused_with_from_when_on_there_is_some() -> None:
    taken = datetime(2026, 1, 13, 17, tzinfo=UTC)
    hour = timedelta(hours=1)
    known = Following(since=taken + hour, wal_until=taken + 3 * hour, journals_until=taken + 3 * hour)
    words = "received from 2026-01-13 18:00:00Z until 2026-01-13 20:00:00Z"
    with pytest.raises(BackupError, match=words):
        _check_followed(known, a_note(taken), taken + 2 * hour)


def test_a_time_without_wal_is_told_with_each_part_of_it_in_which_nobody_copied_journals() -> None:
    begin = datetime(2026, 1, 13, 17, tzinfo=UTC)
    minute = timedelta(minutes=1)
    gaps = ((begin, begin + minute), (begin + 10 * minute, begin + 12 * minute))
    known = Following(gaps=gaps, journals_until=begin + 20 * minute, wal_until=begin + 30 * minute)
    for since, until, told in (
        (0, 9, ": 2026-01-13 17:00:00Z to 2026-01-13 17:01:00Z)"),
        (1, 11, ": 2026-01-13 17:10:00Z to 2026-01-13 17:12:00Z)"),
        (11, 11, ": 2026-01-13 17:10:00Z to 2026-01-13 17:12:00Z)"),
        # WAL was received behind the last copy.
        (12, None, ": 2026-01-13 17:20:00Z to 2026-01-13 17:30:00Z)"),
        (12, 20, "journals; imports"),
    ):
        said = by_journals(known, begin + since * minute, None if until is None else begin + until * minute)
        assert told in said
        assert said.count(" to 2026") == told.count(" to 2026")
    many = Following(gaps=gaps * 4, journals_until=begin)
    assert " and 3 times more)" in by_journals(many, begin, None)
    assert "as far as those were made" in by_journals(None, begin, None)


def test_wal_that_was_received_is_known_though_it_is_gone_from_here(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    taken = a_note(datetime(2026, 1, 13, 17, tzinfo=UTC))
    page = bytes(8) + (0x4000000).to_bytes(8, sys.byteorder) + bytes(8176)
    (tmp_path / "wal" / "000000010000000000000004.partial").write_bytes(page)
    for reached, timeline, until in (
        ((1, 0x5000000), 1, 0x5000000),
        ((1, 0x3000000), 1, 0x4002000),
        ((1, 0x5000000), 2, 0),
        (None, 1, 0x4002000),
    ):
        assert _received_until(Catalog(tmp_path), Following(wal_reached=reached), taken, timeline) == until
    assert _damage("0/3000100", 0x3000100) is None
    assert "31 MiB that were received behind 0/3000100 CANNOT BE READ" in str(_damage("0/3000100", 0x5000000))
