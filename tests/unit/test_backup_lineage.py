"""What restores undid: which moments have happened, seen from which."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.backup.lineage import IN_BACKUPS, IN_DATA, Undone, adopt, before, happened, remember, restores
from app.backup.tools import BackupError


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 13, hour, minute, tzinfo=UTC)


FIRST = Undone(at(10, 30), at(12), 2)
SECOND = Undone(at(11), at(15), 3)


@pytest.mark.parametrize(
    ("wanted", "moment", "so"),
    [
        (at(13), at(10), True),
        (at(13), at(11), False),
        (at(13), at(12, 30), True),
        (at(11, 30), at(11), True),  # before the restore nothing was undone
        (at(16), at(11, 30), False),
        (None, at(12, 30), False),
        (None, at(15, 30), True),
    ],
)
def test_what_was_undone_has_not_happened_for_who_comes_later(
    wanted: datetime | None, moment: datetime, so: bool
) -> None:
    assert happened(before([FIRST, SECOND], wanted), moment) is so


def test_backups_learn_of_the_restores_of_the_directory_that_goes_on_with_them(tmp_path: Path) -> None:
    data, backups = tmp_path / "data", tmp_path / "backups"
    data.mkdir()
    backups.mkdir()
    assert adopt(data, backups) == []
    remember(data, [], FIRST)
    # Restored and never used: the backups are another server's as before.
    assert restores(backups / IN_BACKUPS) == []
    assert adopt(data, backups) == adopt(data, backups) == [FIRST]
    remember(data, restores(backups / IN_BACKUPS), SECOND)
    assert adopt(data, backups) == [FIRST, SECOND]
    (data / IN_DATA).write_text("no JSON")
    with pytest.raises(BackupError, match="which restores"):
        adopt(data, backups)
