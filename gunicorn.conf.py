"""gunicorn's configuration, all of it from the settings.

It runs in the master before gevent patches the standard library: at import it may load app.settings only, so
each hook imports what it calls.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from app.settings import load

_settings = load()

bind = _settings.bind
workers = _settings.workers
worker_class = "app.web.worker.TickhubWorker"
worker_connections = _settings.worker_connections
preload_app = False  # nothing that a worker starts survives a fork
reload = _settings.dev
proc_name = "tickhub"

# A worker's loop is never blocked for long; one that has not turned for a minute hangs for good. Shorter
# would kill workers that only wait for a cold disk or swapped-out memory, and with them their connections.
timeout = 60
# What draining may take before SIGKILL; the worker's own deadlines fit inside.
graceful_timeout = _settings.shutdown_grace_s
# Bridges post every few seconds: their connections should live through a quiet minute. Longer than the
# 60 s after which common proxies drop idle ones, so that it is the proxy that closes, never under a request.
keepalive = 75

# Long `symbols=` lists fit into a request line of 8,190 bytes, the most that gunicorn allows.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

# Heartbeat files on a real disk would stall the worker with the disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a tmpfs is what is wanted
# It would write to the home directory, which may be read-only, and open a second door.
control_socket_disable = True

logger_class = "app.web.log_lines.LogLines"
# As web servers write it, then how long it took (s) and the request's id.
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(L)s %({x-request-id}o)s'
accesslog = "-" if _settings.access_log else None
errorlog = _settings.log_file or "-"
loglevel = _settings.log_level

keyfile = _settings.ssl_keyfile or None
certfile = _settings.ssl_certfile or None


def on_starting(server: Any) -> None:
    """Run in the master before anything else."""
    from app.web import master

    master.on_starting(server)


def when_ready(server: Any) -> None:
    """Run in the master once it listens."""
    from app.web import master

    master.when_ready(server)


def pre_fork(server: Any, worker: Any) -> None:
    """Run in the master before each fork."""
    from app.web import master

    master.pre_fork(server, worker)


def post_fork(server: Any, worker: Any) -> None:
    """Run in the new worker."""
    from app.web import master

    master.post_fork(server, worker)


def child_exit(server: Any, worker: Any) -> None:
    """Run in the master after a worker's death."""
    from app.web import master

    master.child_exit(server, worker)


def on_exit(server: Any) -> None:
    """Run in the master at the end."""
    from app.web import master

    master.on_exit(server)
