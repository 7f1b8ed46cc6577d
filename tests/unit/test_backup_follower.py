"""What following says when its disk is in trouble."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from app.backup import restoring
from app.backup.catalog import Catalog
from app.backup.following import FILE, TROUBLE, Follower, Following
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


def test_a_backup_from_before_the_wal_is_refused_with_from_when_on_there_is_some(tmp_path: Path) -> None:
    taken = datetime(2026, 1, 13, 17, tzinfo=UTC)
    hour = timedelta(hours=1)
    known = Following(since=taken + hour, wal_until=taken + 3 * hour, journals_until=taken + 3 * hour)
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(msgspec.json.encode(known))
    words = "received from 2026-01-13 18:00:00Z until 2026-01-13 20:00:00Z"
    with pytest.raises(BackupError, match=words):
        restoring._check_followed(Catalog(tmp_path), a_note(taken), taken + 2 * hour, print)
