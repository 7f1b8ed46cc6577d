"""The symbol map: which instruments there are, under which names they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

VALID_SYMBOL = re.compile(r"[\w.#&+\-/^$!@ ]{1,64}", re.ASCII)
"""What `unknown_symbols=register` takes as a new symbol: what brokers use, and nothing that breaks a view's name."""


class Instrument(msgspec.Struct, frozen=True):
    """An instrument as those who accept ticks need it."""

    symbol: str
    digits: int | None = None
    nonpositive_ok: bool = False
    aliases: list[str] = []


SEED: list[Instrument] = [
    *(
        Instrument(name, aliases=[f"{name}.US"])
        for name in [
            "TSLA",
            "NVDA",
            "AAPL",
            "MSFT",
            "ORCL",
            "PLTR",
            "AMD",
            "AVGO",
            "META",
            "AMZN",
            "CSCO",
            "GOOG",
            "INTC",
        ]
    ),
    Instrument("VIX"),
    Instrument("NAS100"),
    Instrument("NatGas", aliases=["NATGAS"]),
    Instrument("SpotCrude", aliases=["CRUDEOIL"]),
]
"""What a fresh server knows; the first migration puts the same into the database."""


class SymbolMap:
    """Names and aliases, in any case, to instruments. Immutable but for `register`.

    `index(name)` is the hot path: one dictionary look-up for a spelling seen before.
    """

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self.instruments = list(instruments)
        self._exact: dict[str, int] = {}
        self._folded: dict[str, int] = {}
        for index, instrument in enumerate(self.instruments):
            for alias in instrument.aliases:
                self._folded.setdefault(alias.upper(), index)
        for index, instrument in enumerate(self.instruments):
            self._folded[instrument.symbol.upper()] = index  # a name wins over another's alias
        self.names = [instrument.symbol for instrument in self.instruments]

    def index(self, name: str) -> int:
        """Return the instrument's index for a name or alias in any case, or -1."""
        found = self._exact.get(name)
        if found is not None:
            return found
        found = self._folded.get(name.upper(), -1)
        # Remember the spelling; only of known names, and few, so that clients cannot fill the memory.
        if found >= 0 and len(self._exact) < 100_000:
            self._exact[name] = found
        return found

    def missing(self, names: Iterable[str]) -> bool:
        """Tell whether any of the names is unknown."""
        return any(self.index(name) < 0 for name in names)

    def register(self, name: str) -> int:
        """Add an instrument of this name and return its index."""
        index = len(self.instruments)
        self.instruments.append(Instrument(name))
        self.names.append(name)
        self._folded[name.upper()] = index
        return index

    def to_json(self) -> bytes:
        """Return the map as it is cached in the data directory."""
        return msgspec.json.encode(self.instruments)

    @classmethod
    def from_json(cls, data: bytes) -> SymbolMap:
        """Read what `to_json` wrote. Raises msgspec.DecodeError for anything else."""
        return cls(msgspec.json.decode(data, type=list[Instrument]))
