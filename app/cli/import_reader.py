"""Tick files on disk: plain, gzip, zip or Parquet, UTF-8 or UTF-16, as blocks of rows. Used by `import`, and by
`import-ohlc` for what they have in common."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from app.market.file_rows import FileRows
from app.market.tick_files import UnreadableFile, named_layout, parse_table, parse_text, read_layout

FIRST_BYTES = 256 * 1024
"""The first block is small: when no line of it can be read, nobody waits for the whole file to be refused."""

BLOCK_BYTES = 6 * 1024 * 1024
"""About 140,000 lines, one transaction: larger ones gain no speed (the cost per transaction is below 2 %) and
three of them are in memory at a time."""

LINE_BYTES = 1024 * 1024
"""No line of ticks is as long: a file without line ends must not be taken into memory."""

PARQUET_ROWS = 131_072

BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, UnicodeError)
"""What broken, encrypted or cut-off archives raise; `zipfile` RuntimeError for a password, and a kind of it for a
compression that it does not know."""


@dataclass(slots=True)
class Block:
    """Consecutive rows of a file.

    end_row: the ordinal behind the last one. position: bytes of the file that were read up to here.
    """

    rows: FileRows
    end_row: int
    position: int


def content_hash(path: Path, progress: Callable[[int], object]) -> str:
    """Return the SHA-256 of the file's bytes. progress: told the number of bytes as they are read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(4 * 1024 * 1024):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the file's rows, a block at a time. Raises UnreadableFile, also when the file breaks midway."""
    try:
        with path.open("rb") as raw:
            if raw.read(4) == b"PAR1":
                yield from _parquet_blocks(path)
                return
            with unpacked(raw) as stream:
                yield from _text_blocks(stream, raw.tell)
    except BROKEN as error:
        raise UnreadableFile(f"the file cannot be read to its end: {error}") from error


def _text_blocks(stream: IO[bytes], position: Callable[[], int]) -> Iterator[Block]:
    lines = _whole_lines(stream)
    text = next(lines, b"")
    header, _, text = text.partition(b"\n")
    layout = read_layout(header.decode(errors="replace"))
    line, row = 2, 0
    while True:
        if text:
            rows = parse_text(text, line, row, layout)
            if row == 0 and rows.total and not len(rows):
                first = rows.bad[0]
                raise UnreadableFile(
                    f"none of the first {rows.total} lines can be read; line {first.line}: {first.reason}"
                )
            row += rows.total
            line += text.count(b"\n")
            yield Block(rows, row, position())
        following = next(lines, None)
        if following is None:
            return
        text = following


def _whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the stream as UTF-8, in pieces that end at a line's end (the last one as the file does)."""
    rest = b""
    size = FIRST_BYTES
    for chunk in utf8(stream):
        rest += chunk
        if len(rest) < size:
            continue
        end = rest.rfind(b"\n") + 1
        if len(rest) - end > LINE_BYTES:
            raise UnreadableFile("there are lines of more than a million characters: this is no tick file")
        if end:
            yield rest[:end]
            rest = rest[end:]
            size = BLOCK_BYTES
    if rest:
        yield rest


def utf8(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the stream's text as UTF-8, whichever of UTF-8 and UTF-16 it is in."""
    start = stream.read(FIRST_BYTES)
    marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if marked or start.startswith(b"<\0D\0"):
        decoder = codecs.getincrementaldecoder("utf-16" if marked else "utf-16-le")("replace")
        yield decoder.decode(start).encode(errors="replace")
        while chunk := stream.read(BLOCK_BYTES // 4):
            yield decoder.decode(chunk).encode(errors="replace")
        yield decoder.decode(b"", final=True).encode(errors="replace")
        return
    yield start.removeprefix(codecs.BOM_UTF8)
    while chunk := stream.read(BLOCK_BYTES // 4):
        yield chunk


@contextmanager
def unpacked(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Open what is inside a gzip or zip file; told by the first bytes, not by the name."""
    raw.seek(0)
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.open(raw) as stream:
            yield stream  # type: ignore[misc]  # typeshed: GzipFile is no IO[bytes], but reads as one
    elif magic == b"PK\x03\x04":
        with zipfile.ZipFile(raw) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                raise UnreadableFile(f"the archive holds {len(members)} files, not one: unpack it")
            with archive.open(members[0]) as stream:
                yield stream
    else:
        yield raw


def _parquet_blocks(path: Path) -> Iterator[Block]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        layout = named_layout(file.schema_arrow.names)
        wanted = [name for name, known in zip(file.schema_arrow.names, layout.columns, strict=True) if known]
        layout = named_layout(wanted)
        size, total, row = path.stat().st_size, max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=wanted):
            table = pa.Table.from_batches([batch]).select(wanted)
            rows = parse_table(table, row, layout)
            row += rows.total
            yield Block(rows, row, size * row // total)
    except pa.ArrowException as error:
        raise UnreadableFile(f"the file cannot be read: {error}") from error
