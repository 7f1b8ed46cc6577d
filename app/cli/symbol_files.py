"""Files of instruments: CSV with a header, as spreadsheets write it."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path

from app.errors import TickhubError
from app.storage.symbols_store import NewSymbol

COLUMNS = (
    *("symbol", "aliases", "name", "exchange", "currency", "timezone", "digits", "allow_nonpositive"),
    *("sector", "industry", "market_cap"),
)
IGNORED = ("last_updated", "calendar")
"""What `symbols list --csv` writes beside them."""

_YES, _NO = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0", "")


class UnreadableFile(TickhubError):
    """The file is not there, or no CSV of instruments."""


def read_rows(path: Path) -> list[tuple[int, NewSymbol | str]]:
    """Return each row of the file with the number of its line: an instrument, or why it is none.

    path: - is standard input. UTF-8, with or without a BOM; cells separated by commas, or by semicolons if the header
    is. Raises UnreadableFile.
    """
    try:
        if str(path) == "-":
            return list(_rows(TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")))
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return list(_rows(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, NewSymbol | str]]:
    lines = iter(lines)
    header = next(lines, "")
    separator = ";" if ";" in header and "," not in header else ","
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
    unknown = [name for name in names if name not in (*COLUMNS, *IGNORED)]
    if "symbol" not in names or unknown or len(set(names)) < len(names):
        why = f"no column {', '.join(unknown)} is known" if unknown else "its header must name symbol, each column once"
        raise UnreadableFile(f"{why}; the columns are {', '.join(COLUMNS)}")
    reader = csv.reader(lines, delimiter=separator)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            row = _row(dict(zip(names, map(str.strip, cells), strict=False))) if len(cells) <= len(names) else (
                f"it has {len(cells)} cells, the header {len(names)}"
            )
            yield reader.line_num + 1, row


def _row(cells: Mapping[str, str]) -> NewSymbol | str:
    symbol, digits, nonpositive = (cells.get(name, "") for name in ("symbol", "digits", "allow_nonpositive"))
    if not symbol:
        return "symbol is empty"
    if digits and not re.fullmatch(r"[0-9]{1,4}", digits):
        return f"digits is no number: {digits[:40]!r}"
    cap = cells.get("market_cap", "")
    if cap and not re.fullmatch(r"[0-9]{1,30}(\.[0-9]{0,30})?([eE]\+?[0-9]{1,3})?", cap):
        return f"market_cap is no number: {cap[:40]!r}"
    if nonpositive.lower() not in (*_YES, *_NO):
        return f"allow_nonpositive is neither yes nor no: {nonpositive[:40]!r}"
    return NewSymbol(
        symbol=symbol,
        aliases=[alias.strip() for alias in re.split(r"[;|]", cells.get("aliases", "")) if alias.strip()],
        name=cells.get("name") or None,
        exchange=cells.get("exchange") or None,
        currency=cells.get("currency") or None,
        timezone=cells.get("timezone") or None,
        digits=int(digits) if digits else None,
        allow_nonpositive=nonpositive.lower() in _YES if nonpositive else None,
        sector=cells.get("sector") or None,
        industry=cells.get("industry") or None,
        market_cap=float(cap) if cap else None,
    )
