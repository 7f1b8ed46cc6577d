"""Results as plain text: tables, targets, and their place in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@dataclass(frozen=True, slots=True)
class Target:
    """One figure and its bound: at least that, or less than that when `below`; aim is where to go next."""

    name: str
    value: float
    bound: float
    below: bool = False
    unit: str = ""
    aim: str = ""

    @property
    def met(self) -> bool:
        return self.value < self.bound if self.below else self.value >= self.bound

    def row(self) -> list[str]:
        bound = f"{'<' if self.below else '>='} {self.bound:.3g}{self.unit}"
        return [self.name, f"{self.value:.3g}{self.unit}", bound, self.aim, "met" if self.met else "NOT MET"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their heads, first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    lines = []
    for line in [head, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def targets_table(targets: Sequence[Target]) -> str:
    """Return the targets with their figures, and whether they were met."""
    return table(["target", "measured", "needed", "aim", ""], [target.row() for target in targets])


def replace_section(name: str, text: str, page: Path = PAGE) -> None:
    """Put the text between the page's markers `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

    Raises ValueError when the page lacks them.
    """
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} lacks the markers {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n```\n{text}\n```\n\n{end}{after}")
