"""What a measurement depends on beside the code: the machine, its disk, and the CPU that processes used."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
import psutil


def describe(directory: Path, postgres: str) -> list[tuple[str, str]]:
    """Return name and value of everything about this machine that a reader of the figures needs."""
    return [
        ("CPU", f"{_cpu_model()}, {os.cpu_count()} cores"),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB"),
        ("disk", _filesystem(directory)),
        ("system", f"{platform.system()} {platform.release().partition('-')[0]}"),
        ("Python", platform.python_version()),
        ("PostgreSQL", postgres),
        ("load before", f"{os.getloadavg()[0]:.2f} (1 minute)"),
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
    ]


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _filesystem(directory: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if directory.is_relative_to(part.mountpoint)]
    if not mounts:
        return "unknown"
    mount = max(mounts, key=lambda part: len(part.mountpoint))
    # A memory disk syncs for nothing: every figure that waits for the disk would be a lie.
    return mount.fstype + (
        " (IN MEMORY: syncs cost nothing here)" if mount.fstype in ("tmpfs", "ramfs") else ""
    )


def fdatasync_ms(directory: Path, seconds: float = 3.0) -> np.ndarray:
    """Return how long syncs of 2 KB appends took, in milliseconds: the floor under an acknowledgement."""
    path = directory / "fdatasync.probe"
    taken = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            os.write(descriptor, b"x" * 2048)
            start = time.perf_counter()
            os.fdatasync(descriptor)
            taken.append((time.perf_counter() - start) * 1e3)
            # Spaced like the desk's batches: an idle disk between syncs behaves differently from a busy one.
            time.sleep(0.002)
    finally:
        os.close(descriptor)
        path.unlink()
    return np.array(taken)


def tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its children used so far, children that ended included."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        children = process.children()
    except psutil.NoSuchProcess:
        return 0.0
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return times.user + times.system + ended + sum(tree_cpu_s(child.pid) for child in children)


def peak_memory_mb(pid: int) -> float:
    """Return the largest resident memory that a process had, in MB; where Linux is not, what it has now."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return psutil.Process(pid).memory_info().rss / 1e6


def memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident and the unshared memory of a process now, in MB."""
    full = psutil.Process(pid).memory_full_info()
    return full.rss / 1e6, full.uss / 1e6


def shared_memory_mb(pid: int) -> float:
    """Return what a process really costs now, in MB: its memory, pages shared with others counted in part.

    Where the system does not tell (it is Linux' PSS), its resident memory.
    """
    full = psutil.Process(pid).memory_full_info()
    return getattr(full, "pss", full.rss) / 1e6
