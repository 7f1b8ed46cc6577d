"""What is around every bench: a cluster of its own, the machine in words, the tables, the targets, the page."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tests.bench import machine, postgres, tables
from tests.bench.postgres import Postgres
from tests.bench.tables import Target


class Report(Protocol):
    """What a module has that tells of results."""

    def results_tables(self, results: Any) -> Sequence[str]:
        """Return them as tables."""

    def targets(self, results: Any) -> list[Target]:
        """Return what the figures have to be."""


class BenchModule(Protocol):
    """What the module of a bench has. QUICK_IS: what `--quick` runs."""

    HELP: str
    QUICK_IS: str
    REPORT: Report

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its own arguments."""

    def measure(self, directory: Path, server: Postgres, args: argparse.Namespace) -> Any:
        """Measure in an empty directory, and return the results."""


def run(name: str, bench: BenchModule, args: argparse.Namespace) -> int:
    """Measure, print the tables, write the page when asked; return 0, or 1 when a target was not met."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=args.dir))).resolve()
        # PostgreSQL refuses to run as root; the user that it gets instead has to reach its cluster in here.
        directory.chmod(0o755)
        server = stack.enter_context(postgres.running(directory / "postgres"))
        about = machine.describe(directory, server.version)
        results = bench.measure(directory, server, args)
    found = bench.REPORT.targets(results)
    pieces = [
        "\n".join(f"{what}: {value}" for what, value in about),
        *([f"QUICK RUN: {bench.QUICK_IS}, good for trying the bench only"] if args.quick else []),
        *bench.REPORT.results_tables(results),
        tables.targets_table(found),
    ]
    text = "\n\n".join(pieces)
    print(f"\n{text}")
    if args.write:
        tables.replace_section(name, text)
    return 0 if all(target.met for target in found) else 1


def progress(line: str) -> None:
    """Tell whoever waits."""
    print(f"  {line}", flush=True)
