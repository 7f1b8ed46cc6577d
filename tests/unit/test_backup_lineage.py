"""What restores undid: which moments have happened, seen from which."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.backup.lineage import IN_BACKUPS, IN_CLUSTER, Undone, adopt, happened, last, restores, save
from app.backup.tools import BackupError


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 13, hour, minute, tzinfo=UTC)


FIRST = Undone(at=at(10, 30), done_at=at(12), timeline=2, cluster=at(12))
AGAIN = Undone(at=at(11), done_at=at(15), timeline=3, cluster=at(15))
"""Back to a moment that the first one had undone."""


@pytest.mark.parametrize(
    ("seen_from", "moment", "so"),
    [
        (at(13), at(10), True),
        (at(13), at(11), False),
        (at(13), at(12, 30), True),
        (at(11, 30), at(11), True),  # before the restore nothing was undone
        (at(16), at(10, 45), True),  # what the second one went back to
        (at(16), at(11, 30), False),
        (at(16), at(13), False),  # of the course that the second one left
        (None, at(13), False),
        (None, at(15, 30), True),
    ],
)
def test_a_moment_has_happened_or_not_for_who_looks_back_on_it(
    seen_from: datetime | None, moment: datetime, so: bool
) -> None:
    assert happened([FIRST, AGAIN], moment, seen_from) is so


@pytest.mark.parametrize(("moment", "so"), [(at(10), True), (at(11), False), (at(13), True), (at(17), True)])
def test_a_restore_of_all_there_is_undoes_nothing_and_is_looked_behind_once(moment: datetime, so: bool) -> None:
    everything = Undone(at=at(16), done_at=at(16), timeline=3, cluster=at(16))
    assert happened([FIRST, everything], moment, None) is so


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def test_backups_learn_of_the_restores_of_the_cluster_that_goes_on_with_them(data: Path, backups: Path) -> None:
    assert adopt(data, backups) == []
    save(data / "postgres" / IN_CLUSTER, [FIRST])
    # Restored and never used: the backups are another server's as before.
    assert restores(backups / IN_BACKUPS) == []
    assert adopt(data, backups) == adopt(data, backups) == [FIRST]
    save(data / "postgres" / IN_CLUSTER, [FIRST, AGAIN])
    assert adopt(data, backups) == restores(backups / IN_BACKUPS) == [FIRST, AGAIN]
    (data / "postgres" / IN_CLUSTER).write_text("no JSON")
    with pytest.raises(BackupError, match="which restores"):
        adopt(data, backups)


@pytest.mark.parametrize("own", [[], [FIRST]])
def test_who_puts_the_old_cluster_back_goes_on_where_it_was_left(data: Path, backups: Path, own: list[Undone]) -> None:
    save(backups / IN_BACKUPS, [FIRST, AGAIN])
    if own:
        save(data / "postgres" / IN_CLUSTER, own)
    known = adopt(data, backups)
    assert adopt(data, backups) == known, "noticed once"
    back = last(known, None)
    assert back is not None
    assert back.timeline == (2 if own else 1)
    assert happened(known, at(10), None)
    assert happened(known, at(11, 30), None) is not bool(own)
    assert happened(known, at(14), None) is bool(own)
    assert not happened(known, at(15, 30), None)
    # Those courses are still there for who asks for a moment of them.
    assert happened(known, at(14), at(14, 30))
    assert happened(known, at(10, 45), at(16))
