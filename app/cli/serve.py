"""`python -m app serve`: check the settings, then become gunicorn's master."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from pathlib import Path

from app.cli import COMMON, add_setting_flags
from app.errors import SettingsError
from app.settings import ROOT, TABLE, Settings

OPEN_FILES = 65_536
"""Sockets, journal segments and connections of one worker fit many times over; hard limits of a billion, as
containers have them, would make programs that walk all possible descriptors crawl."""

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": 4 << 20, "MALLOC_TRIM_THRESHOLD_": 16 << 20, "MALLOC_TOP_PAD_": 1 << 20}
"""Of glibc, in bytes: pages of rows come out of memory that the process has. Else each is asked of the kernel and given
back, which is a quarter of what formatting it takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare every setting that is not common to all commands as a flag."""
    add_setting_flags(parser, [row for row in TABLE if row.name not in COMMON])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Replace this process by gunicorn's master, so that signals and the exit status are its own.

    Raises SettingsError when the data directory cannot be made.
    """
    _make_data_dir(settings.data_dir)
    _raise_open_files()
    # Flags travel as environment: gunicorn's configuration and every worker load the same settings from it.
    os.environ.update(settings.to_environ())
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, str(value))
    os.chdir(ROOT)
    arguments = [
        "-m",
        "gunicorn",
        "-c",
        str(ROOT / "gunicorn.conf.py"),
        "--chdir",
        str(ROOT),
        "wsgi:application",
    ]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is wanted


def _make_data_dir(path: Path) -> None:
    # PostgreSQL refuses to run as root: its own user must pass through here to its cluster, without looking.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as why:
        raise SettingsError(f"data_dir={path} cannot be made: {why.strerror}") from why
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"data_dir={path} cannot be written by this user")


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
