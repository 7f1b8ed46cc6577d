"""`python -m app maintain`: what keeps one action from its end keeps no other."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import pytest

from app.cli import maintain
from app.settings import load
from app.storage.retention import Unfinished


def asked(action: str) -> argparse.Namespace:
    return argparse.Namespace(action=action, dry_run=False, allow_empty=False)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    actions: list[str] = []

    def do(action: str, *_: object) -> int:
        if action == "retention":
            raise Unfinished("ticks_20260112 is being read: the next run drops it")
        actions.append(action)
        return 0

    monkeypatch.setattr(maintain, "_do", do)
    monkeypatch.setattr(maintain.database, "run", lambda *_: 0)
    monkeypatch.setattr(maintain.maintenance, "alone", lambda _: nullcontext())
    return actions


def test_what_is_in_use_for_retention_does_not_keep_the_rest_from_being_done(
    done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert maintain.run(asked("all"), load({}, None, None)) == 1
    assert done == ["partitions", "archive", "order", "vacuum", "analyze", "reindex", "health"]
    assert "retention: ticks_20260112 is being read" in capsys.readouterr().err


def test_an_action_by_itself_says_that_it_is_unfinished(done: list[str]) -> None:
    with pytest.raises(Unfinished):
        maintain.run(asked("retention"), load({}, None, None))
    assert done == []
