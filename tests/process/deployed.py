"""What of the repository is installed somewhere, run from there as a plain user, as units and images run it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.process.harness import ROOT, Database, Server, free_port

NOBODY = 65_534


def as_plain_user() -> list[str]:
    """Return what goes before a command for it not to be root's; nothing where these tests are not root's either.

    It may read everything, since the Python of the tests may lie where only root can look.
    """
    if os.geteuid() != 0:
        return []
    caps = "-all,+dac_read_search"
    who = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    return ["setpriv", *who, f"--inh-caps={caps}", f"--ambient-caps={caps}", "--"]


def give_away(path: Path) -> Path:
    """Give a path to the plain user."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def install(names: Sequence[str], place: Path) -> Path:
    """Copy these files and directories of the repository, without what Python left there."""
    for name in names:
        source, target = ROOT / name, place / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return place


def plain_environ(**more: str) -> dict[str, str]:
    """Return an environment that says nothing of these tests; `python` is theirs."""
    return {"PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}", "HOME": "/nonexistent", **more}


def run(
    command: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command as the plain user, to its end."""
    return subprocess.run(
        [*as_plain_user(), *command],
        cwd=cwd,
        env=dict(environ or plain_environ()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        umask=0o077,
    )


class Deployed(Server):
    """A server that a command starts, from where it is installed; its data directory is `home`."""

    def __init__(self, home: Path, command: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> None:
        self.home, self.database = home, Database(home)
        self.command, self.cwd = list(command), cwd
        self.environ = dict(environ)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._logs = 0

    def start(self) -> Deployed:
        """Start it and return at once."""
        self._logs += 1
        with self.log_path().open("wb") as log:
            self.process = subprocess.Popen(
                [*as_plain_user(), *self.command],
                cwd=self.cwd,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        return self


def notify_socket(path: Path) -> socket.socket:
    """Return a socket that listens as systemd does for what a service of Type=notify says."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.bind(str(path))
    path.chmod(0o666)
    found.settimeout(60)
    return found
