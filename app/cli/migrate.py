"""`python -m app migrate`: bring the database to the newest schema."""

from __future__ import annotations

import argparse

from app.cli import add_setting_flags
from app.cli.url import owner_url
from app.settings import BY_NAME, Settings
from app.storage.schema import migrate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the direct database's URL beside the common flags."""
    add_setting_flags(parser, [BY_NAME["direct_database_url"]])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Migrate and print what was done; doing it twice is harmless.

    Raises DatabaseAway when the database does not answer.
    """
    for line in migrate(owner_url(settings)):
        print(line)
    return 0
