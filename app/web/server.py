"""The worker's Runtime, as a request reaches it."""

from __future__ import annotations

from typing import cast

from flask import current_app

from app.runtime import Runtime


def runtime() -> Runtime:
    """Return the Runtime of this worker."""
    return cast(Runtime, current_app.extensions["tickhub"])
