"""scripts/mt5_bridge.py as a module, and what the tests of it share."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

SCRIPT = Path(__file__).parents[2] / "scripts" / "mt5_bridge.py"


def load() -> ModuleType:
    known = sys.modules.get("mt5_bridge")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location("mt5_bridge", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mt5_bridge"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


class Ear:
    """A Voice that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.standing: set[str] = set()
        self.status_every_s = 3600.0

    def say(self, text: str, key: str = "") -> None:
        self.said.append(text)
        self.standing.add(key)

    def over(self, key: str) -> bool:
        known = key in self.standing
        self.standing.discard(key)
        return known

    def status(self, text: str) -> None:
        self.said.append(text)

    def heard(self, part: str) -> bool:
        return any(part in text for text in self.said)


def open_spool(path: Path, max_rows: int = 1_000_000, stop: threading.Event | None = None) -> Any:
    return load().Spool(path, max_rows, stop or threading.Event(), Ear())


def unsent(spool: Any) -> list[dict[str, Any]]:
    return [json.loads(row.row) for row in spool.head(10_000_000)]


@contextmanager
def running(
    *arguments: str | Path, env: dict[str, str] | None = None, bare: bool = True
) -> Iterator[subprocess.Popen[str]]:
    """The bridge as a process; bare: with nothing but the standard library. Killed at the end."""
    flags = ["-I", "-S"] if bare else []
    process = subprocess.Popen(
        [sys.executable, *flags, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
