"""The host: Python and packages, memory, descriptors, disks, and who may do what with the files.

Only the standard library is imported at the top: that a package is missing is told from here.
"""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import stat
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail, ok, warn
from app.settings import ROOT

DISK_FAIL_SHARE, DISK_WARN_SHARE = 0.05, 0.15
"""Free space below which writing is about to end; below which there is time to do something."""

WORKER_BYTES = 150 << 20
"""What a worker takes beside its buffers: docs/capacity.md."""

SPARE_FILES = 300
"""Journals, segments, the archive's files, modules, pipes: what a worker opens beside connections."""

SECRET_FILES = (".env", "api_keys.json", "read-only.password")
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)")


def python(case: Case) -> Iterator[Finding]:
    """Python is one that this tickhub is written for."""
    found = ".".join(map(str, sys.version_info[:3]))
    needed = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]).lstrip(">= ")
    if sys.version_info[:2] < tuple(map(int, needed.split("."))):
        yield fail("python", f"{found}, and {needed} is needed", "install it, remove .venv, run scripts/serve")
        return
    yield ok("python", f"{found} in {sys.prefix}")


def packages(case: Case) -> Iterator[Finding]:
    """The packages are those of requirements.txt, in these versions."""
    missing, other = [], []
    pins = _PIN.findall((ROOT / "requirements.txt").read_text())
    for name, pinned in pins:
        try:
            installed = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if installed != pinned:
            other.append(f"{name} {installed} (tried with {pinned})")
    remedy = f"{sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
    if missing:
        yield fail("packages", f"missing: {', '.join(missing)}", remedy)
    elif other:
        yield warn("packages", f"other versions: {', '.join(other)}", remedy)
    else:
        yield ok("packages", f"{len(pins)} as pinned")


def memory(case: Case) -> Iterator[Finding]:
    """There is memory for the workers' buffers and the database's."""
    import psutil

    from app.storage.embedded_tuning import cgroup_memory_limits

    settings, machine = case.settings, psutil.virtual_memory()
    total = min([machine.total, *cgroup_memory_limits()])
    worker = WORKER_BYTES + settings.buffer_max_bytes + settings.inflight_max_bytes
    database = 0 if settings.database_url else (settings.pg_memory_mb << 20) or min(4 << 30, total // 4)
    most = settings.workers * worker + database
    found = f"{_size(total)}, {_size(machine.available)} of it available; at the most tickhub takes {_size(most)}"
    if most > total:
        yield warn("memory", found, "set fewer --workers, a smaller --inflight-max-bytes or --pg-memory")
    elif machine.available < machine.total * DISK_FAIL_SHARE:
        yield warn("memory", found, "see what takes it: ps aux --sort -rss | head")
    else:
        yield ok("memory", found)


def descriptors(case: Case) -> Iterator[Finding]:
    """A worker may open as many files and sockets as its settings allow connections."""
    settings, whose = case.settings, "here"
    # A server raises its own limit up to this.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if case.server_pid is not None and sys.platform.startswith("linux"):
        import psutil

        with suppress(psutil.Error):
            limit, _ = psutil.Process(case.server_pid).rlimit(psutil.RLIMIT_NOFILE)
            whose = "for the server"
    needed = settings.worker_connections + settings.ws_max_connections + settings.db_pool_size + SPARE_FILES
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield fail(
            "file descriptors",
            f"{limit:,} {whose}, and a worker needs {needed:,}",
            "raise the limit (ulimit -Hn, LimitNOFILE= of a systemd unit), or set fewer --worker-connections and"
            " --ws-max-connections",
        )
        return
    most = "any number" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    yield ok("file descriptors", f"{most} {whose}, a worker needs {needed:,}")


def disks(case: Case) -> Iterator[Finding]:
    """There is room where data, backups and archive are."""
    from app.runtime_config import archive_dir

    settings = case.settings
    places = {"data": settings.data_dir, "backup": case.backup_dir, "archive": archive_dir(settings)}
    for of, path in places.items():
        if of != "data" and not path.exists() and path.is_relative_to(settings.data_dir):
            continue  # where it would be, if it were used
        there = _nearest(path)
        usage = shutil.disk_usage(there)
        name, share = f"disk {of}", usage.free / (usage.used + usage.free)
        found = f"{_size(usage.free)} free ({share:.0%}) at {path}"
        remedy = f"free some: du -xh {there} | sort -h | tail; docs/troubleshooting.md, Disk full"
        if share < DISK_FAIL_SHARE:
            yield fail(name, found, remedy)
        elif share < DISK_WARN_SHARE:
            yield warn(name, found, remedy)
        elif of == "data" and usage.free < settings.journal_max_bytes:
            bound = _size(settings.journal_max_bytes)
            yield warn(name, f"{found}, and the journal may grow to {bound}", "set a smaller --journal-max-bytes")
        else:
            yield ok(name, found)


def permissions(case: Case) -> Iterator[Finding]:
    """The data directory is this user's, writable for it, and not for others; secrets are for nobody else.

    Where backups and the archive go can be written, too.
    """
    home, user = case.settings.data_dir, _user_name(os.geteuid())
    if not home.exists():
        there = _nearest(home)
        if os.access(there, os.W_OK | os.X_OK):
            yield ok("permissions", f"{home} is not there yet; {user} can make it")
        else:
            yield fail("permissions", f"{user} can not make {home}", f"make it: install -d -o {user} -m 700 {home}")
        return
    status = home.stat()
    owner, mode = _user_name(status.st_uid), stat.S_IMODE(status.st_mode)
    found = f"{home} of {owner}, mode {mode:o}, used as {user}"
    open_files = [path for path in _secret_files(home) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if not home.is_dir() or not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield fail("permissions", found, f"run as {owner}, or chown -R {user} {home} while no server runs")
    elif mode & 0o022:
        yield fail("permissions", f"{found}: others may write there", f"chmod go-w {home}")
    elif strange := _not_ours(home):
        yield fail("permissions", f"{strange} can not be written by {user}", f"chown -R {owner} {strange}")
    elif shut := next((path for path in _places(case) if not _can_fill(path)), None):
        made = f"install -d -o {user} -m 700 {shut}"
        remedy = f"chown -R {user} {shut}" if shut.exists() else made
        yield fail("permissions", f"{user} can not write to {shut}", remedy)
    elif open_files:
        names = " ".join(map(str, open_files))
        yield warn("permissions", f"others may read {names}, which holds secrets", f"chmod 600 {names}")
    elif os.geteuid() == 0:
        yield warn("permissions", found, "run it as a user of its own (useradd --system tickhub): root may do too much")
    else:
        yield ok("permissions", found)


CHECKS: tuple[Check, ...] = (python, packages, memory, descriptors, disks, permissions)
OF_DATABASE: tuple[Check, ...] = ()


def _places(case: Case) -> Iterator[Path]:
    """Yield the directories that this server is to write backups and archived ticks to."""
    from app.runtime_config import archive_dir

    settings = case.settings
    if settings.backup_schedule or (settings.backup_dir and settings.backup_wal):
        yield case.backup_dir
    if settings.hot_days:
        yield archive_dir(settings)


def _can_fill(path: Path) -> bool:
    """Tell whether this user can write to a directory, or make it."""
    there = _nearest(path)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _secret_files(home: Path) -> Iterator[Path]:
    for path in (ROOT / SECRET_FILES[0], *(home / name for name in SECRET_FILES[1:])):
        if path.is_file():
            yield path


def _not_ours(home: Path) -> Path | None:
    """Return a directory of the server's that this user can not write: some command was run as another one."""
    for name in ("journal", "run"):
        top = home / name
        paths = [top, *top.glob("*")] if os.access(top, os.R_OK) else [top]
        for path in paths:
            if path.is_dir() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                return path
    return None


def _nearest(path: Path) -> Path:
    """Return the directory, or the nearest one above it that is there."""
    path = path.resolve()
    return next(one for one in (path, *path.parents) if one.exists())


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 30):,.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / (1 << 20):,.0f} MiB"
