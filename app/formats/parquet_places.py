"""Where the parts of a Parquet file lie: places at which its readers cut it. Pure, lane side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAGIC_BYTES = 4
FOOTER_END_BYTES = 8
"""Behind the footer: its length, and the magic number."""


@dataclass(frozen=True, slots=True)
class Places:
    """Byte offsets at which column chunks and the footer begin, and those behind which they end."""

    starts: frozenset[int]
    ends: frozenset[int]

    def fits(self, start: int, end: int) -> int:
        """Return how many ends of [start, end) a reader of this file would have chosen: 0 to 2."""
        return (start in self.starts) + (end in self.ends)


def places_of(path: Path) -> Places:
    """Read a file's places from its footer. Raises OSError."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        found = pq.read_metadata(file)
        size = file.seek(0, 2)
    footer = size - FOOTER_END_BYTES - found.serialized_size
    starts, ends = {0, footer, size - FOOTER_END_BYTES}, {MAGIC_BYTES, size - FOOTER_END_BYTES, size}
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        for position in range(group.num_columns):
            chunk = group.column(position)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page:
                start = min(start, chunk.dictionary_page_offset)
            starts.add(start)
            ends.add(start + chunk.total_compressed_size)
    return Places(frozenset(starts), frozenset(ends))
