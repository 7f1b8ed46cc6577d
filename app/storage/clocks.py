"""The time by which old data goes: this host's, when the database's clock agrees. Lane side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.errors import StorageError
from app.storage.connection import Connection

MOST_APART = timedelta(hours=1)
"""Ages are counted in days; a clock that is further off may be off by years."""


class ClocksDiffer(StorageError):
    """This host and the database do not agree on what time it is."""


def agreed_now(connection: Connection, host: datetime | None = None) -> datetime:
    """Return this host's time (UTC). host: what its clock says, if it was read already.

    Raises ClocksDiffer when the database server's clock is more than an hour from it, and DatabaseAway.
    """
    with connection.transaction() as cur:
        cur.execute("SELECT now()")
        [(theirs,)] = cur.fetchall()
    ours = host or datetime.now(UTC)
    if abs(ours - theirs) > MOST_APART:
        raise ClocksDiffer(
            f"this host's clock says {ours:%Y-%m-%d %H:%M} UTC, the database's {theirs.astimezone(UTC):%Y-%m-%d %H:%M}:"
            " nothing goes by its age until the wrong one is set right"
        )
    return ours
