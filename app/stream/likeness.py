"""What readers get alike: those that watch the same symbols and have seen the same of them. Pure.

Their updates differ in `n` alone, which each reader counts for itself. So the texts are put together once, with gaps,
and each reader fills in its numbers: a third of what putting them together for each of them takes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from app.stream import messages
from app.stream.live_quotes import Live


class Likeness:
    """The updates of some changed quotes, by their places. size: in bytes. places: how many a reader has to have.
    skipped: versions that they jump over, together.

    run: all places, if they follow each other: much quicker then.
    """

    __slots__ = ("_array", "_texts", "indices", "places", "run", "size", "skipped", "versions")

    def __init__(self, lives: Sequence[Live], seen: Sequence[int]) -> None:
        """Take quotes that have a text. seen: the version, older than now, that was seen at each place."""
        lives = sorted(lives, key=lambda live: live.index)
        self.indices = [live.index for live in lives]
        self.versions = array("q", [live.version for live in lives])
        self._texts = [messages.quote_pattern(live.text, live.version - seen[live.index] - 1) for live in lives]
        self.skipped = sum(live.version - seen[live.index] - 1 for live in lives)
        self._array = messages.array(self._texts)
        self.places = self.indices[-1] + 1 if lives else 0
        self.run = slice(self.places - len(lives), self.places) if _in_a_row(self.indices) else None
        self.size = len(self._array)

    def texts(self, numbers: Sequence[int], *, batch: bool) -> list[bytes]:
        """Return the updates with these numbers; batch: as one array."""
        if batch:
            return [self._array % tuple(numbers)] if numbers else []
        return [text % number for text, number in zip(self._texts, numbers, strict=True)]


def _in_a_row(places: Sequence[int]) -> bool:
    return not places or places[-1] - places[0] == len(places) - 1
