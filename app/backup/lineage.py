"""What restores did to the course of time: which backups and journals are of a past that was undone. Blocking.

    10:00 backup A    11:00 backup B    12:00 restore to 10:30    13:00 backup C

At 13:00 what lies between 10:30 and 12:00 has not happened: B is no base for 12:30, journals of then stay out. For
11:30 it has: who restored to too early a moment can go back to a later one. PostgreSQL counts such courses as
timelines.

    <data_dir>/restored.json      what was done to this data directory
    <backup_dir>/restores.json    the same, as soon as that data directory's backups go on here
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from app.backup.tools import BackupError

IN_DATA, IN_BACKUPS = "restored.json", "restores.json"


class Undone(msgspec.Struct, frozen=True):
    """A restore: what came after `at`, up to `done_at` (UTC), has not happened. timeline: which one began."""

    at: datetime
    done_at: datetime
    timeline: int


def restores(path: Path) -> list[Undone]:
    """Return the restores that a file tells of, the oldest first. Raises BackupError when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Undone])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as why:
        raise BackupError(f"{path} does not say which restores there were: {why}") from why


def remember(data_dir: Path, known: Sequence[Undone], done: Undone) -> None:
    """Write down a restore of a data directory, and those that were known where it came from."""
    save(data_dir / IN_DATA, [*known, done])


def adopt(data_dir: Path, backups: Path) -> list[Undone]:
    """Have the backups know of the restores of the data directory that they go on with; return all."""
    own, known = restores(data_dir / IN_DATA), restores(backups / IN_BACKUPS)
    together = sorted({*own, *known}, key=lambda one: one.done_at)
    if together != known:
        save(backups / IN_BACKUPS, together)
    return together


def before(undone: Sequence[Undone], moment: datetime | None) -> list[Undone]:
    """Return the restores that were done by a moment, None: all."""
    return [one for one in undone if moment is None or one.done_at <= moment]


def happened(undone: Sequence[Undone], moment: datetime) -> bool:
    """Tell whether what was done at a moment is still so after these restores."""
    return not any(one.at < moment <= one.done_at for one in undone)


def save(path: Path, undone: Sequence[Undone]) -> None:
    """Write restores down, durably."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(list(undone)), indent=1))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
