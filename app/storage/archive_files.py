"""Where the archive's files are and what is in them (docs/archive.md). Lane side, pure.

A manifest names the Parquet files of a range. It is never changed: a new one is written beside it, and `tick_ranges`
says which one is in force, by path and SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import msgspec

from app.errors import ArchiveAway

FORMAT = 1
"""Version of manifests and columns. Others are not read."""

TICKS = "ticks"
UNFINISHED = ".new-"
"""Directories of this beginning are being made."""

Key = tuple[int, int]
"""(symbol_id, time in UTC microseconds): what row groups are found by."""


class Group(msgspec.Struct, array_like=True, frozen=True):
    """A row group: how many rows, the keys of the first and the last one, and where its bytes are in the file."""

    rows: int
    first: Key
    last: Key
    offset: int
    bytes: int
    crc32: int


class TickFile(msgspec.Struct, frozen=True):
    """A Parquet file beside its manifest. symbols: names by id, as derived `seq` were made with them.

    footer: where it begins, and the CRC-32 from there to the end.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    symbols: dict[int, str]
    groups: list[Group]
    footer: tuple[int, int]


class Manifest(msgspec.Struct, frozen=True):
    """The ticks of a range [start_us, end_us), in files. columns: name and Arrow type."""

    format: int
    start_us: int
    end_us: int
    rows: int
    derived_rows: int
    bytes: int
    written_at: str
    columns: list[tuple[str, str]]
    files: list[TickFile]


def encode(manifest: Manifest) -> tuple[bytes, str]:
    """Return the manifest as JSON, and its SHA-256."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return data, hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=64)  # a page of a long read asks again and again for the same one, and none ever changes
def loaded(root: Path, path: str, sha256: str) -> Manifest:
    """Return what `load` does, or did."""
    return load(root, path, sha256)


def load(root: Path, path: str, sha256: str) -> Manifest:
    """Return the manifest at a path from archive_dir. Raises ArchiveAway when it is not there, or another one."""
    try:
        data = (root / path).read_bytes()
    except OSError as error:
        raise ArchiveAway(f"The archive's {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ArchiveAway(f"The archive's {path} is not what was written: its checksum is another one")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArchiveAway(f"The archive's {path} was written by another version: {error}") from error
    if manifest.format != FORMAT:
        raise ArchiveAway(f"The archive's {path} has format {manifest.format}, this tickhub reads {FORMAT}")
    return manifest


def check_parts(path: Path, groups: Sequence[Group], footer: tuple[int, int]) -> None:
    """Check that these row groups, and what says where they are, have the bytes that were written.

    Raises ArchiveAway: a wrong byte may give wrong prices without any error.
    """
    parts = [(group.offset, group.bytes, group.crc32) for group in groups]
    try:
        with path.open("rb") as file:
            for offset, size, crc in [*parts, (footer[0], -1, footer[1])]:
                file.seek(offset)
                if crc32(file.read(size)) != crc:
                    raise ArchiveAway(f"The archive's {path} is damaged: its bytes from {offset:,} on are other ones")
    except OSError as error:
        raise ArchiveAway(f"The archive's {path} cannot be read: {error.strerror}") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
