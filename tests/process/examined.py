"""Examining a data directory for the doctor's tests: in this process, as another user, or by the command."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from app.doctor.examining import ROOMS, examine
from app.doctor.findings import Finding, Outcome
from app.settings import Settings, load
from tests.process.harness import ROOT

OK, WARN, FAIL = Outcome.OK, Outcome.WARN, Outcome.FAIL


def settings(home: Path, **values: object) -> Settings:
    """Return settings for a data directory, without those of this process or its .env."""
    texts = {name: str(value) for name, value in {"data_dir": home, "db_connect_timeout_s": 30, **values}.items()}
    return load(environ={}, flags=texts, env_file=None)


def look(home: Path, **values: object) -> dict[str, Finding]:
    """Return what is found with these settings, by name; each name once."""
    found = list(examine(settings(home, **values)))
    assert len({finding.name for finding in found}) == len(found), found
    assert not [finding for finding in found if "cannot be looked at" in finding.found], found
    for finding in found:
        assert (finding.outcome is OK) == (not finding.remedy), finding
        assert "\n" not in finding.found + finding.remedy
    return {finding.name: finding for finding in found}


def look_as(uid: int, home: Path, **values: object) -> dict[str, Finding]:
    """Return what another user finds; this one has to be root. What is needed is imported before."""
    assert set(ROOMS) <= {name.split(".")[2] for name in sys.modules if name.startswith("app.doctor.")}
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()

    def child() -> None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        found.put(list(examine(settings(home, **values))))

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return {finding.name: finding for finding in found.get()}


def doctor(
    *arguments: str, environ: Mapping[str, str] | None = None, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command, without settings of this process."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TICKHUB_")}
    return subprocess.run(
        [sys.executable, "-m", "app", "doctor", *arguments],
        cwd=ROOT,
        env=kept | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=before,
    )


def line_of(text: str, name: str) -> str:
    """Return the line about this, of what the command printed."""
    [found] = [line for line in text.splitlines() if line[6:].startswith(f"{name} ")]
    return found
