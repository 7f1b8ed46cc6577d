"""How an API key looks, and texts without one. Lane side; light: gunicorn's master loads it."""

from __future__ import annotations

import re

KEY = re.compile(r"th_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")


def without_keys(text: str) -> str:
    """Return a text in which of each key only its prefix is left, by which people know it."""
    return KEY.sub(r"th_\1_...", text) if "th_" in text else text
