"""What a person sees of a long backup, at a terminal and in a log."""

from __future__ import annotations

import pytest

from app.cli import backup


def test_elsewhere_than_on_a_terminal_a_line_tells_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "LINE_EVERY_S", 3600.0)
    with backup.shown("full") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(backup, "LINE_EVERY_S", 0.0)
    with backup.shown("full") as progress:
        progress(10**9, 4 * 10**9)
        progress(5 * 10**8, 0)
    assert capsys.readouterr().err == "full: 25 % of 4.0 GB\nfull: 0.5 GB\n"


def test_on_a_terminal_a_bar_moves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with backup.shown("full") as progress:
        progress(3 * 10**9, 4 * 10**9)
    said = capsys.readouterr().err
    assert "full" in said
    assert "3.00G/4.00G" in said
    assert "\r" in said
