"""Files that are whole or not there: written aside, on disk, then renamed. Never two writers of one file."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from app.errors import TickhubError


class ExportError(TickhubError):
    """The file cannot be written."""


class ReaderGone(TickhubError):
    """Whoever read the output has read enough: `head` does so."""


class Output(Protocol):
    """Where an export goes; used as a context, which ends it well or gives it up."""

    def __enter__(self) -> Self:
        """Open it. Raises ExportError."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete it, or after an error leave nothing behind. Raises ExportError."""

    def write(self, data: bytes) -> None:
        """Write all of the bytes. Raises ExportError, ReaderGone."""


def output(target: str) -> Output:
    """Return where a target goes: `-` is stdout; a pipe or device is written to, not replaced."""
    if target == "-":
        return _Stream("stdout", lambda: os.dup(1))
    path = Path(os.path.realpath(target))  # a link goes on leading to the file
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        return _Stream(target, lambda: os.open(path, os.O_WRONLY))
    return WholeFile(path)


def failed(what: str | Path, error: OSError) -> ExportError:
    """Return the error as a person reads it."""
    return ExportError(f"{what} cannot be written: {error.strerror or error}")


class WholeFile:
    """A file under its name once it is complete, replacing one that was there; aside as `.NAME.part` before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._aside = path.with_name(f".{path.name}.part")
        self._fd = -1

    def __enter__(self) -> Self:
        """Open the file aside, what a killed export left of it included. Raises ExportError."""
        try:
            if self.path.is_dir():
                raise IsADirectoryError(None, "it is a directory")
            self._fd = self._open_locked()
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise failed(self.path, error) from error
        return self

    def _open_locked(self) -> int:
        while True:
            fd = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, the one before may have completed and renamed it.
                if os.fstat(fd).st_ino == self._aside.stat().st_ino:
                    return fd
            except BlockingIOError:
                os.close(fd)
                raise BlockingIOError(None, "another export writes it") from None
            except FileNotFoundError:
                pass
            os.close(fd)

    def write(self, data: bytes) -> None:
        """Write all of the bytes. Raises ExportError."""
        try:
            _write_all(self._fd, data)
        except OSError as error:
            raise failed(self.path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or remove it. Raises ExportError."""
        try:
            if kind is None:
                os.fsync(self._fd)
                os.replace(self._aside, self.path)
        except OSError as why:
            kind = type(why)
            raise failed(self.path, why) from why
        finally:
            if kind is not None:
                self._aside.unlink(missing_ok=True)
            os.close(self._fd)


class _Stream:
    """What is not ours to replace: stdout, a pipe, a device."""

    def __init__(self, name: str, open_fd: Callable[[], int]) -> None:
        self._name = name
        self._open_fd = open_fd
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = self._open_fd()
        except OSError as error:
            raise failed(self._name, error) from error
        return self

    def write(self, data: bytes) -> None:
        try:
            _write_all(self._fd, data)
        except BrokenPipeError as error:
            raise ReaderGone(ReaderGone.__doc__) from error
        except OSError as error:
            raise failed(self._name, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
