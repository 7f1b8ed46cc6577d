"""`python -m app archive`: what is asked wrongly is refused, and never done otherwise."""

from __future__ import annotations

import errno
import os

import pytest

from app.cli import main


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["run", "--start", "2025-01-01"], "needs --start and --end, the others take neither"),
        (["list", "--end", "2025-01-01"], "needs --start and --end, the others take neither"),
        (["bring-back", "--end", "2025-01-01"], "needs --start and --end, the others take neither"),
        (["bring-back", "--start", "2025-02-01", "--end", "2025-01-01"], "--end must be later than --start"),
    ],
)
def test_times_that_make_no_sense_are_refused_before_anything_begins(
    args: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.database.run", lambda *_: pytest.fail("it went on"))
    assert main(["archive", *args]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_in_trouble_is_told_in_a_line_by_every_command(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number), "/backups/base")

    monkeypatch.setattr("app.cli.backup.run", fails)
    assert main(["backup", "list"]) == 1
    assert capsys.readouterr().err == f"tickhub: /backups/base: {os.strerror(number)}\n"
