"""How others come in: the port, the certificate, whether anybody may, and Redis."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import json
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail, ok, warn

ASK_TIMEOUT_S = 3.0
CERTIFICATE_WARN_DAYS = 21


def port(case: Case) -> Iterator[Finding]:
    """The port is free, or ours."""
    settings, pid = case.settings, case.server_pid
    if pid is not None:
        answers = _answers_as_tickhub(settings.listen_url)
        if answers and _listens(pid, settings.port):
            yield ok("port", f"{settings.bind} is served by this server (process {pid})")
        else:
            who = "what answers as tickhub is another server" if answers else "nothing answers as tickhub"
            yield fail(
                "port",
                f"process {pid} serves {settings.data_dir}, and {who} at {settings.listen_url}",
                "give the doctor the server's --host and --port; if they are right, look into its log",
            )
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        # As the server does it: connections of one that has just ended are not in its way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as why:
            yield _refused(settings.bind, settings.port, why)
            return
    yield ok("port", f"{settings.bind} is free; no server runs on this data directory")


def exposure(case: Case) -> Iterator[Finding]:
    """Whoever is beyond this machine needs a key."""
    settings = case.settings
    local = settings.host == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(settings.host).is_loopback
    if not local and not settings.asks_for_keys:
        yield warn(
            "exposure",
            f"{settings.bind} is open to other machines, and the settings ask for no API key",
            "python -m app keys add NAME --scopes read, TICKHUB_REQUIRE_API_KEYS=true, and no --insecure",
        )
    else:
        keys = "API keys are asked for" if settings.asks_for_keys else "for this machine only"
        yield ok("exposure", f"{settings.bind}: {keys}")


def certificate(case: Case) -> Iterator[Finding]:
    """The certificate is valid for a while yet, and belongs to the key."""
    settings = case.settings
    if not settings.ssl_certfile:
        return
    path = Path(settings.ssl_certfile)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile, password=_nobody_types
        )
    except _PassPhraseAsked:
        found = f"{settings.ssl_keyfile} is locked by a pass phrase, which nobody types when a server starts"
        yield fail("certificate", found, "unlock it: openssl pkey -in KEY -out NEW; chmod 600 NEW; put it there")
        return
    except (OSError, ssl.SSLError) as why:
        found = f"{path} with {settings.ssl_keyfile}: {why}"
        yield fail("certificate", found, "put a pair there that belongs together")
        return
    begins, ends = _valid(path)
    now = datetime.now(UTC)
    renew = "renew it, then kill -HUP the server's master"
    if now >= ends:
        yield fail("certificate", f"{path} expired on {ends:%Y-%m-%d}", renew)
    elif now < begins:
        yield fail("certificate", f"{path} holds only from {begins:%Y-%m-%d} on", "look at this host's clock, or wait")
    elif (left := (ends - now).days) < CERTIFICATE_WARN_DAYS:
        yield warn("certificate", f"{path} expires in {left} days, on {ends:%Y-%m-%d}", renew)
    elif stat.S_IMODE(Path(settings.ssl_keyfile).stat().st_mode) & 0o007:
        key = settings.ssl_keyfile
        yield warn("certificate", f"everybody on this machine may read {key}", f"chmod 640 {key}")
    else:
        yield ok("certificate", f"{path} holds until {ends:%Y-%m-%d}")


def redis(case: Case) -> Iterator[Finding]:
    """Redis answers, where one is set."""
    url = case.settings.redis_url
    if not url:
        return
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    where = urlsplit(url)
    name = where.path if where.scheme == "unix" else f"{where.hostname}:{where.port or 6379}"
    with closing(
        Redis.from_url(
            url, socket_connect_timeout=ASK_TIMEOUT_S, socket_timeout=ASK_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
    ) as client:
        begun_s = time.monotonic()
        try:
            client.ping()
            info: dict[str, Any] = client.info("server")
        except (RedisError, OSError) as why:
            yield warn(
                "redis",
                f"{name} does not answer: {why}",
                "start it or mend --redis-url; without it answers are not cached, and other hosts' quotes do not come",
            )
            return
    yield ok("redis", f"{info.get('redis_version')} at {name}, {(time.monotonic() - begun_s) * 1000:.0f} ms")


CHECKS: tuple[Check, ...] = (port, exposure, certificate, redis)
OF_DATABASE: tuple[Check, ...] = ()


def _refused(bind: str, number: int, why: OSError) -> Finding:
    if why.errno == errno.EADDRINUSE:
        return fail("port", f"{bind} is taken by {_holder(number)}", "end that program, or set another --port")
    if why.errno == errno.EACCES:
        return fail("port", f"{bind} is not for this user", "set a --port of 1024 or more, with a proxy before it")
    return fail("port", f"{bind}: {os.strerror(why.errno or 0)}", "set a --host that this machine has")


def _holder(number: int) -> str:
    with suppress(psutil.Error, OSError):
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == number and found.pid:
                return f"{psutil.Process(found.pid).name()} (process {found.pid})"
    return f"another program (whose: ss -ltnp 'sport = :{number}')"


def _listens(pid: int, number: int) -> bool:
    """Tell whether a process listens on a port; that it does where that cannot be seen."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except (psutil.Error, OSError):
        return True
    return any(found.status == psutil.CONN_LISTEN and found.laddr.port == number for found in sockets)


def _answers_as_tickhub(url: str) -> bool:
    where = urlsplit(url)
    host, number = where.hostname or "", where.port
    client: http.client.HTTPConnection
    if where.scheme == "https":
        # Who it is does not matter here: nothing is sent but this question.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = http.client.HTTPSConnection(host, number, timeout=ASK_TIMEOUT_S, context=context)
    else:
        client = http.client.HTTPConnection(host, number, timeout=ASK_TIMEOUT_S)
    with closing(client):
        try:
            client.request("GET", "/health")
            answer = json.loads(client.getresponse().read(10_000))
        except (OSError, http.client.HTTPException, ValueError):
            return False
    return isinstance(answer, dict) and {"status", "database", "workers"} <= answer.keys()


class _PassPhraseAsked(Exception):
    """A key is locked."""


def _nobody_types() -> str:
    """Stand for the terminal, at which OpenSSL would ask and wait."""
    raise _PassPhraseAsked


def _valid(path: Path) -> tuple[datetime, datetime]:
    """Return from when until when the file's first certificate holds (UTC)."""
    # The standard library reads certificates of files only by this function of its tests, since Python 2.6.
    told = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    begins, ends = (ssl.cert_time_to_seconds(told[name]) for name in ("notBefore", "notAfter"))
    return datetime.fromtimestamp(begins, UTC), datetime.fromtimestamp(ends, UTC)
