"""How people who read by SQL get into the embedded server: one role, over TCP on loopback, with a password.

The password is kept in the data directory, where only its owner reads it; the file is what counts, and the role is
given what it says at every bring-up. So it is changed by removing the file, or by writing another one into it.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import encrypt_password

from app.errors import DatabaseAway
from app.storage import embedded
from app.storage.connection import first_line
from app.storage.embedded import EmbeddedConfig
from app.storage.embedded_user import EmbeddedError
from app.storage.role_names import READ

PASSWORD_FILE = "read-only.password"  # noqa: S105 - its name
_PASSWORD = re.compile(r"[!-~]{8,200}")
_LOCK = 0x7469636B68756203  # advisory; two at once would write different passwords into file and role
_CONNECT_TIMEOUT_S = 10

# A third of the connections: whatever these people do, the server's own are free.
_ADMIT = """
    SELECT format('ALTER ROLE {role} LOGIN CONNECTION LIMIT %%s PASSWORD %%L',
                  greatest(1, current_setting('max_connections')::int / 3), %s)
"""

# What everybody may do unless told otherwise, and a reader must not: fill the disk that the journal needs, with large
# objects, log records or sorts, or hold the locks under which partitions, symbols and migrations are made. The owner is
# a superuser, whom none of it concerns; nobody else comes in by name.
_FORBID = """
    DO $$
    DECLARE
        v_function regprocedure;
    BEGIN
        FOR v_function IN
            SELECT oid FROM pg_proc
            WHERE pronamespace = 'pg_catalog'::regnamespace AND has_function_privilege('{role}', oid, 'EXECUTE')
              AND (proname ~ '^pg_(try_)?advisory' OR proname IN
                  ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'pg_logical_emit_message'))
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
        END LOOP;
    END $$;
    REVOKE TEMPORARY ON DATABASE tickhub FROM PUBLIC;
    ALTER ROLE {role} SET temp_file_limit = '1GB'
"""


def admit(config: EmbeddedConfig) -> str:
    """Let the role that reads log in with the password of the file, made if there is none; return the password.

    The server must be running and migrated. Idempotent, safe when several run at once. Raises EmbeddedError when the
    role or the file cannot be had, DatabaseAway.
    """
    try:
        with (
            closing(
                psycopg2.connect(
                    embedded.url(config), connect_timeout=_CONNECT_TIMEOUT_S, application_name="tickhub embedded"
                )
            ) as connection,
            connection,
            connection.cursor() as cur,
        ):
            cur.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            password = password_of(config.data_dir)
            # Hashed here: a statement may be logged, and then its text is.
            hashed = encrypt_password(password, READ, scope=connection, algorithm="scram-sha-256")
            cur.execute(_ADMIT.format(role=READ), (hashed,))
            (statement,) = cur.fetchone() or ("",)
            cur.execute(statement)
            cur.execute(_FORBID.format(role=READ))
    except psycopg2.errors.UndefinedObject as why:
        raise EmbeddedError(f"there is no role {READ} yet: python -m app database up") from why
    except psycopg2.Error as why:
        raise DatabaseAway(first_line(why)) from why
    return password


def password_of(data_dir: Path) -> str:
    """Return the password in the data directory's file; a missing or unusable one is made anew.

    Raises EmbeddedError when the file can be neither read nor written.
    """
    path = data_dir / PASSWORD_FILE
    try:
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, encoding="ascii", errors="replace") as file:
                os.fchmod(fd, 0o600)
                password = file.read(1000).strip()
                if _PASSWORD.fullmatch(password):
                    return password
        password = secrets.token_urlsafe(24)
        # Aside and renamed: who reads meanwhile sees the old one or the new one whole.
        fd, aside = tempfile.mkstemp(prefix=f".{PASSWORD_FILE}-", dir=data_dir)
        with open(fd, "w", encoding="ascii") as file:
            file.write(password + "\n")
        os.replace(aside, path)
    except OSError as why:
        raise EmbeddedError(f"cannot use {path}: {why.strerror or why}") from why
    return password


def read_only_url(config: EmbeddedConfig) -> str:
    """Return the URL, password included, by which the role that reads comes in over TCP.

    Of a running server the port is its own, whatever the settings say now. Raises EmbeddedError when there is no port,
    DatabaseAway.
    """
    if embedded.is_running(config):
        port = embedded.tcp_port(config)
        if not port:
            raise EmbeddedError(
                "PostgreSQL runs without a TCP port: end it (stop the server, or python -m app database down) and"
                " start it again with --pg-port or TICKHUB_PG_PORT"
            )
        password = admit(config)
    else:
        port = config.tcp_port
        if not port:
            raise EmbeddedError("PostgreSQL is down and no port is set: start it with --pg-port or TICKHUB_PG_PORT")
        password = password_of(config.data_dir)
    return f"postgresql://{READ}:{quote(password, safe='')}@127.0.0.1:{port}/tickhub"
