"""The user that the embedded server runs as, and what is done by that user's hand.

PostgreSQL refuses to run as root. As root everything of it is therefore done as an unprivileged user, also
the writing of files inside its cluster: root never follows a path that this user could have bent.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import StorageError

_USERS = ("tickhub", "postgres")
_LAST_RESORT = "nobody"
_COMMAND_S = 30
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


class EmbeddedError(StorageError):
    """The embedded PostgreSQL cannot be run; the message says what to do."""


@dataclass(frozen=True)
class User:
    """The user that the server runs as."""

    name: str
    uid: int
    gid: int


def user_by_id(uid: int) -> User:
    """Return the user with this id. Raises EmbeddedError when the system knows none."""
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"user id {uid} has no name on this system, and PostgreSQL needs one: add it to /etc/passwd"
        ) from None
    return User(found.pw_name, found.pw_uid, found.pw_gid)


def user_for(cluster: Path, create: Sequence[str] = ("useradd", "--system", "--no-create-home")) -> User:
    """Return the user that serves this cluster: its owner, else who runs this, in root's stead a plain user.

    `create` is the command that makes the user `tickhub` when root finds neither it nor `postgres`.
    Raises EmbeddedError when this process may not act as that user.
    """
    me = os.geteuid()
    if cluster.exists():
        owner = cluster.stat().st_uid
        if owner == 0:
            raise EmbeddedError(
                f"{cluster} belongs to root, PostgreSQL refuses that: chown -R it to a plain user"
            )
        if me not in (0, owner):
            raise EmbeddedError(
                f"{cluster} belongs to {user_by_id(owner).name}: run as that user or root, or use another"
                " data directory"
            )
        return user_by_id(owner)
    if me != 0:
        return user_by_id(me)
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    for name in _USERS:
        if known.get(name):
            return user_by_id(known[name])
    command = shutil.which(create[0])
    if command is not None:
        shell = shutil.which("nologin") or "/bin/false"
        made = subprocess.run(
            [command, *create[1:], "--shell", shell, "--user-group", _USERS[0]],
            capture_output=True,
            timeout=_COMMAND_S,
            check=False,
        )
        known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
        if made.returncode == 0 and known.get(_USERS[0]):
            return user_by_id(known[_USERS[0]])
    if not known.get(_LAST_RESORT):
        raise EmbeddedError(
            "PostgreSQL refuses to run as root: make a user `tickhub` (useradd --system tickhub)"
        )
    return user_by_id(known[_LAST_RESORT])


def run_as(
    user: User, command: Sequence[str | Path], text: str = "", timeout_s: float = _COMMAND_S
) -> subprocess.CompletedProcess[str]:
    """Run a command as this user, `text` on its stdin, in / and without our environment."""
    return subprocess.run(
        [str(part) for part in command],
        input=text,
        cwd="/",
        env=environment(),
        timeout=timeout_s,
        check=False,
        capture_output=True,
        text=True,
        umask=0o077,
        **identity(user),
    )


def environment() -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: nothing that bends them, no secret, English."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def identity(user: User) -> dict[str, Any]:
    """Return what makes subprocess drop from root to this user; nothing for who is it already."""
    if os.geteuid() == user.uid:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": ()}


def ending_with_parent(number: int) -> Callable[[], None]:
    """Return a `preexec_fn`: the child gets this signal when the thread that started it is gone (on Linux)."""

    def ask() -> None:
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, number)

    return ask


def write_as(user: User, path: Path, text: str) -> None:
    """Replace a file inside the cluster, atomically, by the hand of this user. Raises EmbeddedError."""
    done = run_as(user, ["/bin/sh", "-c", 'cat >"$1.new" && mv -f "$1.new" "$1"', "sh", path], text)
    if done.returncode:
        raise EmbeddedError(f"cannot write {path}: {done.stderr.strip()}")


def reaches(user: User, path: Path) -> bool:
    """Tell whether this user can pass through (a directory) or execute (a file) this path."""
    # Asked, not computed: access lists and mounts have a say too.
    return run_as(user, ["/bin/sh", "-c", 'test -x "$1"', "sh", path]).returncode == 0
