"""How an API key looks, and texts without one. Lane side; light: gunicorn's master loads it."""

from __future__ import annotations

import re
from collections.abc import Collection

KEY = re.compile(r"th_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")

_SHOWN = re.compile(r"th_([a-z0-9]{8})_[A-Za-z0-9_-]+")
"""A key, also one that was cut off somewhere."""


class WithoutKeys:
    """Texts in which of each key only its prefix is left, by which people know it; of the settings' keys nothing."""

    def __init__(self, keys: Collection[str] = ()) -> None:
        """Leave out the settings' keys too; they are ASCII."""
        forms = ("".join(map(_any_form, key)) for key in sorted(keys, key=len, reverse=True))
        self._others = re.compile("|".join(forms)) if keys else None

    def __call__(self, text: str) -> str:
        """Return the text without keys."""
        if self._others is not None:
            text = self._others.sub("...", text)
        return _SHOWN.sub(r"th_\1_...", text) if "th_" in text else text


def _any_form(letter: str) -> str:
    """Return the pattern of a letter as it is, as a URL may have it, and as quoted text may, quoted twice even."""
    return rf"(?:\\{{0,3}}{re.escape(letter)}|%(?i:{ord(letter):02x}))"
