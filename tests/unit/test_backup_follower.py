"""What following says when its disk is in trouble."""

from __future__ import annotations

from pathlib import Path

from app.backup.catalog import Catalog
from app.backup.following import TROUBLE, Follower
from app.backup.tools import Tools


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
