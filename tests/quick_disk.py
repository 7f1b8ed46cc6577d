"""Where tests put what they make very many files of."""

from __future__ import annotations

import shutil
from pathlib import Path

IN_MEMORY = Path("/dev/shm")
LEAST_FREE_BYTES = 4 << 30
"""A run has some 2 GB there at most; a container may have as little as 64 MB."""


def quick_disk() -> Path:
    """Return a directory with a short path: in memory where there is room for it, else on the disk.

    A database has 300 files. To make them takes ext4 a third of a second on some machines, and memory 20 ms; hundreds
    of tests have one of their own.
    """
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= LEAST_FREE_BYTES
    return IN_MEMORY if roomy else Path("/tmp")
