"""The real server with a board of quotes that fails at every tick.

`python -m tests.process.broken_board serve ...` is `python -m app serve ...` with it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

BROKEN = "tests.process.broken_board:application"


def make_application() -> Any:
    """The application; imported by gunicorn's workers only, after patching."""
    from app import create_app
    from app.quote_board import QuoteBoard

    def accepted(self: QuoteBoard, ticks: Any, received_us: int) -> None:
        raise ZeroDivisionError("as it was told to")

    accepted.__qualname__ = QuoteBoard.accepted.__qualname__
    QuoteBoard.accepted = accepted  # type: ignore[method-assign]
    return create_app()


if __name__ == "__main__":
    from app.cli import main

    _execv = os.execv
    os.execv = lambda path, args: _execv(path, [BROKEN if a == "wsgi:application" else a for a in args])  # type: ignore
    sys.exit(main())
elif "gunicorn" in sys.modules:
    application = make_application()
