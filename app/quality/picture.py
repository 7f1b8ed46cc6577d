"""A heat map as PNG: days across, symbols or hours down, coloured by coverage. Pure.

Pillow is imported when first needed: only the command line draws.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw

BANDS: tuple[tuple[float, str, str], ...] = (
    (0.999, "#cdeee2", "99.9 % and more"),
    (0.99, "#f4e29b", "99 %"),
    (0.95, "#f2b45f", "95 %"),
    (0.8, "#de7a3a", "80 %"),
    (1e-9, "#b93a2b", "less"),
    (0.0, "#6d0f24", "nothing"),
)
"""Coverage from which on a colour holds, the colour, and its name; the worse, the darker, for every eye and printer.
The page has them as --cover-0 and so on."""

_BACK, _TEXT, _FAINT, _LINE = "#ffffff", "#16191f", "#57606c", "#dfe3e8"
_ROW_PX, _MARGIN_PX, _FONT_PX = 16, 12, 12
_MOST_CELL_PX, _LEAST_CELL_PX, _WANTED_WIDTH_PX = 28, 4, 1000


@dataclass(frozen=True, slots=True)
class Cell:
    """A field of the map. coverage: NaN where there was no session; ticks: how many there are."""

    coverage: float
    ticks: int


LEGEND = (
    *((Cell(least, 1), name) for least, _, name in BANDS),
    (Cell(math.nan, 0), "closed"),
    (Cell(math.nan, 1), "closed, but ticks"),
)


def band_of(coverage: float) -> int:
    """Return the number of the band that a coverage is in."""
    return next(number for number, (least, _, _) in enumerate(BANDS) if coverage >= least)


def draw(title: str, days: Sequence[date], rows: Mapping[str, Mapping[date, Cell]]) -> bytes:
    """Return the picture as PNG. rows: the cells by their row's name and day; those that are not there stay empty."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_PX)
    head = ImageFont.load_default(_FONT_PX + 4)
    labels_px = _MARGIN_PX + round(max((font.getlength(name) for name in rows), default=0)) + 8
    cell_px = max(_LEAST_CELL_PX, min(_MOST_CELL_PX, _WANTED_WIDTH_PX // max(len(days), 1)))
    legend_px = sum(round(font.getlength(name)) + 34 for _, name in LEGEND)
    width = max(labels_px + cell_px * len(days), legend_px + _MARGIN_PX, round(head.getlength(title)) + _MARGIN_PX)
    top = _MARGIN_PX + 28 + 18
    height = top + _ROW_PX * len(rows) + 44 + _MARGIN_PX
    image = Image.new("RGB", (width + _MARGIN_PX, height), _BACK)
    pen = ImageDraw.Draw(image)
    pen.text((_MARGIN_PX, _MARGIN_PX), title, _TEXT, head)
    free_px = 0.0
    for column, day in enumerate(days):
        x = labels_px + column * cell_px
        text = f"{day:%d %b %Y}" if column == 0 or (day.month, day.day) == (1, 1) else f"{day:%d %b}"
        if x >= free_px and (column == 0 or day.weekday() == 0):
            pen.text((x, top - 17), text, _FAINT, font)
            free_px = x + font.getlength(text) + 8
    for row, (name, cells) in enumerate(rows.items()):
        y = top + row * _ROW_PX
        pen.text((_MARGIN_PX, y), name, _TEXT, font)
        for column, day in enumerate(days):
            if day in cells:
                _cell(pen, labels_px + column * cell_px, y, cell_px, cells[day])
    x, y = _MARGIN_PX, top + _ROW_PX * len(rows) + 18
    for cell, name in LEGEND:
        _cell(pen, x, y, 16, cell)
        pen.text((x + 20, y), name, _FAINT, font)
        x += round(font.getlength(name)) + 34
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _cell(pen: ImageDraw.ImageDraw, x: int, y: int, width: int, cell: Cell) -> None:
    box = (x, y, x + width - (2 if width > _LEAST_CELL_PX else 1), y + _ROW_PX - 2)
    if not math.isnan(cell.coverage):
        pen.rectangle(box, BANDS[band_of(cell.coverage)][1])
        return
    pen.rectangle(box, _BACK, _LINE)
    if cell.ticks:
        middle_x, middle_y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
        pen.rectangle((middle_x - 1, middle_y - 1, middle_x + 1, middle_y + 1), _FAINT)
