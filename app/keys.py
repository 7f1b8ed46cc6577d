"""Who sends a request: the API keys of the settings and of the database, as a worker knows them. Greenlet side.

Those of the database are read every REFRESH_S, all that are in force: what is revoked is so within seconds, and while
the database is away those that were known go on. A copy (hashes, as in the database) lies in the data directory, for a
start without it. What is compared are hashes, in a time that does not tell where they differ.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gevent
import msgspec

from app.errors import DatabaseAway, Forbidden, NotReady, QueryTimeout, RateLimited, StorageError, Unauthorized
from app.lanes import Lane, LaneTimeout
from app.rate_limits import RateLimits, place_of
from app.settings import Settings
from app.storage.connection import Connection
from app.storage.key_store import KnownKey, KnownKeys, hash_of, prefix_of, read_known

REFRESH_S = 2.0
AWAY_S = 0.5
"""How soon the database is looked for again while it is away."""

READ_TIMEOUT_S = 5.0
FILE = "api_keys.json"

_NOBODY = bytes(32)

log = logging.getLogger("tickhub")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. prefix: of a key of the database, "" of one of the settings; place: of its bucket."""

    scopes: frozenset[str]
    place: int
    prefix: str = ""
    hash: bytes = b""
    name: str = ""
    rate_per_s: float | None = None

    def may(self, scope: str) -> bool:
        """Tell whether the key allows this."""
        return scope in self.scopes or "admin" in self.scopes


class Keys:
    """All keys, and how much each may ask."""

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        lane: Lane,
        connection: Connection,
        away: Callable[[], str | None],
    ) -> None:
        """Begin with what the data directory remembers. away: why the database cannot be asked now."""
        self._settings, self._lane, self._connection, self._away = settings, lane, connection, away
        self._rates = {"ingest": settings.rate_limit_ingest, "read": settings.rate_limit_read}
        self._limits = RateLimits(run_dir / "limits")
        self._configured = _configured(settings)
        self._path = settings.data_dir / FILE
        self._was_read = False
        self._said = ""
        self._known: dict[str, KnownKey] = {}
        self._any = False
        self._holding: dict[object, tuple[Caller | None, Callable[[], None]]] = {}
        self._on_disk = b""
        self._load()

    @property
    def required(self) -> bool:
        """Tell whether a request needs a key: one is in the settings, they ask for one, or one was ever made."""
        return self._any or self._settings.asks_for_keys

    def admit(self, key: str, scope: str) -> Caller:
        """Return whose the key is, and count the request.

        Raises Unauthorized for an unknown key, Forbidden for one that does not allow `scope`, RateLimited for one that
        asks too much, NotReady for one that may be good when no keys could be read yet.
        """
        caller = self._find(key)
        if not caller.may(scope):
            raise Forbidden(f"this API key does not allow {scope}")
        kind = "ingest" if scope == "ingest" else "read"
        rate_per_s = self._rates[kind] if caller.rate_per_s is None else caller.rate_per_s
        wait_s = self._limits.take(caller.place, kind, rate_per_s)
        if wait_s:
            error = RateLimited(f"this API key may ask {rate_per_s:g} times a second: go slower")
            error.retry_after_s = math.ceil(wait_s)
            raise error
        return caller

    def hold(self, caller: Caller | None, lost: Callable[[], None]) -> Callable[[], None]:
        """Call `lost`, once, when the key does not allow to read any more; return what ends that.

        caller: None for one who came in without a key, while none was asked for. For what lasts: WebSockets.
        """
        token = object()
        self._holding[token] = (caller, lost)

        def release() -> None:
            self._holding.pop(token, None)

        return release

    def may_go_on(self, caller: Caller | None) -> bool:
        """Tell whether who was let in may read on. caller: None for one without a key, while none was asked for."""
        if caller is None:
            return not self.required
        if not caller.prefix:
            return True
        known = self._known.get(caller.prefix)
        return known is not None and known.hash == caller.hash and _holds(known)

    def run(self) -> None:
        """Keep the keys current for ever; to be spawned as a greenlet."""
        while True:
            connected = self._away() is None
            try:
                if connected:
                    self._refresh()
                self._let_go()
            except Exception:
                log.exception("looking after API keys failed")
            gevent.sleep(REFRESH_S if connected else AWAY_S)

    def _find(self, key: str) -> Caller:
        sent, found = hash_of(key), None
        for digest, caller in self._configured:  # all of them, whichever it is
            if hmac.compare_digest(digest, sent):
                found = caller
        prefix = prefix_of(key)
        known = self._known.get(prefix or "")
        if hmac.compare_digest(_NOBODY if known is None else known.hash, sent) and known is not None and _holds(known):
            found = found or _caller(known)
        if found is not None:
            return found
        if prefix is not None and not self._was_read:
            raise NotReady("the API keys could not be read from the database yet. Send it again later")
        raise Unauthorized("this API key is not known")

    def _refresh(self) -> None:
        try:
            found = self._lane.call_within(READ_TIMEOUT_S, self._connection.interrupt, read_known, self._connection)
        except (DatabaseAway, LaneTimeout, QueryTimeout) as error:
            log.debug("API keys were not read: %s", error)
            return
        except StorageError as error:
            if str(error) != self._said:
                self._said = str(error)
                log.error("[ERROR] API keys cannot be read, so those of the database are as they were: %s", error)
            return
        self._was_read, self._said = True, ""
        if found.any and not self.required:
            log.warning("an API key was made: from now on every request needs one")
        self._learn(found)
        data = msgspec.json.encode(found)
        if data != self._on_disk and (found.any or self._on_disk):
            try:
                self._lane.call(_replace, self._path, data)
                self._on_disk = data
            except OSError as error:  # a full disk: what was read counts all the same
                log.warning("%s cannot be written: %s", FILE, error)

    def _learn(self, found: KnownKeys) -> None:
        self._any = found.any
        self._known = {key.prefix: key for key in found.keys}

    def _load(self) -> None:
        try:
            self._on_disk = self._path.read_bytes()
            self._learn(msgspec.json.decode(self._on_disk, type=KnownKeys))
            self._was_read = True
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            # There were keys: nobody comes in until they are read again.
            self._any = True
            log.warning("%s cannot be read (%s): its keys are good when the database is there", FILE, error)

    def _let_go(self) -> None:
        for token, (caller, lost) in list(self._holding.items()):
            if not self.may_go_on(caller):
                self._holding.pop(token, None)
                lost()


def _configured(settings: Settings) -> list[tuple[bytes, Caller]]:
    scopes: dict[bytes, set[str]] = {}
    for scope, keys in (
        ("ingest", settings.api_key_ingest),
        ("read", settings.api_key_read),
        ("admin", settings.api_key_admin),
    ):
        for key in keys:
            scopes.setdefault(hash_of(key), set()).add(scope)
    return [
        (digest, Caller(frozenset(allowed), place_of(number, configured=True)))
        for number, (digest, allowed) in enumerate(scopes.items())
    ]


def _caller(known: KnownKey) -> Caller:
    place = place_of(known.key_no, configured=False)
    return Caller(frozenset(known.scopes), place, known.prefix, known.hash, known.name, known.rate_per_s)


def _holds(known: KnownKey) -> bool:
    return known.expires_s is None or known.expires_s > time.time()


def _replace(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, so that a reader sees the old one or the new one. Lane side."""
    new = path.with_suffix(f".{os.getpid()}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)
