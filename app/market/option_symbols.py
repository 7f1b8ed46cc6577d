"""Contract symbols as the OCC and the US exchanges write them since 2010 (OSI). Pure, lane side.

    AAPL  140719C00645000    the root, padded with blanks to 6; expiration as YYMMDD; C or P; strike x 1000, 8 digits

Made with the blanks, as clearing does; taken with them or without, as most vendors leave them out. The root is mostly
the underlying's symbol. After a split or a merger contracts with another deliverable get a digit behind it: AAPL7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Literal

OptionType = Literal["call", "put"]

ROOT_CHARACTERS = 6
_MOST_THOUSANDTHS = 10**8
_SYMBOL = re.compile(r"([A-Z][A-Z0-9]{0,5}) *([0-9]{6})([CP])([0-9]{8})", re.ASCII)
_ROOT = re.compile(r"[A-Z][A-Z0-9]{0,5}", re.ASCII)
_FIRST_YEAR = 2000
"""The format has two digits for a year and is of 2010."""


@dataclass(frozen=True, slots=True)
class Contract:
    """An option contract. strike: a price, exact to a thousandth."""

    root: str
    expiration: date
    type: OptionType
    strike: float


def contract_symbol(root: str, expiration: date, type: OptionType, strike: float) -> str | None:
    """Return the 21 characters; None for what has no such symbol.

    That is a root that is not 1 to 6 letters and digits beginning with a letter, a strike that is not positive, is
    100,000 or more or has parts of a thousandth, and a year before 2000 or after 2099.
    """
    name = root.upper()
    thousandths = _thousandths(strike)
    if not _ROOT.fullmatch(name) or thousandths is None or not _FIRST_YEAR <= expiration.year < _FIRST_YEAR + 100:
        return None
    return f"{name:<{ROOT_CHARACTERS}}{expiration:%y%m%d}{type[0].upper()}{thousandths:08d}"


def parse_contract_symbol(text: str) -> Contract:
    """Return the contract that a symbol names, blanks or none. Raises ValueError, with a message for people."""
    found = _SYMBOL.fullmatch(text.strip().upper())
    if found is None:
        raise ValueError(f"{text[:40]!r} is no contract symbol: write one as AAPL  140719C00645000")
    root, day, letter, digits = found.groups()
    try:
        expiration = date(_FIRST_YEAR + int(day[:2]), int(day[2:4]), int(day[4:]))
    except ValueError as error:
        raise ValueError(f"{text[:40]!r}: {day} is no day, YYMMDD") from error
    if not int(digits):
        raise ValueError(f"{text[:40]!r}: the strike is zero")
    return Contract(root, expiration, "call" if letter == "C" else "put", int(digits) / 1000)


@lru_cache(maxsize=8192)  # a chain has few strikes, each many times
def _thousandths(strike: float) -> int | None:
    # By its shortest text: 72.86 is not quite that in binary, and means it all the same.
    exact = Decimal(repr(strike)) * 1000 if strike == strike and abs(strike) < _MOST_THOUSANDTHS else Decimal(0)
    whole = int(exact)
    return whole if exact == whole and 0 < whole < _MOST_THOUSANDTHS else None
