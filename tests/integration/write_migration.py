"""`python -m tests.integration.write_migration NAME`: write the migration of the datasets that have no table yet.

Then set HEAD in app/storage/schema.py and write the snapshot (write_schema).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from app.datasets.ddl import create_table
from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from app.datasets.rollup import create_rollup
from app.storage.schema import SCRIPTS
from tests.integration.write_schema import SNAPSHOT

_FILE = '''"""Tables of the datasets {names}."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"

TABLES = """
{tables}"""


def upgrade() -> None:
    op.execute(TABLES)
'''


def missing(schema: str) -> list[Dataset]:
    """Return the datasets whose tables are not in a schema's text."""
    there = set(re.findall(r"CREATE TABLE public\.(\w+) ", schema))
    return [dataset for dataset in DATASETS.values() if dataset.table not in there]


def tables_of(dataset: Dataset) -> str:
    """Return the statements that make a dataset's tables."""
    return create_table(dataset) + (create_rollup(dataset) if dataset.rollup else "")


def write(name: str) -> Path:
    """Write the migration behind the newest one, and return where."""
    versions = SCRIPTS / "versions"
    before = max(path.name[:4] for path in versions.glob("[0-9]*.py"))
    revision = f"{int(before) + 1:04}"
    datasets = missing(SNAPSHOT.read_text())
    tables = "\n".join(tables_of(dataset).replace("\\", "\\\\") for dataset in datasets)
    names = ", ".join(dataset.name for dataset in datasets)
    path = versions / f"{revision}_{name}.py"
    path.write_text(_FILE.format(names=names, revision=revision, before=before, tables=tables))
    return path


if __name__ == "__main__":
    print(write(sys.argv[1]))
