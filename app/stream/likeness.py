"""What readers get alike: those that watch the same symbols and have seen the same of them. Pure.

Their updates differ in `n` alone, which each reader counts for itself. So the texts are put together once, with gaps,
and each reader fills in its numbers: a third of what putting them together for each of them takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.stream import messages
from app.stream.live_quotes import Live


class Likeness:
    """The updates of some changed quotes. indices, versions: each one's place, and what it is now. size in bytes."""

    __slots__ = ("_array", "_texts", "indices", "places", "size", "versions")

    def __init__(self, lives: Sequence[Live], were: Sequence[int]) -> None:
        """Take quotes that have a text, and the versions that were seen before, which are older."""
        self.indices = [live.index for live in lives]
        self.versions = [live.version for live in lives]
        self._texts = [
            messages.quote_pattern(live.text, live.version - was - 1) for live, was in zip(lives, were, strict=True)
        ]
        self._array = messages.array(self._texts)
        self.places = max(self.indices, default=-1) + 1
        self.size = len(self._array)

    def texts(self, numbers: Sequence[int], *, batch: bool) -> list[bytes]:
        """Return the updates with these numbers; batch: as one array."""
        if batch:
            return [self._array % tuple(numbers)] if numbers else []
        return [text % number for text, number in zip(self._texts, numbers, strict=True)]
