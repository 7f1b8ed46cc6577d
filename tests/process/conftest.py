"""One template data directory a session; servers that are gone after their test, whatever happened in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.harness import (
    Database,
    Server,
    copy_template,
    folder,
    make_template,
    running_database,
)
from tests.process.proxy import Proxy
from tests.waiting import skip_here

MakeServer = Callable[..., Server]


@pytest.fixture(scope="session")
def data_template() -> Iterator[Path]:
    """Yield a data directory with a migrated, stopped database, to be copied."""
    with folder() as parent:
        yield make_template(parent / "template")


@pytest.fixture
def make_server(data_template: Path) -> Iterator[MakeServer]:
    """Yield a function that makes a Server (not started) with a data directory of its own.

    `make_server(*flags, workers=1, environ=None)`
    """
    with ExitStack() as stack:

        def make(*flags: str, workers: int = 1, environ: dict[str, str] | None = None) -> Server:
            home = copy_template(data_template, stack.enter_context(folder()) / "data")
            server = Server(home, *flags, workers=workers, environ=environ)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def database(data_template: Path) -> Iterator[Database]:
    """Yield a running, migrated database that no server looks after."""
    with running_database(data_template) as found:
        yield found


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """Yield a proxy before `database`, still closed."""
    found = Proxy(database.socket())
    try:
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the paths of a key and of its certificate, by itself, for a server here that speaks TLS."""
    program = shutil.which("openssl")
    if program is None:
        skip_here("openssl is not installed: apt-get install openssl")
    place = tmp_path_factory.mktemp("tls")
    key, cert = str(place / "key.pem"), str(place / "cert.pem")
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert
