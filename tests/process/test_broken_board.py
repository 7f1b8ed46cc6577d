"""Ticks that are on disk are acknowledged, whatever fails among those who are told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Server, copy_template, folder
from tests.process.wire import ask, batch, tick


class Broken(Server):
    """A server whose board of quotes fails at every tick."""

    module = "tests.process.broken_board"


@pytest.fixture
def server(data_template: Path) -> Iterator[Server]:
    with folder() as parent:
        found = Broken(copy_template(data_template, parent / "data"))
        try:
            yield found.start().wait_ready()
        finally:
            found.close()


def test_ticks_are_acknowledged_and_stored_once_though_the_board_of_quotes_fails(server: Server) -> None:
    for _ in range(3):
        assert ask(server, "POST", "/tick", json.dumps(tick())).json == {"status": "success"}
        answer = ask(server, "POST", "/tick/batch", batch(tick(), tick(symbol="NOPE"), tick()))
        assert (answer.status, answer.json["status"], answer.json["received"]) == (200, "partial", 2)
    stats = server.wait_drained()
    assert (stats["stored"], stats["duplicates"], stats["rejected"]) == (9, 0, 3)
    assert server.log().count("QuoteBoard.accepted failed") == 1
    assert "a request failed" not in server.log()
