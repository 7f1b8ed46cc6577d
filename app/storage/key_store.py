"""API keys in the database: made, listed, revoked, rotated, and read for the server. Lane side.

A key is `th_`, eight characters by which people know it (its prefix), `_`, and 256 random bits. Kept is its SHA-256:
of so much chance nobody guesses the text, so a slow hash, as passwords need it, would only slow down every request.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg2
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from app.errors import BadField, Conflict, NotFound, StorageError
from app.storage.connection import Connection, first_line
from app.storage.key_form import KEY

SCOPES = ("ingest", "read", "admin")
PREFIX_LENGTH = 8
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_SECRET_BYTES = 32

MOST_KEYS = 10_000
"""Keys that are in force at once: so many every worker holds in memory (3 MB) and reads in a moment."""

_READ_TIMEOUT_S = 2.0

_COLUMNS = "key_no, prefix, name, hash, scopes, rate_per_s, created_at, expires_at, revoked_at"
_IN_FORCE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
_LOCK = "LOCK TABLE secret.api_keys IN SHARE ROW EXCLUSIVE MODE"
_ADD = f"""
    INSERT INTO secret.api_keys (prefix, name, hash, scopes, rate_per_s, expires_at)
    VALUES (%(prefix)s, %(name)s, %(hash)s, %(scopes)s, %(rate_per_s)s, now() + %(expires_in)s) RETURNING {_COLUMNS}
"""  # noqa: S608 - the constants above
_LIST = f"SELECT {_COLUMNS} FROM secret.api_keys ORDER BY key_no"  # noqa: S608 - the same
_NAMED = f"""
    SELECT {_COLUMNS} FROM secret.api_keys WHERE (prefix = %(named)s OR name = %(named)s) AND {_IN_FORCE}
    ORDER BY key_no
"""  # noqa: S608 - the same
_REVOKE = f"UPDATE secret.api_keys SET revoked_at = now() WHERE key_no = %s RETURNING {_COLUMNS}"  # noqa: S608 - the same
# Rotated once more, an old one does not live longer for it.
_LET_EXPIRE = f"""
    UPDATE secret.api_keys SET expires_at = least(expires_at, now() + %(grace)s) WHERE key_no = %(key_no)s
    RETURNING {_COLUMNS}
"""  # noqa: S608 - the same
_COUNT = f"SELECT count(*) FROM secret.api_keys WHERE {_IN_FORCE}"  # noqa: S608 - the same
_READ = """
    SELECT key_no, prefix, name, hash, scopes, rate_per_s, expires_s FROM secret.keys_in_force ORDER BY key_no LIMIT %s
"""
_AUDIT = "INSERT INTO audit_log (actor, action, rows, details) VALUES (%s, %s, 1, %s)"
_ANY = "SELECT keys_made FROM secret.keys_made"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept; times are UTC, None where there is none."""

    key_no: int
    prefix: str
    name: str
    hash: bytes
    scopes: tuple[str, ...]
    rate_per_s: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KnownKey(msgspec.Struct, frozen=True):
    """What the server knows of a key that is in force. expires_s: since the epoch."""

    key_no: int
    prefix: str
    name: str
    hash: bytes
    scopes: tuple[str, ...]
    rate_per_s: float | None
    expires_s: float | None


class KnownKeys(msgspec.Struct, frozen=True):
    """All keys in force. any: whether any key was ever made, so that the last one's end does not open the door."""

    any: bool = False
    keys: tuple[KnownKey, ...] = ()


def hash_of(key: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def prefix_of(key: str) -> str | None:
    """Return the prefix of a text that has the form of our keys, None for any other."""
    found = KEY.fullmatch(key)
    return found[1] if found else None


def add_key(
    cur: Cursor, name: str, scopes: Sequence[str], *, rate_per_s: float | None, expires_in: timedelta | None
) -> tuple[str, StoredKey]:
    """Make a key; return it, the only time that it is seen, and what is kept of it.

    Raises BadField for a name, scope, rate or time that cannot be, Conflict for a name that a key in force has.
    """
    name = name.strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise BadField("name: 1 to 100 printable characters")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise BadField(f"scopes: one or more of {', '.join(SCOPES)}")
    if rate_per_s is not None and not 0 < rate_per_s <= 1_000_000:
        raise BadField("rate: requests in a second, more than 0, at most 1000000")
    if expires_in is not None and expires_in <= timedelta(0):
        raise BadField("expires: a time from now on")
    cur.execute(_LOCK)
    cur.execute(_NAMED, {"named": name})
    if cur.fetchone():
        raise Conflict(f"there is a key named {name}: rotate it, revoke it, or take another name")
    return _insert(cur, name, scopes, rate_per_s, expires_in)


def _insert(
    cur: Cursor, name: str, scopes: Sequence[str], rate_per_s: float | None, expires_in: timedelta | None
) -> tuple[str, StoredKey]:
    cur.execute(_COUNT)
    (count,) = cur.fetchone() or (0,)
    if count >= MOST_KEYS:
        raise Conflict(f"{MOST_KEYS} keys are in force: revoke those that nobody uses")
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_LENGTH))
    key = f"th_{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    chosen = [scope for scope in SCOPES if scope in scopes]
    values = {"prefix": prefix, "name": name, "hash": hash_of(key), "scopes": chosen, "rate_per_s": rate_per_s}
    cur.execute(_ADD, {**values, "expires_in": expires_in})
    return key, _stored(cur.fetchone())


def list_keys(cur: Cursor) -> list[StoredKey]:
    """Return all keys, those that hold no more too, in the order in which they were made."""
    cur.execute(_LIST)
    return [_stored(row) for row in cur.fetchall()]


def revoke_key(cur: Cursor, named: str) -> StoredKey:
    """End a key, named by its prefix or name, for good. Raises NotFound, Conflict when several are meant."""
    cur.execute(_REVOKE, (_one(cur, named).key_no,))
    return _stored(cur.fetchone())


def rotate_key(cur: Cursor, named: str, grace: timedelta) -> tuple[str, StoredKey, StoredKey]:
    """Make a key like this one, which holds for `grace` longer at most; return the new one and what is kept of both.

    The new one lives from now on as long as the old one was to. Raises NotFound, Conflict when several are meant.
    """
    cur.execute(_LOCK)
    old = _one(cur, named)
    life = None if old.expires_at is None else old.expires_at - old.created_at
    key, new = _insert(cur, old.name, old.scopes, old.rate_per_s, life)
    cur.execute(_LET_EXPIRE, {"grace": grace, "key_no": old.key_no})
    return key, new, _stored(cur.fetchone())


def audit(cur: Cursor, actor: str, action: str, key: StoredKey) -> None:
    """Write down who did what with a key, in the same transaction."""
    details = Json({"prefix": key.prefix, "name": key.name, "scopes": list(key.scopes)})
    cur.execute(_AUDIT, (actor, action, details))


def _one(cur: Cursor, named: str) -> StoredKey:
    cur.execute(_NAMED, {"named": named})
    found = [_stored(row) for row in cur.fetchall()]
    if not found:
        raise NotFound(f"no key in force has the prefix or name {named[:100]}")
    if len(found) > 1:
        prefixes = ", ".join(key.prefix for key in found)
        raise Conflict(f"several keys are named {named[:100]}: say which by its prefix, {prefixes}")
    return found[0]


def _stored(row: Any) -> StoredKey:
    key_no, prefix, name, hash_, scopes, *rest = row
    return StoredKey(key_no, prefix, name, bytes(hash_), tuple(scopes), *rest)


def read_known(connection: Connection) -> KnownKeys:
    """Return the keys in force. Raises StorageError when this role may not read them, DatabaseAway, QueryTimeout."""
    try:
        with connection.reading(_READ_TIMEOUT_S) as cur:
            cur.execute(_READ, (MOST_KEYS,))
            keys = tuple(
                KnownKey(key_no, prefix, name, bytes(hash_), tuple(scopes), rate, expires)
                for key_no, prefix, name, hash_, scopes, rate, expires in cur.fetchall()
            )
            cur.execute(_ANY)
            (any_,) = cur.fetchone() or (False,)
    except psycopg2.Error as error:
        raise StorageError(first_line(error)) from error
    return KnownKeys(bool(any_), keys)
