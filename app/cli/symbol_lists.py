"""Lists of symbols: one a line, or the column `symbol` of a CSV; `vn30` is shipped. Used by `import-ohlc`."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

from app.errors import TickhubError

SHIPPED = ("vn30",)
_FOLDER = "lists"


class UnreadableList(TickhubError):
    """The list is not there, or names no symbol."""


def read_list(name: str) -> tuple[list[str], str]:
    """Return the symbols, each once and in the list's order, and its first line of remarks (its title and date).

    name: of a file, or of a list that is shipped. Lines that begin with # are remarks. Raises UnreadableList.
    """
    try:
        if name.lower() in SHIPPED and not Path(name).exists():
            place = resources.files("app.cli").joinpath(_FOLDER, f"{name.lower()}.csv")
            text = place.read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableList(f"{name} cannot be read: {error} (shipped lists: {', '.join(SHIPPED)})") from error
    lines = [line.strip() for line in text.splitlines()]
    remarks = [line.lstrip("# ") for line in lines if line.startswith("#")]
    symbols = list(dict.fromkeys(_symbols([line for line in lines if line and not line.startswith("#")])))
    if not symbols:
        raise UnreadableList(f"{name} names no symbol")
    return symbols, remarks[0] if remarks else ""


def _symbols(lines: list[str]) -> list[str]:
    if not lines:
        return []
    separator = max(",;\t", key=lines[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    header = [cell.lower() for cell in rows[0]]
    column = next((header.index(name) for name in ("symbol", "ticker", "code") if name in header), None)
    if column is None:
        return [row[0] for row in rows if row and row[0]]
    return [row[column] for row in rows[1:] if len(row) > column and row[column]]
