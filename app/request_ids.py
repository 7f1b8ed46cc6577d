"""Which request is being answered, for whoever logs meanwhile. Greenlet side.

Each connection has a greenlet, so each request has its own; a greenlet that works for a request is told so (`adopt`).
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import NamedTuple

_SENT = re.compile(r"[\w.:-]{1,128}", re.ASCII)
"""What a client or proxy may call a request: nothing that could break a log line."""


class Asked(NamedTuple):
    """A request: its id, and its method and target as they were sent, whole: a part of a key is not known as one."""

    id: str
    what: str


_asked: ContextVar[Asked | None] = ContextVar("tickhub_asked", default=None)


def begin(sent_id: str, method: str, target: str) -> Asked:
    """Note that this greenlet answers a request from now on; its id is the one that was sent, if that is usable."""
    chosen = sent_id if _SENT.fullmatch(sent_id) else secrets.token_hex(8)
    what = f"{method} {target}"
    if not what.isprintable():
        what = "".join(letter if letter.isprintable() else "?" for letter in what)
    asked = Asked(chosen, what)
    _asked.set(asked)
    return asked


def adopt(asked: Asked | None) -> None:
    """Note that this greenlet works for another one's request."""
    _asked.set(asked)


def current() -> Asked | None:
    """Return the request that this greenlet answers, or answered last; None: it answers none."""
    return _asked.get()
