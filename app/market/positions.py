"""How far somebody has come in what the journals committed. Pure, any side.

A journal's position is `received_us` of its last row that was committed (UTC microseconds); it rises from commit to
commit. A journal is known by a number made of its random name, so that a restored database, which gives its small
numbers anew, confuses nothing. Journals are of three kinds to whoever has positions:

    listed                             seen up to its position
    not listed, entered by `top_us`    finished: all of it was seen
    not listed, entered after that     new: nothing of it was seen
"""

from __future__ import annotations

from dataclasses import dataclass, field

KEY_DIGITS = 12


def journal_key(journal_id: str) -> int:
    """Return the number of 48 bits by which positions know a journal: the first digits of its name."""
    return int(journal_id[:KEY_DIGITS], 16)


@dataclass(slots=True)
class Positions:
    """Positions of journals by their keys, 0 where nothing was committed yet.

    top_us: when the newest journal that is known entered the ledger, UTC microseconds; 0: none has.
    """

    top_us: int = 0
    done_us: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Positions:
        """Return positions of their own."""
        return Positions(self.top_us, dict(self.done_us))

    def behind(self, other: Positions) -> bool:
        """Tell whether there is something that the other has seen and this one has not."""
        return any(us > self.done_us.get(journal, 0) for journal, us in other.done_us.items())

    def joined(self, other: Positions) -> Positions:
        """Return the farther position of each journal that either lists, as of the newer one's journals.

        Only of positions that were live at nearly one time: a journal that one of them has left out as finished stays.
        """
        done = dict(self.done_us)
        for journal, us in other.done_us.items():
            done[journal] = max(us, done.get(journal, 0))
        return Positions(max(self.top_us, other.top_us), done)


@dataclass(frozen=True, slots=True)
class TradeKey:
    """Where a trade stands among those of all symbols by time."""

    time_us: int
    symbol_id: int
    seq: int
    received_us: int
    journal_no: int
