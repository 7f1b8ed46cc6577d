"""What a worker knows of itself, its host and the database, for /metrics and dashboards. Greenlet side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.desk import Desk
from app.gauges import Gauges
from app.host_figures import HostFigures
from app.meters import Meters
from app.pipeline.flusher import Flusher
from app.pipeline.window import MemoryBudget
from app.reads import Reads
from app.runtime_config import archive_dir
from app.settings import Settings
from app.stream.bus import Bus
from app.stream.hub import Hub
from app.watch import Watch


class Watching:
    """A worker's gauges, and what it knows of host and database."""

    def __init__(
        self,
        settings: Settings,
        meters: Meters,
        flusher: Flusher,
        budget: MemoryBudget,
        reads: Reads,
        hub: Hub,
        bus: Bus,
        desk: Desk,
    ) -> None:
        self.gauges = Gauges(meters.slot, reads, hub, flusher, budget)
        self.database = Watch(lambda: desk.election.term, reads, bus)
        backups = Path(settings.backup_dir) if settings.backup_dir else settings.data_dir / "backups"
        self.host = HostFigures(settings.data_dir, backups, archive_dir(settings))

    def start(self, spawn: Callable[[Callable[[], None]], None]) -> None:
        """Start the greenlet."""
        spawn(self.database.run)

    def tick(self) -> None:
        """Show what is so now; to be called every second."""
        self.gauges.tick()

    def stop(self) -> None:
        """Let the lane end; idempotent."""
        self.host.stop()
