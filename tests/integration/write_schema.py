"""`python -m tests.integration.write_schema`: write sql/schema.sql anew, after a migration was added."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from app.storage import embedded
from app.storage.embedded_place import installed_binaries
from app.storage.schema import SCRIPTS, migrate

SNAPSHOT = SCRIPTS / "schema.sql"
HOW = "python -m tests.integration.write_schema"
_HEADER = f"-- The schema that the migrations make. Written by {HOW}; a test compares.\n"


def dump(url: str) -> str:
    """Return the schema of a database as text that depends on nothing but the schema.

    Without the history views: they follow from the rows of instruments.
    """
    command = [installed_binaries() / "pg_dump", "--schema-only", "--no-owner"]
    done = subprocess.run(
        [*command, "--exclude-table=history.*", f"--dbname={url}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    skipped = ("--", "SET ", "SELECT pg_catalog.set_config", "\\restrict", "\\unrestrict")
    kept: list[str] = []
    for line in done.stdout.splitlines():
        if not line.startswith(skipped) and (line or (kept and kept[-1])):
            kept.append(line)
    return _HEADER + "\n" + "\n".join(kept).strip() + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tickhub-pg-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        config = embedded.EmbeddedConfig(folder / "data", memory_mb=128)
        try:
            embedded.start(config, system_root=folder / "system")
            migrate(embedded.url(config))
            SNAPSHOT.write_text(dump(embedded.url(config)))
        finally:
            embedded.stop(config)


if __name__ == "__main__":
    main()
