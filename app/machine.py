"""What the machine that this process runs on is doing. Any side; psutil reads a few files of /proc, some 0.2 ms."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import psutil


class Percents(NamedTuple):
    """Shares in use, in percent. cpu: of the processors since the look before; None: there was none."""

    cpu: float | None
    memory: float
    disk: float


class Machine:
    """This machine; disk is that of the data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.host = socket.gethostname() or "localhost"
        self._data_dir = data_dir
        self._busy_s = self._all_s = 0.0

    def look(self) -> Percents:
        """Return the shares in use now. Raises OSError where the data directory is gone."""
        disk = shutil.disk_usage(self._data_dir)
        return Percents(
            self._processors(), psutil.virtual_memory().percent, round(100 * disk.used / max(1, disk.total), 1)
        )

    def _processors(self) -> float | None:
        # psutil's own cpu_percent() remembers the last look by thread, which each greenlet is for it.
        times = psutil.cpu_times()
        all_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # in user and nice too
        busy_s = all_s - times.idle - getattr(times, "iowait", 0.0)
        was_busy_s, was_all_s = self._busy_s, self._all_s
        self._busy_s, self._all_s = busy_s, all_s
        if not was_all_s or all_s <= was_all_s:
            return None
        return round(min(100.0, max(0.0, 100 * (busy_s - was_busy_s) / (all_s - was_all_s))), 1)
