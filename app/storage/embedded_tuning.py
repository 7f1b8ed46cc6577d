"""What the embedded server is told: settings from the machine and a few wishes, and who may connect."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.storage.role_names import READ

_MIB = 1 << 20

_HBA = """\
# Written at every start. The socket's directory is 0700: who gets there is the server's own user, or root.
local all         all trust
local replication all trust
"""


@dataclass(frozen=True)
class Machine:
    """What there is to share: RAM (or the cgroup's part of it), cores, free space on the cluster's disk."""

    ram_mb: int
    cpus: int
    free_disk_mb: int


def this_machine(cluster: Path) -> Machine:
    """Measure this machine as this process may use it."""
    total = psutil.virtual_memory().total
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        ram_mb=min([total, *cgroup_memory_limits()]) // _MIB,
        cpus=cpus,
        free_disk_mb=shutil.disk_usage(cluster).free // _MIB,
    )


def cgroup_memory_limits(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yield every memory limit, in bytes, of the cgroups (v1 and v2) around this process."""
    if not groups.exists():
        return
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = Path(path.lstrip("/"))
        # Inside a container the path may be the host's, and only the mount's top exists.
        for group in (own, *own.parents):
            limit = top / group / name
            text = limit.read_text().strip() if limit.is_file() else "max"
            if text.isdecimal():
                yield int(text)


def tuning(machine: Machine, memory_mb: int = 0, cpus: int = 0, max_connections: int = 60) -> dict[str, str]:
    """Return the settings for a server that takes in ticks all day, and is asked for ranges of them.

    `memory_mb` is what PostgreSQL may use, 0 = a quarter of the machine, at most 4 GiB; `cpus` 0 = all.
    """
    memory = memory_mb or min(4096, machine.ram_mb // 4)
    memory = max(memory, 64)
    cores = cpus or machine.cpus
    # A long distance between checkpoints saves full pages in the WAL; a small disk must not be filled by it.
    max_wal = max(256, min(4096, machine.free_disk_mb // 10))
    return {
        "max_connections": str(max_connections),
        # Who reads all of the past locks every week of it, with its indexes: decades are thousands of them.
        "max_locks_per_transaction": "256",
        "shared_buffers": f"{memory // 2}MB",
        "effective_cache_size": f"{memory if memory_mb else max(memory, machine.ram_mb // 2)}MB",
        "work_mem": f"{_between(4, memory // 2 // max_connections, 64)}MB",
        "maintenance_work_mem": f"{_between(16, memory // 8, 512)}MB",
        "wal_buffers": f"{_between(1, memory // 32, 16)}MB",
        "max_wal_size": f"{max_wal}MB",
        "min_wal_size": f"{max(80, max_wal // 4)}MB",
        # Incremental backups ask what changed since the one before; 10 days of that is some megabytes.
        "summarize_wal": "on",
        # A receiver of the WAL that is away for long must not fill the disk.
        "max_slot_wal_keep_size": f"{4 * max_wal}MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "max_worker_processes": str(8 + cores),
        "max_parallel_workers": str(cores),
        "max_parallel_workers_per_gather": str(_between(0, cores // 2, 4)),
        "max_parallel_maintenance_workers": str(_between(0, cores // 2, 4)),
        "random_page_cost": "1.1",
        "huge_pages": "try",
        # Ticks are only ever inserted: early and quick vacuums freeze them and keep index-only scans so.
        "autovacuum_vacuum_insert_scale_factor": "0.1",
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_analyze_scale_factor": "0.05",
        "autovacuum_vacuum_cost_limit": "1000",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%a ",
        # Ticks that are sent again violate their key as a matter of course: one line each, not four.
        "log_error_verbosity": "terse",
    }


def hba_text(tcp_port: int) -> str:
    """Return who may connect, as the text of a pg_hba file: over TCP nobody but the role that reads."""
    return _HBA + (f"host tickhub {READ} 127.0.0.1/32 scram-sha-256\n" if tcp_port else "")


def conf_text(settings: Mapping[str, str]) -> str:
    """Return settings as the text of a configuration file."""
    lines = ["# Written at every start: change TICKHUB_PG_* instead, or use ALTER SYSTEM."]
    for name, value in settings.items():
        quoted = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{quoted}'")
    return "\n".join([*lines, ""])


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))
