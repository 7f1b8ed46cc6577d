"""What restores did to the course of time: which backups and journals are of a past that was undone. Blocking.

    10:00 backup A    11:00 backup B    12:00 restore to 10:30    13:00 backup C

Seen from 13:00 what lies between 10:30 and 12:00 has not happened: B is no base for 12:30, journals of then stay out.
Seen from 11:30 it has: who restored to too early a moment can go back to a later one. PostgreSQL counts such courses as
timelines.

    <cluster>/tickhub.restored.json    the restores that this cluster came out of; it goes where the cluster goes
    <backup_dir>/restores.json         all that were ever gone on with here

Who undoes a restore, by giving the cluster that was set aside its name again, is found out by the first of the two.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from app.backup.tools import BackupError

IN_CLUSTER, IN_BACKUPS = "tickhub.restored.json", "restores.json"
FIRST_TIMELINE = 1
_BEFORE = timedelta(microseconds=1)


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """A restore: what came after `at`, up to `done_at` (UTC), has not happened. timeline: which one goes on then.

    cluster: which restore's cluster goes on, by its `done_at`; None: one that never was restored.
    """

    at: datetime
    done_at: datetime
    timeline: int
    cluster: datetime | None


def restores(path: Path) -> list[Undone]:
    """Return the restores that a file tells of, the oldest first. Raises BackupError when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Undone])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as why:
        raise BackupError(f"{path} does not say which restores there were: {why}") from why


def adopt(data_dir: Path, backups: Path) -> list[Undone]:
    """Have the backups know of the restores of the cluster that they go on with; return all, the oldest first."""
    own, known = restores(data_dir / "postgres" / IN_CLUSTER), restores(backups / IN_BACKUPS)
    if not (data_dir / "postgres").exists():
        return known
    goes_on = own[-1].cluster if own else None
    if goes_on == (known[-1].cluster if known else None):
        return known
    together = sorted({*own, *known}, key=lambda one: one.done_at)
    if len(together) == len(known):
        # All of it is known, and yet not the last of it: somebody went back to a cluster that had been set aside.
        left = next(one for one in known if goes_on is None or one.done_at > goes_on)
        timeline = own[-1].timeline if own else FIRST_TIMELINE
        back = Undone(at=left.done_at - _BEFORE, done_at=datetime.now(UTC), timeline=timeline, cluster=goes_on)
        together.append(back)
    save(backups / IN_BACKUPS, together)
    return together


def last(undone: Sequence[Undone], seen_from: datetime | None) -> Undone | None:
    """Return the newest restore that was done by a moment (None: now), None when there was none."""
    found = [one for one in undone if seen_from is None or one.done_at <= seen_from]
    return found[-1] if found else None


def happened(undone: Sequence[Undone], moment: datetime, seen_from: datetime | None) -> bool:
    """Tell whether what was done at a moment is so, seen from a later one (None: now)."""
    earlier = list(undone)
    while (restore := last(earlier, seen_from)) is not None:
        if moment > restore.done_at:
            return True
        if moment > restore.at:
            return False
        # One that undid nothing was done at the moment it went to: it is not to be met again.
        earlier, seen_from = earlier[: earlier.index(restore)], restore.at
    return True


def save(path: Path, undone: Sequence[Undone]) -> None:
    """Write restores down, durably. Whoever copies a cluster has to be able to read the file in it."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(msgspec.json.format(msgspec.json.encode(list(undone)), indent=1))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
