"""`python -m app archive`: what is asked wrongly is refused, and never done otherwise."""

from __future__ import annotations

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
