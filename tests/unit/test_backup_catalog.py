"""Which backups may go, and which are needed."""

from __future__ import annotations

import argparse
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from app.backup.catalog import LOOK_S, Catalog, Kind, Note, full_is_due, removable
from app.backup.restoring import choose
from app.backup.tools import BackupError
from app.backup.wal import needed, received, remove_older, restore_command
from app.cli import backup
from app.settings import load
from tests.backup_notes import a_note
from tests.waiting import WAIT_S

DAY = datetime(2026, 1, 4, 2, tzinfo=UTC)  # a Sunday


def note(day: int, kind: Kind, parent: Note | None = None, *, damage: str | None = None, lsn: str = "0/0") -> Note:
    at = DAY + timedelta(days=day)
    return a_note(
        at,
        kind=kind,
        parent=None if parent is None else parent.label,
        ended_at=at + timedelta(minutes=5),
        start_lsn=lsn,
        end_lsn=lsn,
        damage=damage,
    )


def weeks(count: int) -> list[Note]:
    """A full backup each Sunday, incremental ones on the other days, each on the one before."""
    found: list[Note] = []
    for day in range(7 * count):
        found.append(note(day, "incremental", found[-1]) if day % 7 else note(day, "full"))
    return found


def test_a_month_is_kept_with_all_that_it_needs() -> None:
    notes = weeks(8)
    now = notes[-1].ended_at + timedelta(hours=1)
    gone = removable(notes, now, 30, 0)
    # 30 days before the 56th lie in the fourth week: its chain stays as a whole.
    assert [one.label for one in gone] == [one.label for one in reversed(notes[:21])]


def test_a_number_of_full_backups_is_kept_whatever_their_age() -> None:
    notes = weeks(5)
    now = notes[-1].ended_at + timedelta(days=1000)
    assert removable(notes, now, 30, 2) == list(reversed(notes[:21]))
    assert removable(notes, now, 0, 0) == []


def test_the_newest_sound_one_stays_whatever_is_asked() -> None:
    good, bad = note(0, "full"), note(7, "full", damage="a byte")
    late = bad.ended_at + timedelta(days=1000)
    assert removable([good, bad], late, 1, 0) == [bad]
    assert removable([bad], late, 1, 0) == []


def test_a_chain_is_as_whole_as_its_links(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    first, second, third = weeks(1)[:3]
    with catalog.alone():
        for one in (first, second, third):
            catalog.path(one.label).mkdir()
            catalog.save(one)
    assert [one.label for one in catalog.chain(third.label)] == [first.label, second.label, third.label]
    catalog.remove(second)
    with pytest.raises(BackupError, match="which is gone"):
        catalog.chain(third.label)
    with pytest.raises(BackupError, match="no backup"):
        catalog.note("nothing")


@pytest.mark.parametrize(
    ("newest", "today", "due"),
    [
        (0, 0, False),  # the Sunday itself, for the second time
        (0, 6, False),
        (0, 7, True),
        (0, 8, True),  # nothing ran on Sunday
        (3, 6, False),  # the first of all, on a Wednesday
        (3, 7, True),
    ],
)
def test_a_full_backup_is_due_once_a_week_also_when_its_day_was_missed(newest: int, today: int, due: bool) -> None:
    assert full_is_due([note(newest, "full")], DAY + timedelta(days=today), 6) is due
    assert full_is_due([note(today, "full", damage="a byte")], DAY + timedelta(days=today), 6)
    assert full_is_due([], DAY, 6)


def test_a_restore_begins_with_nothing_that_needs_a_damaged_backup(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    older = note(0, "full")
    newer = note(7, "full", damage="a file is missing")
    for one in (older, note(1, "incremental", older), newer, note(8, "incremental", newer)):
        catalog.path(one.label).mkdir(parents=True)
        catalog.save(one)
    assert choose(catalog, None, None).label == note(1, "incremental").label


def test_a_day_without_room_for_its_backup_still_removes_what_is_too_old_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = Catalog(tmp_path / "backups")
    for day in (0, 7):
        catalog.path(note(day, "full").label).mkdir(parents=True)
        catalog.save(note(day, "full"))
    fresh = msgspec.structs.replace(note(14, "full"), ended_at=datetime.now(UTC))

    def take(*_: object) -> Note:
        if len(catalog.notes()) > 1:
            raise BackupError("no room")
        catalog.path(fresh.label).mkdir()
        catalog.save(fresh)
        return fresh

    for name, do in {"bring_up": lambda _: None, "tools_of": lambda _: None, "take": take}.items():
        monkeypatch.setattr(backup, name, do)
    monkeypatch.setattr(backup, "can_be_incremental", lambda *_: None)
    monkeypatch.setattr(backup, "verify", lambda *_: [fresh])
    environ = {"TICKHUB_DATA_DIR": str(tmp_path), "TICKHUB_BACKUP_DIR": str(catalog.root)}
    backup.run(argparse.Namespace(action="daily", label=None), load(environ, None, None))
    assert [one.label for one in catalog.notes()] == [fresh.label]
    said = capsys.readouterr()
    assert "no room" in said.err
    # The newest one stays until there is a newer one.
    removed = [said.out.index(f"removed {note(day, 'full').label}") for day in (0, 7)]
    assert removed[0] < said.out.index(f"{fresh.label} ") < removed[1]


def test_what_has_no_note_was_never_finished(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with catalog.alone():
        catalog.path("20260104T020000Z-full").mkdir()
        assert catalog.notes() == []
        assert [path.name for path in catalog.unfinished()] == ["20260104T020000Z-full"]
        with pytest.raises(BackupError, match="another backup command"), catalog.alone():
            pass


def test_who_has_time_waits_for_the_end_of_another_command(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    others = ExitStack()
    others.enter_context(catalog.alone())
    with pytest.raises(BackupError, match="another backup command"), catalog.alone(2 * LOOK_S):
        pass
    ending = threading.Timer(2 * LOOK_S, others.close)
    ending.start()
    with catalog.alone(WAIT_S):
        ending.join()


def test_wal_goes_that_no_backup_needs(tmp_path: Path) -> None:
    for name in ("000000010000000000000003", "0000000100000000000000FE", "000000020000000100000000"):
        (tmp_path / name).touch()
    (tmp_path / "000000020000000100000001.partial").touch()
    (tmp_path / "00000002.history").touch()
    kept = note(0, "full", lsn="0/FE000028")
    assert [path.name for path in needed(tmp_path, kept)] == [
        "0000000100000000000000FE",
        "00000002.history",
        "000000020000000100000000",
        "000000020000000100000001.partial",
    ]
    assert remove_older(tmp_path, []) == 0
    assert remove_older(tmp_path, [kept]) == 1
    assert received(tmp_path)[0] == "0000000100000000000000FE"


def test_a_note_that_cannot_be_read_says_how_to_go_on_without_it(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with catalog.alone():
        for day in (0, 7):
            catalog.path(note(day, "full").label).mkdir()
            catalog.save(note(day, "full"))
    broken = catalog.base / "20260111T020000Z-full.json"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(BackupError, match=f"move it and {catalog.base}/20260111T020000Z-full away"):
        catalog.notes()
    for path in (broken, broken.with_suffix("")):
        path.rename(tmp_path / path.name)
    assert choose(catalog, None, None) == note(0, "full")


def test_a_place_where_nothing_can_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    catalog = Catalog(tmp_path / "file" / "backups")
    with pytest.raises(BackupError, match=r"cannot be kept in .*/file/backups: Not a directory"), catalog.alone():
        pass


@pytest.mark.parametrize("name", ["it's", 'a"b', "100%", "back\\slash", "$HOME", "`id`"])
def test_a_directory_that_a_shell_would_misread_is_refused(name: str) -> None:
    with pytest.raises(BackupError, match="quotes"):
        restore_command(Path("/backups") / name)
