"""Has this worker's quotes follow what somebody deletes: newest prices move forward only, else. Greenlet side."""

from __future__ import annotations

from app.quote_board import QuoteBoard
from app.reads import PAGE, Reads
from app.storage.deleting import read_deletions


class Deletions:
    """Knows which deletions the board has followed; `follow` is to be called before all quotes are read anew."""

    def __init__(self, reads: Reads, board: QuoteBoard) -> None:
        self._reads, self._board = reads, board
        self._followed: set[int] | None = None

    def follow(self) -> None:
        """Have the board forget what was deleted since. Raises DatabaseAway, QueryTimeout."""
        found = self._reads.run(PAGE, read_deletions)
        new = {symbol for number, symbol in found.items() if number not in (self._followed or ())}
        if new:
            self._board.forget(sorted(new))
        self._followed = set(found)
