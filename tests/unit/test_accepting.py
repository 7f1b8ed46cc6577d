"""A worker with more connections than another leaves new ones to it, for a moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from app.web import accepting
from app.web.accepting import SharingServer


class Worker:
    def __init__(self) -> None:
        self.crowded = False
        self.server = SharingServer(("127.0.0.1", 0), handle=lambda *_: None, crowded=lambda: self.crowded)
        self.server.init_socket()
        self.client = socket.create_connection(self.server.socket.getsockname())


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.client.close()
    worker.server.close()


def accepts(worker: Worker) -> bool:
    accepted = worker.server.do_read()
    if accepted:
        accepted[0].close()
    return bool(accepted)


def test_a_worker_leaves_a_connection_to_one_that_has_fewer(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "POLITE_S", 1e9)
    worker.crowded = True
    assert not accepts(worker)
    assert not accepts(worker)
    worker.crowded = False
    assert accepts(worker)


def test_a_worker_takes_what_the_others_did_not(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "POLITE_S", 0.0)
    worker.crowded = True
    assert accepts(worker)
