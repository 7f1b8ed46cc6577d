"""Real market data for tests, where the variable REAL_MARKET_DATA names its folder; else they are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = os.environ.get("REAL_MARKET_DATA")
_WHY = "REAL_MARKET_DATA is not set"

real_data = pytest.mark.skipif(not REAL, reason=_WHY)


def real_path(*parts: str) -> Path:
    """Return the path of a real file; skips the test where there is none."""
    if not REAL:
        pytest.skip(_WHY)
    return Path(REAL, *parts)
