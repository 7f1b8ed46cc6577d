"""This host's disks and backups as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from app.host_figures import Host


def host_families(host: Host | None, age_s: float) -> Iterator[Metric]:
    """Yield what is known, and how old it is; age_s: that, or for how long nothing has been known."""
    yield GaugeMetricFamily("tickhub_host_figures_age_seconds", "Age of what is said of disks and backups.", age_s)
    if host is None:
        return
    size = GaugeMetricFamily("tickhub_disk_size_bytes", "Size of a file system with what is ours.", labels=["of"])
    free = GaugeMetricFamily("tickhub_disk_free_bytes", "What of it can be written.", labels=["of"])
    for name, disk in host.disks.items():
        size.add_metric([name], disk.size_bytes)
        free.add_metric([name], disk.free_bytes)
    yield from (size, free)
    ended = GaugeMetricFamily(
        "tickhub_backup_newest_timestamp_seconds",
        "When the newest backup ended that was verified and is sound.",
        labels=["kind"],
    )
    taken = GaugeMetricFamily("tickhub_backup_newest_bytes", "Its size.", labels=["kind"])
    for kind in sorted({note.kind for note in host.backups}):
        sound = [note for note in host.backups if note.kind == kind and note.sound]
        if sound:
            newest = max(sound, key=lambda note: note.ended_at)
            ended.add_metric([kind], newest.ended_at)
            taken.add_metric([kind], newest.bytes)
    yield from (ended, taken)
    count = GaugeMetricFamily("tickhub_backups", "Backups, by what verifying them said.", labels=["state"])
    damaged = sum(note.damaged for note in host.backups) + host.backup_notes_unreadable
    # Each is one of the three: of one whose archive is damaged the database itself may be sound.
    sound_count = sum(note.sound and not note.damaged for note in host.backups)
    count.add_metric(["sound"], sound_count)
    count.add_metric(["damaged"], damaged)
    count.add_metric(["unverified"], len(host.backups) + host.backup_notes_unreadable - damaged - sound_count)
    yield count
    if (followed := host.following) is not None:
        until = GaugeMetricFamily(
            "tickhub_backup_followed_timestamp_seconds",
            "Up to when all that was written is beside the backups; 0: nothing ever was.",
            labels=["what"],
        )
        for what, moment in (("wal", followed.wal_until), ("journals", followed.journals_until)):
            # Never, too: of a series that is not there no alert is made.
            until.add_metric([what], 0.0 if moment is None else moment.timestamp())
        yield until
        yield GaugeMetricFamily(
            "tickhub_backup_wal_behind_bytes", "WAL that was written and not yet received.", followed.behind_bytes
        )
