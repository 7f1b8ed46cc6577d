"""What stands for the socket of a live reader."""

from __future__ import annotations

import json
from typing import Any


class Outlet:
    """Takes what is sent, and keeps what it says."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.stalled_since: float | None = None
        self.closing = self.ended = False
        self.closed_with: int | None = None

    def send_texts(self, texts: list[bytes]) -> None:
        assert self.stalled_since is None, "who is stalled is sent nothing"
        self.got += [json.loads(text) for text in texts]

    def close(self, code: int, reason: str = "", within_s: float = 1.0) -> None:
        self.closing, self.closed_with = True, code

    def cut(self) -> None:
        self.ended = True
