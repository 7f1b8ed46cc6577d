"""The list of datasets in docs/datasets.md, of their declarations: `python -m tests.dataset_list` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from app.datasets.declare import Column, Dataset
from app.datasets.registry import DATASETS

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"
_LIST = re.compile(r"(?<=<!-- list -->\n).*?(?=<!-- end of list -->)", re.DOTALL)
_HEAD = "| dataset | what | key | again | other fields |\n|---|---|---|---|---|\n"


def listed() -> str:
    """Return the list as Markdown."""
    return _HEAD + "".join(map(_line, DATASETS.values()))


def _line(dataset: Dataset) -> str:
    others = ", ".join(_unit(column) for column in dataset.values)
    return f"| `{dataset.name}` | {dataset.help} | {', '.join(dataset.key)} | {dataset.policy} | {others} |\n"


def _unit(column: Column) -> str:
    """Return a field with its unit, which is what its description has in brackets first."""
    found = re.search(r"\(([^()]*)\)", column.help)
    return column.name if found is None or column.kind == "time" else f"{column.name} ({found[1].partition(':')[0]})"


def page() -> str:
    """Return docs/datasets.md with the list as it is to be."""
    return _LIST.sub(lambda _: listed(), PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
