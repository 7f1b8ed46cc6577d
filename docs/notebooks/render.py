"""Run a script of `# %%` cells against a running server, and write it with its output as Markdown beside it.

    python docs/notebooks/render.py docs/notebooks/first_look.py

MARKET_SERVER is the server's address, where it is not http://127.0.0.1:5000.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path

CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def render(script: str, name: str) -> str:
    """Run the cells one after another, in one namespace; return text, code and what they print as Markdown."""
    _, *parts = CELL.split(script)
    space: dict[str, object] = {"__name__": "__main__"}
    pieces = []
    for markdown, source in zip(parts[::2], parts[1::2], strict=True):
        if markdown:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.strip().splitlines())
            pieces.append(text)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(source, name, "exec"), space)
        pieces.append(f"```python\n{source.strip()}\n```")
        if output := printed.getvalue().rstrip():
            pieces.append(f"```text\n{output}\n```")
    return "\n\n".join(pieces) + "\n"


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    os.chdir(path.parent)  # pictures go there too
    path.with_suffix(".md").write_text(render(path.read_text(), path.name))
