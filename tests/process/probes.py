"""The real server with views added that read slowly, stream what they are told to, and fail when they are told to.

`python -m tests.process.probes serve ...` is `python -m app serve ...` with these views; gunicorn, the worker and the
query lanes are the real ones.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

READS = "tests.process.probes:application"


def make_application() -> Any:
    """The application with the views; imported by gunicorn's workers only, after patching."""
    import gevent
    from flask import Response, request
    from greenlet import greenlet

    from app import create_app
    from app import runtime as runtime_module
    from app.errors import QueryTimeout
    from app.reads import EXPORT, PAGE, QUOTE
    from app.stream.socket import Socket
    from app.stream.subscriber import Subscriber
    from app.web import streaming
    from app.web.auth import needs
    from app.web.client import client_of
    from app.web.errors import answer
    from app.web.live_session import Session
    from app.web.server import runtime

    runtime_module.MOST_STREAMS = int(os.environ.get("PROBE_STREAMS", runtime_module.MOST_STREAMS))
    streaming.STALLED_S = float(os.environ.get("PROBE_STALLED_S", streaming.STALLED_S))
    if "PROBE_REDIS_S" in os.environ:
        wait_for_redis(float(os.environ["PROBE_REDIS_S"]))
    app = create_app()

    def number(name: str, default: float = 0) -> float:
        return float(request.args.get(name, default))

    @app.get("/probe/read")
    def read() -> Response:
        """One query: sleeping for `s`, or one of ticks, which waits for whoever has locked them."""
        kind = {"quote": QUOTE, "page": PAGE, "export": EXPORT}[request.args.get("kind", "page")]
        return answer(runtime().reads.run(kind, query, number("s", -1), client=client_of(request.environ)))

    @app.get("/probe/pages")
    def pages() -> Response:
        """`count` pages of `bytes` bytes each, the one numbered `slow` taking `s`, the one numbered `fail` failing."""
        needs("read")()
        count, size = int(number("count", 3)), int(number("bytes", 1000))
        slow, seconds, fail = number("slow", -1), number("s"), number("fail", -1)
        error = {"timeout": QueryTimeout, "bug": ZeroDivisionError, "kill": None}[request.args.get("error", "bug")]
        serving = gevent.getcurrent()
        run, client, log = runtime().reads.run, client_of(request.environ), app.logger

        def make() -> Iterator[bytes]:
            made = 0
            try:
                for page in range(count):
                    if page == fail and error is None:
                        serving.kill(block=False)  # as the end of the worker does
                        gevent.sleep(60)  # here the kill comes
                    elif page == fail:
                        raise error("as it was told to")
                    run(EXPORT, query, seconds if page == slow else 0.0, client=client)
                    made += 1
                    yield content(page, size)
            finally:
                log.warning("PROBE closed after %d pages", made)

        return streaming.stream_pages(make(), mimetype="text/plain")

    @app.get("/probe/left")
    def left() -> Response:
        """What of live readers this worker holds: objects, greenlets of all kinds, places in the hub."""
        found = Counter(type(one).__name__ for one in _objects() if isinstance(one, Socket | Subscriber | Session))
        greenlets = sum(isinstance(one, greenlet) and bool(one) for one in _objects())
        return answer({"pid": os.getpid(), "readers": len(runtime().hub), "greenlets": greenlets, **found})

    return app


def wait_for_redis(seconds: float) -> None:
    """Let Redis take so long: what the product gives it passes while a busy machine stands still."""
    from app import redis_link  # the driver is large

    redis_link.SOCKET_TIMEOUT_S = redis_link.CONNECT_TIMEOUT_S = redis_link.CALL_TIMEOUT_S = seconds


def _objects() -> list[Any]:
    gc.collect()
    return gc.get_objects()


def query(cur: Any, seconds: float) -> int:
    if seconds < 0:
        cur.execute("SELECT count(*) FROM ticks")
    else:
        cur.execute("SELECT 1, pg_sleep(%s)", (seconds,))
    return int(cur.fetchone()[0])


def content(page: int, size: int) -> bytes:
    """What page number `page` holds."""
    return (b"%07d\n" % page) * (size // 8)


if __name__ == "__main__":
    from app.cli import main

    _execv = os.execv
    os.execv = lambda path, args: _execv(path, [READS if a == "wsgi:application" else a for a in args])  # type: ignore
    sys.exit(main())
elif "gunicorn" in sys.modules:
    application = make_application()
