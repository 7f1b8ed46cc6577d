"""A real nginx for a test, with the file of deploy/nginx: before whatever listens, stopped, and gone afterwards."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from tests.process.harness import ROOT, WAIT_S, free_port, wait_until
from tests.process.wire import Answer
from tests.waiting import skip_here

FILE = ROOT / "deploy" / "nginx" / "tickhub.conf"


def nginx_binary() -> str:
    """Return the program, or skip the test; in continuous integration it has to be there."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        skip_here("nginx is not installed (Debian: apt-get install nginx-light)")
    return found


def make_certificate(place: Path, name: str) -> None:
    """Make place/cert.pem, signed by itself, for a name, and place/key.pem."""
    openssl = shutil.which("openssl")
    if openssl is None:
        skip_here("openssl is not installed (Debian: apt-get install openssl)")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem"), "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)


class Nginx:
    """The shipped file on ports of its own. port: of TLS; plain_port: of what leads there."""

    name = "desk.example"

    def __init__(self, home: Path, upstream_port: int, **changed: str) -> None:
        """Write its files below `home`. changed: directives of the file with other values, which all have one line."""
        self._binary, self._home = nginx_binary(), home
        self.port, self.plain_port = free_port(), free_port()
        make_certificate(home, self.name)
        text = FILE.read_text()
        values = {
            "server 127.0.0.1:5000": f"server 127.0.0.1:{upstream_port}",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen [::]:80;": "",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "listen [::]:443 ssl;": "",
            "/etc/nginx/tickhub/": f"{home}/",
            **changed,
        }
        for old, new in values.items():
            assert old in text, f"{FILE.name} has no {old}"
            text = text.replace(old, new)
        (home / "tickhub.conf").write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (home / "nginx.conf").write_text(
            f"worker_processes 1;\npid {home}/pid;\nerror_log {home}/log;\nevents {{}}\nhttp {{\naccess_log off;\n"
            + "".join(f"{kind}_temp_path {home}/{kind};\n" for kind in kinds if kind in ("client_body", "proxy"))
            + f"include {home}/tickhub.conf;\n}}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.trusting = ssl.create_default_context(cafile=str(home / "cert.pem"))

    def start(self) -> Nginx:
        """Start it and wait until it listens."""
        command = [self._binary, "-c", f"{self._home}/nginx.conf", "-e", f"{self._home}/log", "-g", "daemon off;"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self._listens, what="nginx to listen")
        return self

    def stop(self) -> None:
        """End it, connections and all."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            self._process.wait(WAIT_S)

    def log(self) -> str:
        return (self._home / "log").read_text()

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request by HTTPS and return the answer."""
        with closing(_Here(self.port, self.trusting)) as client:
            client.request(method, path, body, dict(headers or {}))
            answer = client.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class _Here(http.client.HTTPSConnection):
    """A client of desk.example, which is on this machine."""

    def __init__(self, port: int, trusting: ssl.SSLContext) -> None:
        super().__init__(Nginx.name, port, timeout=60, context=trusting)
        self._trusting = trusting

    def connect(self) -> None:
        self.sock = self._trusting.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), timeout=60), server_hostname=self.host
        )
