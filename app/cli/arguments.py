"""Types of arguments that several commands take."""

from __future__ import annotations

import argparse

from app.errors import BadParameter
from app.market.time_params import parse_time


def time_argument(text: str) -> int:
    """Return a moment in UTC microseconds; for argparse, which tells what is wrong with it."""
    try:
        return parse_time(text)
    except BadParameter as error:
        raise argparse.ArgumentTypeError(str(error)) from error
