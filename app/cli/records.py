"""`python -m app records import|export DATASET FILE`: records of any declared dataset from a file and into one."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from app.cli import database
from app.cli.arguments import time_argument
from app.cli.export_files import ReaderGone, output
from app.cli.records_import import import_records
from app.cli.url import database_url
from app.dataset_source import DatasetSource
from app.datasets.declare import Dataset, Policy
from app.datasets.registry import DATASETS
from app.errors import SettingsError, TickhubError
from app.formats.encoders import Encoder, Format, Gzipped, make_encoder
from app.row_stream import ALL, PAGE_ROWS
from app.settings import Settings
from app.storage.connection import Connection
from app.storage.instruments import Known, find

STATEMENT_TIMEOUT_S = 600.0
"""Waiting for a server's flush must not end an import."""

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=("import", "export"))
    parser.add_argument("dataset", choices=tuple(DATASETS), metavar="DATASET", help=", ".join(DATASETS))
    parser.add_argument(
        "file", metavar="FILE", help=f"its name tells the format: {', '.join(_SUFFIXES)}; with .gz zipped"
    )
    parser.add_argument("--on-duplicate", choices=get_args(Policy), help="of an import; default: the dataset's own")
    parser.add_argument("--symbol", help="export only this one: name or alias, in any case")
    parser.add_argument("--start", type=time_argument, metavar="TIME", help="first time that is exported")
    parser.add_argument("--end", type=time_argument, metavar="TIME", help="first time that is not exported any more")
    parser.add_argument(
        "--computed",
        action="store_true",
        help="export what is computed, too (adj_close, daily_return, ...); an import would take it for sent",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Import or export, and tell how much it was; return 1 where records of an import were refused.

    Starts the embedded database when it is down, and leaves it running. Raises TickhubError.
    """
    dataset, (form, zipped) = DATASETS[args.dataset], _format(args.file)
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: database_url(settings), settings.db_connect_timeout_s, STATEMENT_TIMEOUT_S, f"records {args.action}"
    )
    try:
        if args.action == "export":
            rows = export_records(connection, dataset, args, form, zipped)
            print(f"{args.file}: {rows:,} of {dataset.name}")
            return 0
        told = import_records(
            connection, dataset, Path(args.file), form, zipped, args.on_duplicate or dataset.policy, settings
        )
    except ReaderGone:
        return 0
    finally:
        connection.close()
    print(f"{args.file}: {told}")
    return 1 if told.refused or told.set_aside else 0


def _format(name: str) -> tuple[Format, bool]:
    """Return the format that a file's name tells, and whether it is zipped. Raises SettingsError."""
    path = Path(name)
    zipped = path.suffix == ".gz"
    suffix = path.with_suffix("").suffix if zipped else path.suffix
    if suffix not in _SUFFIXES:
        raise SettingsError(f"{name}: the name must end with one of {', '.join(_SUFFIXES)}")
    return _SUFFIXES[suffix], zipped


def export_records(
    connection: Connection, dataset: Dataset, args: argparse.Namespace, form: Format, zipped: bool
) -> int:
    """Write the records of a range into a file, which is whole or not there; return how many they are.

    As they were sent, unless args.computed: imported again, what is computed would not follow other rows any more.
    """
    shown = dataset if args.computed else replace(dataset, computed={}, joined="")
    source, instrument = DatasetSource(shown, args.start, args.end), ALL
    if args.symbol is not None:
        instrument = _instrument(connection, dataset, args.symbol)
    encoder: Encoder = make_encoder(form, source.fields, list_name=source.list_name, extra=source.head(instrument))
    if zipped:
        encoder = Gzipped(encoder)
    after, rows, more = None, 0, True
    with output(args.file) as file, tqdm(unit="record", unit_scale=True, disable=None, file=sys.stderr) as bar:
        file.write(encoder.head())
        while more:
            with connection.reading(STATEMENT_TIMEOUT_S) as cur:
                page = source.read(cur, instrument, after=after, descending=False, max_rows=PAGE_ROWS)
            if len(page.table):
                file.write(encoder.rows(page.table))
            rows += len(page.table)
            bar.update(len(page.table))
            after, more = page.place, page.more
        file.write(encoder.tail(None))
    return rows


def _instrument(connection: Connection, dataset: Dataset, name: str) -> Known:
    if dataset.symbol is None:
        raise SettingsError(f"{dataset.name} has no symbol")
    with connection.reading(STATEMENT_TIMEOUT_S) as cur:
        known = find(cur, name)
    if known is None:
        raise TickhubError(f"unknown symbol: {name}")
    return known
