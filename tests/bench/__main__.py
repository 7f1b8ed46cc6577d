"""`python -m tests.bench [NAME] [--quick] [--write] [--dir DIR]`: run one bench, or all of them."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from tests.bench.client import BenchError
from tests.bench.running import run

BENCHES = ("ingest", "reads", "live", "datasets", "operate")
"""Modules of this package, in the order in which they run."""


def main(argv: Sequence[str]) -> int:
    """Run what the arguments name; return 0, 1 when a target was missed, 2 when a figure could not be had."""
    named = bool(argv) and not argv[0].startswith("-")
    names = argv[:1] if named else BENCHES
    if named and argv[0] not in BENCHES:
        print(f"bench: no {argv[0]}, there is: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    # The servers of a bench live in sessions of their own: being told to end must run what ends them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    status = 0
    for name in names:
        module = importlib.import_module(f"tests.bench.{name}")
        parser = argparse.ArgumentParser(prog=f"scripts/bench {name}", description=module.HELP)
        parser.add_argument("--quick", action="store_true", help="little of it: does it work at all")
        parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
        parser.add_argument(
            "--dir", help="where data directories are made (default: the temporary directory)"
        )
        module.add_arguments(parser)
        args = parser.parse_args(argv[1:] if named else argv)
        print(f"{name}: {module.HELP}", flush=True)
        try:
            status = max(status, run(name, module, args))
        except BenchError as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            return 2
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
