"""API keys of the settings alone, for requests that no server and no database is behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from app.keys import Keys
from app.settings import load


def configured_keys(directory: Path, **settings: Any) -> Keys:
    """Return the keys of these settings; what they remember of limits is in the directory."""
    (directory / "run").mkdir(exist_ok=True)
    of = load({}, {**settings, "data_dir": str(directory)}, None)
    return Keys(of, directory / "run", cast(Any, None), cast(Any, None), lambda: "there is none")
