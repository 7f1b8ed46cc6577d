"""The newest quotes as texts, each made once for all readers, and what changed since when. Greenlet side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, KeysView, Mapping, Sequence
from typing import Any

from app.market.quotes import Quote
from app.stream import messages


class Live:
    """A symbol's newest quote as text, without its end. version counts its ticks, sequence the changes of all.

    made: the text was asked for, so that an empty one means that there is no quote.
    """

    __slots__ = ("index", "made", "sequence", "symbol", "text", "version")

    def __init__(self, symbol: str, index: int) -> None:
        self.symbol, self.index = symbol, index
        self.text = b""
        self.version = self.sequence = 0
        self.made = False


class Changed:
    """What changed since some change, the oldest first. alike: what readers keep here for each other, by what they
    watch.
    """

    __slots__ = ("alike", "lives")

    def __init__(self, lives: list[Live]) -> None:
        self.lives = lives
        self.alike: dict[Hashable, Any] = {}


class LiveQuotes:
    """All symbols that were ever asked for or changed. quotes: returns the newest quotes of these symbols."""

    def __init__(self, quotes: Callable[[Sequence[str]], Sequence[Quote]]) -> None:
        self._quotes = quotes
        self._lives: OrderedDict[str, Live] = OrderedDict()
        """In the order of their last change."""
        self._dirty: dict[str, int] = {}
        self._changed: dict[int, Changed] = {}
        self.sequence = 0
        """Number of the last change."""

    @property
    def dirty(self) -> KeysView[str]:
        """Return the symbols whose texts are to be made anew."""
        return self._dirty.keys()

    def note(self, changes: Mapping[str, int]) -> None:
        """Note changed symbols: canonical name -> number of ticks."""
        dirty = self._dirty
        for symbol, ticks in changes.items():
            dirty[symbol] = dirty.get(symbol, 0) + ticks

    def lives(self, symbols: Iterable[str]) -> list[Live]:
        """Return these symbols; the texts of new ones are made by the next `refresh`."""
        found = []
        for symbol in symbols:
            live = self._lives.get(symbol)
            if live is None:
                live = self._add(symbol)
                self._dirty.setdefault(symbol, 0)
            found.append(live)
        return found

    def refresh(self) -> None:
        """Have the texts of changed symbols made; a quote that is as before has not changed.

        May let other greenlets run. When the quotes cannot be had the changes are kept, and it raises what was raised.
        """
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        try:
            quotes = self._quotes(list(dirty))
        except BaseException:
            self.note(dirty)
            raise
        self._changed.clear()
        for quote in quotes:
            live = self._lives.get(quote.symbol) or self._add(quote.symbol)
            live.made = True
            text = b"" if quote.timestamp is None else messages.quote_text(quote)
            if text == live.text:
                continue
            self.sequence += 1
            live.text, live.sequence = text, self.sequence
            live.version += max(1, dirty.get(quote.symbol, 0))
            self._lives.move_to_end(quote.symbol)

    def since(self, sequence: int) -> Changed:
        """Return what changed after that change; to be looked at before the next `refresh`."""
        found = self._changed.get(sequence)
        if found is None:
            lives = []
            for live in reversed(self._lives.values()):
                if live.sequence <= sequence:
                    break
                lives.append(live)
            lives.reverse()
            found = self._changed[sequence] = Changed(lives)
        return found

    def _add(self, symbol: str) -> Live:
        live = self._lives[symbol] = Live(symbol, len(self._lives))
        self._lives.move_to_end(symbol, last=False)  # it has not changed yet
        return live
